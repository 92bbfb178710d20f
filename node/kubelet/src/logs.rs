//! `/containerLogs/NAMESPACE/POD/CONTAINER`: a container's log, with the options of `PodLogOptions`.
//!
//! An error after the first byte ends the stream; its text is the last line, because the status was sent already.

use bytes::Bytes;
use futures::{Stream, StreamExt, future};
use kactor_protocol::Timestamp;
use kactor_streams::query::Query;
use kactor_streams::{LogLines, LogRequest, NodeStreams, StreamError};

use crate::kubelet::Refusal;
use crate::reply::{self, Reply};
use crate::route::Place;

pub async fn serve(
    streams: &dyn NodeStreams,
    place: Place,
    query: &Query,
    now: Timestamp,
) -> Result<Reply, Refusal> {
    let request = request(place, query, now)?;
    let lines = streams.open_logs(request).await?;
    Ok(reply::log(until_broken(lines)))
}

fn until_broken(
    lines: impl Stream<Item = Result<Bytes, StreamError>> + Send,
) -> impl Stream<Item = Bytes> + Send {
    let mut broken = false;
    lines
        .take_while(move |it| {
            let goes_on = !broken;
            broken = it.is_err();
            future::ready(goes_on)
        })
        .map(|it| it.unwrap_or_else(|error| format!("{error}\n").into()))
}

fn request(place: Place, query: &Query, now: Timestamp) -> Result<LogRequest, Refusal> {
    let number = |name: &str, least: i64| -> Result<Option<u64>, Refusal> {
        match query.number(name).map_err(Refusal::BadRequest)? {
            None => Ok(None),
            Some(it) if it >= least => Ok(u64::try_from(it).ok()),
            Some(it) => Err(Refusal::Invalid(format!("{name}: {it} is less than {least}"))),
        }
    };
    let tail_lines = match query.get("tailLines") {
        Some("all") => None, // Older clients of kubelets say so.
        _ => number("tailLines", 0)?,
    };
    let since_seconds = number("sinceSeconds", 1)?;
    let since_time = query.text("sinceTime").map(|it| it.parse::<Timestamp>()).transpose();
    let since_time = since_time.map_err(|it| Refusal::BadRequest(it.to_string()))?;
    if since_time.is_some() && since_seconds.is_some() {
        let why = "at most one of sinceTime and sinceSeconds may be given";
        return Err(Refusal::Invalid(why.to_owned()));
    }
    if query.get("stream").is_some_and(|it| !it.is_empty() && it != "All") {
        let why = "stream: only All is served; stdout and stderr are not told apart yet";
        return Err(Refusal::BadRequest(why.to_owned()));
    }
    let since = since_seconds.map(|it| now.minus(std::time::Duration::from_secs(it)));
    Ok(LogRequest {
        target: place.container_target(),
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        tail_lines,
        limit_bytes: number("limitBytes", 1)?,
        since_ms: since.or(since_time).map(|it| it.0),
        lines: LogLines::All,
    })
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn read(query: &str) -> Result<LogRequest, Refusal> {
        request(Place::default(), &Query::parse(query), Timestamp(100_000))
    }

    #[test]
    fn options_are_those_of_pod_logs() {
        let it =
            read("follow=true&tailLines=5&sinceSeconds=40&limitBytes=10&timestamps=1").unwrap();
        assert!(it.follow && it.timestamps && !it.previous);
        assert_eq!((it.tail_lines, it.limit_bytes, it.since_ms), (Some(5), Some(10), Some(60_000)));
        assert_eq!(read("tailLines=all").unwrap().tail_lines, None);
        assert!(matches!(read("tailLines=x"), Err(Refusal::BadRequest(_))));
        assert!(matches!(read("limitBytes=0"), Err(Refusal::Invalid(_))));
        assert!(matches!(
            read("sinceTime=1970-01-01T00:00:07Z&sinceSeconds=3"),
            Err(Refusal::Invalid(_))
        ));
        assert!(matches!(read("stream=Stderr"), Err(Refusal::BadRequest(_))));
    }

    #[test]
    fn a_log_that_breaks_says_why_and_ends() {
        let broken = Err(StreamError::Failed("the disk went away".to_owned()));
        let lines = stream::iter([Ok(Bytes::from("a\n")), broken, Ok(Bytes::from("never\n"))]);
        let shown: Vec<Bytes> = futures::executor::block_on(until_broken(lines).collect());
        assert_eq!(shown, ["a\n", "the disk went away\n"]);
    }
}
