//! One connection: bytes both ways until both sides have ended, an end on one side passed on as that.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Ends when both sides have, or when `target` is no longer among the live hosts.
pub(crate) async fn pass(
    mut client: TcpStream,
    mut host: TcpStream,
    target: SocketAddr,
    mut targets: watch::Receiver<Vec<SocketAddr>>,
) {
    // Small frames of HTTP/2 must not wait for each other's acknowledgement; a socket that refuses still works.
    let _ = client.set_nodelay(true);
    let _ = host.set_nodelay(true);
    let is_lost = async {
        let is_told = targets.wait_for(|it| !it.contains(&target)).await.is_ok();
        if !is_told {
            // Nobody tells any more who lives: what is open stays open.
            std::future::pending().await
        }
    };
    tokio::select! { biased;
        () = is_lost => {
            tracing::debug!(%target, "a control host is lost: its relayed connections end");
        }
        // How it ended is the two sides' matter.
        _ = copy_bidirectional(&mut client, &mut host) => {}
    }
}
