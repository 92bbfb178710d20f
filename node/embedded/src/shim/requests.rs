//! What each request of the protocol does.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use serde_json::{Value, json};

use super::console::{self, Console};
use super::container::{Container, chain, earlier_record, with_account};
use super::errors;
use super::execute::Execute;
use super::{Shim, Waits, pipe};
use crate::layout::{read_json, write_json};
use crate::protocol::{ContainerLaunch, KillScope, RefusedKind, Reply, Request, VERSION};

type Refusal = (RefusedKind, String);

pub fn handle(shim: &mut Shim, client: u64, request: Request) {
    let done = match request {
        Request::Hello => {
            let reply = Reply::Hello { version: VERSION, pid: std::process::id() };
            return shim.reply(client, &reply, &[]);
        }
        Request::Watch => {
            wait_for(shim, client, Waits::All);
            Ok(())
        }
        Request::Wait { container } => return wait(shim, client, container),
        Request::Exec { .. } => return exec(shim, client, request),
        Request::Attach { container, stdin } => return attach(shim, client, container, stdin),
        Request::Start { container } => start(shim, &container),
        Request::Kill { container, signal, scope } => kill(shim, &container, signal, scope),
        Request::RotateLog { container } => match find(shim, &container) {
            Ok(it) => it.rotate_log().map_err(|it| (RefusedKind::Failed, it.to_string())),
            Err(refusal) => Err(refusal),
        },
        Request::Forget { container } => forget(shim, &container),
    };
    match done {
        Ok(()) => shim.reply(client, &Reply::Done, &[]),
        Err((kind, why)) => shim.refuse(client, kind, why),
    }
}

fn find<'a>(shim: &'a mut Shim, name: &str) -> Result<&'a mut Container, Refusal> {
    let missing = || (RefusedKind::NoContainer, format!("no container {name} was started here"));
    shim.containers.get_mut(name).ok_or_else(missing)
}

fn wait_for(shim: &mut Shim, client: u64, what: Waits) {
    if let Some(client) = shim.clients.get_mut(&client) {
        client.waits = what;
    }
}

fn start(shim: &mut Shim, name: &str) -> Result<(), Refusal> {
    let failed = |it: &dyn ToString| (RefusedKind::Failed, it.to_string());
    if name.contains('/') || name.starts_with('.') {
        return Err((RefusedKind::NoContainer, format!("{name:?} is no container's folder")));
    }
    let layout = shim.container_layout(name);
    let launch: Option<ContainerLaunch> = read_json(&layout.launch_json());
    let launch =
        launch.ok_or_else(|| (RefusedKind::NoContainer, format!("{name} has no launch.json")))?;
    if shim.containers.contains_key(name) || earlier_record(&layout).is_some() {
        return Err((RefusedKind::AlreadyStarted, format!("{name} was started before")));
    }
    let console = match launch.terminal {
        true => Some(new_console(shim).map_err(|it| failed(&it))?),
        false => None,
    };
    match Container::start(name, layout, launch, console) {
        Ok(container) => {
            shim.containers.insert(name.to_owned(), container);
            Ok(())
        }
        Err((why, exit)) => {
            if let Some(exit) = exit {
                shim.tell_exit(name, &exit);
            }
            Err((RefusedKind::Start, why))
        }
    }
}

fn new_console(shim: &mut Shim) -> io::Result<Console> {
    shim.n_consoles += 1;
    Console::listen(&shim.launch.run, shim.n_consoles)
}

fn kill(shim: &mut Shim, name: &str, signal: i32, scope: KillScope) -> Result<(), Refusal> {
    let container = find(shim, name)?;
    match (scope, container.pid()) {
        (KillScope::All, _) => container.kill_all(signal),
        (KillScope::First, Some(pid)) => {
            // SAFETY: kill takes integers; the pid is our unreaped child's, so it is no other's.
            if unsafe { libc::kill(pid, signal) } != 0 {
                let error = io::Error::last_os_error();
                if error.raw_os_error() != Some(libc::ESRCH) {
                    return Err((RefusedKind::Failed, format!("signal {signal}: {error}")));
                }
            }
        }
        (KillScope::First, None) => {}
    }
    Ok(())
}

fn wait(shim: &mut Shim, client: u64, name: String) {
    match find(shim, &name).map(|it| it.exit().cloned()) {
        Err((kind, why)) => shim.refuse(client, kind, why),
        Ok(Some(exit)) => shim.reply(client, &Reply::Exited { container: name, exit }, &[]),
        Ok(None) => wait_for(shim, client, Waits::Container(name)),
    }
}

fn forget(shim: &mut Shim, name: &str) -> Result<(), Refusal> {
    match shim.containers.get(name) {
        Some(it) if it.exit().is_none() => {
            Err((RefusedKind::Failed, format!("{name} is still running")))
        }
        _ => {
            shim.containers.remove(name);
            Ok(())
        }
    }
}

fn attach(shim: &mut Shim, client: u64, name: String, stdin: bool) {
    let attached = find(shim, &name).and_then(|it| match it.exit() {
        Some(_) => Err((RefusedKind::NotRunning, format!("{name} has ended"))),
        None => it.attach(client, stdin).map_err(|it| (RefusedKind::Failed, it.to_string())),
    });
    match attached {
        Err((kind, why)) => shim.refuse(client, kind, why),
        Ok(streams) => {
            let reply = Reply::Streams {
                stdin: streams.stdin.is_some(),
                stdout: true,
                stderr: streams.stderr.is_some(),
                terminal: streams.terminal,
            };
            wait_for(shim, client, Waits::Container(name));
            let all = [streams.stdin.as_ref(), Some(&streams.stdout), streams.stderr.as_ref()];
            let all: Vec<&OwnedFd> = all.into_iter().flatten().collect();
            shim.reply(client, &reply, &all);
        }
    }
}

fn exec(shim: &mut Shim, client: u64, request: Request) {
    match try_exec(shim, request) {
        Err((kind, why)) => shim.refuse(client, kind, why),
        Ok((pid, reply, descriptors)) => {
            shim.execs.insert(pid, client);
            shim.reply(client, &reply, &descriptors.iter().collect::<Vec<_>>());
        }
    }
}

/// Its pid, and what the client gets.
fn try_exec(shim: &mut Shim, request: Request) -> Result<(i32, Reply, Vec<OwnedFd>), Refusal> {
    let Request::Exec { container: name, args, stdin, terminal, columns, rows } = request else {
        unreachable!("only Exec is handled here");
    };
    let failed = |it: io::Error| (RefusedKind::Failed, it.to_string());
    let container = find(shim, &name)?;
    if container.pid().is_none() {
        return Err((RefusedKind::NotRunning, format!("{name} is not running")));
    }
    let layout = container.layout().clone();
    let seccomp = container.launch().seccomp;
    shim.n_consoles += 1;
    let file = shim.launch.run.join(format!("exec-{}.json", shim.n_consoles));
    let config: Option<Value> = read_json(&layout.config_json());
    let config = config.ok_or_else(|| (RefusedKind::Failed, "no config.json".to_owned()))?;
    let mut process = config["process"].clone();
    process["args"] = json!(args);
    process["terminal"] = json!(terminal);
    write_json(&file, &process).map_err(failed)?;

    let mut builder = ContainerBuilder::new(name, SyscallType::default())
        .with_root_path(layout.runtime())
        .map_err(|it| (RefusedKind::Failed, chain(&it)))?
        .with_executor(Execute { seccomp });
    let console = match terminal {
        true => Some(new_console(shim).map_err(failed)?),
        false => None,
    };
    let mut descriptors = Vec::new();
    if let Some(console) = &console {
        builder = builder.with_console_socket(Some(console.path()));
    } else {
        let theirs = match stdin {
            true => {
                let (reader, writer) = pipe().map_err(failed)?;
                descriptors.push(writer);
                reader
            }
            false => File::open("/dev/null").map_err(failed)?.into(),
        };
        let (stdout, stdout_to) = pipe().map_err(failed)?;
        let (stderr, stderr_to) = pipe().map_err(failed)?;
        descriptors.extend([stdout, stderr]);
        builder = builder.with_stdin(theirs).with_stdout(stdout_to).with_stderr(stderr_to);
    }
    errors::clear();
    let built = builder.as_tenant().with_detach(true).with_process(Some(&file)).build();
    let _ = std::fs::remove_file(&file); // Else it goes with the pod.
    let pid = built.map_err(|it| (RefusedKind::Start, with_account(chain(&it))))?;
    if let Some(console) = console {
        let master = console.master().map_err(failed)?;
        if columns > 0 && rows > 0 {
            console::resize(&master, columns, rows).map_err(failed)?;
        }
        descriptors.push(master);
    }
    let reply =
        Reply::Streams { stdin: stdin || terminal, stdout: !terminal, stderr: !terminal, terminal };
    Ok((pid.as_raw(), reply, descriptors))
}
