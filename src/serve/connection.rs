//! One connection: TLS if the listener has it, then HTTP/1.1 or HTTP/2, whichever the caller speaks.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::balance::Accepted;
use super::bell::CallerBody;
use super::open::{Connection, OpenConnections};
use super::protocol::{Opened, Protocol};
use super::socket::ByteStream;
use super::{Handler, Peer, Phase, ServeSettings};
use crate::outbox::{Batched, Outbox};

/// The most that is buffered of one connection's input, and so the largest head that can be answered properly. A
/// larger one gets hyper's own bare 431.
const READ_BUFFER: usize = 80 * 1024;
/// Streams one HTTP/2 connection may have open.
const HTTP2_STREAMS: u32 = 256;
/// How often an idle HTTP/2 connection is asked whether it is still there.
const HTTP2_PING: Duration = Duration::from_secs(30);

/// A connection: plain, or secured. That is in a box, since it is ten times as large.
type Io = Either<Batched<ByteStream>, Box<TlsStream<Batched<ByteStream>>>>;

/// What a worker needs to serve connections.
pub(super) struct Connections<H> {
    handler: Rc<H>,
    http1: http1::Builder,
    http2: http2::Builder<LocalExecutor>,
    /// By listener.
    tls: Vec<Option<TlsAcceptor>>,
    handshake_timeout: Duration,
    leaving: Rc<Cell<bool>>,
    open: Rc<OpenConnections>,
    outbox: Outbox,
}

impl<H: Handler> Connections<H> {
    pub(super) fn new(
        handler: H,
        settings: &ServeSettings,
        tls: Vec<Option<TlsAcceptor>>,
        mut phase: watch::Receiver<Phase>,
        outbox: Outbox,
    ) -> Self {
        let mut http1 = http1::Builder::new();
        // `open` closes those that take too long.
        http1.header_read_timeout(None).max_buf_size(READ_BUFFER);
        let mut http2 = http2::Builder::new(LocalExecutor);
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(HTTP2_STREAMS)
            .keep_alive_interval(HTTP2_PING)
            .max_header_list_size(u32::try_from(READ_BUFFER).unwrap_or(u32::MAX));
        let leaving = Rc::new(Cell::new(false));
        let flag = Rc::clone(&leaving);
        // Ends with the worker's runtime.
        tokio::task::spawn_local(async move {
            let left = phase.wait_for(|phase| *phase >= Phase::Leaving).await;
            flag.set(left.is_ok());
        });
        let open = OpenConnections::new(settings.header_read_timeout);
        Self {
            handler: Rc::new(handler),
            http1,
            http2,
            tls,
            handshake_timeout: settings.header_read_timeout,
            leaving,
            open,
            outbox,
        }
    }

    /// Returns those that are open.
    pub(super) fn open(&self) -> &Rc<OpenConnections> {
        &self.open
    }

    /// Serves a connection to its end.
    pub(super) async fn serve(self: Rc<Self>, accepted: Accepted) {
        let connection = self.open.open();
        let Accepted { stream, listener, load: _load } = accepted;
        let (bytes, address) = stream.into_parts();
        let forwarded_for =
            address.and_then(|address| HeaderValue::try_from(address.ip().to_canonical().to_string()).ok());
        let tls = self.tls.get(listener).and_then(Option::as_ref);
        let peer = Rc::new(Peer { listener, address, is_tls: tls.is_some(), forwarded_for });
        let bytes = Batched::new(bytes, &self.outbox);
        let io = match tls {
            None => Either::Left(bytes),
            Some(tls) => {
                // In a box, or plain connections would have room for it.
                let handshake = Box::pin(tokio::time::timeout(self.handshake_timeout, tls.accept(bytes)));
                match connection.unless_leaving(handshake).await {
                    Some(Ok(Ok(stream))) => Either::Right(Box::new(stream)),
                    Some(Ok(Err(err))) => {
                        return tracing::debug!(error = %err, peer = ?address, "a caller's TLS handshake failed");
                    }
                    Some(Err(_late)) => {
                        return tracing::debug!(peer = ?address, "a caller's TLS handshake took too long");
                    }
                    None => return,
                }
            }
        };
        self.speak_http(io, peer, &connection).await;
    }

    async fn speak_http(&self, io: Io, peer: Rc<Peer>, connection: &Rc<Connection>) {
        let (protocol, io) = match connection.unless_leaving(Opened::read(io)).await {
            Some(Ok(opened)) => opened,
            Some(Err(err)) => return tracing::debug!(error = %err, peer = ?peer.address, "a caller's connection broke"),
            None => return,
        };
        let is_http1 = protocol == Protocol::Http1;
        let service = service_fn(|request: Request<Incoming>| {
            let leaving = Rc::clone(&self.leaving);
            let bell = connection.bell().filter(|_| is_http1);
            let answer = self.handler.handle(&peer, request.map(|incoming| CallerBody::new(incoming, bell)));
            let request = connection.request();
            async move {
                let mut response = answer.await.map(|body| request.until_end_of(body));
                // HTTP/2 has GOAWAY for this, and forbids the header.
                if is_http1 && leaving.get() {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let io = TokioIo::new(io);
        let served = match protocol {
            Protocol::Http1 => connection.drive(self.http1.serve_connection(io, service)).await,
            // In a box: it is larger, and every connection would have room for it.
            Protocol::Http2 => Box::pin(connection.drive(self.http2.serve_connection(io, service))).await,
        };
        if let Err(err) = served {
            tracing::debug!(error = &err as &dyn std::error::Error, peer = ?peer.address, "a caller's connection ended badly");
        }
    }
}

/// Runs the streams of HTTP/2 connections on the worker's own thread.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
