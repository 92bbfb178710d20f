//! One copier per container: from dockerd's log to the CRI file, without loss over a crash of either side.
//!
//! dockerd keeps the output (json-file). A copier follows it; when the stream breaks, or kactor was away, it reads
//! again from a little before the last entry of the file and skips what is there (`cri`). When the container has
//! ended it reads once more to the end and is done: only then is the container reported as ended, so that nobody
//! finds half a log. A lock per container keeps two kactors from copying the same.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use http_body_util::BodyExt;
use kactor_drivers::cri_log::CriLog;
use kactor_drivers::{ContainerSpec, DriverError, Terminal};
use kactor_runtime::env::{Env, Lane};
use tokio::sync::{mpsc, oneshot, watch};

use crate::cri::{Cutter, Seen};
use crate::engine::{Engine, code};
use crate::frames::Frames;
use crate::raw::{self, Refusal};

/// Between looks at a lock that another kactor holds, and between attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How long the end of a container waits for its log.
const SETTLE_MAX: Duration = Duration::from_secs(10);
/// Most requests to rotate that wait.
const ROTATIONS_MAX: usize = 4;

type Rotate = oneshot::Sender<std::io::Result<()>>;

struct Copier {
    done: watch::Receiver<bool>,
    /// It was waited for in vain once; nobody waits for it again.
    is_late: bool,
    rotate: mpsc::Sender<Rotate>,
}

/// All copiers of a driver, by docker's id of the container.
pub struct Copiers {
    engine: Arc<Engine>,
    env: Env,
    dir: PathBuf,
    copiers: Mutex<BTreeMap<String, Copier>>,
}

impl Copiers {
    /// Locks lie in `dir`.
    pub fn new(engine: Arc<Engine>, env: Env, dir: PathBuf) -> Self {
        Self { engine, env, dir, copiers: Mutex::new(BTreeMap::new()) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Copier>> {
        self.copiers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies this container's log from now on; again does nothing.
    pub fn start(&self, docker_id: &str, spec: &ContainerSpec) {
        let mut copiers = self.lock();
        if copiers.contains_key(docker_id) {
            return;
        }
        let (finished, done) = watch::channel(false);
        let (rotate, rotations) = mpsc::channel(ROTATIONS_MAX);
        copiers.insert(docker_id.to_owned(), Copier { done, is_late: false, rotate });
        drop(copiers);
        let copying = Copying {
            engine: self.engine.clone(),
            env: self.env.clone(),
            docker_id: docker_id.to_owned(),
            spec: spec.clone(),
            lock: self.dir.join(format!("{docker_id}.lock")),
            rotations,
        };
        self.env.spawn(Lane::Node, async move {
            copying.run().await;
            let _ = finished.send(true); // Nobody need wait for it.
        });
    }

    /// Waits until the log of an ended container is whole; not for ever, a full disk must not hide an end.
    pub async fn settle(&self, docker_id: &str) {
        let done = self.lock().get(docker_id).filter(|it| !it.is_late).map(|it| it.done.clone());
        if let Some(mut done) = done {
            tokio::select! {
                biased;
                _ = done.wait_for(|it| *it) => {}
                () = self.env.sleep(SETTLE_MAX) => {
                    tracing::warn!(container = docker_id, "its log is not whole yet");
                    if let Some(copier) = self.lock().get_mut(docker_id) {
                        copier.is_late = true;
                    }
                }
            }
        }
    }

    pub fn forget(&self, docker_id: &str) {
        self.lock().remove(docker_id);
        let _ = std::fs::remove_file(self.dir.join(format!("{docker_id}.lock"))); // It need not be there.
    }

    pub async fn rotate(&self, docker_id: &str, spec: &ContainerSpec) -> Result<(), DriverError> {
        let io = |it| DriverError::io(format!("rotating the log of {}", spec.id), it);
        let rotate = self.lock().get(docker_id).map(|it| it.rotate.clone());
        let (answer, answered) = oneshot::channel();
        if let Some(rotate) = rotate
            && rotate.send(answer).await.is_ok()
            && let Ok(done) = answered.await
        {
            return done.map_err(io);
        }
        // Nobody writes it any more.
        let log = CriLog::open(&spec.log_path, spec.log_bytes_max, spec.log_files_max);
        log.and_then(|mut it| it.rotate()).map_err(io)
    }
}

struct Copying {
    engine: Arc<Engine>,
    env: Env,
    docker_id: String,
    spec: ContainerSpec,
    lock: PathBuf,
    rotations: mpsc::Receiver<Rotate>,
}

/// Why a pass over the log ended.
enum Pass {
    /// dockerd has no more to say for now.
    Ended,
    /// The container is not there any more.
    Gone,
    Failed(String),
}

impl Copying {
    async fn run(mut self) {
        let Some(_lock) = self.take_lock().await else { return };
        let mut said = String::new();
        loop {
            let ended = self.has_ended().await;
            match self.pass(ended != Some(true)).await {
                Pass::Gone => return,
                // It had ended before this pass began, so this was all.
                Pass::Ended if ended == Some(true) => return,
                Pass::Ended if self.has_ended().await == Some(true) => continue,
                Pass::Ended => {}
                Pass::Failed(why) if why != said => {
                    tracing::warn!(container = %self.spec.id, "copying its log, again soon: {why}");
                    said = why;
                }
                Pass::Failed(_) => {}
            }
            self.env.sleep(RETRY_PAUSE).await;
        }
    }

    /// `None` when the container went meanwhile.
    async fn take_lock(&self) -> Option<File> {
        loop {
            let opened = File::options().create(true).append(true).open(&self.lock);
            match opened.map(|it| it.try_lock().map(|()| it)) {
                Ok(Ok(file)) => return Some(file),
                Ok(Err(_)) => {} // Another kactor copies it: this one takes over when that one ends.
                Err(error) => {
                    tracing::warn!("{}: {error}", self.lock.display());
                    return None;
                }
            }
            self.env.sleep(RETRY_PAUSE).await;
        }
    }

    /// `None` if dockerd does not say.
    async fn has_ended(&self) -> Option<bool> {
        match self.engine.docker.inspect_container(&self.docker_id, None).await {
            Ok(it) => it.state.and_then(|it| it.running).map(|it| !it),
            Err(error) => (code(&error) == Some(404)).then_some(true),
        }
    }

    async fn pass(&mut self, follow: bool) -> Pass {
        let spec = &self.spec;
        let failed =
            |it: std::io::Error| Pass::Failed(format!("{}: {it}", spec.log_path.display()));
        let seen = match Seen::read(&spec.log_path, spec.log_files_max) {
            Ok(seen) => seen,
            Err(error) => return failed(error),
        };
        let log = match CriLog::open(&spec.log_path, spec.log_bytes_max, spec.log_files_max) {
            Ok(log) => log,
            Err(error) => return failed(error),
        };
        let path = format!(
            "/containers/{}/logs?stdout=1&stderr=1&timestamps=1&follow={}&since={}",
            self.docker_id,
            u8::from(follow),
            seen.since_s
        );
        match raw::body(&self.engine, &self.env, &path).await {
            Ok(body) => self.copy(body, log, seen).await,
            Err(Refusal::Answered(404, _)) => Pass::Gone,
            Err(Refusal::Answered(_, why)) => Pass::Failed(why),
            Err(Refusal::Unreachable(error)) => Pass::Failed(error.to_string()),
        }
    }

    async fn copy(
        &mut self,
        mut body: hyper::body::Incoming,
        mut log: CriLog,
        mut seen: Seen,
    ) -> Pass {
        let mut cutter = match self.spec.terminal {
            Terminal::None => Cutter::Framed(Frames::default()),
            Terminal::Tty => Cutter::Terminal(BytesMut::new()),
        };
        loop {
            let frame = tokio::select! {
                biased;
                Some(answer) = self.rotations.recv() => {
                    let _ = answer.send(log.rotate()); // Who asked may have gone.
                    continue;
                }
                frame = body.frame() => frame,
            };
            let ended = frame.is_none();
            match frame {
                Some(Ok(frame)) => {
                    if let Some(bytes) = frame.data_ref() {
                        cutter.push(bytes);
                    }
                }
                Some(Err(error)) => return Pass::Failed(error.to_string()),
                None => {}
            }
            if let Err(why) = drain(&mut cutter, ended, &mut log, &mut seen) {
                return Pass::Failed(why);
            }
            if ended {
                return Pass::Ended;
            }
        }
    }
}

fn drain(
    cutter: &mut Cutter,
    ended: bool,
    log: &mut CriLog,
    seen: &mut Seen,
) -> Result<(), String> {
    loop {
        let entry = match cutter.next()? {
            Some(entry) => entry,
            None if ended => match cutter.finish()? {
                Some(entry) => entry,
                None => return Ok(()),
            },
            None => return Ok(()),
        };
        if !seen.take(&entry) {
            log.write(&entry.time, entry.stream.name(), entry.tag, &entry.text)
                .map_err(|it| it.to_string())?;
        }
    }
}
