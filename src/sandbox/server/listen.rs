//! One listener: it accepts connections, reads requests whole, writes them in the journal, lets faults happen and
//! has the rest answered by its service. Knows nothing of what the service is about.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt};
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, UPGRADE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, request};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;

use super::exchange::{Body, Received, Reply, Service, Upgrade};
use super::faults::{FaultKind, Faults};
use super::journal::{Entry, Journal};

/// How many connections may wait to be accepted: more than any test opens at once.
const BACKLOG: u32 = 1024;

/// How long a TLS handshake may take, and how long a connection may stay silent between two requests. Longer than
/// a client is likely to keep one: which side closes an idle connection is then the client's choice.
const SILENCE: Duration = Duration::from_secs(300);

/// How long the listener rests after it could not accept, or could not take its port back.
const REST: Duration = Duration::from_millis(20);

/// One server of the sandbox: where it is, what it received, and the faults it is told to show.
#[derive(Clone, Debug)]
pub struct Server {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    address: SocketAddr,
    origin: String,
    faults: Faults,
    journal: Journal,
}

/// A bound port that no one else can take, listening or not.
pub(crate) struct Port {
    address: SocketAddr,
    listener: TcpListener,
    // Bound and never listening: keeps the port while the listener is closed.
    _placeholder: Option<TcpSocket>,
}

impl Port {
    /// Binds an address; port 0 takes a free one.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = reusable(address)?;
        let address = socket.local_addr()?;
        // Where the system does not allow two sockets on one port, there is just no placeholder.
        let placeholder = reusable(address).ok();
        Ok(Self { address, listener: socket.listen(BACKLOG)?, _placeholder: placeholder })
    }

    /// The bound address.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

fn reusable(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

impl Server {
    pub(crate) fn new(name: &str, address: SocketAddr, origin: String, show_bodies: bool) -> Self {
        let journal = Journal::new(show_bodies);
        let inner = Inner { name: name.to_owned(), address, origin, faults: Faults::new(), journal };
        Self { inner: Arc::new(inner) }
    }

    /// The server's name: `entra`, `imds`, `app_service`, `providers`, `gcp_metadata`, or that of a SignalR endpoint.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// Its origin, such as `https://127.0.0.1:8443`, without a slash at the end.
    pub fn url(&self) -> String {
        self.inner.origin.clone()
    }

    /// Its faults.
    pub fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    /// What it received.
    pub fn journal(&self) -> &Journal {
        &self.inner.journal
    }

    /// Serves until dropped. Connections are tasks of this future and end with it.
    pub(crate) async fn serve(self, port: Port, tls: Option<TlsAcceptor>, service: Arc<impl Service>) {
        let Port { address, mut listener, _placeholder } = port;
        let mut refuse = self.faults().watch_refuse();
        let mut connections = JoinSet::new();
        loop {
            if *refuse.borrow_and_update() {
                drop(listener);
                connections.shutdown().await;
                self.faults().report_refused(true);
                // The sender lives in `self`, so waiting cannot fail.
                let _ = refuse.wait_for(|refuse| !*refuse).await;
                listener = listen_again(address).await;
                self.faults().report_refused(false);
            }
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(serve_connection(self.clone(), stream, tls.clone(), Arc::clone(&service)));
                    }
                    Err(_) => tokio::time::sleep(REST).await,
                },
                Some(_) = connections.join_next() => {}
                _ = refuse.changed() => {}
            }
        }
    }

    async fn answer(
        &self,
        mut request: Request<Incoming>,
        service: &impl Service,
        max_body: usize,
        fate: &Fate,
    ) -> Result<Response<Body>, Cut> {
        let upgrade = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
        let (head, body) = request.into_parts();
        let host = head.uri.authority().map(ToString::to_string);
        let host = host.or_else(|| head.headers.get(HOST)?.to_str().ok().map(str::to_owned)).unwrap_or_default();
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let is_spared = is_preflight(&head);
        let is_early = |kind: &FaultKind| !is_spared && *kind == FaultKind::ResetBeforeBody;
        if self.faults().next_if(head.uri.path(), is_early).is_some() {
            let entry = Entry::new(&head.method, target, &host, &head.headers, &Bytes::new(), false);
            let sequence = self.journal().begin(entry);
            return Err(self.reset(sequence, "reset before its body", fate));
        }
        let read = read_body(body, max_body).await;
        let entry = Entry::new(&head.method, target, &host, &head.headers, &read.bytes, read.end == BodyEnd::Whole);
        let sequence = self.journal().begin(entry);
        let received = Received {
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            method: head.method,
            host,
            headers: head.headers,
            body: read.bytes,
            upgrade,
        };
        let common = service.common_headers(&received);
        let refused = match read.end {
            BodyEnd::Whole => None,
            BodyEnd::TooLarge => Some(Reply::empty(StatusCode::PAYLOAD_TOO_LARGE).header(CONNECTION, "close")),
            BodyEnd::Broken => Some(Reply::empty(StatusCode::BAD_REQUEST).header(CONNECTION, "close")),
        };
        if let Some(reply) = refused {
            self.journal().end(sequence, Some(reply.status.as_u16()), "body refused");
            return Ok(whole(reply.with_defaults(common)));
        }
        let fault = if is_spared { None } else { self.faults().next(&received.path) };
        match &fault {
            Some(FaultKind::Hang) => {
                self.journal().end(sequence, None, "hang");
                std::future::pending::<Infallible>().await;
            }
            Some(FaultKind::Reset | FaultKind::ResetBeforeBody) => return Err(self.reset(sequence, "reset", fate)),
            Some(FaultKind::Answer { .. }) => {
                let reply = fault.as_ref().map_or_else(|| Reply::empty(StatusCode::OK), answer_of);
                self.journal().end(sequence, Some(reply.status.as_u16()), "fault");
                return Ok(whole(reply.with_defaults(common)));
            }
            Some(FaultKind::Delay { delay_ms }) => tokio::time::sleep(Duration::from_millis(*delay_ms)).await,
            Some(FaultKind::LoseAnswer | FaultKind::BreakBody) | None => {}
        }
        let mut reply = service.answer(received).await.with_defaults(common);
        if fault == Some(FaultKind::LoseAnswer) {
            return Err(self.reset(sequence, "answer lost", fate));
        }
        self.journal().end(sequence, Some(reply.status.as_u16()), &reply.verdict);
        if fault == Some(FaultKind::BreakBody) && !reply.body.is_empty() {
            return Ok(broken(reply));
        }
        *fate.upgrade.lock().unwrap_or_else(PoisonError::into_inner) = reply.upgrade.take();
        Ok(whole(reply))
    }

    /// Has the connection cut in place of an answer.
    fn reset(&self, sequence: u64, verdict: &str, fate: &Fate) -> Cut {
        self.journal().end(sequence, None, verdict);
        fate.cut.store(true, Ordering::Relaxed);
        Cut
    }
}

async fn listen_again(address: SocketAddr) -> TcpListener {
    loop {
        match reusable(address).and_then(|socket| socket.listen(BACKLOG)) {
            Ok(listener) => return listener,
            Err(_) => tokio::time::sleep(REST).await,
        }
    }
}

async fn serve_connection<S: Service>(server: Server, stream: TcpStream, tls: Option<TlsAcceptor>, service: Arc<S>) {
    let fate = Arc::new(Fate::default());
    // Answers are small and waited for.
    let _ = stream.set_nodelay(true);
    let stream = Cuttable { stream, fate: Arc::clone(&fate), write_time: service.write_time(), stuck: None };
    let Some(tls) = tls else {
        return serve_http(server, stream, service, fate).await;
    };
    if let Ok(Ok(stream)) = tokio::time::timeout(SILENCE, tls.accept(stream)).await {
        serve_http(server, stream, service, fate).await;
    }
}

async fn serve_http<S: Service>(
    server: Server,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: Arc<S>,
    fate: Arc<Fate>,
) {
    let fate_of_connection = Arc::clone(&fate);
    let answer = hyper::service::service_fn(move |request| {
        let (server, service, fate) = (server.clone(), Arc::clone(&service), Arc::clone(&fate));
        async move { server.answer(request, &*service, S::MAX_BODY, &fate).await }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(SILENCE);
    builder.http2().timer(TokioTimer::new());
    // How a connection ends is its client's affair: a test sees it there.
    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), answer).await;
    let upgrade = fate_of_connection.upgrade.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(upgrade) = upgrade {
        upgrade.await;
    }
}

/// What becomes of a connection.
#[derive(Default)]
struct Fate {
    /// It is to be cut.
    cut: AtomicBool,
    /// It goes on with another protocol.
    upgrade: Mutex<Option<Upgrade>>,
}

/// The connection is to be cut in place of an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut on demand")]
struct Cut;

struct ReadBody {
    bytes: Bytes,
    end: BodyEnd,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyEnd {
    Whole,
    TooLarge,
    Broken,
}

async fn read_body(mut body: Incoming, max: usize) -> ReadBody {
    if body.size_hint().lower() > max as u64 {
        return ReadBody { bytes: Bytes::new(), end: BodyEnd::TooLarge };
    }
    let mut read = BytesMut::new();
    let end = loop {
        let Some(frame) = body.frame().await else { break BodyEnd::Whole };
        let Ok(frame) = frame else { break BodyEnd::Broken };
        let Ok(data) = frame.into_data() else { continue };
        if read.len() + data.len() > max {
            break BodyEnd::TooLarge;
        }
        read.extend_from_slice(&data);
    };
    ReadBody { bytes: read.freeze(), end }
}

/// Whether a browser asks beforehand if a page may send a request. Faults are for the request itself: one that happened to
/// the question would be used up, and the page would not be told what was answered.
///
/// Source: the Fetch standard, CORS-preflight request.
fn is_preflight(head: &request::Parts) -> bool {
    head.method == Method::OPTIONS && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn answer_of(fault: &FaultKind) -> Reply {
    let FaultKind::Answer { status, retry_after_secs, headers, content_type, body } = fault else {
        return Reply::empty(StatusCode::OK);
    };
    let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut reply = Reply::empty(status).retry_after(retry_after_secs.map(Duration::from_secs));
    reply.body = Bytes::from(body.clone());
    if let Some(content_type) = content_type {
        reply = reply.header(CONTENT_TYPE, content_type);
    }
    for (name, value) in headers {
        if let Ok(name) = name.parse::<HeaderName>() {
            reply = reply.header(name, value);
        }
    }
    reply
}

fn whole(reply: Reply) -> Response<Body> {
    let body = reply.stream.unwrap_or_else(|| {
        let body = Full::new(reply.body);
        body.map_err(|never: Infallible| match never {}).boxed_unsync()
    });
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
}

/// The answer with the whole length announced and half of the body sent.
fn broken(reply: Reply) -> Response<Body> {
    let length = reply.body.len();
    let half = Frame::data(reply.body.slice(..length / 2));
    let end = stream::once(async {
        // One turn of the executor, so that the first half is written before the connection breaks.
        tokio::task::yield_now().await;
        Err(io::Error::from(io::ErrorKind::ConnectionReset))
    });
    let body = StreamBody::new(stream::iter([Ok(half)]).chain(end));
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// A TCP stream that ends in a reset (RST) rather than an orderly close if it is told to, or if the other side does not read.
struct Cuttable {
    stream: TcpStream,
    fate: Arc<Fate>,
    write_time: Duration,
    /// When the patience with a write that does not go on is over.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl Cuttable {
    /// Gives up a write that has not gone on for too long: what waits for whoever never reads would stay for ever.
    fn bounded<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let time = self.write_time;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
        ready!(stuck.as_mut().poll(cx));
        self.fate.cut.store(true, Ordering::Relaxed);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for Cuttable {
    fn drop(&mut self) {
        if self.fate.cut.load(Ordering::Relaxed) {
            // If it cannot be set, the connection closes without an answer all the same.
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Cuttable {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.bounded(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.fate.cut.load(Ordering::Relaxed) {
            // No orderly end: the drop resets the connection.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.bounded(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
