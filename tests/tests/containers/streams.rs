//! What goes through a connection into a pod: exec, attach, cp, logs, port-forward.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use kactor_tests::harness::kubectl::{Kubectl, with_each};
use kactor_tests::harness::process::Background;
use sha2::{Digest, Sha256};

use super::{cluster, pod, reaches, ready, tool};

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|it| format!("{it:02x}")).collect()
}

/// Bytes without a pattern that a lost or repeated chunk would leave whole.
fn payload(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn exec_carries_input_output_and_the_exit_code() {
    let Some(cluster) = cluster() else { return };
    with_each(&cluster, |kubectl| {
        tool(kubectl, "tool");
        let exec = |command: &[&str]| {
            let args: Vec<&str> =
                ["exec", "-i", "tool", "--"].iter().chain(command).copied().collect();
            kubectl.run_with(&args, "through\n")
        };
        assert_eq!(exec(&["cat"]).stdout, "through\n");
        let failed = exec(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!((failed.code, failed.stdout.as_str()), (7, "out\n"));
        assert!(failed.stderr.contains("err\n"), "{}", failed.stderr);
        let missing = exec(&["no-such-program"]);
        assert!(
            missing.code != 0 && missing.stderr.contains("no-such-program"),
            "{}",
            missing.both()
        );
        // A process that does not read its input is no reason to wait for more of it.
        assert_eq!(exec(&["true"]).code, 0);

        let big = payload(6 << 20);
        let there = kubectl.bytes(&["exec", "-i", "tool", "--", "sha256sum"], &big);
        assert_eq!(String::from_utf8_lossy(&there).split(' ').next(), Some(sum(&big).as_str()));
        let back = kubectl.bytes(&["exec", "-i", "tool", "--", "cat"], &big);
        assert_eq!((back.len(), sum(&back)), (big.len(), sum(&big)));
        kubectl.ok(&["delete", "pod", "tool"]);
    });
}

#[test]
fn a_shell_on_a_terminal_knows_its_size_and_is_interrupted() {
    let Some(cluster) = cluster() else { return };
    with_each(&cluster, |kubectl| {
        tool(kubectl, "tool");
        let mut shell = kubectl.on_terminal(&["exec", "-it", "tool", "--", "sh"]);
        shell.until("# ");
        shell.type_in("until [ \"$(stty size)\" = '24 80' ]; do :; done; echo first-$((1 + 1))\n");
        shell.until("first-2");
        shell.resize(40, 100);
        shell
            .type_in("until [ \"$(stty size)\" = '40 100' ]; do :; done; echo second-$((1 + 1))\n");
        shell.until("second-2");
        shell.type_in("sleep 54321\n");
        kubectl.until(&["exec", "tool", "--", "ps"], |it| it.contains("sleep 54321"));
        shell.type_in("\u{3}");
        shell.until("# ");
        shell.type_in("echo after-$?\n");
        shell.until("after-130");
        shell.type_in("exit 5\n");
        assert_eq!(shell.wait(), 5);
        kubectl.ok(&["delete", "pod", "tool"]);
    });
}

#[test]
fn attach_joins_a_container_with_its_input_and_its_terminal() {
    let Some(cluster) = cluster() else { return };
    with_each(&cluster, |kubectl| {
        let never = "restartPolicy: Never";
        kubectl.give(&pod(
            "once",
            "while read line; do echo got-$line; done; echo end",
            "stdin: true, stdinOnce: true",
            never,
        ));
        ready(kubectl, "once");
        let said = kubectl.ok_with(&["attach", "-i", "once"], "one\ntwo\n");
        assert!(said.contains("got-one\ngot-two\nend\n"), "{said}");
        reaches(kubectl, "once", ".status.phase", |it| it == "Succeeded");

        kubectl.give(&pod("ticks", "while true; do echo tick; sleep 0.2; done", "", never));
        ready(kubectl, "ticks");
        kubectl.start(&["attach", "ticks"]).until("tick");

        kubectl.give(&pod(
            "screen",
            "while read line; do echo saw-$line; done",
            "stdin: true, tty: true",
            never,
        ));
        ready(kubectl, "screen");
        let mut terminal = kubectl.on_terminal(&["attach", "-it", "screen"]);
        terminal.type_in("this\n");
        terminal.until("saw-this");
        terminal.type_in("\u{4}");
        assert_eq!(terminal.wait(), 0);
        kubectl.ok(&["delete", "pod", "once", "ticks", "screen"]);
    });
}

#[test]
fn files_and_folders_are_copied_both_ways() {
    let Some(cluster) = cluster() else { return };
    with_each(&cluster, |kubectl| {
        tool(kubectl, "tool");
        let big = payload(3 << 20);
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir(path("sent")).unwrap();
        std::fs::write(path("sent/big"), &big).unwrap();
        std::fs::write(path("sent/with a space"), "content").unwrap();
        kubectl.ok(&["cp", &path("sent"), "tool:/tmp/sent"]);
        assert_eq!(kubectl.ok(&["exec", "tool", "--", "cat", "/tmp/sent/with a space"]), "content");
        let there = kubectl.ok(&["exec", "tool", "--", "sha256sum", "/tmp/sent/big"]);
        assert_eq!(there.split(' ').next(), Some(sum(&big).as_str()));
        kubectl.ok(&["cp", "tool:/tmp/sent", &path("back")]);
        assert_eq!(sum(&std::fs::read(path("back/big")).unwrap()), sum(&big));
        assert_eq!(std::fs::read(path("back/with a space")).unwrap(), b"content");
        kubectl.ok(&["delete", "pod", "tool"]);
    });
}

#[test]
fn logs_are_followed_to_the_end_and_stay_until_the_pod_is_deleted() {
    let Some(cluster) = cluster() else { return };
    with_each(&cluster, |kubectl| {
        let never = "restartPolicy: Never";
        kubectl.give(&pod(
            "counts",
            "for i in $(seq 1 20); do echo line $i; sleep 0.1; done; echo last",
            "",
            never,
        ));
        let whole: String =
            (1..=20).map(|it| format!("line {it}\n")).collect::<String>() + "last\n";
        reaches(kubectl, "counts", ".status.phase", |it| it != "Pending");
        assert_eq!(kubectl.ok(&["logs", "-f", "counts"]), whole, "followed");
        reaches(kubectl, "counts", ".status.phase", |it| it == "Succeeded");
        // Also when nothing of the pod runs any more.
        assert_eq!(kubectl.ok(&["logs", "counts"]), whole, "afterwards");
        assert_eq!(kubectl.ok(&["logs", "-f", "--tail=2", "counts"]), "line 20\nlast\n");
        assert_eq!(kubectl.ok(&["logs", "--since=1h", "--limit-bytes=6", "counts"]), "line 1");
        assert_eq!(kubectl.ok(&["logs", "--since-time=2100-01-01T00:00:00Z", "counts"]), "");
        let timed = kubectl.ok(&["logs", "--timestamps", "counts"]);
        let (time, text) = timed.lines().next().unwrap().split_once(' ').unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z') && text == "line 1", "{timed}");
        let refused = kubectl.refused(&["logs", "--previous", "counts"]);
        assert!(
            refused.contains("previous terminated container \"main\" in pod \"counts\" not found"),
            "{refused}"
        );

        kubectl.give(&pod("again", "echo run; sleep 1; exit 1", "", ""));
        reaches(kubectl, "again", ".status.containerStatuses[0].restartCount", |it| it >= "1");
        assert_eq!(kubectl.ok(&["logs", "--previous", "again"]), "run\n");
        let uid = kubectl.field("pod/counts", ".metadata.uid");
        kubectl.ok(&["delete", "pod", "counts", "again"]);
        let logs = cluster.data_dir();
        assert!(!holds(&logs, &uid), "the logs went with the pod");
    });
}

/// Whether some path below `folder` names `word`.
fn holds(folder: &std::path::Path, word: &str) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut entries = entries.map(|it| it.path());
    entries.any(|it| it.to_string_lossy().contains(word) || holds(&it, word))
}

#[test]
fn a_forwarded_port_carries_several_connections_and_half_closes() {
    let Some(cluster) = cluster() else { return };
    with_each(&cluster, |kubectl| {
        kubectl.give(&pod("echo", "nc -ll -p 7000 -e cat & nc -ll -p 7001 -e sha256sum", "", ""));
        ready(kubectl, "echo");
        // Both listen: ports 1B58 and 1B59, state 0A.
        let listening = "cat /proc/net/tcp /proc/net/tcp6 | grep -E ':1B5[89] 0*:0000 0A' | wc -l";
        kubectl.until(&["exec", "echo", "--", "sh", "-c", listening], |it| it.trim() == "2");
        let (_forward, ports) = forward(kubectl, "echo", &[7000, 7001]);
        // Two at once, in turns: neither waits for the other's end.
        let mut both = [
            TcpStream::connect(("127.0.0.1", ports[0])).unwrap(),
            TcpStream::connect(("127.0.0.1", ports[0])).unwrap(),
        ];
        for turn in 0..3 {
            for (index, stream) in both.iter_mut().enumerate() {
                let said = format!("{turn}-{index}\n");
                stream.write_all(said.as_bytes()).unwrap();
                let mut heard = vec![0; said.len()];
                stream.read_exact(&mut heard).unwrap();
                assert_eq!(String::from_utf8(heard).unwrap(), said);
            }
        }
        drop(both);
        // The answer comes after the question's end.
        let big = payload(4 << 20);
        let mut stream = TcpStream::connect(("127.0.0.1", ports[1])).unwrap();
        stream.write_all(&big).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer.split(' ').next(), Some(sum(&big).as_str()));
        // And through and back at the same time.
        let stream = TcpStream::connect(("127.0.0.1", ports[0])).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let back = std::thread::scope(|scope| {
            scope.spawn(|| {
                writer.write_all(&big).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            let mut back = Vec::new();
            (&stream).read_to_end(&mut back).unwrap();
            back
        });
        assert_eq!((back.len(), sum(&back)), (big.len(), sum(&big)));
        kubectl.ok(&["delete", "pod", "echo"]);
    });
}

/// `kubectl port-forward` with ports of its choice.
fn forward(kubectl: &Kubectl, pod: &str, ports: &[u16]) -> (Background, Vec<u16>) {
    let wanted: Vec<String> = ports.iter().map(|it| format!(":{it}")).collect();
    let target = format!("pod/{pod}");
    let mut args = vec!["port-forward", "--address=127.0.0.1", &target];
    args.extend(wanted.iter().map(String::as_str));
    let mut forward = kubectl.start(&args);
    let found = ports.iter().map(|port| {
        let line = forward.until(&format!("-> {port}"));
        let local = line.split(':').nth(1).and_then(|it| it.split(' ').next());
        local.and_then(|it| it.parse().ok()).unwrap_or_else(|| panic!("{line}"))
    });
    let found: Vec<u16> = found.collect();
    assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), ports.len());
    (forward, found)
}
