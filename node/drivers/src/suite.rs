//! The one conformance suite: what every driver must do, as a table of cases, and a report of driver × case.
//!
//! A driver's test makes a `Subject` and asserts on the report. A driver may declare cases that it pretends (hollow
//! runs no process); nothing else may be left out. Cases wait on conditions, never on time, and clean up after
//! themselves. Programs come from Debian's busybox-static: `BUSYBOX_IMAGE` must be present.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use kactor_runtime::env::Env;

use crate::driver::Driver;
use crate::error::DriverError;
use crate::hollow;
use crate::spec::{ContainerId, ContainerSpec, SandboxSpec};
use crate::status::{ContainerState, ContainerStatus};

mod isolation;
mod lifecycle;
mod recovery;
mod streams;

/// The name under which the test's image is imported.
pub const BUSYBOX_IMAGE: &str = "docker.io/kactor/busybox:test";

/// Looks for traces of a pod's uid on the machine.
pub type Leftovers = Box<dyn Fn(&str) -> Vec<String> + Send + Sync>;

/// Makes a new driver over the same state.
pub type Restart = Box<dyn Fn() -> LocalBoxFuture<'static, Arc<dyn Driver>>>;

/// A driver under test.
pub struct Subject {
    pub driver: Arc<dyn Driver>,
    pub env: Env,
    /// A folder of the test's own on disk, for logs and volumes.
    pub dir: PathBuf,
    /// A new driver over the same state, as after a restart of the agent.
    pub restart: Restart,
    /// What is still on the machine of a pod's uid, for people to read.
    pub leftovers: Leftovers,
    /// Cases that this driver pretends, with the reason.
    pub pretends: BTreeMap<&'static str, &'static str>,
}

/// One row of the table.
pub struct Case {
    pub name: &'static str,
    run: for<'a> fn(&'a Stage<'a>) -> LocalBoxFuture<'a, Checked>,
}

/// Why a case failed, in words.
type Checked = Result<(), String>;

pub const CASES: &[Case] = &[
    Case { name: "exit code", run: |it| lifecycle::exit_code(it).boxed_local() },
    Case { name: "log in CRI format", run: |it| lifecycle::cri_log(it).boxed_local() },
    Case { name: "log rotation", run: |it| lifecycle::log_rotation(it).boxed_local() },
    Case { name: "program not found", run: |it| lifecycle::start_failure(it).boxed_local() },
    Case { name: "image not here", run: |it| lifecycle::no_image(it).boxed_local() },
    Case { name: "stop within grace", run: |it| lifecycle::stop_gracefully(it).boxed_local() },
    Case { name: "kill after grace", run: |it| lifecycle::kill_after_grace(it).boxed_local() },
    Case { name: "out of memory", run: |it| lifecycle::out_of_memory(it).boxed_local() },
    Case { name: "repeated requests", run: |it| lifecycle::repeated_requests(it).boxed_local() },
    Case { name: "exit event", run: |it| lifecycle::exit_event(it).boxed_local() },
    Case { name: "image in use", run: |it| lifecycle::image_in_use(it).boxed_local() },
    Case { name: "remove leaves nothing", run: |it| lifecycle::remove_all(it).boxed_local() },
    Case { name: "found after restart", run: |it| recovery::found_again(it).boxed_local() },
    Case { name: "ended while away", run: |it| recovery::ended_while_away(it).boxed_local() },
    Case { name: "exec stdin and exit code", run: |it| streams::exec(it).boxed_local() },
    Case { name: "exec program not found", run: |it| streams::exec_failure(it).boxed_local() },
    Case { name: "exec terminal and resize", run: |it| streams::exec_terminal(it).boxed_local() },
    Case { name: "attach", run: |it| streams::attach(it).boxed_local() },
    Case {
        name: "terminal of a container",
        run: |it| streams::container_terminal(it).boxed_local(),
    },
    Case { name: "env, folder, user", run: |it| isolation::env_and_user(it).boxed_local() },
    Case { name: "mounts and read-only", run: |it| isolation::mounts(it).boxed_local() },
    Case { name: "limits in the cgroup", run: |it| isolation::limits(it).boxed_local() },
    Case { name: "capabilities", run: |it| isolation::capabilities(it).boxed_local() },
    Case { name: "seccomp default", run: |it| isolation::seccomp(it).boxed_local() },
    Case { name: "run as non-root", run: |it| isolation::non_root(it).boxed_local() },
    Case { name: "shared pod network", run: |it| isolation::shared_network(it).boxed_local() },
    Case { name: "host network", run: |it| isolation::host_network(it).boxed_local() },
    Case { name: "host pids", run: |it| isolation::host_pids(it).boxed_local() },
    Case { name: "shared process namespace", run: |it| isolation::shared_pids(it).boxed_local() },
    Case { name: "stats", run: |it| isolation::stats(it).boxed_local() },
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    Pretended(&'static str),
    Failed(String),
}

/// Driver × case.
#[derive(Debug)]
pub struct Report {
    pub driver: &'static str,
    pub rows: Vec<(&'static str, Outcome)>,
}

/// Runs every case, one after the other.
pub async fn run(subject: &Subject) -> Report {
    let mut rows = Vec::new();
    for (index, case) in CASES.iter().enumerate() {
        if let Some(why) = subject.pretends.get(case.name) {
            rows.push((case.name, Outcome::Pretended(why)));
            continue;
        }
        let stage = Stage { subject, uid: format!("suite-{}-{index}", subject.env.random_u64()) };
        let outcome = match (case.run)(&stage).await.and(stage.clean_up().await) {
            Ok(()) => Outcome::Ok,
            Err(why) => {
                let _ = stage.clean_up().await; // The first failure is the one to tell.
                Outcome::Failed(why)
            }
        };
        rows.push((case.name, outcome));
    }
    Report { driver: subject.driver.name(), rows }
}

impl Report {
    pub fn failures(&self) -> usize {
        self.rows.iter().filter(|(_, it)| matches!(it, Outcome::Failed(_))).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (case, outcome) in &self.rows {
            let text = match outcome {
                Outcome::Ok => "ok".to_owned(),
                Outcome::Pretended(why) => format!("skip ({why})"),
                Outcome::Failed(why) => format!("FAIL: {why}"),
            };
            writeln!(f, "{:<10} {case:<26} {text}", self.driver)?;
        }
        Ok(())
    }
}

/// One case's pod and the words that cases are written in.
pub(crate) struct Stage<'a> {
    subject: &'a Subject,
    uid: String,
}

/// Looks at a condition before a case gives up: generous, for slow machines.
const LOOKS_MAX: u32 = 6000;
const LOOK_PAUSE: Duration = Duration::from_millis(10);

pub(crate) fn ensure(is_so: bool, otherwise: impl FnOnce() -> String) -> Checked {
    match is_so {
        true => Ok(()),
        false => Err(otherwise()),
    }
}

fn said(error: DriverError) -> String {
    let mut text = error.to_string();
    if let Some(source) = std::error::Error::source(&error) {
        text.push_str(&format!(": {source}"));
    }
    text
}

impl Stage<'_> {
    fn driver(&self) -> &dyn Driver {
        &*self.subject.driver
    }

    fn dir(&self) -> PathBuf {
        self.subject.dir.join(&self.uid)
    }

    fn pod(&self) -> SandboxSpec {
        SandboxSpec::new(self.uid.clone(), "default", "suite-pod")
    }

    fn id(&self, name: &str) -> ContainerId {
        ContainerId { sandbox: self.pod().id, name: name.to_owned(), attempt: 0 }
    }

    /// A container that runs a shell script.
    fn shell(&self, name: &str, script: &str) -> ContainerSpec {
        let log = self.dir().join(format!("logs/{name}/0.log"));
        let mut spec = ContainerSpec::new(self.id(name), BUSYBOX_IMAGE, log);
        spec.command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        // Pods that pretend cannot read a script, but can be told that it ends.
        if script == "exit 0" {
            spec.annotations.insert(hollow::COMPLETES.to_owned(), "true".to_owned());
        }
        spec
    }

    async fn make_pod(&self, spec: &SandboxSpec) -> Checked {
        self.driver().create_sandbox(spec).await.map(|_| ()).map_err(said)
    }

    async fn begin(&self, spec: &ContainerSpec) -> Checked {
        self.driver().create_container(spec).await.map_err(said)?;
        self.driver().start_container(&spec.id).await.map_err(said)
    }

    /// A pod with one container, run to its end: how it ended, and its log.
    async fn run(&self, spec: &ContainerSpec) -> Result<(ContainerState, String), String> {
        self.run_in(&self.pod(), spec).await
    }

    async fn run_in(
        &self,
        pod: &SandboxSpec,
        spec: &ContainerSpec,
    ) -> Result<(ContainerState, String), String> {
        self.make_pod(pod).await?;
        self.begin(spec).await?;
        let state = self.ended(&spec.id).await?;
        Ok((state, text_of(&spec.log_path)))
    }

    /// The lines that a script printed, in a pod of its own that goes again.
    async fn lines_in(
        &self,
        pod: &SandboxSpec,
        spec: &ContainerSpec,
    ) -> Result<Vec<String>, String> {
        let (state, log) = self.run_in(pod, spec).await?;
        let lines = lines_of(&log);
        self.clean_up().await?;
        match state {
            ContainerState::Exited { exit_code: 0, .. } => Ok(lines),
            other => Err(format!("the script ended as {other:?} after {lines:?}")),
        }
    }

    async fn lines(&self, script: &str) -> Result<Vec<String>, String> {
        self.lines_in(&self.pod(), &self.shell("main", script)).await
    }

    async fn status(&self, id: &ContainerId) -> Result<ContainerStatus, String> {
        let pod = self.driver().sandbox(&id.sandbox).await.map_err(said)?;
        let found = pod.containers.into_iter().find(|it| it.id() == id);
        found.ok_or_else(|| format!("{id} is not listed"))
    }

    async fn ended(&self, id: &ContainerId) -> Result<ContainerState, String> {
        self.until(&format!("{id} ends"), async || {
            let state = self.status(id).await?.state;
            Ok(matches!(state, ContainerState::Exited { .. }).then_some(state))
        })
        .await
    }

    async fn log_has(&self, spec: &ContainerSpec, text: &str) -> Checked {
        self.until(&format!("the log says {text:?}"), async || {
            Ok(text_of(&spec.log_path).contains(text).then_some(()))
        })
        .await
    }

    /// Looks until there is an answer.
    async fn until<T>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut() -> Result<Option<T>, String>,
    ) -> Result<T, String> {
        for _ in 0..LOOKS_MAX {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            self.subject.env.sleep(LOOK_PAUSE).await;
        }
        Err(format!("waited in vain until {what}"))
    }

    async fn clean_up(&self) -> Checked {
        self.driver().remove_sandbox(&self.pod().id).await.map_err(said)?;
        let _ = std::fs::remove_dir_all(self.dir()); // Only what cases put there.
        Ok(())
    }
}

fn text_of(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

/// What was printed, without times and marks.
fn lines_of(log: &str) -> Vec<String> {
    log.lines().map(|it| it.splitn(4, ' ').nth(3).unwrap_or_default().to_owned()).collect()
}
