//! A table of who comes with what, and what the door says.

use super::*;

const NOW: Timestamp = Timestamp(1_000_000);

fn host(name: &str) -> HostId {
    HostId::new(name).unwrap()
}

fn record(role: HostRole, replica: u64, port: u16) -> HostRecord {
    HostRecord {
        key_hash: KeyHash::of(&replica.to_le_bytes()),
        role,
        replica: (role == HostRole::Control).then_some(ReplicaId(replica)),
        cluster: "c".into(),
        address: ([192, 0, 2, 1], port).into(),
        version: "0.1.0".into(),
        level: 1,
        joined_at: Timestamp(1),
        started_at: Timestamp(1),
        leaving: false,
    }
}

fn token(role: TokenRole, uses_max: u32) -> TokenRecord {
    TokenRecord {
        secret_hash: KeyHash::of(b"secret"),
        role,
        created_at: Timestamp(1),
        expires_at: Timestamp(2_000_000),
        uses_max,
        used_by: Vec::new(),
        revoked: false,
    }
}

fn applicant(name: &str) -> Applicant {
    Applicant {
        host: host(name),
        key_hash: KeyHash::of(name.as_bytes()),
        secret_hash: KeyHash::of(b"secret"),
        address: ([192, 0, 2, 1], 9).into(),
        version: "0.1.0".into(),
        level: 1,
    }
}

struct Door {
    token: Option<TokenRecord>,
    hosts: Hosts,
    voters: BTreeSet<ReplicaId>,
}

/// A cluster with control hosts c1… of which the first `n_voters` vote.
fn door(token: TokenRecord, n_control: u64, n_voters: u64) -> Door {
    let records = (1..=n_control)
        .map(|id| (host(&format!("c{id}")), record(HostRole::Control, id, 6000 + id as u16)));
    let voters = (1..=n_voters).map(ReplicaId).collect();
    Door { token: Some(token), hosts: records.collect(), voters }
}

impl Door {
    fn ask(&self, asks: &Applicant) -> Result<Admission, JoinRefused> {
        let books = Books {
            token: self.token.as_ref(),
            hosts: &self.hosts,
            voters: &self.voters,
            level: 1,
            next_replica: ReplicaId(9),
            cluster: "c",
        };
        admit(asks, books, NOW)
    }

    fn role(&self, asks: &Applicant) -> String {
        match self.ask(asks) {
            Ok(it) => format!("{} {:?}", it.record.role, it.record.replica.map(|it| it.0)),
            Err(error) => format!("{error:?}").split([' ', '{']).next().unwrap().to_owned(),
        }
    }
}

#[test]
fn the_first_three_hosts_with_any_tokens_are_control_hosts_and_further_ones_workers() {
    let roles: Vec<String> = [(1, 1), (2, 1), (3, 3), (4, 3)]
        .map(|(n, voters)| door(token(TokenRole::Any, 9), n, voters).role(&applicant("new")))
        .into();
    assert_eq!(roles, ["control Some(9)", "control Some(9)", "worker None", "worker None"]);
}

#[test]
fn a_worker_token_never_makes_a_control_host_and_a_control_token_no_worker() {
    assert_eq!(door(token(TokenRole::Worker, 9), 1, 1).role(&applicant("new")), "worker None");
    assert_eq!(door(token(TokenRole::Control, 9), 3, 3).role(&applicant("new")), "control Some(9)");
    let mut known = door(token(TokenRole::Worker, 9), 2, 1);
    let mut again = applicant("c2");
    again.key_hash = known.hosts[&host("c2")].key_hash;
    assert_eq!(known.role(&again), "WrongRole", "not even one that is a control host");
    known.token = Some(token(TokenRole::Any, 9));
    assert_eq!(known.role(&again), "control Some(9)");
}

#[test]
fn at_most_two_learners_wait() {
    let full = door(token(TokenRole::Control, 9), 5, 3);
    let refused = full.ask(&applicant("new")).unwrap_err();
    assert_eq!(refused, JoinRefused::LearnersWait { waiting: "c4, c5".into() });
    assert_eq!(door(token(TokenRole::Control, 9), 4, 3).role(&applicant("new")), "control Some(9)");
    assert_eq!(door(token(TokenRole::Worker, 9), 5, 3).role(&applicant("new")), "worker None");
}

#[test]
fn a_token_that_does_not_let_in_says_why() {
    let with = |change: fn(&mut TokenRecord)| {
        let mut door = door(token(TokenRole::Any, 1), 1, 1);
        change(door.token.as_mut().unwrap());
        door.role(&applicant("new"))
    };
    assert_eq!(with(|it| it.secret_hash = KeyHash::of(b"guess")), "UnknownToken");
    assert_eq!(with(|it| it.revoked = true), "RevokedToken");
    assert_eq!(with(|it| it.expires_at = NOW), "ExpiredToken");
    assert_eq!(with(|it| it.used_by = vec![host("other")]), "UsedToken");
    assert_eq!(
        with(|it| it.expires_at = NOW.plus(std::time::Duration::from_millis(1))),
        "control Some(9)"
    );
    let none = Door { token: None, ..door(token(TokenRole::Any, 1), 1, 1) };
    assert_eq!(none.role(&applicant("new")), "UnknownToken");
    let mut guessed = door(token(TokenRole::Any, 1), 1, 1);
    guessed.token.as_mut().unwrap().revoked = true;
    let guess = Applicant { secret_hash: KeyHash::of(b"guess"), ..applicant("c1") };
    assert_eq!(guessed.role(&guess), "UnknownToken", "a guess learns nothing");
}

#[test]
fn a_name_belongs_to_one_key_and_a_lost_answer_can_be_asked_for_again() {
    let mut door = door(token(TokenRole::Any, 1), 1, 1);
    assert_eq!(door.role(&applicant("c1")), "NameTaken");
    let first = door.ask(&applicant("new")).unwrap();
    assert_eq!(first.token.used_by, [host("new")]);
    door.token = Some(first.token);
    door.hosts.insert(host("new"), first.record);
    let again = door.ask(&applicant("new")).unwrap();
    assert_eq!(again.token.used_by, [host("new")], "one use is counted once");
    assert_eq!(again.record.replica, Some(ReplicaId(9)), "it gets a fresh replica id each time");
    let replay = Applicant { address: ([192, 0, 2, 1], 10).into(), ..applicant("thief") };
    assert_eq!(door.role(&replay), "UsedToken");
    let same_name = Applicant { key_hash: KeyHash::of(b"thief"), ..applicant("new") };
    assert_eq!(door.role(&same_name), "NameTaken");
}

#[test]
fn a_host_that_leaves_an_address_in_use_and_an_old_kactor_are_refused() {
    let mut door = door(token(TokenRole::Any, 9), 2, 1);
    let elsewhere = Applicant { address: door.hosts[&host("c2")].address, ..applicant("new") };
    assert_eq!(door.role(&elsewhere), "AddressTaken");
    assert_eq!(door.role(&Applicant { level: 0, ..applicant("new") }), "TooOld");
    let mut back = applicant("c2");
    back.key_hash = door.hosts[&host("c2")].key_hash;
    door.hosts.get_mut(&host("c2")).unwrap().leaving = true;
    assert_eq!(door.role(&back), "Leaving");
}
