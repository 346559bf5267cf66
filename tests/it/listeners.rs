//! Listeners: protocols with and without TLS, and silent callers.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use signalr_gateway::tls::{Trust, client_config};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::frames::{PREFACE, SETTINGS, frame};
use crate::support::{
    BROADCAST_BODY, BROADCAST_PATH, Harness, HarnessBuilder, RawConnection, broadcast_request, with_timeout,
};

/// Returns the configuration of a TLS listener `secure` and writes its certificate into a folder.
pub(crate) fn secure_listener(folder: &Path) -> String {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.join("listener.pem"), folder.join("listener.key"));
    std::fs::write(&certificate, issued.cert.pem()).unwrap();
    std::fs::write(&key, issued.signing_key.serialize_pem()).unwrap();
    format!(
        "[listeners.secure]\nbind = \"127.0.0.1:0\"\ntls = {{ certificate = \"{}\", key = \"{}\" }}\n",
        certificate.display(),
        key.display()
    )
}

/// Starts a gateway with a TLS listener `secure` beside the plain one. Returns it and the folder of its certificate.
async fn with_tls(more: &[(&str, &str)]) -> (Harness, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let toml = secure_listener(folder.path());
    let harness = HarnessBuilder::start().await.start_gateway(|options| {
        options.append_toml(&toml);
        for (key, value) in more {
            options.set(key, value);
        }
    });
    (harness.await, folder)
}

/// Opens a TLS connection to the listener `secure`.
pub(crate) async fn secured(
    address: SocketAddr,
    folder: &Path,
    alpn: &[&[u8]],
) -> tokio_rustls::client::TlsStream<TcpStream> {
    handshake(address, folder, alpn).await.unwrap()
}

/// Returns whether the listener serves the certificate of the folder.
pub(crate) async fn try_secured(address: SocketAddr, folder: &Path) -> std::io::Result<()> {
    handshake(address, folder, &[]).await.map(drop)
}

async fn handshake(
    address: SocketAddr,
    folder: &Path,
    alpn: &[&[u8]],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    handshake_over(TcpStream::connect(address).await?, folder, alpn).await
}

/// Makes a TLS handshake with the listener `secure` over an open connection.
pub(crate) async fn secured_over(
    tcp: TcpStream,
    folder: &Path,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    handshake_over(tcp, folder, &[]).await
}

async fn handshake_over(
    tcp: TcpStream,
    folder: &Path,
    alpn: &[&[u8]],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut config = client_config(&Trust::from_ca_file(Some(&folder.join("listener.pem")))).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    with_timeout("a handshake", TlsConnector::from(Arc::new(config)).connect(name, tcp)).await
}

pub(crate) async fn by_http1(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> StatusCode {
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    let request = broadcast_request().header("host", "localhost").body(Full::<Bytes>::from(BROADCAST_BODY)).unwrap();
    with_timeout("a response", sender.send_request(request)).await.unwrap().status()
}

/// Sends two calls at the same time on one connection.
async fn by_http2(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> (StatusCode, StatusCode) {
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    let request = || {
        let (mut head, ()) = broadcast_request().body(()).unwrap().into_parts();
        head.uri = format!("https://localhost{BROADCAST_PATH}").parse().unwrap();
        http::Request::from_parts(head, Full::<Bytes>::from(BROADCAST_BODY))
    };
    let (first, second) = (sender.send_request(request()), sender.send_request(request()));
    let (first, second) = with_timeout("two responses", async { tokio::join!(first, second) }).await;
    (first.unwrap().status(), second.unwrap().status())
}

#[tokio::test]
async fn serves_http1_and_http2_with_and_without_tls() {
    let (harness, folder) = with_tls(&[]).await;
    let (plain, secure) = (harness.listener("default"), harness.listener("secure"));
    let both: [&[u8]; 2] = [b"h2", b"http/1.1"];

    assert_eq!(by_http1(TcpStream::connect(plain).await.unwrap()).await, 202);
    assert_eq!(by_http2(TcpStream::connect(plain).await.unwrap()).await, (StatusCode::ACCEPTED, StatusCode::ACCEPTED));
    let stream = secured(secure, folder.path(), &both).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(both[0]), "HTTP/2 was not negotiated");
    assert_eq!(by_http2(stream).await, (StatusCode::ACCEPTED, StatusCode::ACCEPTED));
    let stream = secured(secure, folder.path(), &both[1..]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(both[1]));
    assert_eq!(by_http1(stream).await, 202);
    assert_eq!(by_http1(secured(secure, folder.path(), &[]).await).await, 202, "without ALPN");
    assert_eq!(harness.arrivals("east").len(), 7);
    harness.shutdown().await.unwrap();
}

#[tokio::test]
async fn speaks_the_negotiated_protocol() {
    let (harness, folder) = with_tls(&[]).await;
    let secure = harness.listener("secure");
    let request = format!("GET {BROADCAST_PATH} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let preface = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for (alpn, bytes) in [("h2", request.as_bytes()), ("http/1.1", &preface)] {
        let mut stream = secured(secure, folder.path(), &[alpn.as_bytes()]).await;
        stream.write_all(bytes).await.unwrap();
        let mut response = Vec::new();
        let _broken = with_timeout("the end of the connection", stream.read_to_end(&mut response)).await;
        let is_http1 = response.starts_with(b"HTTP/1.1");
        let is_http2 = response.get(3) == Some(&SETTINGS);
        assert!(if alpn == "h2" { !is_http1 } else { !is_http2 }, "{alpn}: {response:?}");
    }
    let mut config = client_config(&Trust::from_ca_file(Some(&folder.path().join("listener.pem")))).unwrap();
    config.alpn_protocols = vec![b"spdy/3".to_vec()];
    let (tcp, name) = (TcpStream::connect(secure).await.unwrap(), ServerName::try_from("localhost").unwrap());
    let error = with_timeout("a handshake", TlsConnector::from(Arc::new(config)).connect(name, tcp)).await;
    let error = error.err().unwrap().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
    harness.shutdown().await.unwrap();
}

#[tokio::test]
async fn accepts_first_bytes_one_at_a_time() {
    let harness = Harness::start(|_| {}).await;
    let request = format!(
        "POST {BROADCAST_PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{BROADCAST_BODY}",
        BROADCAST_BODY.len()
    );
    let mut caller = harness.raw_connection().await;
    for byte in request.as_bytes() {
        caller.write([*byte]).await;
        tokio::task::yield_now().await;
    }
    caller.response().await.unwrap().assert_status(202);
    // Complete requests on the same connection, two of them pipelined.
    caller.write(request.repeat(2)).await;
    caller.response().await.unwrap().assert_status(202);
    caller.response().await.unwrap().assert_status(202);
    assert_eq!(harness.arrivals("east").len(), 3);

    // The first ten bytes are those of the HTTP/2 preface.
    let mut caller = harness.raw_connection().await;
    caller.write("PRI * HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(caller.response().await.is_some_and(|response| response.status.is_client_error()));
    harness.shutdown().await.unwrap();
}

#[tokio::test]
async fn silent_callers_do_not_delay_shutdown() {
    // Long enough for the test to fail if shutdown waits for them.
    let (harness, folder) = with_tls(&[("shutdown.timeout", "20s")]).await;
    let (plain, secure) = (harness.listener("default"), harness.listener("secure"));
    let silent = RawConnection::connect(plain).await;
    let mut undecided = RawConnection::connect(plain).await;
    undecided.write("PRI * HTTP/2.0\r\n").await;
    let before_handshake = TcpStream::connect(secure).await.unwrap();
    let mut in_handshake = TcpStream::connect(secure).await.unwrap();
    // The header of a TLS record of 512 bytes.
    in_handshake.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
    let after_handshake = secured(secure, folder.path(), &[b"h2"]).await;
    harness.shutdown().await.unwrap();
    drop((silent, undecided, before_handshake, in_handshake, after_handshake));
}
