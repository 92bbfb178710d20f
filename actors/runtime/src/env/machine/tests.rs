//! The machine keeps Env's promises: lanes, aborts, the disk, detached processes.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use super::Machine;
use crate::env::{Command, Lane, OpenMode};

fn signal() -> (SyncSender<String>, Receiver<String>) {
    sync_channel(16)
}

fn soon<T>(receiver: &Receiver<T>) -> Option<T> {
    receiver.recv_timeout(Duration::from_secs(20)).ok()
}

#[test]
fn each_lane_is_one_thread_and_lanes_differ() {
    let machine = Machine::start();
    let (sender, names) = signal();
    for lane in [Lane::Control, Lane::Control, Lane::Raft] {
        let sender = sender.clone();
        machine.env().spawn(lane, async move {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            sender.send(name).unwrap();
        });
    }
    let mut seen: Vec<String> = (0..3).map(|_| soon(&names).unwrap()).collect();
    seen.sort();
    assert_eq!(seen, ["control-0", "control-0", "raft-0"]);
}

struct SaysGoodbye(SyncSender<String>);

impl Drop for SaysGoodbye {
    fn drop(&mut self) {
        let _ = self.0.send("dropped".into());
    }
}

#[test]
fn abort_drops_the_future_where_it_waits() {
    let machine = Machine::start();
    let (sender, events) = signal();
    let env = machine.env().clone();
    let task = machine.env().spawn(Lane::Control, async move {
        let goodbye = SaysGoodbye(sender.clone());
        sender.send("waits".into()).unwrap();
        env.sleep(Duration::from_secs(3600)).await;
        drop(goodbye);
    });
    assert_eq!(soon(&events).as_deref(), Some("waits"));
    task.abort();
    assert_eq!(soon(&events).as_deref(), Some("dropped"));
}

#[test]
fn stop_drops_what_still_runs_and_later_tasks_never_run() {
    let machine = Machine::start();
    let env = machine.env().clone();
    let (sender, events) = signal();
    let again = sender.clone();
    env.spawn(Lane::Node, async move {
        let _goodbye = SaysGoodbye(sender.clone());
        sender.send("waits".into()).unwrap();
        std::future::pending::<()>().await;
    });
    assert_eq!(soon(&events).as_deref(), Some("waits"));
    machine.stop();
    assert_eq!(soon(&events).as_deref(), Some("dropped"));
    env.spawn(Lane::Node, async move { again.send("late".into()).unwrap() });
    assert!(events.recv().is_err(), "the task was dropped with its sender");
}

#[test]
fn a_panic_ends_its_task_and_not_its_lane() {
    let machine = Machine::start();
    machine.env().spawn(Lane::Control, async { panic!("on purpose") });
    let (sender, events) = signal();
    machine.env().spawn(Lane::Control, async move { sender.send("alive".into()).unwrap() });
    assert_eq!(soon(&events).as_deref(), Some("alive"));
}

#[test]
fn a_sleep_ends_at_or_after_its_time() {
    let machine = Machine::start();
    let env = machine.env().clone();
    let at = env.monotonic() + Duration::from_millis(5);
    let now = machine
        .block_on(async move {
            env.clock.sleep_until(at).await;
            env.monotonic()
        })
        .unwrap();
    assert!(now >= at, "{now:?} < {at:?}");
}

#[test]
fn random_ids_differ_and_have_their_version() {
    let machine = Machine::start();
    let (a, b) = (machine.env().random_uuid(), machine.env().random_uuid());
    assert_ne!(a, b);
    assert_eq!((a.len(), &a[14..15]), (36, "4"));
}

#[test]
fn the_disk_keeps_what_was_written_and_names_the_path_in_errors() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::start();
    let disk = machine.env().disk.clone();
    let path = folder.path().join("log");
    let missing = disk.open(&path, OpenMode::ReadWrite).err().unwrap();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    assert!(missing.to_string().contains("log"), "{missing}");

    let file = disk.open(&path, OpenMode::CreateNew).unwrap();
    assert!(disk.open(&path, OpenMode::CreateNew).is_err());
    file.write_all_at(3, b"abc").unwrap();
    file.allocate(200_000).unwrap();
    assert_eq!(file.len().unwrap(), 200_000);
    let mut read = [9; 8];
    assert_eq!(file.read_at(0, &mut read).unwrap(), 8);
    assert_eq!(&read, b"\0\0\0abc\0\0");
    assert_eq!(file.read_at(200_000, &mut read).unwrap(), 0);
    let synced = Arc::clone(&file);
    machine.block_on(async move { synced.sync_data().await }).unwrap().unwrap();

    disk.rename(&path, &folder.path().join("a")).unwrap();
    disk.create_dir_all(&folder.path().join("b/c")).unwrap();
    assert_eq!(disk.list(folder.path()).unwrap(), ["a", "b"]);
    let here = folder.path().to_owned();
    let sync = disk.sync_dir(&here);
    machine.block_on(sync).unwrap().unwrap();
    assert!(disk.free_bytes(&here).unwrap() > 0);
    disk.remove_file(&folder.path().join("a")).unwrap();
    disk.remove_dir_all(&folder.path().join("b")).unwrap();
    assert!(disk.list(folder.path()).unwrap().is_empty());
}

fn status_of(pid: u32, field: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|it| it.starts_with(field))?;
    Some(line.split_whitespace().nth(1)?.to_owned())
}

#[test]
fn a_detached_process_is_nobodys_child_and_keeps_running() {
    let machine = Machine::start();
    let sleep = Command {
        program: "/bin/sleep".into(),
        args: vec!["60".into()],
        env: Vec::new(),
        dir: Some("/".into()),
    };
    let pid = machine.env().processes.spawn_detached(&sleep).unwrap();
    let us = machine.env().processes.id().to_string();
    let parent = status_of(pid, "PPid").expect("it runs");
    // SAFETY: a signal to the process that this test started.
    assert_eq!(unsafe { libc::kill(pid as i32, libc::SIGKILL) }, 0);
    assert_ne!(parent, us);

    let nothing = Command { program: "/nonexistent/program".into(), ..sleep };
    let refused = machine.env().processes.spawn_detached(&nothing).unwrap_err();
    assert!(refused.to_string().contains("/nonexistent/program"), "{refused}");
}
