//! `seccompProfile: RuntimeDefault` without libseccomp: a filter that denies what Docker's default profile denies.
//!
//! Docker lists what is allowed; this lists what is refused (moby `profiles/seccomp/default.json` read backwards), so
//! a system call that the kernel gains later is allowed until it is added here. Each row names the capability that
//! opens it, as in Docker's profile. Other architectures' calls (32-bit programs, x32) answer ENOSYS.

use std::collections::BTreeSet;
use std::io;

use libc::sock_filter;

/// Refused for everybody.
const NEVER: &[i64] = &[
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_userfaultfd,
    libc::SYS_nfsservctl,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// Refused without the capability.
const GUARDED: &[(&str, &[i64])] = &[
    (
        "CAP_SYS_ADMIN",
        &[
            libc::SYS_bpf,
            libc::SYS_fanotify_init,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fsopen,
            libc::SYS_fspick,
            libc::SYS_lookup_dcookie,
            libc::SYS_mount,
            libc::SYS_mount_setattr,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_perf_event_open,
            libc::SYS_pivot_root,
            libc::SYS_quotactl,
            libc::SYS_setdomainname,
            libc::SYS_sethostname,
            libc::SYS_setns,
            libc::SYS_swapoff,
            libc::SYS_swapon,
            libc::SYS_umount2,
            libc::SYS_unshare,
        ],
    ),
    ("CAP_SYS_BOOT", &[libc::SYS_reboot]),
    ("CAP_SYS_CHROOT", &[libc::SYS_chroot]),
    ("CAP_SYS_MODULE", &[libc::SYS_delete_module, libc::SYS_init_module, libc::SYS_finit_module]),
    ("CAP_SYS_PACCT", &[libc::SYS_acct]),
    ("CAP_SYS_PTRACE", &[libc::SYS_kcmp, libc::SYS_process_madvise]),
    ("CAP_SYS_TIME", &[libc::SYS_settimeofday, libc::SYS_clock_settime]),
    ("CAP_SYS_TTY_CONFIG", &[libc::SYS_vhangup]),
    ("CAP_SYS_NICE", &[libc::SYS_get_mempolicy, libc::SYS_mbind, libc::SYS_set_mempolicy]),
    ("CAP_SYSLOG", &[libc::SYS_syslog]),
    ("CAP_DAC_READ_SEARCH", &[libc::SYS_open_by_handle_at]),
    #[cfg(target_arch = "x86_64")]
    ("CAP_SYS_RAWIO", &[libc::SYS_iopl, libc::SYS_ioperm]),
];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
#[cfg(target_arch = "riscv64")]
const ARCHITECTURE: u32 = 0xc000_00f3;

/// CLONE_NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWNS.
const CLONE_NEW: u32 = 0x7e02_0000;
const X32_BIT: u32 = 0x4000_0000;
/// Offsets in seccomp_data.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const IF_ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// The filter for a container that holds these capabilities (names with `CAP_`, or without).
fn program(held: &BTreeSet<String>) -> Vec<sock_filter> {
    let step = |code, k| sock_filter { code, jt: 0, jf: 0, k };
    let test = |code, k, jt, jf| sock_filter { code, jt, jf, k };
    let errno = |it: i32| step(RETURN, libc::SECCOMP_RET_ERRNO | it as u32);
    let holds = |name: &str| held.contains(name) || held.contains(name.trim_start_matches("CAP_"));
    let mut filter = vec![
        step(LOAD, ARCH),
        test(IF_EQUAL, ARCHITECTURE, 1, 0),
        errno(libc::ENOSYS),
        step(LOAD, NUMBER),
        test(IF_AT_LEAST, X32_BIT, 0, 1),
        errno(libc::ENOSYS),
    ];
    let mut refuse = |number: i64, error: i32| {
        filter.push(test(IF_EQUAL, number as u32, 0, 1));
        filter.push(errno(error));
    };
    for number in NEVER {
        refuse(*number, libc::EPERM);
    }
    for (capability, numbers) in GUARDED {
        if !holds(capability) {
            numbers.iter().for_each(|it| refuse(*it, libc::EPERM));
        }
    }
    if !holds("CAP_SYS_ADMIN") {
        // clone3 passes its flags in memory, which a filter cannot read: programs fall back to clone.
        refuse(libc::SYS_clone3, libc::ENOSYS);
        filter.push(test(IF_EQUAL, libc::SYS_clone as u32, 0, 3));
        filter.push(step(LOAD, FIRST_ARGUMENT));
        filter.push(test(IF_ANY_BIT, CLONE_NEW, 0, 1));
        filter.push(errno(libc::EPERM));
    }
    filter.push(step(RETURN, libc::SECCOMP_RET_ALLOW));
    filter
}

/// For this process and all that it becomes. Needs no_new_privs or CAP_SYS_ADMIN.
pub fn install(held: &BTreeSet<String>) -> io::Result<()> {
    let mut filter = program(held);
    let len = u16::try_from(filter.len()).expect("the tables have under a hundred rows");
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: `program` points to `len` live instructions; the kernel copies and checks them.
    let done = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter answers: the same machine as the kernel's, for the four kinds of steps that it uses.
    fn answer(filter: &[sock_filter], arch: u32, number: i64, argument: u32) -> u32 {
        let mut at = 0;
        let mut loaded = 0;
        loop {
            let it = &filter[at];
            let jump = |yes: bool| usize::from(if yes { it.jt } else { it.jf });
            at += 1;
            match it.code {
                LOAD => {
                    loaded = match it.k {
                        NUMBER => number as u32,
                        ARCH => arch,
                        _ => argument,
                    }
                }
                IF_EQUAL => at += jump(loaded == it.k),
                IF_AT_LEAST => at += jump(loaded >= it.k),
                IF_ANY_BIT => at += jump(loaded & it.k != 0),
                _ => return it.k,
            }
        }
    }

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

    #[test]
    fn ordinary_calls_pass_and_dangerous_ones_do_not() {
        let filter = program(&BTreeSet::new());
        let ask = |number, argument| answer(&filter, ARCHITECTURE, number, argument);
        for number in [libc::SYS_read, libc::SYS_execve, libc::SYS_openat, libc::SYS_ptrace] {
            assert_eq!(ask(number, 0), ALLOW, "{number}");
        }
        for number in [libc::SYS_mount, libc::SYS_keyctl, libc::SYS_bpf, libc::SYS_reboot] {
            assert_eq!(ask(number, 0), EPERM, "{number}");
        }
        assert_eq!(ask(libc::SYS_clone, libc::SIGCHLD as u32), ALLOW);
        assert_eq!(ask(libc::SYS_clone, libc::CLONE_NEWUSER as u32), EPERM);
        assert_eq!(ask(libc::SYS_clone3, 0), ENOSYS);
        assert_eq!(ask(libc::SYS_read | i64::from(X32_BIT), 0), ENOSYS);
        assert_eq!(answer(&filter, 0x4000_0003, libc::SYS_read, 0), ENOSYS, "32-bit");
    }

    #[test]
    fn capabilities_open_what_dockers_profile_opens() {
        let filter = program(&BTreeSet::from(["CAP_SYS_ADMIN".to_owned()]));
        let ask = |number, argument| answer(&filter, ARCHITECTURE, number, argument);
        assert_eq!(ask(libc::SYS_mount, 0), ALLOW);
        assert_eq!(ask(libc::SYS_clone, libc::CLONE_NEWNS as u32), ALLOW);
        assert_eq!(ask(libc::SYS_keyctl, 0), EPERM);
        assert_eq!(ask(libc::SYS_reboot, 0), EPERM);
    }
}
