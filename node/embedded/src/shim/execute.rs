//! The last steps before a container's program: found, filtered, and started with a clean slate of signals.
//!
//! libcontainer is built without libseccomp (a C library), so the default filter is installed here. That needs
//! CAP_SYS_ADMIN unless no_new_privs is set: `config_json` adds it to the permitted set only, outside of the bounding
//! set, so that it is gone with the execve that follows.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use libcontainer::oci_spec::runtime::{Process, Spec};
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};

use crate::protocol::SeccompMode;

mod seccomp;

#[derive(Clone)]
pub struct Execute {
    pub seccomp: SeccompMode,
}

impl Executor for Execute {
    /// Runs in the container: an error here reaches the agent before anything was started.
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let process = spec.process().as_ref();
        find(process).map(|_| ()).map_err(ExecutorValidationError::ArgValidationError)
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let process = spec.process().as_ref();
        let program = find(process).map_err(ExecutorError::Other)?;
        let args = process.and_then(|it| it.args().as_ref()).cloned().unwrap_or_default();
        let args: Result<Vec<CString>, _> = args.into_iter().map(CString::new).collect();
        let args = args.map_err(|_| ExecutorError::InvalidArg)?;
        let mut pointers: Vec<*const libc::c_char> = args.iter().map(|it| it.as_ptr()).collect();
        pointers.push(std::ptr::null());
        let path = CString::new(program.as_os_str().as_bytes());
        let path = path.map_err(|_| ExecutorError::InvalidArg)?;
        clean_slate();
        if self.seccomp == SeccompMode::Default {
            let held = process.and_then(|it| it.capabilities().as_ref());
            let held = held.and_then(|it| it.bounding().as_ref());
            let held =
                held.map(|it| it.iter().map(|it| it.to_string()).collect()).unwrap_or_default();
            let failed = |it| ExecutorError::Other(format!("installing the seccomp filter: {it}"));
            seccomp::install(&held).map_err(failed)?;
        }
        // SAFETY: path and arguments are NUL-terminated, the array ends with null; all outlive the call.
        unsafe { libc::execv(path.as_ptr(), pointers.as_ptr()) };
        let error = io::Error::last_os_error();
        Err(ExecutorError::Other(format!("exec {}: {error}", program.display())))
    }
}

/// The highest signal there is; SIGKILL and SIGSTOP refuse a change, they have none but the default.
const LAST_SIGNAL: libc::c_long = 64;
/// The kernel's `struct sigaction`, zeroed: SIG_DFL, no flags, no restorer, an empty mask.
const DEFAULT_ACTION: [u64; 4] = [0; 4];

/// What the shim blocks and ignores, or whoever started kactor did (`nohup`, a service manager), the program must not;
/// and it ends when the shim does.
fn clean_slate() {
    // SAFETY: sigset_t is initialised by sigemptyset before use; the calls concern this process only, and the
    // action outlives them.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        // Asked of the kernel: libc refuses to touch 32 and 33, its own, which come ignored from some ancestors.
        for signal in 1..=LAST_SIGNAL {
            let (size, old) = (size_of::<u64>(), std::ptr::null_mut::<u64>());
            libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT_ACTION.as_ptr(), old, size);
        }
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
    }
}

/// The program's path, by PATH of its own environment, in the words that runc uses.
fn find(process: Option<&Process>) -> Result<PathBuf, String> {
    let process = process.ok_or("no process is configured")?;
    let args = process.args().as_ref();
    let name = args.and_then(|it| it.first()).filter(|it| !it.is_empty());
    let name = name.ok_or("no command specified")?;
    if name.contains('/') {
        // A relative path is taken from the working folder.
        return match executable(PathBuf::from(name)) {
            Ok(path) => Ok(path),
            Err(why) => Err(format!("exec: {name:?}: {why}")),
        };
    }
    let env = process.env().iter().flatten();
    let path = env.filter_map(|it| it.strip_prefix("PATH=")).next_back().unwrap_or_default();
    let mut denied = false;
    for dir in path.split(':').filter(|it| !it.is_empty()) {
        match executable(PathBuf::from(dir).join(name)) {
            Ok(path) => return Ok(path),
            Err(why) => denied |= why == "permission denied",
        }
    }
    match denied {
        true => Err(format!("exec: {name:?}: permission denied")),
        false => Err(format!("exec: {name:?}: executable file not found in $PATH")),
    }
}

fn executable(path: PathBuf) -> Result<PathBuf, &'static str> {
    let about = std::fs::metadata(&path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => "permission denied",
        io::ErrorKind::NotADirectory => "not a directory",
        _ => "no such file or directory",
    })?;
    if about.is_dir() {
        return Err("is a directory");
    }
    let name =
        CString::new(path.as_os_str().as_bytes()).map_err(|_| "no such file or directory")?;
    // SAFETY: the name is NUL-terminated. AT_EACCESS: the effective ids are what counts at exec.
    match unsafe { libc::faccessat(libc::AT_FDCWD, name.as_ptr(), libc::X_OK, libc::AT_EACCESS) } {
        0 => Ok(path),
        _ => Err("permission denied"),
    }
}
