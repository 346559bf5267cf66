//! An endpoint whose every byte a test reads and writes itself. Only health probes are answered for it.

use tokio::net::TcpListener;

use super::{Plan, Raw, in_time};

/// Answers a health probe and ends its connection.
const PROBE_ANSWER: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// An endpoint of raw bytes, without TLS.
pub(crate) struct RawEndpoint {
    listener: TcpListener,
}

impl RawEndpoint {
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    /// Puts it in the place of an endpoint of the sandbox.
    pub(crate) fn stand_in(&self, name: &str, plan: &mut Plan) {
        plan.set(&format!("endpoints.{name}.url"), &format!("http://{}", self.listener.local_addr().unwrap()));
    }

    /// Waits for the next call on a new connection, and returns its head and the connection.
    pub(crate) async fn call(&self) -> (String, Raw) {
        in_time("a call at the raw endpoint", async {
            loop {
                let mut connection = Raw::on(self.listener.accept().await.unwrap().0);
                // A connection may end before its call: one that was tried and not needed, for instance.
                let Some(head) = connection.read_to(b"\r\n\r\n").await else { continue };
                let head = String::from_utf8(head).unwrap();
                if !head.starts_with("HEAD /api/health") {
                    return (head, connection);
                }
                connection.write(PROBE_ANSWER).await;
            }
        })
        .await
    }
}
