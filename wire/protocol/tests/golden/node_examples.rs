//! Golden examples of what nodes and sessions say to each other.

use bytes::Bytes;
use kactor_protocol::node::*;
use kactor_protocol::{Incarnation, Revision, Timestamp, Uid};

use super::Examples;

pub(super) fn add(out: &mut Examples) {
    sessions(out);
    calls(out);
    feeds(out);
    streams(out);
}

fn sessions(out: &mut Examples) {
    let node = || "n1".to_owned();
    out.request("open", &OpenSession { node: node(), incarnation: Incarnation(70_000) });
    out.reply::<OpenSession>("opened", &Ok(SessionOpened { session: Incarnation(300) }));
    for (variant, refused) in [
        ("other-node", SessionRefused::OtherNode { host: "n2".into(), node: node() }),
        ("not-serving", SessionRefused::NotServing { why: "no leader is known".into() }),
        ("full", SessionRefused::Full { limit: 8192 }),
    ] {
        out.reply::<OpenSession>(variant, &Err(refused));
    }
    let heard = vec![
        HeardNode { node: node(), ago_ms: 0 },
        HeardNode { node: "n2".into(), ago_ms: 70_000 },
    ];
    out.request("heard", &Pulses { heard });
    out.reply::<Pulses>("taken", &());
}

fn calls(out: &mut Examples) {
    let target = ApiTarget {
        group: String::new(),
        version: "v1".into(),
        resource: "pods".into(),
        subresource: Some("status".into()),
        namespace: Some("default".into()),
        name: Some("web".into()),
    };
    for (variant, verb) in [
        ("get", ApiVerb::Get),
        ("list", ApiVerb::List),
        ("create", ApiVerb::Create),
        ("update", ApiVerb::Update),
        ("merge", ApiVerb::MergePatch),
        ("strategic", ApiVerb::StrategicPatch),
        ("delete", ApiVerb::Delete),
    ] {
        let options = vec![("fieldManager".to_owned(), "kubelet".to_owned())];
        let body = Bytes::from_static(b"{}");
        out.request(variant, &CallApi { verb, target: target.clone(), options, body });
    }
    let body = Bytes::from_static(b"{}");
    out.reply::<CallApi>("ok", &Ok(ApiReply { code: 200, body }));
    out.reply::<CallApi>("unanswered", &Err(CallError { why: "no quorum".into() }));
}

fn feeds(out: &mut Examples) {
    let position = FeedPosition { incarnation: 1, revision: Revision(300) };
    for (variant, feed, resume) in [
        ("pods", Feed::Pods, Some(position)),
        ("services", Feed::Services, None),
        ("slices", Feed::EndpointSlices, None),
        ("nodes", Feed::Nodes, None),
    ] {
        out.request(variant, &Follow { feed, resume });
    }
    out.reply::<Follow>("resumed", &Following::Resumed);
    out.reply::<Follow>("anew", &Following::Anew);
    out.reply::<Follow>("unavailable", &Following::Unavailable { why: "no leader".into() });
    let change = |object| ObjectChange {
        namespace: "default".into(),
        name: "web".into(),
        uid: Uid::from("0a1b"),
        revision: Revision(299),
        object,
    };
    for (variant, begin, changes) in [
        ("anew", Begin::Anew, vec![change(Some(Bytes::from_static(b"{}")))]),
        ("continue", Begin::Continue, vec![change(None)]),
        ("complete", Begin::Complete, vec![]),
    ] {
        out.request(variant, &ObjectsChanged { feed: Feed::Pods, begin, position, changes });
    }
    out.reply::<ObjectsChanged>("taken", &());
    out.request("beat", &Heartbeat { at: Timestamp(1_795_262_400_000), sequence: 3 });
    out.reply::<Heartbeat>("taken", &());
}

fn streams(out: &mut Examples) {
    let stream = StreamId(9);
    let channels = Channels { stdin: true, stdout: true, stderr: false, tty: true };
    let container = || "a".to_owned();
    let options = LogOptions {
        follow: true,
        previous: false,
        timestamps: true,
        since: Some(Timestamp(5)),
        tail_lines: Some(10),
        limit_bytes: None,
    };
    for (variant, purpose) in [
        (
            "exec",
            StreamPurpose::Exec { container: container(), command: vec!["sh".into()], channels },
        ),
        ("attach", StreamPurpose::Attach { container: container(), channels }),
        ("connect", StreamPurpose::Connect { port: 80 }),
        ("logs", StreamPurpose::Logs { container: container(), options }),
        ("kubelet", StreamPurpose::Kubelet),
    ] {
        let (namespace, pod) = ("default".to_owned(), "web".to_owned());
        let uid = Some(Uid::from("0a1b"));
        out.request(variant, &OpenStream { stream, namespace, pod, uid, purpose });
    }
    let pod = || "web".to_owned();
    out.reply::<OpenStream>("open", &Ok(()));
    for (variant, error) in [
        ("no-pod", OpenStreamError::NoPod { namespace: "default".into(), pod: pod() }),
        ("no-container", OpenStreamError::NoContainer { pod: pod(), container: container() }),
        (
            "not-started",
            OpenStreamError::NotStarted { pod: pod(), container: container(), reason: "x".into() },
        ),
        ("no-previous", OpenStreamError::NoPrevious { pod: pod(), container: container() }),
        ("failed", OpenStreamError::Failed("x".into())),
        ("overloaded", OpenStreamError::Overloaded { limit: 64 }),
    ] {
        out.reply::<OpenStream>(variant, &Err(error));
    }
    for (variant, channel) in [
        ("stdin", StreamChannel::Stdin),
        ("stdout", StreamChannel::Stdout),
        ("stderr", StreamChannel::Stderr),
    ] {
        out.request(variant, &StreamData { stream, channel, data: Bytes::from_static(b"x") });
    }
    out.reply::<StreamData>("taken", &());
    out.request("credit", &StreamCredit { stream, channel: StreamChannel::Stdout, bytes: 1024 });
    out.reply::<StreamCredit>("taken", &());
    out.request("resize", &StreamResize { stream, columns: 80, rows: 24 });
    out.reply::<StreamResize>("taken", &());
    for (variant, end) in [
        ("exit", StreamEnd::Exit(3)),
        ("failed", StreamEnd::Failed("x".into())),
        ("cancelled", StreamEnd::Cancelled),
    ] {
        out.request(variant, &StreamEnded { stream, end });
    }
    out.reply::<StreamEnded>("taken", &());
}
