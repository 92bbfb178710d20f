//! `kactor leave`: takes a host out of the cluster for good: its pods move, its vote goes, its name is free.
//!
//! Pods are evicted, so budgets hold; then the host is marked as leaving and the leader takes it out step by step. That it
//! is out is another host's to say: a host that was taken out hears nothing any more.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use kactor_cluster::host::HostRole;
use kactor_gateway::ClusterOrder;
use kactor_runtime::env::Env;
use serde_json::{Value, json};

use crate::args::LeaveArgs;
use crate::client::{Client, block_on};
use crate::data_dir::DataDir;
use crate::kept::{Kept, write_private};
use crate::progress::Progress;

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Pods that are listed at once; a node holds no more.
const PODS_MAX: usize = 1000;

pub fn run(args: &LeaveArgs) -> anyhow::Result<ExitCode> {
    let dir = DataDir::find(args.data_dir.as_deref())?;
    let holder = dir.running()?;
    let name = args.host.clone().unwrap_or_else(|| holder.node.clone());
    let is_here = name == holder.node;
    if Kept::read(&dir)?.is_some_and(|it| it.role == HostRole::Worker) {
        bail!(
            "this host is a worker, and hosts are taken out on a control host: `kactor leave --host {name}` there"
        );
    }
    let env = Env::machine();
    let leaving = Leaving {
        env: &env,
        name: &name,
        until: env.monotonic() + Duration::from_secs(args.timeout),
    };
    let left = block_on(async {
        let client = Client::of(&dir)?;
        let others = others(&client, &name).await?;
        if !args.yes && !confirmed(&name, is_here)? {
            println!("nothing was changed");
            return Ok(false);
        }
        leaving.drain(&client).await?;
        let order = ClusterOrder::Leave { host: Some(name.clone()) };
        crate::token::give(&client, &order).await?;
        leaving.until_out(&client, &others).await?;
        leaving.forget_node(&client, &others).await?;
        Ok(true)
    })?;
    if !left {
        return Ok(ExitCode::FAILURE);
    }
    println!("{name} is no host of the cluster any more");
    if is_here {
        write_private(&dir.left(), b"")?;
        crate::down::stop(&dir, &holder)?;
        println!(
            "stopped kactor with pid {}; `kactor down --purge` removes what it left here",
            holder.pid
        );
    } else {
        println!("if it still runs, stop it there with `kactor down --purge`");
    }
    Ok(ExitCode::SUCCESS)
}

fn confirmed(name: &str, is_here: bool) -> anyhow::Result<bool> {
    let here = if is_here { " (this host)" } else { "" };
    println!("{name}{here} will leave the cluster:");
    println!("  - its pods are evicted and its Node is deleted");
    println!("  - it takes no part in the log any more; others vote in its place if there are any");
    println!("  - it can come back only by joining anew");
    if !std::io::stdin().is_terminal() {
        bail!("`kactor leave` asks first, and there is no terminal to ask on; pass --yes");
    }
    print!("go on? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// The control hosts beside this one, the leader first; an error if there is nobody to go on, or no such host.
async fn others(client: &Client, name: &str) -> anyhow::Result<Vec<SocketAddr>> {
    let status = client.get("/kactor/v1/status").await?.json()?;
    let hosts = status["hosts"].as_array().cloned().unwrap_or_default();
    if !hosts.iter().any(|it| it["name"] == name) {
        bail!("{name} is no host of this cluster; `kactor status` lists them");
    }
    let mut others: Vec<&Value> = hosts
        .iter()
        .filter(|it| it["name"] != name && it["role"] != "worker" && it["leaving"] != true)
        .collect();
    if others.is_empty() {
        bail!(
            "{name} is the only control host: without it there is no cluster. `kactor down --purge` ends the cluster"
        );
    }
    others.sort_by_key(|it| it["leads"] != true);
    let address = |it: &&Value| it["address"].as_str()?.parse().ok();
    Ok(others.iter().filter_map(address).collect())
}

/// One host on its way out.
struct Leaving<'a> {
    env: &'a Env,
    name: &'a str,
    until: Duration,
}

impl Leaving<'_> {
    /// Cordons the node, evicts its pods, waits until they are gone, and deletes the Node.
    async fn drain(&self, client: &Client) -> anyhow::Result<()> {
        let node = format!("/api/v1/nodes/{}", self.name);
        let cordoned = client.merge(&node, &json!({ "spec": { "unschedulable": true } })).await?;
        if cordoned.code == 404 {
            return Ok(()); // No node runs there.
        }
        cordoned.json().context("cordoning the node")?;
        let mut progress = Progress::new(self.env);
        loop {
            let pods = self.pods(client).await?;
            if pods.is_empty() {
                break;
            }
            let mut why = String::new();
            for (namespace, pod) in &pods {
                let eviction = json!({
                    "apiVersion": "policy/v1", "kind": "Eviction",
                    "metadata": { "name": pod, "namespace": namespace },
                });
                let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction");
                let answer = client.post(&path, &eviction).await?;
                // 429: a budget holds it back for now.
                if answer.code != 404
                    && let Err(error) = answer.json()
                {
                    why = format!(" ({namespace}/{pod}: {error:#})");
                }
            }
            let waits = format!("waiting for {} pods of {} to end{why}", pods.len(), self.name);
            if self.env.monotonic() >= self.until {
                bail!(
                    "{waits}: not within the time; the node stays cordoned, ask again or allow more with --timeout"
                );
            }
            progress.show(&waits);
            self.env.sleep(LOOK_EVERY).await;
        }
        let deleted = client.delete(&node).await?;
        if deleted.code == 404 { Ok(()) } else { deleted.json().map(drop) }
    }

    async fn pods(&self, client: &Client) -> anyhow::Result<Vec<(String, String)>> {
        let path =
            format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}&limit={PODS_MAX}", self.name);
        let list = client.get(&path).await?.json()?;
        let word =
            |it: &Value, name: &str| it["metadata"][name].as_str().unwrap_or_default().to_owned();
        let items = list["items"].as_array().into_iter().flatten();
        Ok(items.map(|it| (word(it, "namespace"), word(it, "name"))).collect())
    }

    /// Its agent may have heard that its Node was deleted before it was cut off, and made it anew.
    async fn forget_node(&self, client: &Client, others: &[SocketAddr]) -> anyhow::Result<()> {
        let node = format!("/api/v1/nodes/{}", self.name);
        for address in others {
            let Ok(answer) = client.elsewhere(*address).delete(&node).await else { continue };
            return if answer.code == 404 { Ok(()) } else { answer.json().map(drop) };
        }
        Ok(()) // Whoever looks finds a Node that is not Ready.
    }

    /// Until a host that stays says that it is out.
    async fn until_out(&self, client: &Client, others: &[SocketAddr]) -> anyhow::Result<()> {
        let mut progress = Progress::new(self.env);
        loop {
            for address in others {
                let elsewhere = client.elsewhere(*address);
                let Ok(answer) = elsewhere.get("/kactor/v1/status").await else { continue };
                let Ok(status) = answer.json() else { continue };
                let hosts = status["hosts"].as_array().cloned().unwrap_or_default();
                if !hosts.is_empty() && !hosts.iter().any(|it| it["name"] == self.name) {
                    return Ok(());
                }
                break;
            }
            if self.env.monotonic() >= self.until {
                bail!(
                    "{} is marked as leaving and not out yet; `kactor status` on another control host says why, and the leader goes on with it",
                    self.name
                );
            }
            progress.show(&format!("waiting until {} is out", self.name));
            self.env.sleep(LOOK_EVERY).await;
        }
    }
}
