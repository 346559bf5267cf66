//! An endpoint whose bytes the test reads and writes. It answers health probes itself.

use tokio::net::TcpListener;

use super::{GatewayOptions, RawConnection, with_timeout};

/// The response to a health probe, which ends the connection.
const PROBE_RESPONSE: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// An endpoint without TLS that reads and writes raw bytes.
pub(crate) struct RawEndpoint {
    listener: TcpListener,
}

impl RawEndpoint {
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    /// Configures the gateway to use this endpoint instead of one of the sandbox.
    pub(crate) fn replace_endpoint(&self, name: &str, options: &mut GatewayOptions) {
        options.set(&format!("endpoints.{name}.url"), &format!("http://{}", self.listener.local_addr().unwrap()));
    }

    /// Waits for a call on a new connection. Returns its head and the connection.
    pub(crate) async fn call(&self) -> (String, RawConnection) {
        with_timeout("a call at the raw endpoint", async {
            loop {
                let mut connection = RawConnection::on(self.listener.accept().await.unwrap().0);
                // The gateway may close a connection unused, for example the slower of two address families.
                let Some(head) = connection.read_to(b"\r\n\r\n").await else { continue };
                let head = String::from_utf8(head).unwrap();
                if !head.starts_with("HEAD /api/health") {
                    return (head, connection);
                }
                connection.write(PROBE_RESPONSE).await;
            }
        })
        .await
    }
}
