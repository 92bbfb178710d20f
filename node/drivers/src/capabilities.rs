//! The capabilities that this machine lets us hand out: where some are withheld from us, no container can have them.

use std::collections::BTreeSet;
use std::fs;
use std::io;

/// Names with `CAP_` that this process has in its bounding set.
pub fn bounding() -> io::Result<BTreeSet<String>> {
    const NAMES: [&str; 41] = [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ];
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|it| it.strip_prefix("CapBnd:"));
    let bits = line.and_then(|it| u64::from_str_radix(it.trim(), 16).ok());
    let bits = bits.ok_or_else(|| io::Error::other("/proc/self/status has no CapBnd"))?;
    let held = NAMES.iter().enumerate().filter(|(bit, _)| bits & (1 << bit) != 0);
    Ok(held.map(|(_, name)| format!("CAP_{name}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_capabilities_are_named() {
        let held = bounding().unwrap();
        assert!(held.iter().all(|it| it.starts_with("CAP_")));
    }
}
