//! The settings of a sandbox: plain data from a description file, a test or the defaults.

use std::net::{Ipv4Addr, SocketAddr};

use super::client::timeouts::ClientTimeouts;
use super::directory::described::DescribedDirectory;
use super::directory::model::SecretText;
use super::directory::scenario::{TENANT_B, TENANT_C};
use super::server::faults::Fault;

/// The settings of a sandbox. Port 0 selects a free port.
#[derive(Clone, Debug)]
pub struct SandboxSettings {
    /// The host name or IP address of all servers in URLs, issued tokens and certificates. The default is the address that
    /// each server binds.
    pub public_host: Option<String>,
    /// The address of Entra.
    pub entra: SocketAddr,
    /// The address of the instance metadata service.
    pub imds: SocketAddr,
    /// The address of App Service's identity endpoint.
    pub app_service: SocketAddr,
    /// The address of the identity providers outside Entra.
    pub providers: SocketAddr,
    /// The address of Google Cloud's metadata server.
    pub gcp_metadata: SocketAddr,
    /// The address of the control listener.
    pub control: SocketAddr,
    /// The SignalR endpoints.
    pub endpoints: Vec<EndpointSettings>,
    /// Groups of SignalR endpoints that share a port.
    pub groups: Vec<EndpointGroupSettings>,
    /// The timeouts that SignalR endpoints apply to their clients.
    pub client_timeouts: ClientTimeouts,
    /// The content of the directory. The default is that of the built-in scenario.
    pub directory: Option<DescribedDirectory>,
    /// Initial faults, each with the name of its server.
    pub faults: Vec<(String, Fault)>,
    /// Initial hubs. Other hubs are created on first use.
    pub hubs: Vec<HubSettings>,
}

/// The settings of one SignalR endpoint.
#[derive(Clone, Debug)]
pub struct EndpointSettings {
    /// The name.
    pub name: String,
    /// The address.
    pub bind: SocketAddr,
    /// Whether it uses TLS.
    pub tls: bool,
    /// The id of its tenant.
    pub tenant: String,
    /// The primary access key. The default is a random key.
    pub access_key: Option<SecretText>,
}

/// The settings of a group of SignalR endpoints. They share a port with TLS, and the host name of a request selects one of
/// them: `NAME.DOMAIN`.
#[derive(Clone, Debug)]
pub struct EndpointGroupSettings {
    /// The name of the group.
    pub name: String,
    /// The address.
    pub bind: SocketAddr,
    /// The domain of the host names.
    pub domain: String,
    /// The names of the endpoints. Their resources are in the directory.
    pub endpoints: Vec<String>,
}

/// The settings of one hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubSettings {
    /// The name, compared without case.
    pub name: String,
    /// The names of the endpoints that have it.
    pub endpoints: Vec<String>,
    /// Users with their groups. The memberships have no `ttl`.
    pub users: Vec<(String, Vec<String>)>,
}

impl Default for SandboxSettings {
    /// Returns settings with free loopback ports and the endpoints `east` in tenant B and `west` in tenant C, both with TLS.
    fn default() -> Self {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let endpoint = |name: &str, tenant: &str| EndpointSettings {
            name: name.to_owned(),
            bind: free,
            tls: true,
            tenant: tenant.to_owned(),
            access_key: None,
        };
        Self {
            public_host: None,
            entra: free,
            imds: free,
            app_service: free,
            providers: free,
            gcp_metadata: free,
            control: free,
            endpoints: vec![endpoint("east", TENANT_B), endpoint("west", TENANT_C)],
            groups: Vec::new(),
            client_timeouts: ClientTimeouts::default(),
            directory: None,
            faults: Vec::new(),
            hubs: Vec::new(),
        }
    }
}

/// Returns the URL of a server without TLS at an address that it binds. Others reach one that binds every address by the public
/// host.
pub(super) fn url_of(address: SocketAddr, public_host: Option<&str>) -> String {
    origin(false, public_host.filter(|_| address.ip().is_unspecified()), address)
}

/// Returns the origin of a server that listens on `address`.
pub(super) fn origin(tls: bool, public_host: Option<&str>, address: SocketAddr) -> String {
    let scheme = if tls { "https" } else { "http" };
    match public_host {
        Some(host) if host.contains(':') => format!("{scheme}://[{host}]:{}", address.port()),
        Some(host) => format!("{scheme}://{host}:{}", address.port()),
        None => format!("{scheme}://{address}"),
    }
}
