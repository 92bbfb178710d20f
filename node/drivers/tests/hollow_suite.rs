//! The hollow driver through the suite of all drivers: what it does, and what it says that it pretends.

use std::sync::Arc;

use kactor_drivers::Driver;
use kactor_drivers::hollow::HollowDriver;
use kactor_drivers::suite::{self, CASES, Outcome, Subject};
use kactor_runtime::env::Machine;

/// What a driver without processes can do all the same.
const HONEST: [&str; 2] = ["repeated requests", "exit event"];

#[test]
fn the_hollow_driver_passes_what_it_does_not_pretend() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::start();
    let env = machine.env().clone();
    let driver = Arc::new(HollowDriver::new(env.clone()));
    driver.set_pod_cidr("10.9.8.0/24").unwrap();
    let names = CASES.iter().map(|it| it.name).filter(|it| !HONEST.contains(it));
    let subject = Subject {
        driver: driver.clone(),
        env,
        dir: dir.path().to_owned(),
        restart: Box::new(move || {
            let driver = driver.clone() as Arc<dyn Driver>;
            Box::pin(async { driver })
        }),
        leftovers: Box::new(|_| Vec::new()),
        pretends: names.map(|it| (it, "pretends: it runs no process")).collect(),
    };
    let report = machine.block_on(suite::run(&subject)).unwrap();
    eprintln!("{report}");
    let n_ok = report.rows.iter().filter(|(_, it)| *it == Outcome::Ok).count();
    assert_eq!((report.failures(), n_ok), (0, HONEST.len()), "{report}");
}
