//! A service that answers as a SignalR resource until the WebSocket of a client is open. Then it does what a test says.

use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

/// What the service does with a client.
#[derive(Clone, Copy)]
pub(crate) struct Script {
    /// The answer to the handshake; closes the WebSocket if `None`.
    pub(crate) handshake: Option<&'static str>,
    /// What it sends afterwards.
    pub(crate) then: &'static str,
    /// The status of the existence check of the client's connection.
    pub(crate) exists: u16,
}

impl Script {
    /// Starts the service. Returns its URL. It ends with the runtime.
    pub(crate) async fn start(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script = Arc::new(self);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let script = Arc::clone(&script);
                tokio::spawn(async move { script.serve(stream).await });
            }
        });
        url
    }

    async fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut first = [0; 20];
        while stream.peek(&mut first).await.ok()? < first.len() {
            tokio::task::yield_now().await;
        }
        if first.starts_with(b"GET /client/?") {
            return self.serve_client(stream).await;
        }
        let mut request = Vec::new();
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            stream.read_buf(&mut request).await.ok().filter(|read| *read > 0)?;
        }
        let (status, extra, body) = match String::from_utf8_lossy(&request).split('?').next()? {
            "GET /api/health" => (200, "", ""),
            head if head.starts_with("HEAD /api/hubs/") && head.contains("/connections/") => (self.exists, "", ""),
            head if head.starts_with("HEAD ") => (404, "x-ms-error-code: Warning.User.NotExisted\r\n", ""),
            head if head.ends_with("/:generateToken") => (200, "", r#"{"token":"a.b.c"}"#),
            "POST /client/negotiate" => (200, "", r#"{"connectionId":"c/1","connectionToken":"t"}"#),
            head if head.ends_with("/connections/c%2F1/:send") => (202, "", ""),
            _ => (400, "", ""),
        };
        let length = body.len();
        let response =
            format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n{extra}connection: close\r\n\r\n{body}");
        stream.write_all(response.as_bytes()).await.ok()
    }

    async fn serve_client(&self, stream: TcpStream) -> Option<()> {
        let mut socket = tokio_tungstenite::accept_async(stream).await.ok()?;
        socket.next().await?.ok()?;
        if let Some(handshake) = self.handshake {
            for record in [handshake, self.then].into_iter().filter(|record| !record.is_empty()) {
                socket.send(Message::text(format!("{record}\u{1e}"))).await.ok()?;
            }
            // Reads until the client leaves.
            while socket.next().await?.is_ok() {}
        }
        socket.close(None).await.ok()
    }
}
