//! The records on a model store: what two who write at once come to.

use kactor_runtime::env::Env;

use super::*;

const SOON: Duration = Duration::from_secs(5);

fn records() -> Records {
    Records::new(Store::in_memory(Env::machine()), "c".to_owned())
}

fn deadline(records: &Records) -> Deadline {
    Deadline::after(records.store.env().monotonic(), SOON)
}

async fn token(records: &Records, role: TokenRole, uses: u32) -> Token {
    let wanted = (role, Duration::from_secs(60), uses);
    records.create_token(KeyHash::of(b"ca"), wanted, deadline(records)).await.unwrap()
}

fn applicant(name: &str, token: &Token) -> Applicant {
    let port = 6000 + name.bytes().map(u16::from).sum::<u16>();
    Applicant {
        host: HostId::new(name).unwrap(),
        key_hash: KeyHash::of(name.as_bytes()),
        secret_hash: token.secret_hash(),
        address: ([192, 0, 2, 1], port).into(),
        version: "0.1.0".into(),
        level: 1,
    }
}

async fn join(records: &Records, name: &str, token: &Token) -> Result<HostRecord, RecordError> {
    let voters = [FIRST_REPLICA].into();
    records.join(&applicant(name, token), &token.id, &voters, deadline(records)).await
}

#[tokio::test]
async fn hosts_that_join_at_once_get_replica_ids_of_their_own() {
    let records = records();
    let token = token(&records, TokenRole::Control, 10).await;
    let (b, c) = tokio::join!(join(&records, "b", &token), join(&records, "c", &token));
    let ids = [b.unwrap().replica.unwrap().0, c.unwrap().replica.unwrap().0];
    assert_eq!(BTreeSet::from(ids), BTreeSet::from([2, 3]), "1 is the first host's");
    assert_eq!(records.hosts().len(), 2);
    let error = join(&records, "d", &token).await.unwrap_err().to_string();
    assert!(error.contains("(b, c)") && error.contains("kactor leave"), "{error}");
}

#[tokio::test]
async fn a_token_for_one_host_lets_in_one_of_many_that_race_for_it() {
    let records = records();
    let token = token(&records, TokenRole::Worker, 1).await;
    let all = ["a", "b", "c", "d"].map(|name| join(&records, name, &token));
    let outcomes = futures::future::join_all(all).await;
    assert_eq!(outcomes.iter().filter(|it| it.is_ok()).count(), 1, "{outcomes:?}");
    assert_eq!(records.hosts().len(), 1);
    let (_, kept) = records.tokens().pop().unwrap();
    assert_eq!(kept.used_by.len(), 1);
    assert_eq!(kept.secret_hash, token.secret_hash(), "and of the secret only the hash");
}

#[tokio::test]
async fn a_revoked_token_lets_nobody_in_and_an_unknown_one_cannot_be_revoked() {
    let records = records();
    let token = token(&records, TokenRole::Any, 10).await;
    assert!(records.revoke_token(&token.id, deadline(&records)).await.unwrap());
    assert!(!records.revoke_token("00000000", deadline(&records)).await.unwrap());
    let error = join(&records, "b", &token).await.unwrap_err();
    assert!(matches!(error, RecordError::Refused(JoinRefused::RevokedToken)), "{error}");
}

#[tokio::test]
async fn tokens_that_would_live_too_long_or_let_in_nobody_are_not_made() {
    let records = records();
    let make = |ttl, uses| {
        let wanted = (TokenRole::Any, ttl, uses);
        let (records, at) = (records.clone(), deadline(&records));
        async move { records.create_token(KeyHash::of(b"ca"), wanted, at).await }
    };
    for (ttl, uses) in [(Duration::ZERO, 1), (TTL_MAX + SOON, 1), (SOON, 0), (SOON, 1001)] {
        assert!(make(ttl, uses).await.is_err(), "{ttl:?} {uses}");
    }
    assert!(records.tokens().is_empty());
}

#[tokio::test]
async fn a_host_tells_of_itself_only_what_differs_and_an_unknown_one_nothing() {
    let records = records();
    let token = token(&records, TokenRole::Any, 10).await;
    let host = HostId::new("b").unwrap();
    let moved = ([192, 0, 2, 99], 6443).into();
    let unknown = records.update_host(&host, |it| it.address = moved, None, deadline(&records));
    assert!(unknown.await.is_err());
    join(&records, "b", &token).await.unwrap();
    for _ in 0..2 {
        let told = records.update_host(&host, |it| it.address = moved, None, deadline(&records));
        told.await.unwrap();
    }
    assert_eq!(records.host(&host).unwrap().address, moved);
    let before = records.store.revision();
    records.update_host(&host, |it| it.address = moved, None, deadline(&records)).await.unwrap();
    assert_eq!(records.store.revision(), before, "the same again writes nothing");
}

#[tokio::test]
async fn the_last_control_host_cannot_leave_and_others_are_forgotten_by_the_leader() {
    let records = records();
    let token = token(&records, TokenRole::Any, 10).await;
    join(&records, "b", &token).await.unwrap();
    let (b, c) = (HostId::new("b").unwrap(), HostId::new("c").unwrap());
    let error = records.leave(&b, deadline(&records)).await.unwrap_err().to_string();
    assert!(error.contains("only control host"), "{error}");
    join(&records, "c", &token).await.unwrap();
    records.leave(&b, deadline(&records)).await.unwrap();
    assert!(records.host(&b).unwrap().leaving);
    assert!(records.leave(&c, deadline(&records)).await.is_err(), "b is no longer counted");
    let old = Reign(records.store.reign().0 - 1);
    assert!(records.forget(&b, old, deadline(&records)).await.is_err(), "a deposed leader's");
    records.forget(&b, records.store.reign(), deadline(&records)).await.unwrap();
    assert_eq!(records.host(&b), None);
}
