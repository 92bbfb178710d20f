//! Watches and reads of the store on the model log.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a panic is the failure")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use kactor_protocol::ids::{Revision, Uid};
use kactor_protocol::store::{Key, Precondition, Propose, Value, Write};
use kactor_protocol::time::Deadline;
use kactor_runtime::env::Machine;
use kactor_state::Command;
use kactor_store::{ReadError, Store, WATCH_BUFFER_LEN_MAX, Watch, WatchClosed, WatchItem};

fn with_store<F: Future<Output = ()>>(test: impl FnOnce(Store) -> F) {
    let machine = Machine::with_gateway_lanes(1);
    let store = Store::in_memory(machine.env().clone());
    machine.block_on(test(store)).unwrap();
}

async fn put(store: &Store, key: &str, body: &'static str) -> Revision {
    let write = Write::Put {
        key: Key::parse(key).unwrap(),
        precondition: Precondition::None,
        value: Value {
            storage_version: 1,
            flags: 0,
            uid: Uid::from("u"),
            body: Bytes::from_static(body.as_bytes()),
        },
        expires_at: None,
    };
    let deadline = Deadline::after(store.env().monotonic(), Duration::from_secs(10));
    store.propose(Propose::one(write), deadline).await.unwrap().revision
}

/// What the watch has now: keys with revisions, `~r` for progress.
fn drain(watch: &mut Watch) -> String {
    let mut out = Vec::new();
    loop {
        match watch.next().now_or_never() {
            None => return out.join(" "),
            Some(Ok(WatchItem::Change(it))) => {
                out.push(format!("{}@{}", it.key.name(), it.revision))
            }
            Some(Ok(WatchItem::Progress(at))) => out.push(format!("~{at}")),
            Some(Err(why)) => return [out.join(" "), format!("{why:?}")].join(" "),
        }
    }
}

#[test]
fn a_watch_sees_what_was_and_what_comes_once_and_in_order() {
    with_store(|store| async move {
        put(&store, "//pods/default/a", "1").await;
        put(&store, "//nodes//n", "1").await;
        put(&store, "//pods/other/b", "1").await;
        let mut all = store.watch("", Revision(1)).unwrap();
        let mut pods = store.watch("//pods/", Revision::ZERO).unwrap();
        let mut namespace = store.watch("//pods/default/", Revision::ZERO).unwrap();
        let mut one = store.watch("//pods/other/b", Revision::ZERO).unwrap();
        assert_eq!(drain(&mut pods), "a@1 b@3");
        put(&store, "//pods/default/c", "1").await;
        put(&store, "//pods/default/c", "1").await; // equal bytes: no revision
        put(&store, "//pods/other/b", "2").await;
        assert_eq!(drain(&mut all), "n@2 b@3 c@4 b@5");
        assert_eq!(drain(&mut pods), "c@4 b@5");
        assert_eq!(drain(&mut namespace), "a@1 c@4 ~5");
        assert_eq!(drain(&mut one), "b@3 b@5");
    });
}

#[test]
fn a_watch_from_the_future_skips_what_comes_below_it() {
    with_store(|store| async move {
        let mut watch = store.watch("", Revision(2)).unwrap();
        assert_eq!(drain(&mut watch), "");
        for name in ["a", "b", "c"] {
            put(&store, &format!("//pods/default/{name}"), "1").await;
        }
        assert_eq!(drain(&mut watch), "c@3");
    });
}

#[test]
fn a_labelled_watch_sees_arrivals_changes_and_departures() {
    with_store(|store| async move {
        store.set_label(
            "//pods/",
            Arc::new(|it| std::str::from_utf8(&it.value.body).ok().map(Arc::from)),
        );
        let mut n1 = store.watch_label("//pods/", "n1", Revision::ZERO).unwrap();
        assert_eq!(drain(&mut n1), "");
        put(&store, "//pods/default/a", "n1").await;
        put(&store, "//pods/default/b", "n2").await;
        put(&store, "//pods/default/a", "n2").await;
        put(&store, "//pods/default/a", "n3").await;
        assert_eq!(drain(&mut n1), "a@1 a@3 ~4");
        let mut late = store.watch_label("//pods/", "n1", Revision::ZERO).unwrap();
        assert_eq!(drain(&mut late), "a@1 a@3 ~4");
    });
}

#[test]
fn a_slow_watcher_is_closed_and_can_resume() {
    with_store(|store| async move {
        let mut slow = store.watch("//pods/", Revision::ZERO).unwrap();
        assert_eq!(drain(&mut slow), "");
        for nth in 0..=WATCH_BUFFER_LEN_MAX {
            let body = if nth.is_multiple_of(2) { "even" } else { "odd" };
            put(&store, "//pods/default/a", body).await;
        }
        assert_eq!(slow.next().await, Err(WatchClosed::Slow));
        let mut resumed = store.watch("//pods/", Revision::ZERO).unwrap();
        let n_changes = drain(&mut resumed).split(' ').count();
        assert_eq!(n_changes, WATCH_BUFFER_LEN_MAX + 1);
    });
}

#[test]
fn compaction_and_restore_end_watches_as_they_should() {
    with_store(|store| async move {
        let deadline = Deadline::after(store.env().monotonic(), Duration::from_secs(10));
        for body in ["1", "2", "3"] {
            put(&store, "//pods/default/a", body).await;
        }
        let mut behind = store.watch("", Revision(1)).unwrap();
        let mut live = store.watch("", Revision(3)).unwrap();
        assert_eq!(drain(&mut live), "");
        let now = store.env().wall();
        store.submit(Command::Compact { now, revision: Revision(3) }, deadline).await.unwrap();
        assert_eq!(drain(&mut behind), " Compacted");
        assert_eq!(drain(&mut live), "", "it saw all that was compacted");
        assert!(store.watch("", Revision(2)).is_err());
        store.submit(Command::BeginEpoch { now }, deadline).await.unwrap();
        assert_eq!(drain(&mut live), " Restored");
    });
}

#[test]
fn waiting_for_a_revision_ends_when_it_is_there_or_at_the_deadline() {
    with_store(|store| async move {
        let soon = Deadline::after(store.env().monotonic(), Duration::from_millis(20));
        assert_eq!(store.wait_applied(Revision(1), soon).await, Err(ReadError::Timeout));
        let later = Deadline::after(store.env().monotonic(), Duration::from_secs(10));
        let waits = store.wait_applied(Revision(1), later);
        let (waited, _) = futures::future::join(waits, put(&store, "//pods/default/a", "1")).await;
        assert_eq!(waited, Ok(()));
        assert_eq!(store.read_index(later).await, Ok(Revision(1)));
        store.table().stop();
        assert_eq!(store.wait_applied(Revision(9), later).await, Err(ReadError::Stopped));
        let mut watch = store.watch("", Revision(1)).unwrap();
        assert_eq!(watch.next().await, Err(WatchClosed::Stopped));
    });
}
