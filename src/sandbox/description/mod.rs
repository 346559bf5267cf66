//! The description file of a sandbox (TOML). Parses it into settings, and reports all its problems at once.
//! `config/sandbox.toml` shows every key.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use crate::sandbox::client::timeouts::ClientTimeouts;
use crate::sandbox::gateway_config::config::GatewayConfig;
use crate::sandbox::server::faults::Fault;
use crate::sandbox::settings::{EndpointSettings, SandboxSettings};

mod gateway;
mod groups;
mod hubs;
mod reader;
mod tenants;

#[cfg(test)]
mod tests;

use groups::Group;
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
    /// The settings of a gateway in front of the sandbox.
    pub gateway: GatewayConfig,
}

impl Description {
    /// Reads and parses a file.
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
        let ports = root.table("ports");
        let address = |name| SocketAddr::from((bind, ports.as_ref().map_or(0, |ports| ports.port(name))));
        let mut names = Names::default();
        let tenants = tenants::tenants(&root, &mut names);
        let (endpoints, resources) = endpoints(&root, &mut names, bind);
        let mut described = tenants::described_directory(&root, &mut names, tenants, resources);
        let groups = groups::groups(&root, &names, &described.directory, bind, &OTHER_SERVERS);
        if endpoints.is_empty() && groups.is_empty() {
            root.problem(
                "endpoints",
                "is empty; add an endpoint, such as `[endpoints.east]`, or `[tenant_groups.NAME]`",
            );
        }
        let gateway = GatewayConfig {
            // Callers reach the gateway by the same host name.
            hosts: public_host.iter().filter(|host| host.parse::<IpAddr>().is_err()).cloned().collect(),
            ..gateway::config(&root, &names, &described, &groups)
        };
        let mut faults = faults(&root, &endpoints, &groups);
        let groups = groups.into_iter().map(|group| group.add_to(&mut described.directory, &mut faults)).collect();
        let settings = SandboxSettings {
            public_host,
            entra: address("entra"),
            imds: address("imds"),
            app_service: address("app_service"),
            providers: address("providers"),
            gcp_metadata: address("gcp_metadata"),
            control: address("control"),
            client_timeouts: client_timeouts(&root),
            faults,
            hubs: hubs::hubs(&root, &names.endpoints),
            endpoints,
            groups,
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
    for table in root.named_tables("endpoints") {
        let name = table.name().to_owned();
        if OTHER_SERVERS.contains(&name.as_str()) {
            table.table_problem("the name is reserved for another server of the sandbox");
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
    (endpoints, resources)
}

fn client_timeouts(root: &Reader<'_>) -> ClientTimeouts {
    let mut timeouts = ClientTimeouts::default();
    let Some(table) = root.table("clients") else { return timeouts };
    for (key, timeout) in [
        ("connect", &mut timeouts.connect),
        ("handshake", &mut timeouts.handshake),
        ("keep_alive", &mut timeouts.keep_alive),
        ("silence", &mut timeouts.silence),
        ("write", &mut timeouts.write),
        ("poll", &mut timeouts.poll),
        ("away", &mut timeouts.away),
        ("between_polls", &mut timeouts.between_polls),
    ] {
        let Some(duration) = table.duration(key) else { continue };
        if duration.is_zero() {
            table.problem(key, "must be greater than zero");
        }
        *timeout = duration;
    }
    timeouts
}

/// Reads `[[faults]]`.
fn faults(root: &Reader<'_>, endpoints: &[EndpointSettings], groups: &[Group]) -> Vec<(String, Fault)> {
    let servers: Vec<&str> = endpoints
        .iter()
        .map(|endpoint| endpoint.name.as_str())
        .chain(groups.iter().flat_map(|group| group.names.iter().map(String::as_str)))
        .chain(OTHER_SERVERS.into_iter().filter(|name| *name != "control"))
        .collect();
    let mut faults = Vec::new();
    for table in root.tables("faults") {
        let server = table.required("server");
        if !server.is_empty() && !servers.contains(&server.as_str()) {
            table.unknown_name("server", &server, "server", &servers);
        }
        match table.json::<Fault>(&["fault", "times", "path_prefix"]) {
            Ok(fault) => faults.push((server, fault)),
            Err(err) => table.problem("fault", &format!("is invalid: {err}")),
        }
    }
    faults
}
