//! The machine's own numbers: what /proc says of its processors, memory, network and of this process.
//!
//! Reading is a thin shell behind the trait [`Machine`]; what the texts mean is pure. A file that is absent or says
//! something else leaves its numbers out, it never makes them up.

use std::path::{Path, PathBuf};

use kactor_protocol::Timestamp;

/// Jiffies of /proc, the same on every Linux that Rust's tier 1 knows (USER_HZ).
const TICKS_PER_SECOND: u64 = 100;
const PAGE_BYTES: u64 = 4096;

/// What a machine's processors and memory have done and do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Time that processors were not idle, over all of them.
    pub cpu_usage_ns: u64,
    pub memory_total_bytes: u64,
    pub memory_available_bytes: u64,
    pub memory_usage_bytes: u64,
    /// What could not be given back without swapping.
    pub memory_working_set_bytes: u64,
    pub memory_rss_bytes: u64,
    pub swap_total_bytes: u64,
    pub swap_free_bytes: u64,
    pub booted: Timestamp,
}

/// One network interface's counters since it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

/// A file system with what is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystem {
    pub capacity_bytes: u64,
    pub available_bytes: u64,
    pub used_bytes: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

/// This process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Own {
    pub cpu_ns: u64,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub threads: u64,
    pub open_files: u64,
}

/// Where the numbers come from.
pub trait Machine: Send + Sync {
    fn totals(&self) -> Option<Totals>;
    /// Of the network namespace that process `pid` is in; of our own for `None`. Loopback is left out.
    fn interfaces(&self, pid: Option<u32>) -> Vec<Interface>;
    /// The file system that holds this node's pods.
    fn file_system(&self) -> Option<FileSystem>;
    fn own(&self) -> Own;
}

/// A Linux machine.
pub struct ProcFiles {
    proc: PathBuf,
    data: PathBuf,
}

impl ProcFiles {
    /// `data` is on the file system that is reported as the node's.
    pub fn new(data: &Path) -> Self {
        Self { proc: PathBuf::from("/proc"), data: data.to_owned() }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.proc.join(name)).unwrap_or_default()
    }
}

impl Machine for ProcFiles {
    fn totals(&self) -> Option<Totals> {
        totals(&self.read("stat"), &self.read("meminfo"))
    }

    fn interfaces(&self, pid: Option<u32>) -> Vec<Interface> {
        match pid {
            Some(pid) => interfaces(&self.read(&format!("{pid}/net/dev"))),
            None => interfaces(&self.read("self/net/dev")),
        }
    }

    fn file_system(&self) -> Option<FileSystem> {
        let it = nix::sys::statvfs::statvfs(&self.data).ok()?;
        let bytes = |blocks: u64| blocks * it.fragment_size();
        Some(FileSystem {
            capacity_bytes: bytes(it.blocks()),
            available_bytes: bytes(it.blocks_available()),
            used_bytes: bytes(it.blocks().saturating_sub(it.blocks_free())),
            inodes: it.files(),
            inodes_free: it.files_free(),
        })
    }

    fn own(&self) -> Own {
        let open_files = std::fs::read_dir(self.proc.join("self/fd")).map_or(0, Iterator::count);
        Own { open_files: open_files as u64, ..own(&self.read("self/stat")).unwrap_or_default() }
    }
}

fn totals(stat: &str, meminfo: &str) -> Option<Totals> {
    let cpu = stat.lines().find_map(|it| it.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = cpu.split_whitespace().filter_map(|it| it.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guests are in user and nice already.
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|at| ticks.get(*at)).sum();
    let booted = stat.lines().find_map(|it| it.strip_prefix("btime ")?.trim().parse().ok());
    let memory = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|it| it.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    };
    let (total, free) = (memory("MemTotal")?, memory("MemFree")?);
    let available = memory("MemAvailable").unwrap_or(free);
    // As a root cgroup counts it: everything in use, less the files that were not touched lately.
    let usage = total.saturating_sub(free);
    let working_set = usage.saturating_sub(memory("Inactive(file)").unwrap_or_default());
    Some(Totals {
        cpu_usage_ns: busy * (1_000_000_000 / TICKS_PER_SECOND),
        memory_total_bytes: total,
        memory_available_bytes: available,
        memory_usage_bytes: usage,
        memory_working_set_bytes: working_set,
        memory_rss_bytes: memory("AnonPages").unwrap_or_default(),
        swap_total_bytes: memory("SwapTotal").unwrap_or_default(),
        swap_free_bytes: memory("SwapFree").unwrap_or_default(),
        booted: Timestamp::from_seconds(booted.unwrap_or_default()),
    })
}

fn interfaces(dev: &str) -> Vec<Interface> {
    dev.lines().filter_map(interface).filter(|it| it.name != "lo").collect()
}

fn interface(line: &str) -> Option<Interface> {
    let (name, counters) = line.split_once(':')?;
    let n: Vec<u64> = counters.split_whitespace().filter_map(|it| it.parse().ok()).collect();
    (n.len() >= 12).then(|| Interface {
        name: name.trim().to_owned(),
        rx_bytes: n[0],
        rx_packets: n[1],
        rx_errors: n[2],
        rx_dropped: n[3],
        tx_bytes: n[8],
        tx_packets: n[9],
        tx_errors: n[10],
        tx_dropped: n[11],
    })
}

fn own(stat: &str) -> Option<Own> {
    // The program's name may hold spaces; it ends at the last parenthesis, the state comes next.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|it| it.parse::<u64>().ok());
    Some(Own {
        cpu_ns: (number(11)? + number(12)?) * (1_000_000_000 / TICKS_PER_SECOND),
        threads: number(17)?,
        virtual_bytes: number(20)?,
        resident_bytes: number(21)? * PAGE_BYTES,
        open_files: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machines_totals_are_read_as_the_kernel_writes_them() {
        let stat =
            "cpu  100 10 50 9999 77 5 3 2 40 0\ncpu0 1 1 1 1 1 1 1 1 1 1\nbtime 1700000000\n";
        let memory = "MemTotal: 1000 kB\nMemFree: 200 kB\nMemAvailable: 600 kB\nInactive(file): 300 kB\nAnonPages: 90 kB\nSwapTotal: 8 kB\nSwapFree: 8 kB\n";
        let it = totals(stat, memory).unwrap();
        assert_eq!(it.cpu_usage_ns, 170 * 10_000_000);
        assert_eq!(it.memory_working_set_bytes, 500 * 1024);
        assert_eq!((it.memory_usage_bytes, it.memory_rss_bytes), (800 * 1024, 90 * 1024));
        assert_eq!(it.booted, Timestamp::from_seconds(1_700_000_000));
        assert_eq!(totals("", memory), None);
        assert_eq!(totals(stat, "MemTotal: 7 kB"), None);
    }

    #[test]
    fn interfaces_are_read_without_loopback() {
        let dev = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0:10 2 3 4 0 0 0 0 20 5 6 7 0 0 0 0\n";
        let all = interfaces(dev);
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].name.as_str(), all[0].rx_bytes, all[0].tx_bytes), ("eth0", 10, 20));
        assert_eq!((all[0].rx_dropped, all[0].tx_dropped), (4, 7));
        assert!(interfaces("").is_empty());
    }

    #[test]
    fn our_own_process_is_read_whatever_its_name() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194304 1 2 3 4 150 50 0 0 20 0 12 0 99 1048576 25 18446744073709551615";
        let it = own(stat).unwrap();
        assert_eq!((it.cpu_ns, it.threads), (2_000_000_000, 12));
        assert_eq!((it.virtual_bytes, it.resident_bytes), (1_048_576, 25 * 4096));
        assert_eq!(own("7 (x"), None);
    }

    #[test]
    fn this_machine_has_numbers() {
        let machine = ProcFiles::new(Path::new("/"));
        let totals = machine.totals().unwrap();
        assert!(totals.memory_total_bytes >= totals.memory_working_set_bytes);
        assert!(machine.file_system().unwrap().capacity_bytes > 0);
        assert!(machine.own().resident_bytes > 0);
    }
}
