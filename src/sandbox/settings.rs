//! What a sandbox is started with. Plain data; who wrote it, and in which form, it does not know.

use std::net::{Ipv4Addr, SocketAddr};

use super::client::times::ClientTimes;
use super::directory::model::SecretText;
use super::directory::scenario::{TENANT_B, TENANT_C};
use super::directory::world::World;
use super::server::faults::Fault;

/// What a sandbox is started with. Every port may be 0: a free one.
#[derive(Clone, Debug)]
pub struct SandboxSettings {
    /// The name or address under which gateway and clients reach all servers: it stands in their URLs, in what Entra
    /// issues and in certificates. The address that each server binds if not said.
    pub public_host: Option<String>,
    /// Where Entra listens.
    pub entra: SocketAddr,
    /// Where the instance metadata service listens.
    pub imds: SocketAddr,
    /// Where the identity endpoint of App Service listens.
    pub app_service: SocketAddr,
    /// Where the identity providers outside Entra listen.
    pub providers: SocketAddr,
    /// Where the metadata server of Google Cloud listens.
    pub gcp_metadata: SocketAddr,
    /// Where the control listener listens.
    pub control: SocketAddr,
    /// The SignalR endpoints.
    pub endpoints: Vec<EndpointSettings>,
    /// The times that SignalR endpoints keep to with their clients.
    pub client_times: ClientTimes,
    /// What stands in the directory; the ready-made scenario of two tenants if not said.
    pub world: Option<World>,
    /// Faults that are there from the start, each with the name of its server.
    pub faults: Vec<(String, Fault)>,
    /// Hubs that are there from the start. All others are made when first used.
    pub hubs: Vec<HubSettings>,
}

/// One SignalR endpoint to start.
#[derive(Clone, Debug)]
pub struct EndpointSettings {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub bind: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// The id of the tenant it lives in.
    pub tenant: String,
    /// Its primary access key; a new one if not said.
    pub access_key: Option<SecretText>,
}

/// A hub that is there from the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubSettings {
    /// Its name, compared without case.
    pub name: String,
    /// The names of the endpoints that have it.
    pub endpoints: Vec<String>,
    /// Users with the groups that they are in, connected or not: as after adding each of them without an end.
    pub users: Vec<(String, Vec<String>)>,
}

impl Default for SandboxSettings {
    /// Loopback, free ports; `east` in tenant B and `west` in tenant C, both with TLS.
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
            client_times: ClientTimes::default(),
            world: None,
            faults: Vec::new(),
            hubs: Vec::new(),
        }
    }
}

/// The origin of a server that listens on `address`.
pub(super) fn origin(tls: bool, public_host: Option<&str>, address: SocketAddr) -> String {
    let scheme = if tls { "https" } else { "http" };
    match public_host {
        Some(host) if host.contains(':') => format!("{scheme}://[{host}]:{}", address.port()),
        Some(host) => format!("{scheme}://{host}:{}", address.port()),
        None => format!("{scheme}://{address}"),
    }
}
