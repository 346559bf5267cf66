//! The settings of proxies. They name secrets, which are read when they are used.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::no_proxy::NoProxy;
use super::tunnel::Target;
use crate::files::SecretSource;

/// The proxy that connections go through, and the hosts that are connected to directly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Egress {
    /// The proxy; `None` if all connections are direct.
    pub proxy: Option<Arc<EgressProxy>>,
    /// The hosts that are connected to directly.
    pub no_proxy: NoProxy,
}

impl Egress {
    /// Returns the proxy for connections to a host: a name, or an IP address without brackets.
    pub fn proxy_for(&self, host: &str) -> Option<&Arc<EgressProxy>> {
        self.proxy.as_ref().filter(|_| !self.no_proxy.matches(host))
    }

    /// Returns the file with the CAs that are trusted for the proxy, if they are in a file.
    pub fn ca_file(&self) -> Option<&Path> {
        self.proxy.as_ref()?.ca_file.as_deref()
    }

    /// Returns the file with the password of the proxy, if it is in a file.
    pub fn password_file(&self) -> Option<&Path> {
        match self.proxy.as_ref()?.credentials.as_ref()? {
            ProxyCredentials::Configured { password, .. } => password.file(),
            ProxyCredentials::UrlInVariable(_) => None,
        }
    }
}

/// A forward proxy. `Display` formats its URL, without user information.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EgressProxy {
    /// Whether connections to the proxy itself use TLS.
    pub tls: bool,
    /// The host: a name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The PEM file of the CAs that are trusted for the proxy, instead of the system's CAs.
    pub ca_file: Option<PathBuf>,
    /// How the gateway authenticates to the proxy.
    pub credentials: Option<ProxyCredentials>,
    /// The key or environment variable that configures it, for messages.
    pub configured_by: String,
}

/// A user name and a password for `Basic` authentication to a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProxyCredentials {
    /// Configured.
    Configured {
        /// The user name, without a colon.
        username: String,
        /// The password.
        password: SecretSource,
    },
    /// In the URL in this environment variable.
    UrlInVariable(String),
}

impl fmt::Display for EgressProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", Target::new(&self.host, self.port))
    }
}
