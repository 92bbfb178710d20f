//! `kactor pause`: what runs in a pod's pause container. It holds the namespaces, reaps orphans, and does nothing else.
//!
//! Called before any thread is made. As process 1 of its namespace it gets only the signals that it waits for.

use std::process::ExitCode;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// Returns at SIGTERM or SIGINT.
pub fn pause_main() -> ExitCode {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        set.add(signal);
    }
    if let Err(error) = set.thread_block() {
        eprintln!("kactor pause: blocking signals: {error}");
        return ExitCode::FAILURE;
    }
    loop {
        match set.wait() {
            Ok(Signal::SIGCHLD) => reap(),
            Ok(_) => return ExitCode::SUCCESS,
            Err(Errno::EINTR) => {}
            Err(error) => {
                eprintln!("kactor pause: waiting for a signal: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
}

/// One SIGCHLD may stand for many ends.
fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}
