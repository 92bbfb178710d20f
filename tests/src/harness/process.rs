//! Running a program to its end within a bound, or in the background until it is dropped.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;

use super::patience::{PATIENCE, Patience};

/// How a program ended and what it said.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The exit code; -1 after a signal.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    pub fn is_ok(&self) -> bool {
        self.code == 0
    }

    /// Both streams, for messages and for looking for words wherever they were said.
    pub fn both(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs a program with `input` on its stdin.
///
/// # Panics
/// When it cannot be started, or does not end within [`PATIENCE`] (it is killed then).
#[track_caller]
pub fn run(command: &mut Command, input: &str) -> Answer {
    let BytesAnswer { code, stdout, stderr } = run_bytes(command, input.as_bytes());
    Answer { code, stdout: String::from_utf8_lossy(&stdout).into_owned(), stderr }
}

/// How a program ended that prints no text.
#[derive(Debug, Clone)]
pub struct BytesAnswer {
    /// The exit code; -1 after a signal.
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// [`run`] for what is no text.
///
/// # Panics
/// As [`run`].
#[track_caller]
pub fn run_bytes(command: &mut Command, input: &[u8]) -> BytesAnswer {
    let mut child = spawn(command.stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let input = input.to_vec();
    // A program that ends without reading its input is no error.
    let writer = thread(move || drop(stdin.write_all(&input)));
    let stdout = child.stdout.take().expect("stdout is piped");
    let stderr = child.stderr.take().expect("stderr is piped");
    let (stdout, stderr) = (thread(|| read(stdout)), thread(|| read(stderr)));
    let patience = Patience::of(PATIENCE);
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break Some(status);
        }
        if patience.is_over() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a child can be waited for");
            break None;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    writer.join().expect("the writer does not panic");
    let stdout = stdout.join().expect("the reader does not panic");
    let stderr = stderr.join().expect("the reader does not panic");
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    let Some(status) = status else {
        let stdout = String::from_utf8_lossy(&stdout);
        panic!("{command:?} did not end within {PATIENCE:?}\n{stdout}\n{stderr}");
    };
    BytesAnswer { code: status.code().unwrap_or(-1), stdout, stderr }
}

#[track_caller]
fn spawn(command: &mut Command) -> Child {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    child.unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"))
}

fn read(mut from: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes); // What came before an error still counts.
    bytes
}

fn thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    #[expect(clippy::disallowed_methods, reason = "the harness stands outside the cluster")]
    std::thread::spawn(work)
}

/// A program that runs on, read line by line; killed when dropped.
pub struct Background {
    child: Child,
    lines: Receiver<String>,
    seen: String,
}

impl Background {
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let mut child = spawn(command.stdin(Stdio::null()));
        let (say, lines) = sync_channel(1024);
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let errors = say.clone();
        thread(move || pass_on(stdout, |line| say.send(line).is_ok()));
        thread(move || pass_on(stderr, |line| errors.send(line).is_ok()));
        Self { child, lines, seen: String::new() }
    }

    /// The next line that holds `text`, on either stream.
    ///
    /// # Panics
    /// When the program ends before, or the line does not come within [`PATIENCE`].
    #[track_caller]
    pub fn until(&mut self, text: &str) -> String {
        let patience = Patience::of(PATIENCE);
        loop {
            match self.lines.recv_timeout(patience.left()) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => {
                    self.seen.push_str(&line);
                    self.seen.push('\n');
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{text:?} did not come; seen:\n{}", self.seen)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("it ended before {text:?} came; seen:\n{}", self.seen)
                }
            }
        }
    }
}

impl Background {
    /// Ends it; all that it said and nobody took by [`Self::until`].
    pub fn rest(mut self) -> String {
        let _ = self.child.kill();
        let mut said = std::mem::take(&mut self.seen);
        while let Ok(line) = self.lines.recv() {
            said.push_str(&line);
            said.push('\n');
        }
        said
    }
}

fn pass_on(from: impl Read, mut say: impl FnMut(String) -> bool) {
    for line in BufReader::new(from).lines() {
        let Ok(line) = line else { return };
        if !say(line) {
            return;
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
