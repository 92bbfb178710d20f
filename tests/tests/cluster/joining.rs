//! Who is let in and who is not, by what the refused host is told.

use kactor_tests::harness::Hosts;

/// What `kactor up` with these arguments says when it ends.
#[track_caller]
fn refused(hosts: &mut Hosts, index: usize, args: &[String]) -> String {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    hosts.host(index).spawn_with(&args);
    assert!(!hosts.host(index).wait_end().success(), "it was let in");
    hosts.all()[index].output()
}

/// The token in `--join HOST --token TOKEN`.
fn token(line: &mut [String]) -> &mut String {
    line.last_mut().unwrap()
}

#[test]
fn a_token_lets_in_as_often_as_it_says_and_not_after_it_was_revoked() {
    let Some(mut hosts) = Hosts::new(3) else { return };
    hosts.host(0).start();
    let answer = hosts.host(0).kactor(&["token", "create", "--uses", "1"]);
    let line = answer.stdout.lines().find_map(|it| it.trim().strip_prefix("kactor up "));
    let line: Vec<String> = line.unwrap().split_whitespace().map(str::to_owned).collect();
    let args: Vec<&str> = line.iter().map(String::as_str).collect();
    hosts.host(1).spawn_with(&args);
    hosts.host(1).wait_ready();
    let said = refused(&mut hosts, 2, &line);
    assert!(said.contains("1 use(s) and let in host-2"), "{said}");
    let mut line = hosts.token("any");
    let id = token(&mut line).split('.').next().unwrap().to_owned();
    assert!(hosts.host(0).kactor(&["token", "revoke", &id]).is_ok());
    let said = refused(&mut hosts, 2, &line);
    assert!(said.contains("revoked") || said.contains("unknown"), "{said}");
}

#[test]
fn a_token_of_another_authority_sends_no_secret_and_says_so() {
    let Some(mut hosts) = Hosts::new(3) else { return };
    hosts.host(0).start();
    hosts.host(1).start(); // Another cluster.
    let mut line = hosts.token("any");
    let foreign = hosts.all()[1].server();
    // The line leads to a host of the other cluster.
    let at = line.iter().position(|it| it == "--join").unwrap();
    line[at + 1] = foreign;
    let said = refused(&mut hosts, 2, &line);
    assert!(said.contains("authority") || said.contains("CA"), "{said}");
    // A secret that is not the token's.
    let mut line = hosts.token("any");
    let text = token(&mut line).clone();
    let mut parts: Vec<String> = text.split('.').map(str::to_owned).collect();
    parts[1] = parts[1].chars().rev().collect();
    *token(&mut line) = parts.join(".");
    let said = refused(&mut hosts, 2, &line);
    assert!(said.contains("token"), "{said}");
}

#[test]
fn a_host_of_one_cluster_does_not_join_another() {
    let Some(mut hosts) = Hosts::new(2) else { return };
    hosts.host(0).start();
    hosts.host(1).start();
    assert!(hosts.host(1).stop().success());
    let line = hosts.token("any");
    let said = refused(&mut hosts, 1, &line);
    assert!(said.contains("cluster"), "{said}");
}
