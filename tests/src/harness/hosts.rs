//! Several hosts on one machine: each a network namespace with an address of its own, a real kactor, its own disk.
//!
//! The calling thread enters a namespace of its own, "the outside": the bridge that the hosts hang on stands there,
//! so clients that the thread starts reach every host, also one that is cut off from the others, and nothing leaves
//! the machine. Hosts' addresses are 10.203.0.1 and up, the same in every test: each outside is a world of its own.
//! Everything is gone when the value is dropped, also after a panic; after a SIGKILL of the test, the kernel ends
//! the processes and with them the namespaces (only the mount of a small disk would stay).

mod clock;
mod disk;
mod host;
mod space;

use std::net::Ipv4Addr;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

pub use self::host::Host;
use self::space::Space;
use super::patience::{PATIENCE, Patience};
use super::process::Answer;
use super::skip::skip;

/// Where clients stand.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 203, 0, 254);

/// The hosts of one test. Their names are host-1, host-2 and so on.
pub struct Hosts {
    hosts: Vec<Host>,
    _folder: TempDir,
}

impl Hosts {
    /// Makes the hosts and their wires; no kactor runs yet. `None`, with the reason said, where that cannot be done.
    ///
    /// # Panics
    /// When a tool of the machine (`ip`, `nft`) is missing.
    #[track_caller]
    pub fn new(n: u8) -> Option<Self> {
        assert!((1..=32).contains(&n), "between 1 and 32 hosts");
        if !nix::unistd::geteuid().is_root() {
            skip("hosts as network namespaces need root");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("kactor-hosts-").tempdir();
        let folder = folder.expect("a temporary folder can be made");
        unshare(CloneFlags::CLONE_NEWNET).expect("root may make network namespaces");
        let outside = Space::of_this_thread();
        outside.ip("link set lo up");
        outside.ip("link add hosts address 02:00:0a:cb:00:fe type bridge");
        outside.ip(&format!("addr add {OUTSIDE}/24 dev hosts"));
        outside.ip("link set hosts up");
        let hosts = (1..=n).map(|index| {
            let space = Space::new();
            let address = Ipv4Addr::new(10, 203, 0, index);
            let netns = space.path().display();
            outside.ip(&format!("link add h{index} type veth peer name eth0 netns {netns}"));
            outside.ip(&format!("link set h{index} master hosts up"));
            space.ip("link set lo up");
            space.ip(&format!("addr add {address}/24 dev eth0"));
            space.ip("link set eth0 up");
            space.ip(&format!("route add default via {OUTSIDE}"));
            space.nft(
                "table inet kactor_test {
                    set cut { type ipv4_addr; }
                    chain input { type filter hook input priority -400; ip saddr @cut drop; }
                }",
            );
            Host::new(format!("host-{index}"), address, space, folder.path())
        });
        Some(Self { hosts: hosts.collect(), _folder: folder })
    }

    /// One cluster of all the hosts: the first begins it, the others join by the token's own line.
    ///
    /// # Panics
    /// When a host does not serve in time.
    #[track_caller]
    pub fn cluster(n: u8) -> Option<Self> {
        let mut all = Self::new(n)?;
        all.host(0).start();
        for index in 1..all.len() {
            all.join(index, "any");
        }
        all.wait_voters(if n >= 3 { 3 } else { 1 });
        Some(all)
    }

    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Counted from 0: `host(0)` is host-1.
    pub fn host(&mut self, index: usize) -> &mut Host {
        &mut self.hosts[index]
    }

    pub fn all(&self) -> &[Host] {
        &self.hosts
    }

    /// Lets a host in with a new token of that role, made on the first host that runs.
    #[track_caller]
    pub fn join(&mut self, index: usize, role: &str) {
        let line = self.token(role);
        let args: Vec<&str> = line.iter().map(String::as_str).collect();
        self.hosts[index].spawn_with(&args);
        self.hosts[index].wait_ready();
    }

    /// What `kactor token create` tells the next host to say after `kactor up`.
    #[track_caller]
    pub fn token(&mut self, role: &str) -> Vec<String> {
        let answer = self.speaker().kactor(&["token", "create", "--role", role]);
        assert!(answer.is_ok(), "no token: {}", answer.both());
        let line = answer.stdout.lines().find_map(|it| it.trim().strip_prefix("kactor up "));
        let line = line.unwrap_or_else(|| panic!("no line for the next host: {}", answer.both()));
        line.split_whitespace().map(str::to_owned).collect()
    }

    /// A host whose kactor runs and is not frozen.
    #[track_caller]
    fn speaker(&self) -> &Host {
        self.hosts.iter().find(|it| it.is_running()).expect("a host runs")
    }

    /// `kactor status -o json` of a host.
    pub fn status(&self, index: usize) -> Result<serde_json::Value, String> {
        let answer: Answer = self.hosts[index].kactor(&["status", "-o", "json"]);
        serde_json::from_str(&answer.stdout).map_err(|it| format!("{it}: {}", answer.both()))
    }

    /// Waits until a running host's status shows so many voters and a leader.
    #[track_caller]
    pub fn wait_voters(&self, n: usize) {
        let patience = Patience::of(PATIENCE);
        loop {
            let seen: Vec<String> = self.running().map(|it| self.voters_seen(it, n)).collect();
            if seen.iter().all(String::is_empty) {
                return;
            }
            assert!(!patience.is_over(), "not {n} voters: {}", seen.join("\n"));
            patience.pause();
        }
    }

    /// Empty if the host knows a leader and so many voters.
    fn voters_seen(&self, index: usize, n: usize) -> String {
        match self.status(index) {
            Ok(status) => {
                let voters = roles(&status).filter(|it| *it == "voter").count();
                let is_led = self.leader_by(&status).is_some();
                if voters == n && is_led { String::new() } else { format!("{status:#}") }
            }
            Err(why) => why,
        }
    }

    pub fn running(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.hosts.len()).filter(|it| self.hosts[*it].is_running())
    }

    fn leader_by(&self, status: &serde_json::Value) -> Option<usize> {
        let name = status["leader"].as_str()?;
        self.hosts.iter().position(|it| it.name() == name)
    }

    /// The host that the running hosts agree is the leader.
    #[track_caller]
    pub fn leader(&self) -> usize {
        let patience = Patience::of(PATIENCE);
        loop {
            let said: Vec<Option<usize>> = self
                .running()
                .map(|it| self.status(it).ok().and_then(|it| self.leader_by(&it)))
                .collect();
            match said.first() {
                Some(Some(leader))
                    if said.iter().all(|it| it == &said[0]) && self.hosts[*leader].is_running() =>
                {
                    return *leader;
                }
                _ => assert!(!patience.is_over(), "no leader that all know: {said:?}"),
            }
            patience.pause();
        }
    }

    /// What `from` sends does not arrive at `to` any more; the other direction stays as it is.
    pub fn cut(&self, from: usize, to: usize) {
        let address = self.hosts[from].address();
        self.hosts[to].space().nft(&format!("add element inet kactor_test cut {{ {address} }}"));
    }

    /// The host and the others do not hear each other. Clients outside still reach it.
    pub fn isolate(&self, index: usize) {
        for other in (0..self.hosts.len()).filter(|it| *it != index) {
            self.cut(index, other);
            self.cut(other, index);
        }
    }

    /// All wires are whole again.
    pub fn heal(&self) {
        for host in &self.hosts {
            host.space().nft("flush set inet kactor_test cut");
        }
    }

    /// Lets the cluster be for a time in which a fault does its work; no condition tells when it has.
    pub fn endure(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// The roles of all hosts.
pub fn roles(status: &serde_json::Value) -> impl Iterator<Item = &str> {
    let hosts = status["hosts"].as_array().map(Vec::as_slice).unwrap_or_default();
    hosts.iter().filter_map(|it| it["role"].as_str())
}
