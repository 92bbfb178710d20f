//! A host's own wall clock, which a test can let jump: libfaketime, never the machine's clock.

use std::path::{Path, PathBuf};

pub struct Clock {
    file: PathBuf,
    library: PathBuf,
}

impl Clock {
    /// # Panics
    /// When the machine has no libfaketime.
    #[track_caller]
    pub fn new(file: PathBuf) -> Self {
        let clock = Self { file, library: library().expect("libfaketime is installed") };
        clock.jump(0);
        clock
    }

    /// Shows the true time and so many seconds, from within a second on.
    pub fn jump(&self, seconds: i64) {
        std::fs::write(&self.file, format!("{seconds:+}\n")).expect("the clock's file is writable");
    }

    pub fn variables(&self) -> Vec<(String, String)> {
        let path = |it: &Path| it.display().to_string();
        let all = [
            ("LD_PRELOAD", path(&self.library)),
            ("FAKETIME_TIMESTAMP_FILE", path(&self.file)),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            // Timers run on: what jumps is what people set.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        all.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

fn library() -> Option<PathBuf> {
    let places = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let mut found = places.map(|it| it.path().join("faketime/libfaketimeMT.so.1"));
    found.find(|it| it.is_file())
}
