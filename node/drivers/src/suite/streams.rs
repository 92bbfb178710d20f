//! Cases: exec, attach, terminals.

use futures::future::{Either, select};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::driver::exec_to_end;
use crate::session::{AttachSpec, ExecSession, ExecSpec, WindowSize};
use crate::spec::{Stdin, Terminal};

type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// A pod with a container that stays.
async fn sleeper(stage: &Stage<'_>) -> Result<ContainerSpec, String> {
    let mut spec = stage.shell("main", "exec sleep 100000");
    spec.env = vec![("SUITE".to_owned(), "yes".to_owned())];
    stage.make_pod(&stage.pod()).await?;
    stage.begin(&spec).await?;
    Ok(spec)
}

fn command(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

/// Reads until the text has come, or the stream ends.
async fn read_until(stage: &Stage<'_>, stream: &mut Reader, text: &str) -> Result<String, String> {
    let mut seen = Vec::new();
    let mut buffer = [0_u8; 1024];
    let give_up = stage.subject.env.sleep(LOOK_PAUSE * LOOKS_MAX);
    let mut give_up = std::pin::pin!(give_up);
    loop {
        let read = std::pin::pin!(stream.read(&mut buffer));
        match select(read, give_up.as_mut()).await {
            Either::Left((Ok(n @ 1..), _)) => seen.extend_from_slice(&buffer[..n]),
            Either::Left(_) | Either::Right(_) => {
                let seen = String::from_utf8_lossy(&seen);
                return Err(format!("the stream ended without {text:?}: {seen:?}"));
            }
        }
        let so_far = String::from_utf8_lossy(&seen);
        if so_far.contains(text) {
            return Ok(so_far.into_owned());
        }
    }
}

async fn finish(session: ExecSession) -> Result<i32, String> {
    let ExecSession { stdin, stdout, stderr, window, exit } = session;
    drop((stdin, stdout, stderr, window));
    exit.await.map(|it| it.code).map_err(said)
}

pub(super) async fn exec(stage: &Stage<'_>) -> Checked {
    let spec = sleeper(stage).await?;
    let script = "echo $SUITE; echo bad >&2; exit 9";
    let done = exec_to_end(stage.driver(), &spec.id, command(script)).await.map_err(said)?;
    let found = (done.stdout.as_slice(), done.stderr.as_slice(), done.code);
    ensure(found == (b"yes\n", b"bad\n", 9), || format!("exec gave {done:?}"))?;

    let request = ExecSpec {
        command: command("cat; exit 4"),
        stdin: Stdin::Open,
        terminal: Terminal::None,
        size: None,
    };
    let mut session = stage.driver().exec(&spec.id, &request).await.map_err(said)?;
    let mut stdin = session.stdin.take().ok_or("no stdin")?;
    let mut stdout = session.stdout.take().ok_or("no stdout")?;
    let large = vec![b'x'; 300_000]; // More than a pipe holds.
    let written = async {
        stdin.write_all(&large).await.map_err(|it| it.to_string())?;
        stdin.shutdown().await.map_err(|it| it.to_string())?;
        drop(stdin);
        Ok::<(), String>(())
    };
    let mut got = Vec::new();
    let (wrote, read) = futures::join!(written, stdout.read_to_end(&mut got));
    wrote?;
    read.map_err(|it| it.to_string())?;
    ensure(got == large, || format!("{} of {} bytes came back", got.len(), large.len()))?;
    let code = finish(session).await?;
    ensure(code == 4, || format!("exit code {code}"))
}

pub(super) async fn exec_failure(stage: &Stage<'_>) -> Checked {
    let spec = sleeper(stage).await?;
    let missing = vec!["/bin/no-such-program".to_owned()];
    match exec_to_end(stage.driver(), &spec.id, missing).await {
        Err(DriverError::Start { why, .. }) => {
            ensure(why.contains("no-such-program"), || format!("it says only {why:?}"))?;
        }
        other => return Err(format!("exec answered {other:?}")),
    }
    stage.driver().stop_container(&spec.id, Duration::ZERO).await.map_err(said)?;
    match exec_to_end(stage.driver(), &spec.id, command("true")).await {
        Err(DriverError::WrongState { .. }) => Ok(()),
        other => Err(format!("exec in an ended container answered {other:?}")),
    }
}

pub(super) async fn exec_terminal(stage: &Stage<'_>) -> Checked {
    let spec = sleeper(stage).await?;
    let request = ExecSpec {
        command: command("tty; echo ready; read go; stty size; exit 5"),
        stdin: Stdin::Open,
        terminal: Terminal::Tty,
        size: Some(WindowSize { columns: 80, rows: 24 }),
    };
    let mut session = stage.driver().exec(&spec.id, &request).await.map_err(said)?;
    let mut stdin = session.stdin.take().ok_or("no stdin")?;
    let mut stdout = session.stdout.take().ok_or("no stdout")?;
    ensure(session.stderr.is_none(), || "a terminal has no stderr".to_owned())?;
    let seen = read_until(stage, &mut stdout, "ready").await?;
    ensure(seen.contains("/dev/"), || format!("tty said {seen:?}"))?;
    let window = session.window.as_ref().ok_or("no window")?;
    window.resize(WindowSize { columns: 123, rows: 45 }).map_err(said)?;
    stdin.write_all(b"go\n").await.map_err(|it| it.to_string())?;
    read_until(stage, &mut stdout, "45 123").await?;
    session.stdin = Some(stdin);
    session.stdout = Some(stdout);
    let exit = session.exit.await.map_err(said)?;
    ensure(exit.code == 5, || format!("exit code {}", exit.code))
}

pub(super) async fn attach(stage: &Stage<'_>) -> Checked {
    let mut spec =
        stage.shell("main", "echo ready; while read line; do echo got $line; done; exit 6");
    spec.stdin = Stdin::Once;
    stage.make_pod(&stage.pod()).await?;
    stage.begin(&spec).await?;
    stage.log_has(&spec, "ready").await?;
    let request = AttachSpec { stdin: Stdin::Open };
    let mut session = stage.driver().attach(&spec.id, &request).await.map_err(said)?;
    let mut stdin = session.stdin.take().ok_or("no stdin")?;
    let mut stdout = session.stdout.take().ok_or("no stdout")?;
    stdin.write_all(b"one\n").await.map_err(|it| it.to_string())?;
    read_until(stage, &mut stdout, "got one\n").await?;
    stage.log_has(&spec, "got one").await?; // The log has it as well.
    stdin.shutdown().await.map_err(|it| it.to_string())?;
    drop(stdin); // stdinOnce: the container sees the end of its input.
    let exit = session.exit.await.map_err(said)?;
    ensure(exit.code == 6, || format!("exit code {}", exit.code))
}

pub(super) async fn container_terminal(stage: &Stage<'_>) -> Checked {
    let mut spec = stage.shell("main", "tty; read go; stty size; exit 2");
    spec.stdin = Stdin::Open;
    spec.terminal = Terminal::Tty;
    stage.make_pod(&stage.pod()).await?;
    stage.begin(&spec).await?;
    stage.log_has(&spec, "/dev/").await?;
    let request = AttachSpec { stdin: Stdin::Open };
    let mut session = stage.driver().attach(&spec.id, &request).await.map_err(said)?;
    let window = session.window.as_ref().ok_or("no window")?;
    window.resize(WindowSize { columns: 99, rows: 33 }).map_err(said)?;
    let mut stdin = session.stdin.take().ok_or("no stdin")?;
    let mut stdout = session.stdout.take().ok_or("no stdout")?;
    stdin.write_all(b"go\n").await.map_err(|it| it.to_string())?;
    read_until(stage, &mut stdout, "33 99").await?;
    let exit = session.exit.await.map_err(said)?;
    ensure(exit.code == 2, || format!("exit code {}", exit.code))
}
