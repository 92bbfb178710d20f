//! `pods/log`: a container's log as a streaming GET.
//!
//! The options are checked as kubernetes pkg/apis/core/validation checks `PodLogOptions`. A pod without a node has
//! no log yet: 204, as upstream. An error after the first byte ends the stream; its text is the log's last line,
//! because the status was sent already.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use kactor_api::{Resource, Status};
use kactor_protocol::time::Timestamp;
use kactor_streams::{ContainerTarget, LogLines, LogRequest, StreamError};

use crate::containers::{find_pod, refused};
use crate::gateway::{Asked, Gateway, method_not_allowed};
use crate::options::invalid_options;
use crate::query::Query;
use crate::reply::{self, Reply, ReplyBody};

/// The options of a log, checked; the container is chosen later.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct LogOptions {
    container: Option<String>,
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail_lines: Option<u64>,
    limit_bytes: Option<u64>,
    since_ms: Option<u64>,
    lines: LogLines,
}

pub(crate) async fn serve(
    gateway: &Gateway,
    asked: &Asked,
    resource: Resource,
) -> Result<Reply, Status> {
    if !matches!(asked.method.as_str(), "GET" | "HEAD") {
        return Err(method_not_allowed());
    }
    let pod = find_pod(gateway, asked, "get", &resource).await?;
    let options = parse(&asked.query, pod.name(), gateway.env.wall())?;
    let container = pod.container(options.container.as_deref())?;
    if pod.node().is_none() {
        return Ok(reply::with_body(204, reply::TEXT, ReplyBody::empty()));
    }
    let target = ContainerTarget { pod: pod.target()?, container };
    let request = LogRequest {
        target,
        follow: options.follow,
        previous: options.previous,
        timestamps: options.timestamps,
        tail_lines: options.tail_lines,
        limit_bytes: options.limit_bytes,
        since_ms: options.since_ms,
        lines: options.lines,
    };
    let log = gateway.nodes.open_logs(request).await.map_err(refused)?;
    let body = ReplyBody::stream(lines(log));
    Ok(reply::with_body(200, "text/plain", body))
}

/// Ends after the first error, whose text it shows.
fn lines(
    log: impl Stream<Item = Result<Bytes, StreamError>> + Send,
) -> impl Stream<Item = Bytes> + Send {
    log.scan(false, |broken, chunk| {
        let item = match chunk {
            _ if *broken => None,
            Ok(bytes) => Some(bytes),
            Err(error) => {
                *broken = true;
                Some(Bytes::from(format!("{error}\n")))
            }
        };
        futures::future::ready(item)
    })
}

fn parse(query: &Query, pod: &str, now: Timestamp) -> Result<LogOptions, Status> {
    let number = |name| query.number(name).map_err(Status::bad_request);
    let mut problems: Vec<(&str, &str, String)> = Vec::new();
    let mut at_least = |field, value: Option<i64>, min: i64| match value {
        Some(value) if value < min => {
            let limit = match min {
                0 => "must be greater than or equal to 0",
                _ => "must be greater than 0",
            };
            problems.push((field, "FieldValueInvalid", format!("Invalid value: {value}: {limit}")));
            None
        }
        value => value.and_then(|it| u64::try_from(it).ok()),
    };
    let tail_lines = at_least("tailLines", number("tailLines")?, 0);
    let limit_bytes = at_least("limitBytes", number("limitBytes")?, 1);
    let since_seconds = at_least("sinceSeconds", number("sinceSeconds")?, 1);
    let since_time = query.text("sinceTime").map(|it| it.parse::<Timestamp>()).transpose();
    let since_time = since_time.map_err(|it| Status::bad_request(it.to_string()))?;
    if since_time.is_some() && query.text("sinceSeconds").is_some() {
        let why = "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified";
        problems.push(("", "FieldValueForbidden", why.to_owned()));
    }
    let lines = match query.get("stream") {
        None | Some("" | "All") => LogLines::All,
        Some("Stdout") => LogLines::Stdout,
        Some("Stderr") => LogLines::Stderr,
        Some(other) => {
            let why = format!(
                "Unsupported value: {other:?}: supported values: \"All\", \"Stderr\", \"Stdout\""
            );
            problems.push(("stream", "FieldValueNotSupported", why));
            LogLines::All
        }
    };
    if lines != LogLines::All && tail_lines.is_some() {
        let why = "Forbidden: `tailLines` and specific `stream` are mutually exclusive for now";
        problems.push(("", "FieldValueForbidden", why.to_owned()));
    }
    if !problems.is_empty() {
        let problems: Vec<(&str, &str, &str)> =
            problems.iter().map(|(field, reason, body)| (*field, *reason, body.as_str())).collect();
        return Err(invalid_options("PodLogOptions", pod, "", &problems));
    }
    let since = since_seconds.map(|it| now.minus(Duration::from_secs(it)));
    Ok(LogOptions {
        container: query.text("container"),
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        tail_lines,
        limit_bytes,
        since_ms: since.or(since_time).map(|it| it.0),
        lines,
    })
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on_stream;

    use super::*;

    fn read(query: &str) -> Result<LogOptions, String> {
        parse(&Query::parse(query), "web", Timestamp(100_000)).map_err(|it| it.message)
    }

    #[test]
    fn options_are_read_and_bad_ones_named() {
        let all = read(
            "container=app&follow=true&tailLines=5&limitBytes=10&sinceSeconds=40&timestamps=true&previous=1",
        );
        assert_eq!(
            all.unwrap(),
            LogOptions {
                container: Some("app".to_owned()),
                follow: true,
                previous: true,
                timestamps: true,
                tail_lines: Some(5),
                limit_bytes: Some(10),
                since_ms: Some(60_000),
                lines: LogLines::All,
            }
        );
        assert_eq!(read("sinceTime=1970-01-01T00:00:07Z").unwrap().since_ms, Some(7_000));
        for (query, message) in [
            (
                "tailLines=-1",
                r#"PodLogOptions "web" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0"#,
            ),
            (
                "limitBytes=0",
                r#"PodLogOptions "web" is invalid: limitBytes: Invalid value: 0: must be greater than 0"#,
            ),
            ("tailLines=x", r#"strconv.ParseInt: parsing "x": invalid syntax"#),
        ] {
            assert_eq!(read(query).unwrap_err(), message);
        }
        assert!(read("sinceTime=1970-01-01T00:00:07Z&sinceSeconds=3").is_err());
    }

    #[test]
    fn a_log_that_breaks_says_why_and_ends() {
        let (mut sender, receiver) = futures::channel::mpsc::channel(4);
        sender.try_send(Ok(Bytes::from("a\n"))).unwrap();
        sender.try_send(Err(StreamError::Failed("the node went away".to_owned()))).unwrap();
        sender.try_send(Ok(Bytes::from("never\n"))).unwrap();
        let shown: Vec<Bytes> = block_on_stream(Box::pin(lines(receiver))).collect();
        assert_eq!(shown, ["a\n", "the node went away\n"]);
    }
}
