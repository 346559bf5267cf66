//! A forward proxy whose answers to CONNECT the test chooses.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// The answer to a CONNECT request.
#[derive(Clone, Debug)]
pub(crate) enum ProxyAnswer {
    /// Opens the tunnel.
    Tunnel,
    /// Writes these bytes and closes the connection.
    Bytes(Vec<u8>),
    /// Never answers.
    Silence,
    /// Inspects TLS: presents a certificate of its own to the client.
    #[allow(dead_code, reason = "tests/doctor uses it")]
    Inspect,
}

/// A forward proxy. Dropping it closes the listener and all tunnels.
pub(crate) struct ConnectProxy {
    address: SocketAddr,
    /// The certificate, if clients connect over TLS.
    certificate: Option<String>,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    answer: Mutex<ProxyAnswer>,
    /// The heads of all requests.
    requests: Mutex<Vec<String>>,
    open_tunnels: AtomicUsize,
}

impl ConnectProxy {
    /// Starts a proxy that opens tunnels.
    pub(crate) fn start() -> Self {
        Self::listen(None)
    }

    /// Starts a proxy that opens tunnels and whose clients connect over TLS.
    pub(crate) fn start_tls() -> Self {
        Self::listen(Some(certificate()))
    }

    fn listen(tls: Option<(TlsAcceptor, String)>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let address = listener.local_addr().unwrap();
        let (acceptor, certificate) = tls.unzip();
        let shared = Arc::new(Shared {
            answer: Mutex::new(ProxyAnswer::Tunnel),
            requests: Mutex::default(),
            open_tunnels: AtomicUsize::new(0),
        });
        let served = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (shared, acceptor) = (Arc::clone(&served), acceptor.clone());
                connections.spawn(async move {
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
        Self { address, certificate, shared, accepting }
    }

    /// Sets the answer to the requests that follow.
    pub(crate) fn answer(&self, answer: ProxyAnswer) {
        *self.shared.answer.lock().unwrap() = answer;
    }

    /// Refuses the requests that follow with a status line and headers.
    pub(crate) fn refuse(&self, head: &str) {
        self.answer(ProxyAnswer::Bytes(format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n").into_bytes()));
    }

    /// Returns its URL.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the certificate that its clients must trust.
    pub(crate) fn certificate(&self) -> &str {
        self.certificate.as_deref().unwrap()
    }

    /// Returns the heads of all requests.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Returns the destinations of all requests.
    pub(crate) fn targets(&self) -> Vec<String> {
        let target = |head: &String| head.split(' ').nth(1).unwrap().to_owned();
        self.requests().iter().map(target).collect()
    }

    /// Returns the user name and password of the last request.
    pub(crate) fn last_user(&self) -> Option<String> {
        let requests = self.requests();
        let value = requests.last()?.lines().find_map(|line| line.strip_prefix("proxy-authorization: Basic "))?;
        let decoded = base64::engine::general_purpose::STANDARD.decode(value).unwrap();
        Some(String::from_utf8(decoded).unwrap())
    }

    pub(crate) fn open_tunnels(&self) -> usize {
        self.shared.open_tunnels.load(Ordering::SeqCst)
    }

    /// Lets it run until the end of the test, and returns its URL.
    #[allow(dead_code, reason = "tests/doctor uses it")]
    pub(crate) fn leak(self) -> String {
        let url = self.url();
        std::mem::forget(self);
        url
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: &Shared) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("CONNECT "), "{head}");
    let target = head.split(' ').nth(1).unwrap().to_owned();
    shared.requests.lock().unwrap().push(head);
    let answer = shared.answer.lock().unwrap().clone();
    match answer {
        ProxyAnswer::Tunnel => {
            let mut upstream = TcpStream::connect(target).await?;
            upstream.set_nodelay(true)?;
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
            shared.open_tunnels.fetch_add(1, Ordering::SeqCst);
            let relayed = copy_bidirectional(&mut stream, &mut upstream).await;
            shared.open_tunnels.fetch_sub(1, Ordering::SeqCst);
            relayed.map(drop)
        }
        ProxyAnswer::Bytes(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await?;
            // Reads on, so that the client is not reset before it has read the answer.
            while stream.read_u8().await.is_ok() {}
            Ok(())
        }
        ProxyAnswer::Silence => std::future::pending().await,
        ProxyAnswer::Inspect => {
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
            let mut inspected = certificate().0.accept(stream).await?;
            while inspected.read_u8().await.is_ok() {}
            Ok(())
        }
    }
}

/// Returns a server for this host with a certificate that nothing trusts.
fn certificate() -> (TlsAcceptor, String) {
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), cert.pem())
}
