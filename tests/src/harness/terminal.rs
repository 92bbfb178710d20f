//! A program on a terminal of its own, as under somebody's hands: typing, reading the screen, resizing.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};

use super::patience::{PATIENCE, Patience};

/// Killed when dropped.
pub struct Terminal {
    child: Child,
    master: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
    /// How much of `seen` was waited for already.
    taken: usize,
}

impl Terminal {
    /// Starts a program that finds a terminal of this size.
    ///
    /// # Panics
    /// When there is none to be had, or the program cannot be started.
    #[track_caller]
    pub fn start(command: &mut Command, rows: u16, columns: u16) -> Self {
        let (mut master, mut slave) = (-1, -1);
        let mut size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the two descriptors and the size are live locals; the others may be null.
        let done = unsafe {
            libc::openpty(
                &raw mut master,
                &raw mut slave,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                &raw mut size,
            )
        };
        assert_eq!(done, 0, "no terminal: {}", std::io::Error::last_os_error());
        // SAFETY: the kernel just gave us both; nobody else owns them.
        let (master, slave) = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        // SAFETY: the descriptor is open; else every program that is started meanwhile would keep the terminal open.
        unsafe { libc::fcntl(master.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
        let again = || Stdio::from(slave.try_clone().expect("a descriptor can be copied"));
        command.stdin(again()).stdout(again()).stderr(again());
        // SAFETY: both calls are async-signal-safe; descriptor 0 is the terminal by then.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                match libc::ioctl(0, libc::TIOCSCTTY, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        let child = command.spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        // The command holds copies of the program's side; with them the screen would never end.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        drop(slave);
        let (say, screen) = sync_channel(1024);
        let mut from = master.try_clone().expect("a descriptor can be copied");
        #[expect(clippy::disallowed_methods, reason = "the harness stands outside the cluster")]
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A terminal whose last user has gone ends with an error.
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                if say.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, master, screen, seen: String::new(), taken: 0 }
    }

    /// # Panics
    /// When the program's side is closed.
    #[track_caller]
    pub fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("the terminal takes what is typed");
    }

    /// As when somebody draws the window larger.
    ///
    /// # Panics
    /// When the terminal refuses.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptor is open, `size` is a live winsize.
        let done =
            unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(done, 0, "the terminal refuses: {}", std::io::Error::last_os_error());
    }

    /// Waits until the screen shows `text`, behind what was waited for before.
    ///
    /// # Panics
    /// When the program ends before, or the text does not come within [`PATIENCE`].
    #[track_caller]
    pub fn until(&mut self, text: &str) {
        let patience = Patience::of(PATIENCE);
        loop {
            if let Some(at) = self.seen[self.taken..].find(text) {
                self.taken += at + text.len();
                return;
            }
            match self.screen.recv_timeout(patience.left()) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout) => panic!("no {text:?}; seen:\n{}", self.seen),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("it ended before {text:?} came; seen:\n{}", self.seen)
                }
            }
        }
    }

    /// The exit code; -1 after a signal.
    ///
    /// # Panics
    /// When it does not end within [`PATIENCE`].
    #[track_caller]
    pub fn wait(mut self) -> i32 {
        let patience = Patience::of(PATIENCE);
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status.code().unwrap_or(-1);
            }
            assert!(!patience.is_over(), "it does not end; seen:\n{}", self.seen);
            self.seen
                .extend(self.screen.try_iter().map(|it| String::from_utf8_lossy(&it).into_owned()));
            patience.pause();
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
