//! The power fails at every step of a checkpoint, with what sled holds in memory lost or on disk.
//!
//! Asserted each time: what is loaded is the state at the checkpoint before or at this one, exactly; the log's tail leads
//! from there to the present state; and the next checkpoint, made anywhere on that way, is exact again.

use std::fs;
use std::path::Path;

use super::life::Life;
use crate::applied::{AppliedError, AppliedMeta, AppliedStore, Loaded, SledStore};

/// What the power failure leaves of what sled did not write yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unwritten {
    Lost,
    Kept,
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// Opens a copy of what is on disk now, as the next process would find it.
fn after_a_crash(folder: &Path, to: &Path) -> (SledStore, Option<Loaded>) {
    copy_folder(folder, to);
    let mut store = SledStore::open(to).unwrap();
    let loaded = store.load().unwrap();
    (store, loaded)
}

fn index_of(meta: &AppliedMeta) -> usize {
    usize::try_from(meta.applied.unwrap().index).unwrap()
}

/// One store that dies in step `n_steps` of its last checkpoint; whether it got that far.
fn crash(seed: u64, n_steps: u32, unwritten: Unwritten) -> bool {
    let at = format!("seed {seed}, step {n_steps}, {unwritten:?}");
    let temp = tempfile::tempdir().unwrap();
    let (folder, copy) = (temp.path().join("a"), temp.path().join("b"));
    let mut life = Life::new(seed);
    let mut store = SledStore::open(&folder).unwrap();
    let has_checkpoint = seed != 0;
    if has_checkpoint {
        life.work(60);
        let (rows, meta) = life.checkpoint();
        store.checkpoint(&rows, &meta, life.state().checksum()).unwrap();
    }
    let acknowledged = life.log().len() * usize::from(has_checkpoint);
    life.work(25);
    let (rows, meta) = life.checkpoint();
    store.fail_at(n_steps);
    let done = store.checkpoint(&rows, &meta, life.state().checksum());
    assert!(matches!(done, Ok(()) | Err(AppliedError::Ended)), "{at}: {done:?}");
    if unwritten == Unwritten::Kept {
        store.flush();
    }
    let (mut again, loaded) = after_a_crash(&folder, &copy);
    let found = loaded.as_ref().map_or(0, |it| index_of(&it.meta));
    let expected = [acknowledged, life.log().len()];
    assert!(expected.contains(&found), "{at}: the state at {found}, not at {expected:?}");
    assert!(found == expected[1] || done.is_err(), "{at}: a checkpoint that was made is lost");
    let mut resumed = life.resumed_at(found);
    if let Some(loaded) = loaded {
        assert!(loaded.state == *resumed.state(), "{at}: it is no state that ever was");
    }
    // Some way along the log, and then to its end.
    for until in [found + (life.log().len() - found) / 2, life.log().len()] {
        resumed.catch_up(&life, until);
        let (rows, meta) = resumed.checkpoint();
        again.checkpoint(&rows, &meta, resumed.state().checksum()).unwrap();
        let (_, loaded) = after_a_crash(&copy, &temp.path().join(format!("c{until}-{found}")));
        assert!(loaded.unwrap().state == *resumed.state(), "{at}: the next checkpoint differs");
        if until == life.log().len() {
            break; // Twice the same folder when nothing was left to catch up.
        }
    }
    assert!(resumed.state() == life.state(), "{at}: the log led elsewhere");
    assert_eq!(resumed.state().checksums(), life.state().checksums(), "{at}");
    done.is_err()
}

#[test]
fn a_checkpoint_cut_short_at_any_step_leaves_a_whole_one() {
    for seed in 0..2 {
        for unwritten in [Unwritten::Lost, Unwritten::Kept] {
            let mut n_steps = 0;
            while crash(seed, n_steps, unwritten) {
                n_steps += 1;
            }
            assert!(n_steps > 20, "only {n_steps} steps were cut: the test shows little");
        }
    }
}

#[test]
fn a_rewrite_cut_short_leaves_the_generation_before_it() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("a");
    let mut life = Life::new(9);
    let mut store = SledStore::open(&folder).unwrap();
    life.work(80);
    let (rows, meta) = life.checkpoint();
    store.checkpoint(&rows, &meta, life.state().checksum()).unwrap();
    let before = life.state().clone();
    life.work(80);
    let mut n_steps = 0;
    loop {
        store.fail_next_generation_at(n_steps);
        let done = store.replace(life.state(), &life.meta());
        let (_, loaded) = after_a_crash(&folder, &temp.path().join(format!("b{n_steps}")));
        let state = loaded.unwrap().state;
        if done.is_ok() {
            assert!(state == *life.state());
            break;
        }
        assert!(state == before, "step {n_steps}");
        n_steps += 1;
    }
    assert!(n_steps > 20, "only {n_steps} steps were cut: the test shows little");
    // After as many failures it is a store like any other.
    store.fail_at(u32::MAX);
    life.work(40);
    let (rows, meta) = life.checkpoint();
    store.checkpoint(&rows, &meta, life.state().checksum()).unwrap();
    let (_, loaded) = after_a_crash(&folder, &temp.path().join("last"));
    assert!(loaded.unwrap().state == *life.state());
}

#[test]
fn a_row_that_the_disk_lost_is_found_out() {
    let temp = tempfile::tempdir().unwrap();
    let mut life = Life::new(3);
    let mut store = SledStore::open(temp.path()).unwrap();
    life.work(100);
    let (rows, meta) = life.checkpoint();
    store.checkpoint(&rows, &meta, life.state().checksum()).unwrap();
    let live = life.state().range("/", None, 1, None).unwrap().items.remove(0);
    store.lose(&live.key, live.modified);
    let error = store.load().unwrap_err();
    assert!(matches!(error, AppliedError::Differs { .. }), "{error}");
}
