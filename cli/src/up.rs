//! `kactor up` and `kactor down`: this host, in front, with an account of what it does.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use kactor_runtime::env::{Env, Machine};
use kactor_store::Store;

use crate::args::{DownArgs, Runtime, UpArgs};
use crate::compose::{Cluster, Plan};
use crate::data_dir::{DataDir, Holder};
use crate::{kubeconfig_file, machine_facts};

/// How long requests in flight may take at the end.
const DRAIN: Duration = Duration::from_secs(5);
/// How long `down` waits for the process to end.
const DOWN_MAX: Duration = Duration::from_secs(30);

pub fn run(args: &UpArgs) -> anyhow::Result<ExitCode> {
    let dir = DataDir::find(args.data_dir.as_deref())?;
    let node_name = args.node_name.clone().unwrap_or_else(machine_facts::hostname);
    check_node_name(&node_name)?;
    if args.runtime == Runtime::Embedded && !nix::unistd::geteuid().is_root() {
        bail!(
            "--runtime embedded makes containers and needs root; run as root, or with --runtime hollow or none"
        );
    }
    let holder = Holder { pid: std::process::id(), listen: args.listen, node: node_name.clone() };
    let _lock = dir.lock(&holder)?;
    let plan = Plan {
        dir,
        listen: args.listen,
        node_name,
        runtime: args.runtime,
        pod_cidr: args.pod_cidr.clone(),
        service_cidr: args.service_cidr.clone(),
    };
    let machine = Machine::start();
    let env = machine.env().clone();
    let code = machine.block_on(serve(&env, &plan, args)).context("the main event loop")??;
    machine.stop();
    Ok(code)
}

fn check_node_name(name: &str) -> anyhow::Result<()> {
    let problems = kactor_objects::names::dns1123_subdomain(name);
    match problems.first() {
        Some(problem) => bail!("--node-name {name:?}: {problem}"),
        None => Ok(()),
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout();
    // A closed pipe is no reason to stop a cluster.
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

async fn serve(env: &Env, plan: &Plan, args: &UpArgs) -> anyhow::Result<ExitCode> {
    let begun = env.monotonic();
    let since = || format!("{:.2} s", (env.monotonic() - begun).as_secs_f64());
    // Installed first: a signal while starting ends it as cleanly as later.
    let mut ends = Ends::install()?;
    say(&format!(
        "kactor {}: node {} on {}",
        env!("CARGO_PKG_VERSION"),
        plan.node_name,
        plan.listen
    ));
    say(&format!("  data       {}", plan.dir.root().display()));
    let cluster = Cluster::start(env, plan).await?;
    kubeconfig_file::write(&plan.dir.kubeconfig(), &cluster.kubeconfig)?;
    let written = match &args.kubeconfig {
        Some(file) => {
            kubeconfig_file::write(file, &cluster.kubeconfig)?;
            file.clone()
        }
        None => {
            let file = kubeconfig_file::default_path()?;
            kubeconfig_file::merge_into(&file, &cluster.kubeconfig)?;
            file
        }
    };
    say(&format!("  API        https://{} ({})", cluster.listener.address(), since()));
    say(&format!("  kubeconfig {}", written.display()));
    tokio::select! {
        biased;
        () = ends.next() => {}
        () = ready(env, cluster.api.store(), plan) => {
            say(&format!("  ready      {} ({})", ready_words(plan), since()));
            if std::io::stdout().is_terminal() {
                say("Ctrl-C stops kactor; pods stay. Look inside with `kactor repl`.");
            }
        }
    }
    let code = tokio::select! {
        biased;
        () = ends.next(), if !ends.came => ExitCode::SUCCESS,
        () = std::future::ready(()), if ends.came => ExitCode::SUCCESS,
        why = cluster.failed() => {
            eprintln!("kactor: this host cannot go on: {why}");
            ExitCode::FAILURE
        }
    };
    say("stopping: requests in flight end, pods stay");
    cluster.stop(DRAIN).await;
    Ok(code)
}

fn ready_words(plan: &Plan) -> String {
    match plan.runtime {
        Runtime::None => "the control plane serves; no node runs here".to_owned(),
        _ => format!("node {} is Ready", plan.node_name),
    }
}

/// Resolves when the node is Ready, or at once when there is none.
async fn ready(env: &Env, store: &Store, plan: &Plan) {
    if plan.runtime == Runtime::None {
        return;
    }
    let Ok(key) = kactor_protocol::store::Key::new("", "nodes", "", &plan.node_name) else {
        return;
    };
    loop {
        let node = store.get(&key);
        let object: serde_json::Value =
            node.and_then(|it| serde_json::from_slice(&it.value.body).ok()).unwrap_or_default();
        let conditions = object["status"]["conditions"].as_array();
        if conditions
            .into_iter()
            .flatten()
            .any(|it| it["type"] == "Ready" && it["status"] == "True")
        {
            return;
        }
        env.sleep(Duration::from_millis(20)).await;
    }
}

/// SIGINT and SIGTERM.
struct Ends {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    came: bool,
}

impl Ends {
    fn install() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("listening for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("listening for SIGTERM")?,
            came: false,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        self.came = true;
    }
}

pub fn down(args: &DownArgs) -> anyhow::Result<ExitCode> {
    let dir = DataDir::find(args.data_dir.as_deref())?;
    match dir.holder()? {
        Some(holder) => stop(&dir, &holder)?,
        None if args.purge => {}
        None => {
            println!("no kactor runs with the data directory {}", dir.root().display());
            return Ok(ExitCode::SUCCESS);
        }
    }
    if args.purge {
        purge(&dir)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn stop(dir: &DataDir, holder: &Holder) -> anyhow::Result<()> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(holder.pid).context("the holder's pid")?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)
        .with_context(|| format!("asking kactor with pid {pid} to stop"))?;
    let env = Env::machine();
    let limit = env.monotonic() + DOWN_MAX;
    crate::client::block_on(async {
        while dir.holder()?.is_some() {
            if env.monotonic() > limit {
                bail!(
                    "kactor with pid {pid} did not stop within {} s; look at its log, or end it with `kill -9 {pid}`: no acknowledged write is lost by that",
                    DOWN_MAX.as_secs()
                );
            }
            env.sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    })?;
    println!("stopped kactor with pid {pid}; its pods stay, the next `kactor up` finds them");
    Ok(())
}

/// Removes the data directory, this kactor's own files only.
fn purge(dir: &DataDir) -> anyhow::Result<()> {
    crate::node_parts::purge(dir)?;
    let root = dir.root();
    if !root.exists() {
        println!("nothing to remove: {} does not exist", root.display());
        return Ok(());
    }
    let known = [
        "pki",
        "store",
        "logs",
        "images",
        "pods",
        "kubelet",
        "network",
        "admin.kubeconfig",
        "kactor.lock",
    ];
    for name in known {
        let path = root.join(name);
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", path.display()));
            }
            _ => {}
        }
    }
    match std::fs::remove_dir(root) {
        Ok(()) => println!("removed {}", root.display()),
        Err(_) => println!("removed kactor's files; {} holds others and stays", root.display()),
    }
    Ok(())
}
