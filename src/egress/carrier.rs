//! The connection to a proxy, from TCP to the open tunnel.

use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::authorization::Authorization;
use super::error::{ProxyError, ProxyLayer};
use super::tunnel::Target;
use crate::tls::connect;

/// A byte stream to the server, or to a proxy that has opened a tunnel to it. It uses TLS if the proxy itself does. TLS is boxed
/// because it is ten times as large.
pub type Carrier<S> = Either<S, Box<TlsStream<S>>>;

/// When a tunnel must be open.
#[derive(Clone, Copy, Debug)]
pub struct TunnelDeadline {
    /// The time.
    pub at: Instant,
    /// The timeout that it follows from, for messages.
    pub within: Duration,
}

/// Opens a tunnel to `target` over a connection to a proxy, with TLS to the proxy itself if `tls` is some.
///
/// # Errors
/// [`ProxyError`] if the proxy does not open it in time. Nothing was sent to the target.
///
/// # Cancel safety
/// Safe: cancellation closes the connection.
pub async fn open_over<S: AsyncRead + AsyncWrite + Unpin>(
    tcp: S,
    tls: Option<(&TlsConnector, &ServerName<'static>)>,
    authorization: &Authorization,
    target: &Target,
    deadline: TunnelDeadline,
) -> Result<Carrier<S>, ProxyError> {
    let late = |layer| ProxyError::Timeout { layer, within: deadline.within };
    let mut carrier = match tls {
        None => Carrier::Left(tcp),
        Some((connector, name)) => {
            let secured = timeout_at(deadline.at, connect(connector, name.clone(), tcp)).await;
            let secured = secured.map_err(|_elapsed| late(ProxyLayer::Tls))?;
            Carrier::Right(Box::new(secured.map_err(ProxyError::Tls)?))
        }
    };
    let opened = timeout_at(deadline.at, authorization.open_tunnel(&mut carrier, target)).await;
    opened.map_err(|_elapsed| late(ProxyLayer::Answer))??;
    Ok(carrier)
}
