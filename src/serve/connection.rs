//! One connection: TLS if the listener has it, then HTTP/1.1 or HTTP/2.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder as Http1Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::balance::Accepted;
use super::body::CallerBody;
use super::caller_address::TrustedProxies;
use super::caller_stream::{CallerStream, Source};
use super::drain::Phase;
use super::handler::{Handler, Peer};
use super::http1::Http1Check;
use super::http2::{self, FrameBudget, FrameCounter, Http2};
use super::identity::{CallerIdentity, IdentityError};
use super::open_connections::{Connection, OpenConnections};
use super::protocol::Protocol;
use super::proxy_protocol;
use super::settings::ServeSettings;
use super::socket::ByteStream;
use super::timeouts::ConnectionTimeouts;
use super::tls_refusal::report_failed_handshake;
use crate::metrics::{CallerMetrics, ProxyProtocolError};
use crate::runbook::{Condition, Section};
use crate::write_batch::{Batched, WriteBatch};

/// The most bytes that hyper buffers of one connection's input. Larger than the largest head that [`Http1Check`] passes.
const READ_BUFFER: usize = 80 * 1024;

/// The bytes of a connection, plain or over TLS. TLS is boxed because it is ten times as large.
type Io = Either<Batched<ByteStream>, Box<TlsStream<Batched<ByteStream>>>>;

/// The server of one worker's connections.
pub(super) struct ConnectionServer<H> {
    handler: Rc<H>,
    http1: Http1Builder,
    http2: h2::server::Builder,
    handshake_timeout: Duration,
    write_timeout: Duration,
    /// Whether every response asks its caller to close the connection.
    asks_to_close: Rc<Cell<bool>>,
    open: Rc<OpenConnections>,
    write_batch: WriteBatch,
    metrics: CallerMetrics,
}

impl<H: Handler> ConnectionServer<H> {
    pub(super) fn new(
        handler: H,
        settings: &ServeSettings,
        mut phase: watch::Receiver<Phase>,
        write_batch: WriteBatch,
        metrics: &CallerMetrics,
    ) -> Self {
        let mut http1 = Http1Builder::new();
        // `OpenConnections` enforces this timeout.
        http1.header_read_timeout(None).max_buf_size(READ_BUFFER);
        let asks_to_close = Rc::new(Cell::new(false));
        let flag = Rc::clone(&asks_to_close);
        // Ends with the worker's runtime.
        tokio::task::spawn_local(async move {
            let reached = phase.wait_for(|phase| *phase >= Phase::DrainDelay).await;
            flag.set(reached.is_ok());
        });
        let open = OpenConnections::new(ConnectionTimeouts::of(settings), metrics.clone());
        Self {
            handler: Rc::new(handler),
            http1,
            http2: http2::builder(u32::try_from(READ_BUFFER).unwrap_or(u32::MAX)),
            handshake_timeout: settings.header_read_timeout,
            write_timeout: settings.write_timeout,
            asks_to_close,
            open,
            write_batch,
            metrics: metrics.clone(),
        }
    }

    /// Returns the handler of requests.
    pub(super) fn handler(&self) -> &Rc<H> {
        &self.handler
    }

    /// Returns the open connections.
    pub(super) fn open(&self) -> &Rc<OpenConnections> {
        &self.open
    }

    /// Serves a connection in a task of its own. It is open from now on, so a worker that stops waits for its first request even if
    /// the task has not run yet.
    pub(super) fn start(self: &Rc<Self>, accepted: Accepted) {
        let connection = self.open.add(accepted.listener.id);
        // Awaited by its worker as an open connection, or dropped with the runtime.
        tokio::task::spawn_local(Rc::clone(self).serve(accepted, connection));
    }

    /// Serves a connection until it ends.
    async fn serve(self: Rc<Self>, accepted: Accepted, connection: Rc<Connection>) {
        let Accepted { stream, listener, guard: _guard } = accepted;
        let (mut bytes, mut address) = stream.into_parts();
        let is_unix = address.is_none();
        let deadline = Instant::now() + self.handshake_timeout;
        if let Some(trusted) = &listener.proxy_protocol {
            // Boxed: other connections would otherwise reserve memory for it.
            let read = Box::pin(self.read_proxy_header(&mut bytes, address, trusted, &connection, deadline));
            match read.await {
                ControlFlow::Continue(source) => address = source.or(address),
                ControlFlow::Break(None) => return,
                ControlFlow::Break(Some(error)) => {
                    return self.handler.proxy_protocol_refused(listener.id, address, error);
                }
            }
        }
        let forwarded_for =
            address.and_then(|address| HeaderValue::try_from(address.ip().to_canonical().to_string()).ok());
        let tls = listener.tls.as_ref().map(|live| (live, live.current()));
        let bytes = Batched::new(bytes, &self.write_batch);
        let (io, alpn, identity) = match &tls {
            None => (Either::Left(bytes), None, None),
            Some((live, tls)) => {
                // Boxed: plain connections would otherwise reserve memory for it.
                let handshake = Box::pin(tokio::time::timeout_at(deadline, tls.acceptor().accept(bytes)));
                match connection.unless_closing(handshake).await {
                    Some(Ok(Ok(stream))) => {
                        let session = stream.get_ref().1;
                        let alpn = Protocol::of_alpn(session.alpn_protocol());
                        let identity = match identity(session) {
                            Ok(identity) => identity,
                            // The verifier has already rejected such certificates.
                            Err(err) => {
                                let section = Section::Condition(Condition::CallerWithoutIdentity);
                                return tracing::warn!(error = %err, peer = ?address, side = "caller", remedy = section.remedy(), runbook = %section, "a caller has no identity");
                            }
                        };
                        (Either::Right(Box::new(stream)), alpn, identity)
                    }
                    Some(Ok(Err(err))) => {
                        return report_failed_handshake(live.listener(), address, &err, &self.metrics);
                    }
                    Some(Err(_late)) => {
                        return tracing::debug!(peer = ?address, "a caller's TLS handshake took too long");
                    }
                    None => return,
                }
            }
        };
        let is_tls = tls.is_some();
        if let Some((live, tls)) = tls {
            connection.set_tls(live, tls);
        }
        let peer = Peer { listener: listener.id, address, is_unix, is_tls, identity, forwarded_for };
        let peer = Rc::new(peer);
        let mut io = io;
        let (protocol, first) = match connection.unless_closing(Protocol::detect(&mut io)).await {
            Some(Ok(detected)) => detected,
            Some(Err(err)) => return tracing::debug!(error = %err, peer = ?address, "a caller's connection failed"),
            None => return,
        };
        let source = Source::new(first, io);
        // The protocol of ALPN takes precedence. Each server rejects the first bytes of the other protocol.
        match alpn.unwrap_or(protocol) {
            Protocol::Http1 => self.serve_http1(source, peer, &connection).await,
            // Boxed: every connection would otherwise reserve memory for it.
            Protocol::Http2 => Box::pin(self.serve_http2(source, peer, &connection)).await,
        }
    }

    /// Reads the header of the PROXY protocol. Returns the reported address, or breaks with the reason why the connection must be
    /// closed, if there is one.
    async fn read_proxy_header(
        &self,
        bytes: &mut ByteStream,
        peer: Option<SocketAddr>,
        trusted: &TrustedProxies,
        connection: &Connection,
        deadline: Instant,
    ) -> ControlFlow<Option<ProxyProtocolError>, Option<SocketAddr>> {
        if !trusted.includes(peer.map(|peer| peer.ip())) {
            return ControlFlow::Break(Some(ProxyProtocolError::Untrusted));
        }
        let read = tokio::time::timeout_at(deadline, proxy_protocol::read(bytes));
        match connection.unless_closing(read).await {
            Some(Ok(Ok(Ok(Some(header))))) => ControlFlow::Continue(header.source),
            Some(Ok(Ok(Err(error)))) => ControlFlow::Break(Some(error)),
            Some(Err(_late)) => ControlFlow::Break(Some(ProxyProtocolError::Timeout)),
            Some(Ok(Err(err))) => {
                tracing::debug!(error = %err, ?peer, "a caller's connection failed");
                ControlFlow::Break(None)
            }
            Some(Ok(Ok(Ok(None)))) | None => ControlFlow::Break(None),
        }
    }

    async fn serve_http1(&self, source: Source<Io>, peer: Rc<Peer>, connection: &Rc<Connection>) {
        let service = service_fn(|mut request: Request<Incoming>| {
            if let Some(head_error) = connection.take_head_error() {
                request.extensions_mut().insert(head_error);
            }
            let asks_to_close = Rc::clone(&self.asks_to_close);
            let waker = connection.waker();
            let response = self.handler.handle(&peer, request.map(|incoming| CallerBody::http1(incoming, waker)));
            let request = connection.count_request();
            async move {
                let response = response.await;
                let is_last = asks_to_close.get() || request.asks_to_close();
                let mut response = response.map(|body| request.until_end_of(body));
                if is_last {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let check = Http1Check::new(Rc::clone(connection));
        let io = TokioIo::new(CallerStream::new(source, check, connection));
        if let Err(err) = connection.drive(self.http1.serve_connection(io, service)).await {
            log_failure(&err, &peer);
        }
    }

    async fn serve_http2(&self, source: Source<Io>, peer: Rc<Peer>, connection: &Rc<Connection>) {
        connection.record_http2();
        let budget = FrameBudget::new();
        let start = |incoming| {
            let (handler, peer) = (Rc::clone(&self.handler), Rc::clone(&peer));
            let (connection, budget) = (Rc::clone(connection), Rc::clone(&budget));
            let stream = http2::serve_stream(incoming, handler, peer, connection, budget, self.write_timeout);
            // Ends with the stream.
            tokio::task::spawn_local(stream);
        };
        let io = CallerStream::new(source, FrameCounter::new(&budget), connection);
        if let Err(err) = connection.drive(Http2::new(io, &self.http2, &budget, start)).await {
            log_failure(&err, &peer);
        }
    }
}

/// Returns the identity of a caller by the certificate that it has sent in this handshake; `None` if it has sent none.
fn identity(session: &rustls::ServerConnection) -> Result<Option<CallerIdentity>, IdentityError> {
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    certificate.map(|certificate| CallerIdentity::of_certificate(certificate)).transpose()
}

fn log_failure(err: &(dyn std::error::Error + 'static), peer: &Peer) {
    tracing::debug!(error = err, peer = ?peer.address, "a caller's connection failed");
}
