//! The pod's namespaces, pinned as files so that they stand without any container in them.
//!
//! A short-lived child makes them and waits while the shim binds its `/proc/<pid>/ns` files under `run/ns`; the shim
//! itself stays in the host's. The network namespace is empty: plumbing it is the caller's. A shared pid namespace
//! cannot be pinned without a process: the pause process is its pid 1, reaps, and dies with the shim.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::context;
use crate::layout::PodLayout;
use crate::protocol::{PidScope, PodLaunch, Scope};

/// Bytes of /dev/shm that a pod's containers share, as Docker's default.
const SHM_OPTIONS: &std::ffi::CStr = c"size=64m,mode=1777";

/// Makes and pins what the pod has of its own; the pause process, if there is one.
pub fn pin(layout: &PodLayout, launch: &PodLaunch) -> io::Result<Option<i32>> {
    let mut kinds: Vec<&str> = Vec::new();
    if launch.network == Scope::Pod {
        kinds.extend(["net", "uts"]);
    }
    if launch.ipc == Scope::Pod {
        kinds.push("ipc");
        mount_shm(&layout.shm())?;
    }
    fs::create_dir_all(layout.run.join("ns")).map_err(context("making the namespaces' folder"))?;
    if !kinds.is_empty() {
        make_and_bind(layout, launch, &kinds)?;
    }
    match launch.pid {
        PidScope::Pod => {
            let pause = start_pause().map_err(context("starting the pause process"))?;
            bind(&PathBuf::from(format!("/proc/{pause}/ns/pid")), &layout.namespace("pid"))?;
            Ok(Some(pause))
        }
        PidScope::Container | PidScope::Host => Ok(None),
    }
}

fn make_and_bind(layout: &PodLayout, launch: &PodLaunch, kinds: &[&str]) -> io::Result<()> {
    let (mut made, made_end) = io::pipe()?;
    let (bound_end, bound) = io::pipe()?;
    // SAFETY: this process has one thread, so the child may go on as any program would.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(context("forking for namespaces")(io::Error::last_os_error()));
    }
    if child == 0 {
        drop((made, bound));
        let done = in_new_namespaces(launch, kinds);
        // Nothing on success: the parent reads to the end.
        let said = done.err().map(|it| it.to_string()).unwrap_or_else(|| "ok".to_owned());
        let _ = io::Write::write_all(&mut { made_end }, said.as_bytes());
        let _ = { bound_end }.read(&mut [0]); // Ends when the parent has bound them, or died.
        // SAFETY: ends the child without running the parent's destructors.
        unsafe { libc::_exit(0) }
    }
    drop((made_end, bound_end));
    let mut said = [0_u8; 1024];
    let n = made.read(&mut said)?;
    let result = match &said[..n] {
        b"ok" => kinds.iter().try_for_each(|kind| {
            bind(&PathBuf::from(format!("/proc/{child}/ns/{kind}")), &layout.namespace(kind))
        }),
        why => Err(io::Error::other(String::from_utf8_lossy(why).into_owned())),
    };
    drop(bound);
    // SAFETY: waits for our own child; the status is not wanted.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    result
}

/// Runs in the child.
fn in_new_namespaces(launch: &PodLaunch, kinds: &[&str]) -> io::Result<()> {
    let flags = kinds.iter().map(|it| match *it {
        "net" => libc::CLONE_NEWNET,
        "uts" => libc::CLONE_NEWUTS,
        _ => libc::CLONE_NEWIPC,
    });
    // SAFETY: unshare takes flags and concerns this process only.
    if unsafe { libc::unshare(flags.fold(0, |all, it| all | it)) } != 0 {
        return Err(context("making namespaces (is this root?)")(io::Error::last_os_error()));
    }
    if kinds.contains(&"uts") {
        let name = launch.hostname.as_bytes();
        // SAFETY: the name is a live slice of the given length.
        if unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) } != 0 {
            return Err(context("setting the hostname")(io::Error::last_os_error()));
        }
    }
    for (name, value) in &launch.sysctls {
        let file = Path::new("/proc/sys").join(name.replace('.', "/"));
        fs::write(&file, value).map_err(context(format_args!("setting sysctl {name}")))?;
    }
    Ok(())
}

fn bind(from: &Path, to: &Path) -> io::Result<()> {
    File::create(to).map_err(context(format_args!("making {}", to.display())))?;
    mount(from, to, None, libc::MS_BIND, None)
        .map_err(context(format_args!("pinning {}", from.display())))
}

fn mount_shm(at: &Path) -> io::Result<()> {
    fs::create_dir_all(at)?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount(Path::new("shm"), at, Some(c"tmpfs"), flags, Some(SHM_OPTIONS))
        .map_err(context("mounting the pod's /dev/shm"))
}

fn mount(
    from: &Path,
    to: &Path,
    kind: Option<&std::ffi::CStr>,
    flags: libc::c_ulong,
    options: Option<&std::ffi::CStr>,
) -> io::Result<()> {
    let from = CString::new(from.as_os_str().as_bytes())?;
    let to = CString::new(to.as_os_str().as_bytes())?;
    let kind = kind.map_or(std::ptr::null(), |it| it.as_ptr());
    let options = options.map_or(std::ptr::null(), |it| it.as_ptr().cast());
    // SAFETY: all strings are NUL-terminated or null where mount(2) allows it, and outlive the call.
    match unsafe { libc::mount(from.as_ptr(), to.as_ptr(), kind, flags, options) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A child that is pid 1 of a namespace of its own.
fn start_pause() -> io::Result<i32> {
    let flags = (libc::CLONE_NEWPID | libc::SIGCHLD) as libc::c_ulong;
    // SAFETY: clone without a stack and without shared memory is fork; this process has one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match pid {
        0 => pause(),
        1.. => Ok(i32::try_from(pid).expect("pids fit in 22 bits")),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reaps orphans until the shim dies.
fn pause() -> ! {
    // SAFETY: async-signal-safe calls with integers, NUL-terminated names and live locals; the descriptors that are
    // closed are copies of the shim's, which nobody in this process uses.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        libc::prctl(libc::PR_SET_NAME, c"kactor-pause".as_ptr(), 0, 0, 0);
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
        let mut children: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut children);
        libc::sigaddset(&raw mut children, libc::SIGCHLD);
        loop {
            while libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) > 0 {}
            libc::sigwaitinfo(&raw const children, std::ptr::null_mut());
        }
    }
}
