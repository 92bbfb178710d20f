//! A node that pretends: `cat` echoes, `exit N` ends with N, everything else prints its words.

use bytes::Bytes;
use futures::channel::mpsc;
use futures::{SinkExt, StreamExt};
use kactor_runtime::env::{Env, Lane};
use kactor_streams::{
    AttachRequest, BoxFuture, ContainerEnd, ContainerStreams, ExecRequest, LogRequest, NodeStreams,
    Outcome, Output, PortConnection, PortEnd, PortForwardRequest, StreamError,
};

pub struct PretendNode {
    pub env: Env,
}

impl NodeStreams for PretendNode {
    fn open_exec(
        &self,
        request: ExecRequest,
    ) -> BoxFuture<'_, Result<ContainerStreams, StreamError>> {
        let (streams, end) = ContainerStreams::pair();
        self.env.spawn(Lane::Node, run(request.command, end));
        Box::pin(async { Ok(streams) })
    }

    fn open_attach(
        &self,
        _: AttachRequest,
    ) -> BoxFuture<'_, Result<ContainerStreams, StreamError>> {
        let (streams, end) = ContainerStreams::pair();
        self.env.spawn(Lane::Node, run(vec!["attached".to_owned()], end));
        Box::pin(async { Ok(streams) })
    }

    fn open_port_forward(
        &self,
        request: PortForwardRequest,
    ) -> BoxFuture<'_, Result<PortConnection, StreamError>> {
        if request.port != 80 {
            let why = StreamError::Failed("connection refused".to_owned());
            return Box::pin(async { Err(why) });
        }
        let (connection, end) = PortConnection::pair();
        self.env.spawn(Lane::Node, greet(end));
        Box::pin(async { Ok(connection) })
    }

    /// Says the path that it was asked for, and who it thinks asks.
    fn open_kubelet(&self, node: String) -> BoxFuture<'_, Result<PortConnection, StreamError>> {
        let (connection, end) = PortConnection::pair();
        self.env.spawn(Lane::Node, kubelet(node, end));
        Box::pin(async { Ok(connection) })
    }

    fn open_logs(
        &self,
        request: LogRequest,
    ) -> BoxFuture<'_, Result<mpsc::Receiver<Result<Bytes, StreamError>>, StreamError>> {
        if request.previous {
            let why =
                format!("previous terminated container {:?} not found", request.target.container);
            return Box::pin(async { Err(StreamError::BadRequest(why)) });
        }
        let (mut sender, receiver) = mpsc::channel(4);
        let n_lines = request.tail_lines.unwrap_or(3).min(3);
        self.env.spawn(Lane::Node, async move {
            for line in 3 - n_lines..3 {
                let _ = sender.send(Ok(Bytes::from(format!("line {line}\n")))).await;
            }
        });
        Box::pin(async { Ok(receiver) })
    }
}

async fn run(command: Vec<String>, mut end: ContainerEnd) {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut code = 0;
    match words.as_slice() {
        ["cat"] => {
            while let Some(bytes) = end.stdin.next().await {
                let _ = end.output.send(Output::Stdout(bytes)).await;
            }
        }
        ["exit", n] => {
            code = n.parse().unwrap();
            let _ = end.output.send(Output::Stderr(Bytes::from("about to fail\n"))).await;
        }
        words => {
            let line = format!("{}\n", words.join(" "));
            let _ = end.output.send(Output::Stdout(Bytes::from(line))).await;
        }
    }
    drop(end.output);
    let _ = end.outcome.send(Outcome::Exited(code));
}

/// Answers one HTTP request, whatever it is.
async fn greet(mut end: PortEnd) {
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        match end.from_client.next().await {
            Some(bytes) => asked.extend_from_slice(&bytes),
            None => return,
        }
    }
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    let _ = end.to_client.send(Ok(Bytes::from(answer))).await;
}

async fn kubelet(node: String, mut end: PortEnd) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match end.from_client.next().await {
            Some(bytes) => head.extend_from_slice(&bytes),
            None => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap();
    let told = head.to_ascii_lowercase().contains("authorization");
    let body = format!("{node} {path} authorization={told}");
    let length = body.len();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
    let _ = end.to_client.send(Ok(answer.into())).await;
}
