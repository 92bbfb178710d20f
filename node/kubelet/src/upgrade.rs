//! `/exec`, `/attach`, `/portForward`: refused before the 101, or the connection belongs to kactor-streams after it.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kactor_runtime::env::{Env, Lane};
use kactor_streams::handshake::{
    Refused, Session, agree_on_command, agree_on_port_forward, shake, transport,
};
use kactor_streams::port_forward::PortForward;
use kactor_streams::query::Query;
use kactor_streams::{AttachRequest, ExecRequest, NodeStreams, StdStreams};
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::kubelet::Refusal;
use crate::reply::{Content, Reply};
use crate::route::Place;

/// What is opened in a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    Exec(Place),
    Attach(Place),
    PortForward(Place),
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::BadRequest(why) => Refusal::BadRequest(why),
            Refused::Forbidden(why) => Refusal::Forbidden(why),
        }
    }
}

pub async fn serve(
    env: &Env,
    nodes: &Arc<dyn NodeStreams>,
    request: Request<Incoming>,
    purpose: Purpose,
) -> Result<Reply, Refusal> {
    if !matches!(request.method().as_str(), "GET" | "POST") {
        return Err(Refusal::MethodNotAllowed);
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let asked = request.headers();
    let transport = transport(asked)?;
    let mut head = Response::new(Content::Bytes(Bytes::new()));
    *head.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    shake(transport, asked, head.headers_mut())?;
    let session = match purpose {
        Purpose::PortForward(place) => {
            let carrier = agree_on_port_forward(transport, asked, head.headers_mut())?;
            Session::PortForward(Box::new(PortForward::new(carrier)), place.pod_target())
        }
        Purpose::Exec(place) => {
            let (streams, target) = (std_streams(&query)?, place.container_target());
            let session = agree_on_command(transport, asked, streams, head.headers_mut())?;
            let command: Vec<String> = query.all("command").map(str::to_owned).collect();
            if command.is_empty() {
                let why = "you must specify at least 1 command for the container";
                return Err(Refusal::BadRequest(why.to_owned()));
            }
            let opened = nodes.open_exec(ExecRequest { target, command, streams }).await?;
            Session::Command(session, opened)
        }
        Purpose::Attach(place) => {
            let (streams, target) = (std_streams(&query)?, place.container_target());
            let session = agree_on_command(transport, asked, streams, head.headers_mut())?;
            Session::Command(session, nodes.open_attach(AttachRequest { target, streams }).await?)
        }
    };
    hand_over(env, Arc::clone(nodes), request, session);
    Ok(head)
}

/// The connection's task begins when hyper gives the connection away, after the 101 was sent.
fn hand_over(env: &Env, nodes: Arc<dyn NodeStreams>, request: Request<Incoming>, session: Session) {
    let upgrade = hyper::upgrade::on(request);
    let clock = env.clone();
    env.spawn(Lane::Node, async move {
        let io = match upgrade.await {
            Ok(upgraded) => TokioIo::new(upgraded).compat(),
            Err(error) => {
                tracing::debug!(%error, "a client of the kubelet's API left before the upgrade");
                return;
            }
        };
        let sleep = move |time| clock.sleep(time);
        if let Err(error) = session.converse(io, &nodes, &sleep).await {
            tracing::debug!(%error, "a stream of the kubelet's API ended with an error");
        }
    });
}

/// The kubelet's own words for them (kubernetes pkg/apis/core: `ExecStdinParam` and so on); those of the API serve
/// too, because some clients send their query on as it is.
fn std_streams(query: &Query) -> Result<StdStreams, Refusal> {
    let streams = StdStreams {
        stdin: query.flag("input") || query.flag("stdin"),
        stdout: query.flag("output") || query.flag("stdout"),
        stderr: query.flag("error") || query.flag("stderr"),
        tty: query.flag("tty"),
    };
    // With a terminal stderr is part of stdout, so it does not count.
    if !streams.stdin && !streams.stdout && (!streams.stderr || streams.tty) {
        let why = "you must specify at least 1 of stdin, stdout, stderr";
        return Err(Refusal::BadRequest(why.to_owned()));
    }
    Ok(streams)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_asked_for_in_the_kubelets_words_or_the_apis() {
        let read = |query: &str| std_streams(&Query::parse(query));
        let both = StdStreams { stdin: true, stdout: true, stderr: false, tty: false };
        assert_eq!(read("input=1&output=1").unwrap(), both);
        assert_eq!(read("stdin=true&stdout=true").unwrap(), both);
        assert!(read("").is_err());
        assert!(read("error=1&tty=1").is_err());
    }
}
