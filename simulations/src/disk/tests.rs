//! What the disk may lose, and what it must not.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use futures::executor::block_on;
use kactor_runtime::env::{Disk, OpenMode};
use proptest::prelude::*;

use super::{FaultyDisk, SECTOR_BYTES, Torn};
use crate::chance::Chance;

const F: &str = "/data/f";

fn disk(seed: u64) -> FaultyDisk {
    let disk = FaultyDisk::new(Chance::new(seed, "disk"), |_| {});
    disk.create_dir_all(Path::new("/data")).unwrap();
    block_on(disk.sync_dir(Path::new("/"))).unwrap();
    disk
}

/// A file with durable bytes under a durable name.
fn with_durable(disk: &FaultyDisk, bytes: &[u8]) {
    let file = disk.open(Path::new(F), OpenMode::CreateNew).unwrap();
    file.write_all_at(0, bytes).unwrap();
    block_on(file.sync_data()).unwrap();
    block_on(disk.sync_dir(Path::new("/data"))).unwrap();
}

fn read(disk: &FaultyDisk, path: &str) -> io::Result<Vec<u8>> {
    let file = disk.open(Path::new(path), OpenMode::Read)?;
    let mut bytes = vec![0; file.len()? as usize];
    let n = file.read_at(0, &mut bytes)?;
    assert_eq!(n, bytes.len());
    Ok(bytes)
}

#[test]
fn synced_bytes_under_a_synced_name_survive_every_crash() {
    for seed in 0..200 {
        let disk = disk(seed);
        with_durable(&disk, &[7; 3000]);
        disk.crash();
        disk.crash();
        assert_eq!(read(&disk, F).unwrap(), [7; 3000]);
    }
}

#[test]
fn unsynced_sectors_survive_in_any_subset_and_torn() {
    let mut seen = BTreeSet::new();
    for seed in 0..300 {
        let disk = disk(seed);
        with_durable(&disk, &[1; 2 * SECTOR_BYTES]);
        let file = disk.open(Path::new(F), OpenMode::ReadWrite).unwrap();
        file.write_all_at(0, &[2; 2 * SECTOR_BYTES]).unwrap();
        disk.crash();
        let bytes = read(&disk, F).unwrap();
        let state = |sector: &[u8]| match sector.iter().filter(|it| **it == 2).count() {
            0 => "old",
            SECTOR_BYTES => "new",
            _ => "torn",
        };
        seen.insert((state(&bytes[..SECTOR_BYTES]), state(&bytes[SECTOR_BYTES..])));
    }
    assert_eq!(seen.len(), 9, "all of old, new and torn for each of both: {seen:?}");
}

#[test]
fn sectors_stay_whole_when_asked() {
    for seed in 0..200 {
        let disk = disk(seed);
        disk.set_torn(Torn::BetweenSectors);
        with_durable(&disk, &[1; SECTOR_BYTES]);
        disk.open(Path::new(F), OpenMode::ReadWrite).unwrap().write_all_at(0, &[2; 512]).unwrap();
        disk.crash();
        let bytes = read(&disk, F).unwrap();
        assert!(bytes.iter().all(|it| *it == bytes[0]));
    }
}

#[test]
fn a_name_whose_folder_was_not_synced_may_be_lost_though_its_bytes_were_synced() {
    let survives = |seed| {
        let disk = disk(seed);
        let file = disk.open(Path::new(F), OpenMode::CreateNew).unwrap();
        file.write_all_at(0, b"abc").unwrap();
        block_on(file.sync_data()).unwrap();
        disk.crash();
        disk.exists(Path::new(F))
    };
    let outcomes: BTreeSet<bool> = (0..50).map(survives).collect();
    assert_eq!(outcomes.len(), 2);
}

#[test]
fn a_rename_is_never_half_done_and_brings_only_synced_bytes() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let disk = disk(seed);
        with_durable(&disk, b"old");
        let new = disk.open(Path::new("/data/new"), OpenMode::CreateNew).unwrap();
        new.write_all_at(0, b"new").unwrap();
        disk.rename(Path::new("/data/new"), Path::new(F)).unwrap();
        disk.crash();
        seen.insert(read(&disk, F).expect("one of both stands there"));
    }
    assert!(seen.contains(&b"old"[..]) && seen.contains(&b"new"[..]), "{seen:?}");
    assert!(seen.contains(&b""[..]), "renamed before its bytes were synced: {seen:?}");
}

#[test]
fn a_failed_sync_forgets_what_was_unsynced_so_that_the_next_one_lies() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = disk(seed);
        with_durable(&disk, &[1; SECTOR_BYTES]);
        let file = disk.open(Path::new(F), OpenMode::ReadWrite).unwrap();
        file.write_all_at(0, &[2; SECTOR_BYTES]).unwrap();
        disk.fail_syncs(1);
        block_on(file.sync_data()).unwrap_err();
        block_on(file.sync_data()).unwrap();
        disk.crash();
        lost += u32::from(read(&disk, F).unwrap() == [1; SECTOR_BYTES]);
    }
    assert!((1..50).contains(&lost), "a program that retries a failed sync loses data: {lost}");
}

#[test]
fn a_full_disk_refuses_growth_and_takes_overwrites() {
    let disk = disk(1);
    with_durable(&disk, &[1; 1000]);
    disk.set_capacity(1500);
    let file = disk.open(Path::new(F), OpenMode::ReadWrite).unwrap();
    file.write_all_at(0, &[2; 1000]).unwrap();
    assert_eq!(disk.free_bytes(Path::new("/")).unwrap(), 500);
    for refused in [file.write_all_at(900, &[3; 601]), file.allocate(1501)] {
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
    disk.remove_file(Path::new(F)).unwrap();
    assert_eq!(disk.free_bytes(Path::new("/")).unwrap(), 1500);
}

#[test]
fn syncs_are_counted_by_path() {
    let disk = disk(1);
    with_durable(&disk, b"x");
    let file = disk.open(Path::new(F), OpenMode::ReadWrite).unwrap();
    file.write_all_at(0, b"y").unwrap();
    assert_eq!(disk.syncs_of(Path::new(F)), 1, "a write is no sync");
    block_on(file.sync_data()).unwrap();
    assert_eq!((disk.syncs_of(Path::new(F)), disk.syncs_of(Path::new("/data"))), (2, 1));
    assert_eq!(disk.syncs(), 4);
}

#[test]
fn what_is_written_while_a_slow_sync_runs_is_not_made_durable_by_it() {
    crate::World::run(1, |world| async move {
        let host = world.host("n1");
        let disk = host.disk();
        disk.create_dir_all(Path::new("/data")).unwrap();
        disk.sync_dir(Path::new("/")).await.unwrap();
        with_durable(disk, &[1; 512]);
        disk.set_sync_time(Duration::from_millis(50));
        disk.set_torn(Torn::BetweenSectors);
        let file = disk.open(Path::new(F), OpenMode::ReadWrite).unwrap();
        file.write_all_at(0, &[2; 512]).unwrap();
        let sync = file.sync_data();
        let before = world.now();
        let later = async {
            world.sleep(Duration::from_millis(10)).await;
            file.write_all_at(0, &[3; 512]).unwrap();
        };
        let (synced, ()) = futures::join!(sync, later);
        synced.unwrap();
        assert_eq!(world.now() - before, Duration::from_millis(50));
        host.crash().await;
        let bytes = read(disk, F).unwrap();
        assert!(bytes == [2; 512] || bytes == [3; 512], "never what was there before the sync");
    });
}

#[test]
fn a_flipped_bit_is_seen_at_once_and_after_a_crash() {
    let disk = disk(1);
    with_durable(&disk, &[0; 10]);
    assert!(disk.flip_bit(Path::new(F), 3, 6));
    assert!(!disk.flip_bit(Path::new(F), 10, 0), "outside of the file");
    assert_eq!(read(&disk, F).unwrap()[3], 64);
    disk.crash();
    assert_eq!(read(&disk, F).unwrap()[3], 64);
}

#[test]
fn names_are_refused_as_a_file_system_refuses_them() {
    let disk = disk(1);
    let open = |path: &str, mode| disk.open(Path::new(path), mode).err().map(|it| it.kind());
    assert_eq!(open("/nowhere/f", OpenMode::CreateNew), Some(io::ErrorKind::NotFound));
    assert_eq!(open(F, OpenMode::ReadWrite), Some(io::ErrorKind::NotFound));
    with_durable(&disk, b"x");
    assert_eq!(open(F, OpenMode::CreateNew), Some(io::ErrorKind::AlreadyExists));
    assert_eq!(open("/data", OpenMode::Read), Some(io::ErrorKind::IsADirectory));
    let file = disk.open(Path::new(F), OpenMode::Read).unwrap();
    let refused = file.write_all_at(0, b"y").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    disk.rename(Path::new("/data"), Path::new("/moved")).unwrap();
    assert_eq!(disk.list(Path::new("/moved")).unwrap(), ["f"]);
    disk.remove_dir_all(Path::new("/moved")).unwrap();
    assert!(!disk.exists(Path::new("/moved/f")));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a plain vector: without a crash the disk is a disk, and what was synced is never lost.
    #[test]
    fn reads_see_writes_and_crashes_keep_what_was_synced(
        seed in any::<u64>(),
        writes in proptest::collection::vec((0_usize..4000, 1_usize..900, any::<u8>()), 1..12),
        n_synced in 0_usize..12,
    ) {
        let disk = disk(seed);
        with_durable(&disk, b"");
        let file = disk.open(Path::new(F), OpenMode::ReadWrite).unwrap();
        let mut model: Vec<u8> = Vec::new();
        let mut synced = model.clone();
        let mut touched_since = BTreeSet::new();
        for (nth, (at, len, byte)) in writes.into_iter().enumerate() {
            file.write_all_at(at as u64, &vec![byte; len]).unwrap();
            if model.len() < at + len {
                model.resize(at + len, 0);
            }
            model[at..at + len].fill(byte);
            touched_since.extend(at / SECTOR_BYTES..=(at + len - 1) / SECTOR_BYTES);
            prop_assert_eq!(&read(&disk, F).unwrap(), &model);
            if nth + 1 == n_synced {
                block_on(file.sync_data()).unwrap();
                synced = model.clone();
                touched_since.clear();
            }
        }
        disk.crash();
        let left = read(&disk, F).unwrap();
        prop_assert!(left.len() >= synced.len());
        for (at, byte) in synced.iter().enumerate() {
            if !touched_since.contains(&(at / SECTOR_BYTES)) {
                prop_assert_eq!(left[at], *byte, "byte {} was synced", at);
            }
        }
    }
}
