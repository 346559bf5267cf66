//! The interface between the server and the handler of its requests.

use std::net::SocketAddr;
use std::rc::Rc;

use http::{HeaderValue, Request, Response};

use super::body::CallerBody;
use super::identity::CallerIdentity;
use super::listeners::ListenerId;
use crate::metrics::ProxyProtocolError;

/// The caller of a connection, and the listener that accepted it.
#[derive(Debug)]
pub struct Peer {
    /// The listener that accepted it.
    pub listener: ListenerId,
    /// The address, or the one that a trusted proxy reported by the PROXY protocol; `None` on a Unix socket without such a
    /// report.
    pub address: Option<SocketAddr>,
    /// Whether the connection was accepted on a Unix socket.
    pub is_unix: bool,
    /// Whether the connection is TLS.
    pub is_tls: bool,
    /// What its certificate names it; `None` if it has sent none.
    pub identity: Option<CallerIdentity>,
    /// The IP address as a header value, made once for the connection; `None` if there is no address.
    pub forwarded_for: Option<HeaderValue>,
}

/// A handler of requests. A worker calls it for each request, on the worker's own thread.
pub trait Handler: 'static {
    /// The body of its responses.
    type Body: http_body::Body<Data = bytes::Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + 'static;

    /// Answers a request. A request whose head was rejected carries a [`HeadError`](super::HeadError) in its extensions.
    /// The future is dropped when the caller disconnects. Each connection reserves memory for the future, even while it is
    /// idle: box large state.
    fn handle(
        &self,
        peer: &Rc<Peer>,
        request: Request<CallerBody>,
    ) -> impl Future<Output = Response<Self::Body>> + 'static;

    /// Called when a listener was opened or replaced, before its first connection.
    fn listeners_changed(&self) {}

    /// Called when a connection to a listener with the PROXY protocol is closed before it is served.
    fn proxy_protocol_refused(&self, _listener: ListenerId, _peer: Option<SocketAddr>, _error: ProxyProtocolError) {}

    /// Called when a listener is closed and its last connection on this worker has ended.
    fn listener_ended(&self, _listener: ListenerId) {}
}
