//! One server: its port and its connections. It records each request in the journal, applies faults, and calls the service.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt};
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, request};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::exchange::{Body, ReceivedRequest, Reply, Service, Upgrade};
use super::faults::{FaultKind, Faults};
use super::journal::{Entry, Journal};
use super::port::{Port, RETRY_PAUSE, listen_again};
use super::stream::ResettableStream;

/// The timeout of a TLS handshake, and of the wait for the header of a request. Chosen: longer than clients keep idle
/// connections, so that the client closes first.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// A shared handle to one server of the sandbox: its address, its journal and its faults.
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
    requests: RequestGauge,
}

/// How many requests a server handles at once.
#[derive(Debug, Default)]
struct RequestGauge {
    now: AtomicUsize,
    peak: AtomicUsize,
}

/// One request in a [`RequestGauge`], until it is dropped.
struct HandledRequest<'a>(&'a RequestGauge);

impl RequestGauge {
    fn enter(&self) -> HandledRequest<'_> {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(now, Ordering::Relaxed);
        HandledRequest(self)
    }
}

impl Drop for HandledRequest<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Server {
    pub(crate) fn new(name: &str, address: SocketAddr, origin: String, show_bodies: bool) -> Self {
        let journal = Journal::new(show_bodies);
        Self::with(name, address, origin, Faults::new(), journal)
    }

    /// Creates one of `count` servers that share a port. Each has a host name of its own, which is part of `origin`.
    pub(crate) fn of_shared_port(name: &str, address: SocketAddr, origin: String, count: usize) -> Self {
        Self::with(name, address, origin, Faults::of_shared_port(), Journal::of_group(count))
    }

    fn with(name: &str, address: SocketAddr, origin: String, faults: Faults, journal: Journal) -> Self {
        let (name, requests) = (name.to_owned(), RequestGauge::default());
        Self { inner: Arc::new(Inner { name, address, origin, faults, journal, requests }) }
    }

    /// Returns the server's name: `entra`, `imds`, `app_service`, `providers`, `gcp_metadata`, or that of a SignalR endpoint.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Returns the address that the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// Returns the server's origin, such as `https://127.0.0.1:8443`, without a trailing slash.
    pub fn url(&self) -> String {
        self.inner.origin.clone()
    }

    /// Returns the server's faults.
    pub fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    /// Returns the journal of received requests.
    pub fn journal(&self) -> &Journal {
        &self.inner.journal
    }

    /// Returns the largest number of requests that the server has handled at once.
    pub fn peak_requests(&self) -> usize {
        self.inner.requests.peak.load(Ordering::Relaxed)
    }

    /// Accepts and serves connections. Dropping the future closes them.
    pub(crate) async fn serve(self, port: Port, tls: Option<TlsAcceptor>, service: Arc<impl Service>) {
        let Port { address, mut listener, _placeholder } = port;
        let mut refuse_requested = self.faults().subscribe_refuse_requested();
        let mut connections = JoinSet::new();
        loop {
            if *refuse_requested.borrow_and_update() {
                drop(listener);
                connections.shutdown().await;
                self.faults().set_refusing(true);
                // `self` owns the sender, so waiting cannot fail.
                let _ = refuse_requested.wait_for(|requested| !*requested).await;
                listener = listen_again(address).await;
                self.faults().set_refusing(false);
            }
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(serve_connection(self.clone(), stream, tls.clone(), Arc::clone(&service)));
                    }
                    Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
                },
                Some(_) = connections.join_next() => {}
                _ = refuse_requested.changed() => {}
            }
        }
    }

    /// Responds to one request: reads the body, adds the journal entry, applies a fault, or calls the service.
    async fn handle(
        &self,
        mut request: Request<Incoming>,
        service: &impl Service,
        max_body: usize,
        state: &ConnectionState,
    ) -> Result<Response<Body>, Reset> {
        let _handled = self.inner.requests.enter();
        let upgrade = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
        let (head, body) = request.into_parts();
        let host = host(&head.uri, &head.headers).to_owned();
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let exempt_from_faults = is_preflight(&head);
        let is_before_body = |kind: &FaultKind| !exempt_from_faults && *kind == FaultKind::ResetBeforeBody;
        if self.faults().next_if(head.uri.path(), is_before_body).is_some() {
            let entry = Entry::new(&head.method, target, &host, &head.headers, &Bytes::new(), false);
            let sequence = self.journal().begin(entry);
            return Err(self.reset(sequence, "reset before the body", state));
        }
        let read = read_body(body, max_body).await;
        let entry = Entry::new(&head.method, target, &host, &head.headers, &read.bytes, read.end == BodyEnd::Complete);
        let sequence = self.journal().begin(entry);
        let received = ReceivedRequest {
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            method: head.method,
            host,
            headers: head.headers,
            body: read.bytes,
            upgrade,
        };
        let common = service.common_headers(&received);
        let rejected = match read.end {
            BodyEnd::Complete => None,
            BodyEnd::TooLarge => Some(Reply::empty(StatusCode::PAYLOAD_TOO_LARGE).header(CONNECTION, "close")),
            BodyEnd::Failed => Some(Reply::empty(StatusCode::BAD_REQUEST).header(CONNECTION, "close")),
        };
        if let Some(reply) = rejected {
            self.journal().end(sequence, Some(reply.status.as_u16()), "body rejected");
            return Ok(response(reply.with_default_headers(common)));
        }
        let fault = if exempt_from_faults { None } else { self.faults().next(&received.path) };
        match &fault {
            Some(FaultKind::Hang) => {
                self.journal().end(sequence, None, "hang");
                std::future::pending::<Infallible>().await;
            }
            Some(FaultKind::Reset | FaultKind::ResetBeforeBody) => return Err(self.reset(sequence, "reset", state)),
            Some(FaultKind::Answer { .. }) => {
                let reply = fault.as_ref().map_or_else(|| Reply::empty(StatusCode::OK), fault_reply);
                self.journal().end(sequence, Some(reply.status.as_u16()), "fault");
                return Ok(response(reply.with_default_headers(common)));
            }
            Some(FaultKind::Delay { delay_ms }) => tokio::time::sleep(Duration::from_millis(*delay_ms)).await,
            Some(FaultKind::LoseAnswer | FaultKind::BreakBody) | None => {}
        }
        let mut reply = service.handle(received).await.with_default_headers(common);
        if fault == Some(FaultKind::LoseAnswer) {
            return Err(self.reset(sequence, "answer lost", state));
        }
        self.journal().end(sequence, Some(reply.status.as_u16()), &reply.verdict);
        if fault == Some(FaultKind::BreakBody) && !reply.body.is_empty() {
            return Ok(truncated_response(reply));
        }
        *state.upgrade.lock().unwrap_or_else(PoisonError::into_inner) = reply.upgrade.take();
        Ok(response(reply))
    }

    /// Makes the connection end in a reset, and records that the request gets no response.
    fn reset(&self, sequence: u64, verdict: &str, state: &ConnectionState) -> Reset {
        self.journal().end(sequence, None, verdict);
        state.reset.store(true, Ordering::Relaxed);
        Reset
    }
}

/// Returns the host that a request names, with its port.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a str {
    let authority = uri.authority().map(http::uri::Authority::as_str);
    authority.or_else(|| headers.get(HOST)?.to_str().ok()).unwrap_or_default()
}

async fn serve_connection<S: Service>(server: Server, stream: TcpStream, tls: Option<TlsAcceptor>, service: Arc<S>) {
    let state = Arc::new(ConnectionState::default());
    // Nagle's algorithm would delay small responses.
    let _ = stream.set_nodelay(true);
    let stream = ResettableStream::new(stream, Arc::clone(&state.reset), service.write_timeout());
    let Some(tls) = tls else {
        return serve_http(move |_| Some((server.clone(), Arc::clone(&service))), stream, state).await;
    };
    if let Ok(Ok(stream)) = tokio::time::timeout(IDLE_TIMEOUT, tls.accept(stream)).await {
        serve_http(move |_| Some((server.clone(), Arc::clone(&service))), stream, state).await;
    }
}

/// Serves a connection. `select` returns the server of a host.
pub(super) async fn serve_http<S: Service>(
    select: impl Fn(&str) -> Option<(Server, Arc<S>)>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    state: Arc<ConnectionState>,
) {
    let state_of_connection = Arc::clone(&state);
    let http_service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (selected, state) = (select(host(request.uri(), request.headers())), Arc::clone(&state));
        async move {
            match selected {
                Some((server, service)) if !server.faults().is_refusing() => {
                    server.handle(request, &*service, S::MAX_BODY, &state).await
                }
                Some(_) => {
                    state.reset.store(true, Ordering::Relaxed);
                    Err(Reset)
                }
                None => Ok(response(Reply::text(StatusCode::NOT_FOUND, "no server has this host name"))),
            }
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT);
    builder.http2().timer(TokioTimer::new());
    // Connection errors are not reported, because tests observe them at the client.
    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), http_service).await;
    let upgrade = state_of_connection.upgrade.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(upgrade) = upgrade {
        upgrade.await;
    }
}

/// The state of a connection, shared by its requests and its stream.
#[derive(Default)]
pub(super) struct ConnectionState {
    /// Whether the connection ends in a reset.
    pub(super) reset: Arc<AtomicBool>,
    /// The task that serves the connection after status 101.
    upgrade: Mutex<Option<Upgrade>>,
}

/// The error that closes a connection without a response.
#[derive(Debug, thiserror::Error)]
#[error("a fault resets the connection")]
struct Reset;

/// The part of a request body that was read.
struct ReadBody {
    bytes: Bytes,
    end: BodyEnd,
}

/// The reason why reading ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyEnd {
    /// The whole body was read.
    Complete,
    /// The body exceeds the limit.
    TooLarge,
    /// The connection failed before the end.
    Failed,
}

async fn read_body(mut body: Incoming, max: usize) -> ReadBody {
    if body.size_hint().lower() > max as u64 {
        return ReadBody { bytes: Bytes::new(), end: BodyEnd::TooLarge };
    }
    let mut read = BytesMut::new();
    let end = loop {
        let Some(frame) = body.frame().await else { break BodyEnd::Complete };
        let Ok(frame) = frame else { break BodyEnd::Failed };
        let Ok(data) = frame.into_data() else { continue };
        if read.len() + data.len() > max {
            break BodyEnd::TooLarge;
        }
        read.extend_from_slice(&data);
    };
    ReadBody { bytes: read.freeze(), end }
}

/// Returns whether a request is a CORS preflight.
///
/// Faults apply to the request that follows. A fault of the preflight would use up the fault, and the page could not read the
/// response.
///
/// Source: the Fetch standard, CORS-preflight request.
fn is_preflight(head: &request::Parts) -> bool {
    head.method == Method::OPTIONS && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn fault_reply(fault: &FaultKind) -> Reply {
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

fn response(reply: Reply) -> Response<Body> {
    let body = reply.stream.unwrap_or_else(|| {
        let body = Full::new(reply.body);
        body.map_err(|never: Infallible| match never {}).boxed_unsync()
    });
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
}

/// Returns a response that declares the full length of the body and fails after half of it.
fn truncated_response(reply: Reply) -> Response<Body> {
    let length = reply.body.len();
    let half = Frame::data(reply.body.slice(..length / 2));
    let end = stream::once(async {
        // Yields, so that the first half is written before the error closes the connection.
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
