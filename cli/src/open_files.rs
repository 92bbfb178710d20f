//! How many files this process may hold open, and how many of them its clients' connections may take.
//!
//! Debian's soft limit of 1,024 is for programs that use `select`; a thousand idle clients would leave nothing for the
//! journal, which ends the process when it cannot write. So the soft limit is raised as far as the hard one permits,
//! and connections get half of it at most.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// More is never needed; some systems permit a thousand million, and tables are made by it.
const OPEN_FILES_MAX: u64 = 65_536;
/// One HTTP/2 connection carries a whole client with its watches.
const CONNECTIONS_MAX: u64 = 8192;

/// Raises the limit and answers how many connections fit under it.
pub fn connections_max() -> usize {
    let limit = raise().unwrap_or_else(|error| {
        tracing::warn!(%error, "the limit of open files is not known; taken for 1024");
        1024
    });
    usize::try_from(share(limit)).expect("it is at most a few thousand")
}

fn share(open_files: u64) -> u64 {
    (open_files / 2).clamp(1, CONNECTIONS_MAX)
}

fn raise() -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.min(OPEN_FILES_MAX);
    if wanted <= soft {
        return Ok(soft);
    }
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_half_of_the_files_to_everything_else() {
        for (open_files, connections) in [(256, 128), (1024, 512), (65_536, 8192), (1, 1)] {
            assert_eq!(share(open_files), connections);
        }
    }
}
