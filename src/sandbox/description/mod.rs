//! The description file of a sandbox (TOML): reads it into settings and reports all its problems at once.
//! `config/sandbox.toml` shows every key.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use crate::sandbox::client::times::ClientTimes;
use crate::sandbox::gateway_config::config::GatewayConfig;
use crate::sandbox::server::faults::Fault;
use crate::sandbox::settings::{EndpointSettings, SandboxSettings};

mod gateway;
mod hubs;
mod reader;
mod tenants;

#[cfg(test)]
mod tests;

pub use reader::FileError;
use reader::{Reader, Source};
use tenants::Names;

/// The names of the servers other than SignalR endpoints.
const OTHER_SERVERS: [&str; 6] = ["entra", "imds", "app_service", "providers", "gcp_metadata", "control"];

/// The content of a description file.
#[derive(Clone, Debug)]
pub struct Description {
    /// The settings of the sandbox.
    pub settings: SandboxSettings,
    /// The settings of a gateway in front of it.
    pub gateway: GatewayConfig,
}

impl Description {
    /// Reads a file.
    ///
    /// # Errors
    /// All problems of the file, each with its key and line.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|err| FileError::of_file(path, &format!("cannot read the file: {err}")))?;
        let source = Source::new(path, &text);
        let description = Self::parse(&source)?;
        source.finish().map(|()| description)
    }

    fn parse(source: &Source) -> Result<Self, FileError> {
        let document = source.parse()?;
        let root = Reader::root(source, document.as_table());
        let public_host = public_host(&root);
        let bind = root.parsed::<IpAddr>("bind", "an IP address").unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        if bind.is_unspecified() && public_host.is_none() {
            root.problem("bind", "set `public_host` to bind every address: URLs and certificates need a host name");
        }
        let at = |port| SocketAddr::from((bind, port));
        let ports = root.table("ports");
        let port = |name| at(ports.as_ref().map_or(0, |ports| ports.port(name)));
        let mut names = Names::default();
        let tenants = tenants::tenants(&root, &mut names);
        let (endpoints, resources) = endpoints(&root, &mut names, bind);
        let described = tenants::described_directory(&root, &mut names, tenants, resources);
        let gateway = GatewayConfig {
            // Callers use the same host name for the gateway.
            hosts: public_host.iter().filter(|host| host.parse::<IpAddr>().is_err()).cloned().collect(),
            ..gateway::config(&root, &names, &described)
        };
        let settings = SandboxSettings {
            public_host,
            entra: port("entra"),
            imds: port("imds"),
            app_service: port("app_service"),
            providers: port("providers"),
            gcp_metadata: port("gcp_metadata"),
            control: port("control"),
            client_times: client_times(&root),
            faults: faults(&root, &endpoints),
            hubs: hubs::hubs(&root, &names.endpoints),
            endpoints,
            directory: Some(described),
        };
        Ok(Self { settings, gateway })
    }
}

fn public_host(root: &Reader<'_>) -> Option<String> {
    let host = root.text("public_host")?;
    let is_name = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    if !is_name && host.parse::<IpAddr>().is_err() {
        root.problem("public_host", &format!("`{host}` is not a host name or IP address; omit scheme and port"));
    }
    Some(host)
}

fn endpoints(
    root: &Reader<'_>,
    names: &mut Names,
    bind: IpAddr,
) -> (Vec<EndpointSettings>, Vec<crate::sandbox::directory::model::Resource>) {
    let (mut endpoints, mut resources) = (Vec::new(), Vec::new());
    for table in root.named("endpoints") {
        let name = table.name().to_owned();
        if OTHER_SERVERS.contains(&name.as_str()) {
            table.problem_here("the name is reserved for another server of the sandbox");
        }
        let tenant = names.tenant(&table, "tenant");
        let access_key = table.text("access_key");
        if access_key.as_ref().is_some_and(|key| key.len() < 16) {
            table.problem("access_key", "must have at least 16 bytes, which SDKs require");
        }
        endpoints.push(EndpointSettings {
            name: name.clone(),
            bind: SocketAddr::from((bind, table.port("port"))),
            tls: table.flag("tls", true),
            tenant: tenant.clone(),
            access_key: access_key.map(crate::sandbox::directory::model::SecretText::new),
        });
        let (local_auth, public_network) = (table.flag("local_auth", true), table.flag("public_network", true));
        names.endpoints.push(name.clone());
        resources.push(crate::sandbox::directory::model::Resource { name, tenant, local_auth, public_network });
    }
    if endpoints.is_empty() {
        root.problem("endpoints", "is empty; add an endpoint, such as `[endpoints.east]`");
    }
    (endpoints, resources)
}

fn client_times(root: &Reader<'_>) -> ClientTimes {
    let mut times = ClientTimes::default();
    let Some(table) = root.table("clients") else { return times };
    for (key, time) in [
        ("connect", &mut times.connect),
        ("handshake", &mut times.handshake),
        ("keep_alive", &mut times.keep_alive),
        ("silence", &mut times.silence),
        ("write", &mut times.write),
        ("poll", &mut times.poll),
        ("away", &mut times.away),
        ("between_polls", &mut times.between_polls),
    ] {
        let Some(duration) = table.duration(key) else { continue };
        if duration.is_zero() {
            table.problem(key, "must be greater than zero");
        }
        *time = duration;
    }
    times
}

/// Reads `[[faults]]`.
fn faults(root: &Reader<'_>, endpoints: &[EndpointSettings]) -> Vec<(String, Fault)> {
    let servers: Vec<&str> = endpoints
        .iter()
        .map(|endpoint| endpoint.name.as_str())
        .chain(OTHER_SERVERS.into_iter().filter(|name| *name != "control"))
        .collect();
    let mut faults = Vec::new();
    for table in root.list("faults") {
        let server = table.required("server");
        if !server.is_empty() && !servers.contains(&server.as_str()) {
            table.unknown("server", &server, "server", &servers);
        }
        match table.json::<Fault>(&["fault", "times", "path_prefix"]) {
            Ok(fault) => faults.push((server, fault)),
            Err(err) => table.problem("fault", &format!("is invalid: {err}")),
        }
    }
    faults
}
