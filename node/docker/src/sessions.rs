//! Exec and attach: one connection to dockerd becomes stdin, stdout and stderr, with bounds.
//!
//! Two tasks per session: one cuts what comes into the two outputs, one writes input and carries resizes. A resize
//! is taken before input that came after it, as at a real terminal. dockerd's streams share one connection, so who
//! reads one output must read or drop the other.

use std::sync::Arc;
use std::time::Duration;

use bollard::exec::ResizeExecOptions;
use bollard::models::ExecConfig;
use bollard::query_parameters::{ResizeContainerTTYOptions, WaitContainerOptions};
use futures::{FutureExt, StreamExt};
use kactor_drivers::{
    AttachSpec, ContainerId, DriverError, ExecExit, ExecSession, ExecSpec, SessionWindow, Stdin,
    Terminal, WindowSize,
};
use kactor_runtime::env::Lane;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::watch;

use crate::driver::Inner;
use crate::engine::{code, message};
use crate::frames::{Frames, Stream};
use crate::raw::{self, Duplex, Refusal};

/// What waits between dockerd and a slow client.
const BUFFER_BYTES: usize = 64 * 1024;
/// Between looks whether an exec has started, and how many.
const START_PAUSE: Duration = Duration::from_millis(5);
const START_LOOKS_MAX: u32 = 24_000;
/// Between looks whether an exec has ended whose output is still held open by others.
const END_PAUSE: Duration = Duration::from_secs(2);
/// What dockerd says of an exec that could not start.
const SAID_BYTES_MAX: usize = 4096;

/// What a terminal belongs to.
#[derive(Clone)]
enum Target {
    Exec(String),
    Container(String),
}

struct Window {
    size: watch::Sender<Option<WindowSize>>,
}

impl SessionWindow for Window {
    fn resize(&self, size: WindowSize) -> Result<(), DriverError> {
        self.size.send_replace(Some(size)); // The session may have ended.
        Ok(())
    }
}

impl Inner {
    pub async fn exec(
        self: &Arc<Self>,
        id: &ContainerId,
        spec: &ExecSpec,
    ) -> Result<ExecSession, DriverError> {
        let Some(program) = spec.command.first() else {
            let why = "it names no program".to_owned();
            return Err(DriverError::Invalid { field: "command", why });
        };
        let docker_id = self.need_running(id).await?;
        let (stdin, tty) = (spec.stdin != Stdin::Closed, spec.terminal == Terminal::Tty);
        let config = ExecConfig {
            attach_stdin: Some(stdin),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(tty),
            cmd: Some(spec.command.clone()),
            ..ExecConfig::default()
        };
        let doing = format!("{program} in {id}");
        let created = self.engine.docker.create_exec(&docker_id, config).await;
        let exec =
            created.map_err(|it| self.session_error(id, &doing, code(&it), message(&it)))?.id;
        let start = json!({ "Detach": false, "Tty": tty });
        let path = format!("/exec/{exec}/start");
        let opened = raw::upgrade(&self.engine, &self.env, &path, Some(start)).await;
        let mut stream = opened.map_err(|it| self.refused(id, &doing, it))?;
        if let Err(code) = self.started(&exec).await? {
            let said = first_words(&mut stream, tty).await;
            let why = if said.is_empty() { format!("exit code {code}") } else { said };
            return Err(DriverError::Start { what: doing, why });
        }
        if let Some(size) = spec.size {
            self.resize(&Target::Exec(exec.clone()), size).await;
        }
        let (mut session, ended) =
            self.session(stream, (stdin, spec.terminal), Target::Exec(exec.clone()));
        let inner = self.clone();
        session.exit = async move { inner.exec_exit(&exec, ended).await }.boxed();
        Ok(session)
    }

    pub async fn attach(
        self: &Arc<Self>,
        id: &ContainerId,
        spec: &AttachSpec,
    ) -> Result<ExecSession, DriverError> {
        let docker_id = self.need_running(id).await?;
        let status = self.need(id).await?.container();
        let terminal = status.map_or(Terminal::None, |it| it.spec.terminal);
        let stdin = spec.stdin != Stdin::Closed;
        let path = format!(
            "/containers/{docker_id}/attach?stream=1&stdout=1&stderr=1&stdin={}",
            u8::from(stdin)
        );
        let doing = format!("attaching to {id}");
        let stream = raw::upgrade(&self.engine, &self.env, &path, None).await;
        let stream = stream.map_err(|it| self.refused(id, &doing, it))?;
        let target = Target::Container(docker_id.clone());
        let (mut session, ended) = self.session(stream, (stdin, terminal), target);
        let inner = self.clone();
        session.exit = async move { inner.container_exit(&docker_id, ended).await }.boxed();
        Ok(session)
    }

    async fn need_running(&self, id: &ContainerId) -> Result<String, DriverError> {
        let found = self.need(id).await?;
        match found.is_running() {
            true => Ok(found.docker_id),
            false => Err(DriverError::WrongState {
                what: id.to_string(),
                state: "not running",
                wanted: "running",
            }),
        }
    }

    fn session_error(
        &self,
        id: &ContainerId,
        doing: &str,
        code: Option<u16>,
        why: String,
    ) -> DriverError {
        match code {
            Some(404) => DriverError::NoContainer(id.clone()),
            // It ended meanwhile, or somebody paused it.
            Some(409) => DriverError::WrongState {
                what: id.to_string(),
                state: "not running",
                wanted: "running",
            },
            Some(_) => DriverError::Runtime { doing: doing.to_owned(), why },
            None => self.engine.unreachable(why),
        }
    }

    fn refused(&self, id: &ContainerId, doing: &str, refusal: Refusal) -> DriverError {
        match refusal {
            Refusal::Answered(code, why) => self.session_error(id, doing, Some(code), why),
            Refusal::Unreachable(error) => error,
        }
    }

    /// `Err` with the exit code if the program could not be executed: dockerd tells so only by there being no process.
    async fn started(&self, exec: &str) -> Result<Result<(), i64>, DriverError> {
        for _ in 0..START_LOOKS_MAX {
            let it = self.engine.docker.inspect_exec(exec).await;
            let it = it.map_err(|it| self.engine.error("looking at an exec", it))?;
            let has_process = it.pid.unwrap_or_default() > 0;
            match it.exit_code {
                _ if has_process => return Ok(Ok(())),
                Some(code) if it.running != Some(true) => return Ok(Err(code)),
                _ => self.env.sleep(START_PAUSE).await,
            }
        }
        let limit_ms = (START_PAUSE * START_LOOKS_MAX).as_millis() as u64;
        Err(DriverError::Timeout { doing: "starting an exec".to_owned(), limit_ms })
    }

    async fn resize(&self, target: &Target, size: WindowSize) {
        let (height, width) = (size.rows, size.columns);
        let done = match target {
            Target::Exec(id) => {
                self.engine.docker.resize_exec(id, ResizeExecOptions { height, width }).await
            }
            Target::Container(id) => {
                let options = ResizeContainerTTYOptions { h: height.into(), w: width.into() };
                self.engine.docker.resize_container_tty(id, options).await
            }
        };
        if let Err(error) = done {
            tracing::debug!("resizing a terminal: {error}"); // It ended, mostly.
        }
    }

    /// The session without its exit, and the sign that its output has ended.
    fn session(
        self: &Arc<Self>,
        stream: Duplex,
        (wants_stdin, terminal): (bool, Terminal),
        target: Target,
    ) -> (ExecSession, watch::Receiver<bool>) {
        let (from_docker, to_docker) = split(stream);
        let (finished, ended) = watch::channel(false);
        let (stdout, our_stdout) = duplex(BUFFER_BYTES);
        let (stderr, our_stderr) = duplex(BUFFER_BYTES);
        let (is_tty, out) = (terminal == Terminal::Tty, [our_stdout, our_stderr].map(Some));
        self.env.spawn(Lane::Node, async move {
            copy_out(from_docker, is_tty, out).await;
            let _ = finished.send(true); // Nobody need wait for it.
        });
        let (stdin, our_stdin) = duplex(BUFFER_BYTES);
        let (size, sizes) = watch::channel(None);
        let input = Input {
            inner: self.clone(),
            target,
            from: wants_stdin.then_some(our_stdin),
            to: to_docker,
            sizes: is_tty.then_some(sizes),
            ended: ended.clone(),
        };
        self.env.spawn(Lane::Node, input.run());
        let session = ExecSession {
            stdin: wants_stdin.then(|| Box::new(stdin) as _),
            stdout: Some(Box::new(stdout)),
            stderr: (!is_tty).then(|| Box::new(stderr) as _),
            window: is_tty.then(|| Box::new(Window { size }) as _),
            exit: futures::future::pending().boxed(),
        };
        (session, ended)
    }

    /// When its output has ended; or when it has and others hold its output open.
    async fn exec_exit(
        &self,
        exec: &str,
        mut ended: watch::Receiver<bool>,
    ) -> Result<ExecExit, DriverError> {
        loop {
            let pause = if *ended.borrow() { START_PAUSE } else { END_PAUSE };
            tokio::select! {
                biased;
                () = when(&mut ended), if pause == END_PAUSE => {}
                () = self.env.sleep(pause) => {}
            }
            let it = self.engine.docker.inspect_exec(exec).await;
            let it = it.map_err(|it| self.engine.error("looking at an exec", it))?;
            if let (false, Some(code)) = (it.running == Some(true), it.exit_code) {
                return Ok(ExecExit { code: i32::try_from(code).unwrap_or(255) });
            }
        }
    }

    async fn container_exit(
        &self,
        docker_id: &str,
        mut ended: watch::Receiver<bool>,
    ) -> Result<ExecExit, DriverError> {
        let condition = "not-running".to_owned();
        let options = Some(WaitContainerOptions { condition });
        let mut waiting = self.engine.docker.wait_container(docker_id, options);
        let code = match waiting.next().await {
            Some(Ok(it)) => it.status_code,
            Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => code,
            Some(Err(error)) => return Err(self.engine.error("waiting for a container", error)),
            None => return Err(self.engine.unreachable("it stopped telling of a container")),
        };
        tokio::select! { // Its last words are read first.
            biased;
            () = when(&mut ended) => {}
            () = self.env.sleep(END_PAUSE) => {}
        }
        Ok(ExecExit { code: i32::try_from(code).unwrap_or(255) })
    }
}

/// Also when nobody can say it any more.
async fn when(sign: &mut watch::Receiver<bool>) {
    let _ = sign.wait_for(|it| *it).await;
}

/// What dockerd wrote in place of output.
async fn first_words(stream: &mut Duplex, is_tty: bool) -> String {
    let (mut frames, mut said, mut buffer) = (Frames::default(), Vec::new(), [0_u8; 1024]);
    while said.len() < SAID_BYTES_MAX {
        let n = match stream.read(&mut buffer).await {
            Ok(n @ 1..) => n,
            _ => break,
        };
        if is_tty {
            said.extend_from_slice(&buffer[..n]);
            continue;
        }
        frames.push(&buffer[..n]);
        while let Ok(Some((_, bytes))) = frames.next() {
            said.extend_from_slice(&bytes);
        }
    }
    String::from_utf8_lossy(&said).trim().to_owned()
}

/// Until dockerd has no more. A reader that has gone is no reason to stop: the program must be able to go on.
async fn copy_out(mut from: ReadHalf<Duplex>, is_tty: bool, mut out: [Option<DuplexStream>; 2]) {
    let (mut frames, mut buffer) = (Frames::default(), vec![0_u8; 16 * 1024]);
    loop {
        let n = match from.read(&mut buffer).await {
            Ok(n @ 1..) => n,
            _ => return,
        };
        if is_tty {
            give(&mut out[0], &buffer[..n]).await;
            continue;
        }
        frames.push(&buffer[..n]);
        loop {
            match frames.next() {
                Ok(Some((Stream::Stdout, bytes))) => give(&mut out[0], &bytes).await,
                Ok(Some((Stream::Stderr, bytes))) => give(&mut out[1], &bytes).await,
                Ok(None) => break,
                Err(why) => {
                    tracing::warn!("a session ends: {why}");
                    return;
                }
            }
        }
    }
}

async fn give(to: &mut Option<DuplexStream>, bytes: &[u8]) {
    if let Some(stream) = to
        && stream.write_all(bytes).await.is_err()
    {
        *to = None;
    }
}

struct Input {
    inner: Arc<Inner>,
    target: Target,
    from: Option<DuplexStream>,
    to: WriteHalf<Duplex>,
    sizes: Option<watch::Receiver<Option<WindowSize>>>,
    ended: watch::Receiver<bool>,
}

impl Input {
    async fn run(mut self) {
        let mut buffer = vec![0_u8; 16 * 1024];
        while self.from.is_some() || self.sizes.is_some() {
            let (from, sizes) = (&mut self.from, &mut self.sizes);
            tokio::select! {
                biased;
                () = when(&mut self.ended) => return,
                size = next_size(sizes) => match size {
                    Some(size) => self.inner.resize(&self.target, size).await,
                    None => self.sizes = None,
                },
                read = read_some(from, &mut buffer) => {
                    let n = read.unwrap_or_default();
                    let done = match n {
                        0 => self.to.shutdown().await,
                        n => self.to.write_all(&buffer[..n]).await,
                    };
                    if n == 0 || done.is_err() {
                        self.from = None;
                    }
                }
            }
        }
    }
}

/// Never, without a terminal; `None` when the window has gone.
async fn next_size(sizes: &mut Option<watch::Receiver<Option<WindowSize>>>) -> Option<WindowSize> {
    match sizes {
        Some(sizes) => sizes.changed().await.ok().and_then(|()| *sizes.borrow_and_update()),
        None => std::future::pending().await,
    }
}

async fn read_some(from: &mut Option<DuplexStream>, buffer: &mut [u8]) -> std::io::Result<usize> {
    match from {
        Some(from) => from.read(buffer).await,
        None => std::future::pending().await,
    }
}
