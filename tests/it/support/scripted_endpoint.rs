//! An endpoint that responds with bytes from the test, with or without TLS.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio_rustls::TlsAcceptor;

use super::GatewayOptions;

/// The response to one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScriptedResponse {
    /// The bytes of each write.
    pub(crate) writes: Vec<Vec<u8>>,
    /// Whether the connection is closed afterwards.
    pub(crate) closes: bool,
    /// What to wait for before the first write.
    pub(crate) after: Option<Arc<Notify>>,
}

/// An endpoint with scripted responses. It answers health probes itself.
pub(crate) struct ScriptedEndpoint {
    address: SocketAddr,
    shared: Arc<Shared>,
    certificate: Option<String>,
}

#[derive(Default)]
struct Shared {
    next: Mutex<VecDeque<(ScriptedResponse, oneshot::Sender<usize>)>>,
    connections: Mutex<usize>,
    /// The heads of all requests but health probes.
    heads: Mutex<Vec<String>>,
}

impl ScriptedEndpoint {
    pub(crate) async fn start() -> Self {
        Self::listen(None).await
    }

    pub(crate) async fn start_tls() -> Self {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        Self::listen(Some((TlsAcceptor::from(Arc::new(config)), cert.pem()))).await
    }

    async fn listen(tls: Option<(TlsAcceptor, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let (acceptor, certificate) = tls.unzip();
        let served = Arc::clone(&shared);
        // Ends with the test's runtime.
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, acceptor) = (Arc::clone(&served), acceptor.clone());
                stream.set_nodelay(true).unwrap();
                tokio::spawn(async move {
                    match acceptor {
                        None => drop(serve(stream, &shared).await),
                        Some(acceptor) => {
                            let Ok(stream) = acceptor.accept(stream).await else { return };
                            drop(serve(stream, &shared).await);
                        }
                    }
                });
            }
        });
        Self { address, shared, certificate }
    }

    /// Configures the gateway to use this endpoint instead of one of the sandbox.
    pub(crate) fn replace_endpoint(&self, name: &str, folder: &Path, options: &mut GatewayOptions) {
        let scheme = match &self.certificate {
            Some(pem) => {
                let file = folder.join("scripted-endpoint.pem");
                std::fs::write(&file, pem).unwrap();
                options.set(&format!("endpoints.{name}.ca_file"), file.to_str().unwrap());
                "https"
            }
            None => "http",
        };
        options.set(&format!("endpoints.{name}.url"), &format!("{scheme}://{}", self.address));
    }

    /// Queues a response. The receiver gets the number of the connection once the response is written.
    pub(crate) fn queue(&self, response: ScriptedResponse) -> oneshot::Receiver<usize> {
        let (done, number) = oneshot::channel();
        self.shared.next.lock().unwrap().push_back((response, done));
        number
    }

    /// Returns the heads of the requests so far, without health probes.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap().clone()
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: &Shared) -> std::io::Result<()> {
    let mut number = None;
    while let Some(head) = read_request(&mut stream).await? {
        if head.starts_with("HEAD /api/health") {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
            continue;
        }
        let number = *number.get_or_insert_with(|| {
            let mut connections = shared.connections.lock().unwrap();
            *connections += 1;
            *connections
        });
        shared.heads.lock().unwrap().push(head);
        let next = shared.next.lock().unwrap().pop_front();
        let Some((response, done)) = next else {
            stream.write_all(b"HTTP/1.1 500 Not Expected\r\ncontent-length: 0\r\n\r\n").await?;
            continue;
        };
        if let Some(after) = &response.after {
            after.notified().await;
        }
        for write in &response.writes {
            // The gateway may close before it has read everything.
            if stream.write_all(write).await.is_err() || stream.flush().await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        if response.closes {
            let _closed = stream.shutdown().await;
        }
        let _test_does_not_wait = done.send(number);
        if response.closes {
            return Ok(());
        }
    }
    Ok(())
}

/// Reads a whole request and returns its head.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Option<String>> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..end]).into_owned();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let whole = end + 4 + length.map_or(0, |length| length.parse().unwrap());
            if read.len() >= whole {
                return Ok(Some(head));
            }
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(None);
        }
    }
}
