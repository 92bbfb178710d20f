//! `kactor up`: this host, in front, with an account of what it does.

use std::convert::Infallible;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use kactor_cluster::host::HostRole;
use kactor_runtime::env::{Env, Machine};
use kactor_store::Store;
use serde_json::Value;

use crate::args::{Runtime, UpArgs};
use crate::compose::{Cluster, Plan};
use crate::data_dir::{DataDir, Holder};
use crate::demo::Demo;
use crate::join::{self, Invitation, Wishes};
use crate::kept::Kept;
use crate::kubeconfig_file::{self, Merged};
use crate::{machine_facts, networks, node_start, print};

mod worker;

/// How long requests in flight may take at the end.
const DRAIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub fn run(args: &UpArgs) -> anyhow::Result<ExitCode> {
    let dir = DataDir::find(args.data_dir.as_deref())?;
    let kept = Kept::read(&dir)?;
    let invitation = Invitation::of(args)?;
    join::check(&dir, kept.as_ref(), invitation.as_ref())?;
    let wishes = wishes(args, kept.as_ref())?;
    check(args, &dir, &wishes)?;
    // Before the lock: a directory that is refused is not touched.
    crate::replica::check(&Env::machine(), &dir)?;
    let (pid, listen) = (std::process::id(), wishes.listen);
    let holder = Holder { pid, listen, node: wishes.node.clone() };
    if dir.holder()?.is_none() {
        check_port(listen)?; // One that is held by this directory's kactor is told of by the lock.
    }
    let _lock = dir.lock(&holder)?;
    dir.check_whole()?;
    let machine = Machine::start();
    let env = machine.env().clone();
    let started = async {
        let kept = match invitation {
            Some(invitation) if worker::is_to_join(&dir, kept.as_ref(), env.wall()) => {
                Some(let_in(&env, &dir, &invitation, &wishes).await?)
            }
            _ => kept,
        };
        let is_worker = kept.as_ref().is_some_and(|it| it.role == HostRole::Worker);
        let plan = plan(dir, args, wishes, kept);
        if is_worker {
            worker::serve(&env, &plan, args).await
        } else {
            serve(&env, &plan, args).await
        }
    };
    let code = machine.block_on(started).context("the main event loop")??;
    machine.stop();
    Ok(code)
}

/// What this host is, by its flags and by what it was before.
fn wishes(args: &UpArgs, kept: Option<&Kept>) -> anyhow::Result<Wishes> {
    let node = match (&args.node_name, kept) {
        (Some(named), Some(kept)) if *named != kept.node => bail!(
            "this data directory is that of host {}, whose name belongs to its key; leave --node-name out, or name another --data-dir",
            kept.node
        ),
        (_, Some(kept)) => kept.node.clone(),
        (Some(named), None) => named.clone(),
        (None, None) => machine_facts::hostname(),
    };
    // A host of several has its flags in its directory: others know it by them.
    let before = kept.filter(|it| it.joined || it.hosts.len() > 1);
    let listen = args.listen.or(before.map(|it| it.listen));
    let runtime = args.runtime.or(before.map(|it| it.runtime));
    Ok(Wishes {
        node,
        listen: listen.unwrap_or(UpArgs::LISTEN),
        runtime: runtime.unwrap_or(Runtime::Embedded),
    })
}

fn plan(dir: DataDir, args: &UpArgs, wishes: Wishes, kept: Option<Kept>) -> Plan {
    // The cluster's networks are one matter of all its hosts.
    let joined = kept.as_ref().filter(|it| it.joined);
    let pod_cidr = joined.map_or(&args.pod_cidr, |it| &it.pod_cidr).clone();
    let service_cidr = joined.map_or(&args.service_cidr, |it| &it.service_cidr).clone();
    Plan {
        dir,
        listen: wishes.listen,
        kubelet_listen: args.kubelet_listen,
        node_name: wishes.node,
        runtime: wishes.runtime,
        n_nodes: args.hollow_nodes,
        pod_cidr,
        service_cidr,
        kept,
    }
}

/// Joins, and tells so.
async fn let_in(
    env: &Env,
    dir: &DataDir,
    invitation: &Invitation,
    wishes: &Wishes,
) -> anyhow::Result<Kept> {
    let kept = join::join(env, dir, invitation, wishes).await?;
    say(&format!("joined the cluster of {} as a {} host", invitation.host, kept.role));
    Ok(kept)
}

/// What cannot be, before anything is made: each refusal says what, why and what to do.
fn check(args: &UpArgs, dir: &DataDir, wishes: &Wishes) -> anyhow::Result<()> {
    check_node_name(&wishes.node)?;
    let makes_containers = match wishes.runtime {
        Runtime::Embedded => Some("embedded"),
        Runtime::Docker => Some("docker"),
        Runtime::Hollow | Runtime::None => None,
    };
    if let Some(runtime) = makes_containers.filter(|_| !nix::unistd::geteuid().is_root()) {
        bail!(
            "--runtime {runtime} makes containers and needs root; run as root, or with --runtime hollow or none"
        );
    }
    if makes_containers.is_some()
        && let Some(why) = crate::doctor::refusal()
    {
        bail!("{why}");
    }
    if args.demo && wishes.runtime == Runtime::None {
        bail!(
            "--demo runs pods and --runtime none has no node for them; take --runtime embedded (needs root) or hollow"
        );
    }
    if args.hollow_nodes > 1 && wishes.runtime != Runtime::Hollow {
        bail!(
            "--hollow-nodes {} wants --runtime hollow: a host has one node that runs containers",
            args.hollow_nodes
        );
    }
    if let Some(file) = &args.kubeconfig {
        kubeconfig_file::check(file)?;
    }
    let host_networks = match wishes.runtime {
        Runtime::Hollow | Runtime::None => Vec::new(), // Their pods have no packets.
        _ => networks::of_host(&crate::node_parts::instance(dir)),
    };
    networks::check(&args.pod_cidr, &args.service_cidr, &host_networks)?;
    if wishes.runtime == Runtime::Docker {
        crate::client::block_on(async {
            Ok(kactor_docker::Engine::connect(&crate::node_parts::docker_socket()?).await?)
        })
        .context("--runtime docker")?;
    }
    Ok(())
}

/// Before anything is made; whoever takes the port in between is found again when the gateway listens.
fn check_port(listen: SocketAddr) -> anyhow::Result<()> {
    use std::io::ErrorKind;
    let why = match std::net::TcpListener::bind(listen) {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    let port = listen.port();
    match why.kind() {
        ErrorKind::AddrInUse => bail!(
            "{listen} is in use by another program (`ss -ltnp sport = :{port}` names it); stop that, or choose another with --listen IP:PORT"
        ),
        ErrorKind::AddrNotAvailable => bail!(
            "{} is no address of this host (`ip address` lists them); choose another with --listen IP:PORT",
            listen.ip()
        ),
        ErrorKind::PermissionDenied => bail!(
            "listening on {listen} needs root: ports below 1024 do; choose another with --listen IP:PORT"
        ),
        _ => bail!("cannot listen on {listen}: {why}; choose another with --listen IP:PORT"),
    }
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
    // Installed first: a signal while starting ends it as cleanly as later.
    let mut ends = Ends::install()?;
    let account = Account { env, begun: env.monotonic() };
    say(&format!(
        "kactor {}: node {} on {}",
        env!("CARGO_PKG_VERSION"),
        plan.node_name,
        plan.listen
    ));
    account.line("data", &plan.dir.root().display().to_string());
    let cluster = Cluster::start(env, plan).await?;
    let address = cluster.listener.address();
    account.line("API", &format!("https://{address} ({})", account.since()));
    if let Some(kubelet) = &cluster.kubelet {
        account.line("kubelet", &format!("https://{}", kubelet.address()));
    }
    let merged = kubeconfig(&plan.dir, args, &cluster.kubeconfig)?;
    account.line("kubeconfig", &words_of(&merged));
    match pods_from_before(cluster.api.store()) {
        0 => {}
        1 => account.line("found", "1 pod from before"),
        n => account.line("found", &format!("{n} pods from before")),
    }
    let code = tokio::select! {
        biased;
        () = ends.next() => ExitCode::SUCCESS,
        why = cluster.failed() => {
            eprintln!("kactor: this host cannot go on: {why}");
            ExitCode::FAILURE
        }
        never = account.give(&cluster, plan, args, &merged) => match never {},
    };
    say("stopping: requests in flight end, pods stay");
    cluster.stop(DRAIN).await;
    Ok(code)
}

/// How many pods the store knows; what became of them the node finds out next.
fn pods_from_before(store: &Store) -> u64 {
    let page = store.range("//pods/", None, 1, None);
    page.map_or(0, |it| it.items.len() as u64 + it.remaining)
}

/// Writes the administrator's kubeconfig into the data directory, and merges it where the user wants it.
fn kubeconfig(dir: &DataDir, args: &UpArgs, ours: &Value) -> anyhow::Result<Merged> {
    kubeconfig_file::write(&dir.kubeconfig(), ours)?;
    if let Some(file) = &args.kubeconfig {
        return kubeconfig_file::add(dir, std::slice::from_ref(file), ours);
    }
    let merged =
        kubeconfig_file::default_files().and_then(|files| kubeconfig_file::add(dir, &files, ours));
    merged.or_else(|error| {
        // The cluster serves without it, and the user's file is theirs to mend.
        eprintln!("kactor: the kubeconfig was not merged: {}", print::chain(&error));
        let context = ours["current-context"].as_str().unwrap_or_default().to_owned();
        Ok(Merged { file: dir.kubeconfig(), context, is_current: true })
    })
}

fn words_of(merged: &Merged) -> String {
    let current = if merged.is_current { ", current" } else { ", not current" };
    format!("{} (context {}{current})", merged.file.display(), merged.context)
}

/// What `up` tells while it works.
struct Account<'a> {
    env: &'a Env,
    begun: Duration,
}

impl Account<'_> {
    fn line(&self, what: &str, text: &str) {
        say(&format!("  {what:<10} {text}"));
    }

    fn since(&self) -> String {
        format!("{:.2} s", (self.env.monotonic() - self.begun).as_secs_f64())
    }

    /// Tells what becomes of the cluster; then there is nothing more to tell.
    async fn give(
        &self,
        cluster: &Cluster,
        plan: &Plan,
        args: &UpArgs,
        merged: &Merged,
    ) -> Infallible {
        ready(self.env, cluster, plan).await;
        self.line("ready", &format!("{} ({})", ready_words(plan), self.since()));
        if let (true, Some(driver)) = (args.demo, cluster.driver.clone()) {
            let scratch = plan.dir.root().join("scratch");
            let demo = Demo {
                env: self.env,
                api: &cluster.api,
                driver,
                scratch: &scratch,
                begun: self.begun,
                say: &say,
            };
            match demo.run().await {
                Ok(address) => self.try_next(plan, args, merged, &address),
                // The cluster is well without it.
                Err(error) => eprintln!("kactor: the demo: {}", print::chain(&error)),
            }
        }
        if std::io::stdout().is_terminal() {
            say("Ctrl-C stops kactor; pods stay. Look inside with `kactor repl`.");
        }
        std::future::pending().await
    }

    fn try_next(&self, plan: &Plan, args: &UpArgs, merged: &Merged, address: &str) {
        let (kubectl, kactor) = (kubectl_words(args, merged), kactor_words(args));
        let pretends = plan.runtime == Runtime::Hollow;
        self.line("service", &format!("http://{address} (in pods: http://hello)"));
        if pretends {
            self.line("", "nothing answers there: pods pretend to run (--runtime hollow)");
        }
        let second = match pretends {
            true => format!("{kubectl} logs deployment/hello"),
            false => format!("curl http://{address}"),
        };
        say("Try next, in another terminal:");
        say(&format!("  {kubectl} get pods -o wide"));
        say(&format!("  {second}"));
        say(&format!("  {} why deployment/hello{}", kactor.0, kactor.1));
    }
}

/// kubectl as it finds this cluster.
fn kubectl_words(args: &UpArgs, merged: &Merged) -> String {
    let mut words = "kubectl".to_owned();
    let is_default = args.kubeconfig.is_none()
        && kubeconfig_file::default_files().is_ok_and(|it| it.contains(&merged.file));
    if !is_default {
        words.push_str(&format!(" --kubeconfig {}", merged.file.display()));
    }
    if !merged.is_current {
        words.push_str(&format!(" --context {}", merged.context));
    }
    words
}

/// kactor as this user started it, and what it needs to find this data directory.
fn kactor_words(args: &UpArgs) -> (String, String) {
    let program = std::env::args().next().unwrap_or_else(|| "kactor".to_owned());
    let dir = args.data_dir.as_ref().map(|it| format!(" --data-dir {}", it.display()));
    (program, dir.unwrap_or_default())
}

fn ready_words(plan: &Plan) -> String {
    match plan.runtime {
        Runtime::None => "the control plane serves; no node runs here".to_owned(),
        _ => format!("node {} is Ready", plan.node_name),
    }
}

/// Resolves when the node is Ready, or at once when there is none.
async fn ready(env: &Env, cluster: &Cluster, plan: &Plan) {
    if plan.runtime == Runtime::None {
        return;
    }
    let Ok(key) = kactor_protocol::store::Key::new("", "nodes", "", &plan.node_name) else {
        return;
    };
    while !node_start::is_registered(&cluster.system).await {
        env.sleep(LOOK_EVERY).await;
    }
    loop {
        let node = cluster.api.store().get(&key);
        if node.is_some_and(|it| node_start::says_ready(&it.value.body)) {
            return;
        }
        env.sleep(LOOK_EVERY).await;
    }
}

/// SIGINT and SIGTERM.
pub struct Ends {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Ends {
    pub fn install() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("listening for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("listening for SIGTERM")?,
        })
    }

    pub async fn next(&mut self) {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
