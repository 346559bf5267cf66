//! One emulated SignalR endpoint: its server, its hubs and its access keys.

use std::sync::Arc;

use super::access::AccessKeys;
use super::hubs::Hubs;
use crate::sandbox::directory::model::SecretText;
use crate::sandbox::server::listen::Server;

/// A shared handle to one emulated SignalR endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The server: its address, faults and journal.
    pub server: Server,
    /// The hubs and their connections.
    pub hubs: Arc<Hubs>,
    keys: Arc<AccessKeys>,
    hosts: EndpointHosts,
}

/// The host names of an endpoint, besides those of its address.
#[derive(Clone, Debug)]
pub(crate) enum EndpointHosts {
    /// Those of its address only.
    Address,
    /// A public host, with any port.
    Public(Arc<str>),
    /// A host of its own, by which the shared port selected it.
    Selected,
}

impl Endpoint {
    /// Creates an endpoint. Without `access_key`, its primary key is random.
    pub(crate) fn new(server: Server, access_key: Option<SecretText>, hosts: EndpointHosts) -> Self {
        let keys = Arc::new(AccessKeys::with_primary(access_key));
        Self { server, hubs: Arc::default(), keys, hosts }
    }

    /// Returns the endpoint's name.
    pub fn name(&self) -> &str {
        self.server.name()
    }

    /// Returns the endpoint's origin, without a trailing slash.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Returns the primary access key.
    pub fn access_key(&self) -> &SecretText {
        self.keys.primary()
    }

    /// Returns the access keys.
    pub(crate) fn keys(&self) -> &AccessKeys {
        &self.keys
    }

    /// Returns whether a request to a host is for this endpoint. Azure selects the resource by the host name.
    pub(crate) fn has_host(&self, host: &str) -> bool {
        match &self.hosts {
            EndpointHosts::Selected => return true,
            EndpointHosts::Public(public) if is_public_host(host, public) => return true,
            EndpointHosts::Public(_) | EndpointHosts::Address => {}
        }
        let address = self.server.address();
        // Some clients omit the port.
        let ip = address.ip().to_string();
        let own = [address.to_string(), format!("localhost:{}", address.port()), ip, String::from("localhost")];
        own.iter().any(|own| own.eq_ignore_ascii_case(host))
    }
}

/// Returns whether a host is the public host or a loopback host, with any port. A forwarded port can differ from the
/// endpoint's own.
fn is_public_host(host: &str, public: &str) -> bool {
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name).trim_start_matches('[').trim_end_matches(']');
    [public, "localhost", "127.0.0.1", "::1"].iter().any(|own| own.eq_ignore_ascii_case(name))
}
