//! Callers: hyper over one connection, or raw bytes. They fail on any response header that is not on a list, so that
//! no header leaks unnoticed.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, Request, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::with_timeout;

/// The headers that a response may have.
const KNOWN_HEADERS: [&str; 20] = [
    "allow",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-security-policy",
    "content-type",
    "date",
    "location",
    "referrer-policy",
    "retry-after",
    "signalr-gateway-error",
    "signalr-gateway-replayed",
    "transfer-encoding",
    "vary",
    "www-authenticate",
    "x-content-type-options",
    "x-frame-options",
    "x-ms-error-code",
    "x-request-id",
];

/// A complete response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A caller on one persistent HTTP/1.1 connection.
pub(crate) struct Caller {
    sender: SendRequest<UnsyncBoxBody<Bytes, std::io::Error>>,
    host: String,
}

impl Caller {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).await.unwrap()).await
    }

    /// Returns a caller on an open connection.
    pub(crate) async fn on(stream: TcpStream) -> Self {
        let host = stream.peer_addr().unwrap().to_string();
        Self::over(stream, host).await
    }

    pub(crate) async fn connect_unix(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).await.unwrap(), "localhost".to_owned()).await
    }

    /// Returns a caller on an open stream, such as one over TLS.
    pub(crate) async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, host: String) -> Self {
        let mut client = http1::Builder::new();
        // Some tests send responses with many header lines.
        client.max_headers(2048);
        let (sender, connection) = client.handshake(TokioIo::new(stream)).await.unwrap();
        // Ends when the caller is dropped or the gateway closes.
        tokio::spawn(connection);
        Self { sender, host }
    }

    pub(crate) async fn call(&mut self, method: &str, target: &str) -> Response {
        self.send(request(method, target), Bytes::new()).await
    }

    pub(crate) async fn post(&mut self, target: &str, content_type: &str, body: impl Into<Bytes>) -> Response {
        self.send(request("POST", target).header(CONTENT_TYPE, content_type), body).await
    }

    /// Sends a request with a `Content-Length` body.
    pub(crate) async fn send(&mut self, request: http::request::Builder, body: impl Into<Bytes>) -> Response {
        let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
        self.exchange(request, body).await.unwrap()
    }

    /// Sends a request with a chunked body.
    pub(crate) async fn send_chunked(&mut self, request: http::request::Builder, pieces: Vec<Bytes>) -> Response {
        let pieces = pieces.into_iter().map(|piece| Ok(Frame::data(piece)));
        self.exchange(request, StreamBody::new(stream::iter(pieces)).boxed_unsync()).await.unwrap()
    }

    /// Sends a request like [`Caller::send`], and returns the error if the connection breaks.
    pub(crate) async fn try_send(
        &mut self,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> hyper::Result<Response> {
        let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
        self.exchange(request, body).await
    }

    /// Whether the gateway has closed the connection.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    async fn exchange(
        &mut self,
        request: http::request::Builder,
        body: UnsyncBoxBody<Bytes, std::io::Error>,
    ) -> hyper::Result<Response> {
        let names_host = request.headers_ref().is_some_and(|headers| headers.contains_key(HOST));
        let request = if names_host { request } else { request.header(HOST, &self.host) };
        with_timeout("a response", async {
            self.sender.ready().await?;
            let (head, body) = self.sender.send_request(request.body(body).unwrap()).await?.into_parts();
            let response =
                Response { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() };
            response.assert_known_headers();
            Ok(response)
        })
        .await
    }
}

pub(crate) fn request(method: &str, target: &str) -> http::request::Builder {
    Request::builder().method(method).uri(target)
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|err| panic!("{err}: {self:?}"))
    }

    /// Returns the status and kind of an error response of the gateway, after checking its problem document.
    pub(crate) fn gateway_error(&self) -> (u16, String) {
        let kind =
            self.header("signalr-gateway-error").unwrap_or_else(|| panic!("not an error of the gateway: {self:?}"));
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        if !self.body.is_empty() {
            let problem = self.json();
            assert_eq!(problem["status"], self.status.as_u16(), "{self:?}");
            assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"), "{self:?}");
            assert!(!problem["title"].as_str().unwrap().is_empty(), "{self:?}");
            assert!(!problem["detail"].as_str().unwrap().is_empty(), "{self:?}");
        }
        (self.status.as_u16(), kind.to_owned())
    }

    /// Asserts that the response comes from the endpoint, with this status.
    #[track_caller]
    pub(crate) fn assert_status(&self, status: u16) -> &Self {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("signalr-gateway-error"), None, "{self:?}");
        self
    }

    /// Asserts that the response is an error of the gateway, with this status and kind.
    #[track_caller]
    pub(crate) fn assert_gateway_error(&self, status: u16, kind: &str) -> &Self {
        assert_eq!(self.gateway_error(), (status, kind.to_owned()), "{self:?}");
        self
    }

    fn assert_known_headers(&self) {
        // nginx in front of the gateway adds its own `Server`.
        let is_known = |name: &str| {
            KNOWN_HEADERS.contains(&name)
                || (name == "server" && self.header(name).is_some_and(|value| value.starts_with("nginx")))
        };
        let unknown: Vec<&HeaderName> = self.headers.keys().filter(|name| !is_known(name.as_str())).collect();
        assert!(unknown.is_empty(), "headers {unknown:?} leak in {self:?}");
    }
}

/// A connection for bytes that no HTTP library would send.
pub(crate) struct RawConnection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl RawConnection {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), read: Vec::new() }
    }

    /// Wraps an open connection.
    pub(crate) fn on(stream: TcpStream) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// Reads up to and including `end`. Returns `None` if the peer closes the connection first.
    pub(crate) async fn read_to(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        with_timeout("reading from the peer", async {
            loop {
                if let Some(at) = find(&self.read, end) {
                    return Some(self.read.drain(..at + end.len()).collect());
                }
                if !self.read_some().await {
                    return None;
                }
            }
        })
        .await
    }

    /// Writes, and ignores that the peer may have closed the connection.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _closed = with_timeout("writing", self.stream.write_all(bytes.as_ref())).await;
        self
    }

    /// Closes the writing half.
    pub(crate) async fn finish(&mut self) -> &mut Self {
        let _closed = self.stream.shutdown().await;
        self
    }

    /// Reads the next response. Returns `None` if the connection ends first.
    pub(crate) async fn response(&mut self) -> Option<Response> {
        self.response_to("GET").await
    }

    /// Reads the response to a request with this method; responses to `HEAD` have no body.
    pub(crate) async fn response_to(&mut self, method: &str) -> Option<Response> {
        match self.next_response(method).await? {
            (response, true) => Some(response),
            (response, false) => panic!("the response's body is incomplete: {response:?}"),
        }
    }

    /// Reads the next response. Returns it and whether its body is complete, or `None` if the connection ends within the head.
    pub(crate) async fn next_response(&mut self, method: &str) -> Option<(Response, bool)> {
        with_timeout("a response", async {
            let end = loop {
                if let Some(at) = find(&self.read, b"\r\n\r\n") {
                    break at + 4;
                }
                if !self.read_some().await {
                    return None;
                }
            };
            let head: Vec<u8> = self.read.drain(..end).collect();
            let response = parse_head(&head);
            let declared = response.header("content-length").filter(|_| method != "HEAD");
            let length = declared.map_or(0, |length| length.parse().unwrap());
            while self.read.len() < length && self.read_some().await {}
            let arrived = length.min(self.read.len());
            let response = Response { body: self.read.drain(..arrived).collect::<Vec<u8>>().into(), ..response };
            response.assert_known_headers();
            Some((response, arrived == length))
        })
        .await
    }

    /// Reads until the gateway closes the connection.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        with_timeout("the end of the connection", async {
            while self.read_some().await {}
            std::mem::take(&mut self.read)
        })
        .await
    }

    /// Resets the connection, as a crash of the caller would.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    async fn read_some(&mut self) -> bool {
        self.stream.read_buf(&mut self.read).await.is_ok_and(|count| count > 0)
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn parse_head(head: &[u8]) -> Response {
    let head = std::str::from_utf8(head).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let fields = lines.map(|line| {
        let (name, value) = line.split_once(':').unwrap();
        (name.parse::<HeaderName>().unwrap(), value.trim().parse().unwrap())
    });
    Response { status, headers: fields.collect(), body: Bytes::new() }
}
