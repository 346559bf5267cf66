//! Why a connection through a proxy cannot be opened. Nothing was sent to the server then.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use http::StatusCode;

use crate::files::SecretSourceError;

/// Why there is no tunnel through a proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Name resolution failed.
    #[error("name resolution of the proxy failed")]
    Dns(#[source] Box<dyn Error + Send + Sync>),
    /// No address accepted the connection.
    #[error("the proxy does not accept connections")]
    Tcp(#[source] io::Error),
    /// The TLS handshake with the proxy itself failed.
    #[error("the TLS handshake with the proxy failed")]
    Tls(#[source] io::Error),
    /// The tunnel was not open in time.
    #[error("{} did not finish within {}", stage(*.layer), humantime::format_duration(*.within))]
    Timeout {
        /// What did not finish.
        layer: ProxyLayer,
        /// The timeout.
        within: Duration,
    },
    /// The proxy did not open a tunnel.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
}

/// Why a proxy opened no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The password cannot be read.
    #[error("the password of the proxy cannot be read")]
    Password(#[source] SecretSourceError),
    /// The variable has no user name and password.
    #[error("the URL in the environment variable {0} has no usable user name and password")]
    UnusableVariable(String),
    /// The proxy refused.
    #[error("{0}")]
    Refused(Refusal),
    /// The proxy has refused the user name and password before, and was not asked again.
    #[error(
        "the proxy answered {}: it does not accept the user name and password; they are not sent again for {}",
        status.as_u16(),
        humantime::format_duration(Duration::from_secs(wait.as_secs() + 1))
    )]
    RefusedBefore {
        /// The status of the refusal.
        status: StatusCode,
        /// How long they are not sent again.
        wait: Duration,
    },
    /// The answer is not HTTP.
    #[error(
        "the answer of the proxy is not an HTTP response: another kind of server listens there, or the proxy expects TLS"
    )]
    NotHttp,
    /// The head of the answer is too large.
    #[error("the head of the proxy's answer is larger than {0} bytes")]
    HeadTooLarge(usize),
    /// Bytes after the answer, before anything was sent through the tunnel.
    #[error("the proxy sent data that is not part of its answer, before anything was sent through the tunnel")]
    EarlyData,
    /// The connection was closed.
    #[error("the proxy closed the connection before it answered")]
    Closed,
    /// The connection failed.
    #[error("the connection to the proxy failed")]
    Io(#[from] io::Error),
}

/// The answer of a proxy that opened no tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// Whether the request had a user name and a password.
    pub was_authenticated: bool,
    /// What the proxy says about it, in one line, with possible secrets masked.
    pub detail: Option<String>,
}

/// Why a proxy opened no tunnel, as far as that decides what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// It wants a user name and a password.
    NoCredentials,
    /// It does not accept the user name and the password.
    WrongCredentials,
    /// It does not allow the destination or the client.
    Forbidden,
    /// It could not connect to the destination.
    Unreachable,
    /// Anything else, such as a server that is no proxy.
    Other,
}

/// A layer of the connection to a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyLayer {
    /// Name resolution.
    Name,
    /// TCP.
    Connection,
    /// TLS with the proxy itself.
    Tls,
    /// The password on this host.
    Password,
    /// The answer to CONNECT: a refusal.
    Refused(RefusalKind),
    /// The answer to CONNECT: none, or none that can be read.
    Answer,
}

impl Refusal {
    /// Returns what the status means.
    pub fn kind(&self) -> RefusalKind {
        match self.status.as_u16() {
            // tinyproxy answers 401 to a wrong password.
            401 | 407 if self.was_authenticated => RefusalKind::WrongCredentials,
            407 => RefusalKind::NoCredentials,
            403 | 451 => RefusalKind::Forbidden,
            500 | 502..=504 => RefusalKind::Unreachable,
            _ => RefusalKind::Other,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match self.kind() {
            RefusalKind::NoCredentials => "it requires a user name and a password; configure `username` and `password`",
            RefusalKind::WrongCredentials => "it does not accept the user name and password",
            RefusalKind::Forbidden => "its rules do not allow the destination; have its operator allow it",
            RefusalKind::Unreachable => "it could not connect to the destination",
            RefusalKind::Other => "it opens no tunnel; check that it is a proxy that allows CONNECT",
        };
        write!(f, "the proxy answered {}: {meaning}", self.status.as_u16())?;
        self.detail.as_ref().map_or(Ok(()), |detail| write!(f, " ({detail})"))
    }
}

impl ProxyError {
    /// Returns the layer that failed.
    pub fn layer(&self) -> ProxyLayer {
        match self {
            Self::Dns(_) => ProxyLayer::Name,
            Self::Tcp(_) => ProxyLayer::Connection,
            Self::Tls(_) => ProxyLayer::Tls,
            Self::Timeout { layer, .. } => *layer,
            Self::Tunnel(err) => err.layer(),
        }
    }
}

impl TunnelError {
    /// Returns the layer that failed.
    pub fn layer(&self) -> ProxyLayer {
        match self {
            Self::Password(_) | Self::UnusableVariable(_) => ProxyLayer::Password,
            Self::Refused(refusal) => ProxyLayer::Refused(refusal.kind()),
            Self::RefusedBefore { .. } => ProxyLayer::Refused(RefusalKind::WrongCredentials),
            Self::NotHttp | Self::HeadTooLarge(_) | Self::EarlyData | Self::Closed | Self::Io(_) => ProxyLayer::Answer,
        }
    }
}

impl ProxyLayer {
    /// Returns whether the failure lasts until the password or the configuration is changed.
    pub fn is_permanent(self) -> bool {
        match self {
            Self::Password | Self::Refused(RefusalKind::NoCredentials | RefusalKind::WrongCredentials) => true,
            Self::Name | Self::Connection | Self::Tls | Self::Refused(_) | Self::Answer => false,
        }
    }
}

/// Returns the name of what did not finish.
fn stage(layer: ProxyLayer) -> &'static str {
    match layer {
        ProxyLayer::Name => "name resolution of the proxy",
        ProxyLayer::Connection => "connecting to the proxy",
        ProxyLayer::Tls => "the TLS handshake with the proxy",
        ProxyLayer::Password | ProxyLayer::Refused(_) | ProxyLayer::Answer => "the proxy's answer to CONNECT",
    }
}
