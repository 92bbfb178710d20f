//! `kactor up` of a worker: what it tells while it starts and runs.

use std::convert::Infallible;
use std::process::ExitCode;

use anyhow::bail;
use kactor_cluster::host::HostRole;
use kactor_gateway::pki;
use kactor_protocol::Timestamp;
use kactor_runtime::env::Env;

use super::{Account, DRAIN, Ends, LOOK_EVERY, say};
use crate::args::UpArgs;
use crate::compose::Plan;
use crate::compose::worker::Worker;
use crate::data_dir::DataDir;
use crate::kept::Kept;

/// Whether an invitation is of use: the host is in no cluster yet, or its certificate ended while it was off.
pub(super) fn is_to_join(dir: &DataDir, kept: Option<&Kept>, now: Timestamp) -> bool {
    let Some(kept) = kept.filter(|it| it.joined) else { return true };
    let certificate = std::fs::read_to_string(dir.host_certificate()).unwrap_or_default();
    let ended = pki::validity(&certificate).is_none_or(|(_, until)| until <= now);
    // A control host certifies itself at every start.
    kept.role == HostRole::Worker && ended
}

pub(super) async fn serve(env: &Env, plan: &Plan, args: &UpArgs) -> anyhow::Result<ExitCode> {
    if args.demo {
        bail!("--demo writes to the API, and a worker has none; start the demo on a control host");
    }
    let mut ends = Ends::install()?;
    let account = Account { env, begun: env.monotonic() };
    say(&format!(
        "kactor {}: worker {} on {}",
        env!("CARGO_PKG_VERSION"),
        plan.node_name,
        plan.listen
    ));
    account.line("data", &plan.dir.root().display().to_string());
    let worker = Worker::start(env, plan).await?;
    let relayed = format!("https://{}, relayed to control hosts", worker.relay.address());
    account.line("API", &format!("{relayed} ({})", account.since()));
    account.line("kubelet", &format!("https://{}", worker.kubelet.address()));
    if args.kubeconfig.is_some() {
        account.line("kubeconfig", "not written: `kactor kubeconfig` on a control host prints it");
    }
    let code = tokio::select! {
        biased;
        () = ends.next() => ExitCode::SUCCESS,
        why = worker.failed() => {
            eprintln!("kactor: this host cannot go on: {why}");
            ExitCode::FAILURE
        }
        never = tell(&account, &worker, plan) => match never {},
    };
    say("stopping: requests in flight end, pods stay");
    worker.stop(DRAIN).await;
    Ok(code)
}

async fn tell(account: &Account<'_>, worker: &Worker, plan: &Plan) -> Infallible {
    while !worker.is_ready().await {
        account.env.sleep(LOOK_EVERY).await;
    }
    let with = worker.session().map_or(String::new(), |it| format!(", its session with {it}"));
    let ready = format!("node {} is Ready{with} ({})", plan.node_name, account.since());
    account.line("ready", &ready);
    std::future::pending().await
}
