//! Exec, attach and port-forward: the HTTP upgrade, then the connection belongs to kactor-streams.
//!
//! Everything that can be refused is refused before the 101: permission, pod, container, protocol, and the node's
//! own no. After it the status travels on the session's error stream. WebSockets upgrade by GET, which RBAC calls
//! `get`; as Kubernetes since 1.35 that needs `create` too, so that a reader of pods cannot run commands in them.

use std::sync::Arc;

use http::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use kactor_api::{Attributes, Reason, Resource, Status};
use kactor_streams::handshake::{
    Refused, Session, agree_on_command, agree_on_port_forward, shake, transport,
};
use kactor_streams::port_forward::PortForward;
use kactor_streams::{AttachRequest, ExecRequest, StdStreams};
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::containers::{find_pod, refused};
use crate::gateway::{Asked, Gateway, method_not_allowed};
use crate::query::Query;
use crate::reply::{Reply, ReplyBody};

pub(crate) async fn serve(
    gateway: &Arc<Gateway>,
    asked: Asked,
    resource: Resource,
) -> Result<Reply, Status> {
    let verb = match asked.method.as_str() {
        "GET" => "get",
        "POST" => "create",
        _ => return Err(method_not_allowed()),
    };
    let pod = find_pod(gateway, &asked, verb, &resource).await?;
    if verb == "get" {
        gateway.api.require(&Attributes::new(&asked.caller.user, "create", &resource))?;
    }
    let transport = transport(&asked.headers).map_err(not_upgraded)?;
    let mut head = Response::new(ReplyBody::empty());
    *head.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    shake(transport, &asked.headers, head.headers_mut()).map_err(not_upgraded)?;
    let session = match resource.subresource.as_deref() {
        Some("portforward") => {
            let carrier = agree_on_port_forward(transport, &asked.headers, head.headers_mut())
                .map_err(not_upgraded)?;
            Session::PortForward(Box::new(PortForward::new(carrier)), pod.target()?)
        }
        sub => {
            let streams = std_streams(&asked.query)?;
            let target = pod.container_target(asked.query.get("container"))?;
            let session = agree_on_command(transport, &asked.headers, streams, head.headers_mut())
                .map_err(not_upgraded)?;
            let opened = if sub == Some("exec") {
                let command: Vec<String> = asked.query.all("command").map(str::to_owned).collect();
                if command.is_empty() {
                    return Err(Status::bad_request(
                        "you must specify at least 1 command for the container",
                    ));
                }
                gateway.nodes.open_exec(ExecRequest { target, command, streams }).await
            } else {
                gateway.nodes.open_attach(AttachRequest { target, streams }).await
            };
            Session::Command(session, opened.map_err(refused)?)
        }
    };
    hand_over(gateway, asked, session);
    Ok(head)
}

/// The connection's task begins when hyper gives the connection away, after the 101 was sent.
fn hand_over(gateway: &Gateway, asked: Asked, session: Session) {
    let (env, nodes) = (gateway.env.clone(), Arc::clone(&gateway.nodes));
    let (audit_id, address) = (asked.caller.audit_id, asked.connection.address);
    let upgrade = hyper::upgrade::on(asked.http);
    gateway.env.spawn(asked.connection.lane, async move {
        let io = match upgrade.await {
            Ok(upgraded) => TokioIo::new(upgraded).compat(),
            Err(error) => {
                tracing::debug!(%audit_id, %address, %error, "the client left before the upgrade");
                return;
            }
        };
        let sleep = move |time| env.sleep(time);
        if let Err(error) = session.converse(io, &nodes, &sleep).await {
            tracing::debug!(%audit_id, %address, %error, "a stream ended with an error");
        }
    });
}

fn not_upgraded(refused: Refused) -> Status {
    match refused {
        Refused::BadRequest(why) => Status::bad_request(why),
        Refused::Forbidden(why) => Status::new(Reason::Forbidden, why),
    }
}

fn std_streams(query: &Query) -> Result<StdStreams, Status> {
    let streams = StdStreams {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        tty: query.flag("tty"),
    };
    // With a terminal stderr is part of stdout, so it does not count.
    if !streams.stdin && !streams.stdout && (!streams.stderr || streams.tty) {
        return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(streams)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_needs_a_stream_that_is_its_own() {
        assert!(std_streams(&Query::parse("tty=1&stderr=1")).is_err());
        assert!(std_streams(&Query::parse("stdin=1&tty=1")).is_ok());
    }

    #[test]
    fn what_cannot_be_upgraded_is_a_status() {
        assert_eq!(not_upgraded(Refused::BadRequest("no".to_owned())).code, 400);
        assert_eq!(not_upgraded(Refused::Forbidden("no".to_owned())).code, 403);
    }
}
