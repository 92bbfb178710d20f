//! A free loopback port that nobody else takes while it is held, over restarts too.
//!
//! Ports of the kernel's ephemeral range could become some client's source port between two starts of a kactor,
//! so they come from below it, and a lock file per port keeps tests that run at the same time apart.

use std::fs::File;
use std::net::TcpListener;

use nix::fcntl::{Flock, FlockArg};

const FIRST: u16 = 20_000;
const COUNT: u16 = 9_000;

/// Held as long as the value lives.
pub struct Port {
    pub number: u16,
    _lock: Flock<File>,
}

impl Port {
    /// # Panics
    /// When none of the range is free.
    pub fn free() -> Self {
        let folder = std::env::temp_dir().join("kactor-test-ports");
        std::fs::create_dir_all(&folder).expect("the folder of port locks can be made");
        let start = u16::try_from(std::process::id() % u32::from(COUNT)).expect("below COUNT");
        for step in 0..COUNT {
            let number = FIRST + (start + step) % COUNT;
            let Ok(file) = File::create(folder.join(number.to_string())) else {
                continue; // another user's
            };
            let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
                continue;
            };
            if TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Self { number, _lock: lock };
            }
        }
        panic!("no port of {FIRST}..{} is free on 127.0.0.1", FIRST + COUNT);
    }
}
