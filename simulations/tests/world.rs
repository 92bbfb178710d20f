//! The world's own promises: virtual time, a fixed date, crashes that end everything.

#![allow(clippy::unwrap_used, reason = "a test's failure is a panic")]

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kactor_protocol::Timestamp;
use kactor_runtime::env::{Command, Lane, OpenMode};
use kactor_simulations::World;

#[test]
fn the_wall_clock_begins_at_a_fixed_date_and_moves_with_virtual_time() {
    World::run(1, |world| async move {
        let host = world.host("n1");
        assert_eq!(host.env().wall().to_string(), "2026-01-01T00:00:00Z");
        host.env().sleep(Duration::from_secs(86_400)).await;
        assert_eq!(host.env().wall().to_string(), "2026-01-02T00:00:00Z");
        assert_eq!(host.env().monotonic(), Duration::from_secs(86_400));
    });
}

#[test]
fn a_clock_jump_moves_the_wall_of_one_host_and_no_monotonic_time() {
    World::run(1, |world| async move {
        let (a, b) = (world.host("a"), world.host("b"));
        world.sleep(Duration::from_secs(10)).await;
        a.set_wall(Timestamp(5));
        world.sleep(Duration::from_secs(1)).await;
        assert_eq!(a.env().wall(), Timestamp(1005));
        assert_eq!(b.env().wall().to_string(), "2026-01-01T00:00:11Z");
        assert_eq!(a.env().monotonic(), b.env().monotonic());
    });
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_crash_drops_the_tasks_of_one_host_and_kills_its_open_files() {
    World::run(1, |world| async move {
        let (a, b) = (world.host("a"), world.host("b"));
        let dropped = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        for (host, dropped) in [&a, &b].into_iter().zip(&dropped) {
            let guard = SetOnDrop(dropped.clone());
            let sleep = host.env().sleep(Duration::from_secs(3600));
            host.env().spawn(Lane::Control, async move {
                sleep.await;
                drop(guard);
            });
        }
        world.sleep(Duration::from_secs(1)).await;
        let file = a.env().disk.open(Path::new("/f"), OpenMode::CreateNew).unwrap();
        a.crash().await;
        assert!(dropped[0].load(Ordering::Relaxed) && !dropped[1].load(Ordering::Relaxed));
        assert!(file.write_all_at(0, b"x").is_err(), "a handle from before the crash is dead");
    });
}

#[test]
#[should_panic(expected = "tasks panicked: [\"a: on purpose\"]")]
fn a_panic_that_nobody_caught_fails_the_run() {
    World::run(1, |world| async move {
        world.host("a").env().spawn(Lane::Control, async { panic!("on purpose") });
        world.sleep(Duration::from_secs(1)).await;
    });
}

#[test]
fn chance_of_one_host_does_not_move_that_of_another() {
    let draw = |first: &'static str| {
        World::run(3, |world| async move {
            world.host(first).env().random_u64();
            world.host("n1").env().random_uuid()
        })
    };
    assert_eq!(draw("a"), draw("b"));
}

#[test]
fn no_real_process_is_started() {
    World::run(1, |world| async move {
        let ls = Command { program: "/bin/ls".into(), args: vec![], env: vec![], dir: None };
        let refused = world.host("n1").env().processes.spawn_detached(&ls).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::Unsupported);
    });
}

#[test]
fn an_hour_of_timers_runs_in_order() {
    let order = World::run(1, |world| async move {
        let host = world.host("n1");
        let last = Rc::new(Cell::new(0));
        for nth in (1..=360_u64).rev() {
            host.env().sleep(Duration::ZERO).await;
            let sleep = host.env().clock.sleep_until(Duration::from_secs(nth * 10));
            let (world, env) = (world.clone(), host.env().clone());
            let _ = (&world, &last);
            let trace = world.trace().clone();
            host.env().spawn(Lane::Control, async move {
                sleep.await;
                trace.write(env.monotonic(), nth);
            });
        }
        world.sleep(Duration::from_secs(3601)).await;
        let lines = world.trace().lines();
        lines.iter().filter_map(|it| it.split(' ').next_back()?.parse().ok()).collect::<Vec<u64>>()
    });
    assert_eq!(order, (1..=360).collect::<Vec<_>>());
}
