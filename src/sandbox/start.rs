//! Starts a sandbox: binds every listener, fills the directory and serves each server in a task.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use tokio::task::JoinSet;

use super::client::registry::Clients;
use super::control::service::{Control, GatewayAddresses};
use super::crypto::certificates::{CertificateAuthority, ClientCertificate};
use super::crypto::ids::random_string;
use super::crypto::keys::RsaKey;
use super::directory::described::DescribedFile;
use super::directory::model::{DirectoryHandle, Resource, SecretText};
use super::directory::scenario;
use super::endpoint_service::EndpointService;
use super::entra::service::Entra;
use super::error::SandboxError;
use super::identity::managed_identity::{AppService, IdentityIssuer, Imds};
use super::identity::providers::{GcpMetadata, ProviderSecrets, Providers};
use super::server::listen::Server;
use super::server::port::Port;
use super::server::shared::Hosts;
use super::settings::{self, EndpointSettings, SandboxSettings};
use super::signalr::endpoint::{Endpoint, EndpointHosts};

/// The parts of a running sandbox. Its servers stop when `tasks` is dropped.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) tasks: JoinSet<()>,
    pub(super) ca_pem: String,
    pub(super) certificate: ClientCertificate,
    pub(super) directory: DirectoryHandle,
    pub(super) entra: Server,
    pub(super) imds: Server,
    pub(super) app_service: Server,
    pub(super) app_service_secret: SecretText,
    pub(super) providers: Server,
    pub(super) provider_secrets: ProviderSecrets,
    pub(super) gcp_metadata: Server,
    pub(super) control: Server,
    pub(super) gateway_addresses: Arc<OnceLock<GatewayAddresses>>,
    /// The response to `GET /sandbox/ready`.
    pub(super) ready: Arc<OnceLock<Value>>,
    pub(super) public_host: Option<String>,
    /// The endpoints with a port of their own, then those of the groups.
    pub(super) endpoints: Arc<[Endpoint]>,
    pub(super) groups: Vec<RunningGroup>,
    pub(super) key: &'static RsaKey,
    /// The files of the [`DescribedDirectory`](super::DescribedDirectory), in addition to those of every sandbox.
    pub(super) files: Vec<DescribedFile>,
}

/// A group of endpoints that share a port.
#[derive(Debug)]
pub(super) struct RunningGroup {
    pub(super) name: String,
    /// The URL of its endpoints, with `NAME` for the endpoint's name.
    pub(super) url: String,
    /// The positions of its endpoints.
    pub(super) endpoints: Range<usize>,
}

/// Binds all listeners and serves them in tasks of the calling runtime.
///
/// # Errors
/// If an address cannot be bound, a name is used twice, or a key or certificate cannot be generated.
pub(super) fn start(settings: SandboxSettings) -> Result<Parts, SandboxError> {
    let key = RsaKey::entra()?;
    let ca = CertificateAuthority::generate()?;
    let now = SystemTime::now();
    let certificate =
        ClientCertificate::generate(now - Duration::from_secs(3600), now + Duration::from_secs(365 * 24 * 3600))?;
    let mut tasks = JoinSet::new();
    let mut names = HashSet::new();
    let public_host = settings.public_host.as_deref();
    let mut bind = |name: &str, address: SocketAddr, tls: bool, show_bodies: bool| {
        if !names.insert(name.to_owned()) {
            return Err(SandboxError::DuplicateName { name: name.to_owned() });
        }
        let port = Port::bind(address);
        let port = port.map_err(|source| bind_error(name, address, source))?;
        let origin = settings::origin(tls, public_host, port.address());
        Ok((Server::new(name, port.address(), origin, show_bodies), port))
    };
    // The bodies of Entra and of the providers contain secrets, so the control listener does not show them.
    let (entra, entra_port) = bind("entra", settings.entra, true, false)?;
    let (imds, imds_port) = bind("imds", settings.imds, false, true)?;
    let (app_service, app_service_port) = bind("app_service", settings.app_service, false, true)?;
    let (providers, providers_port) = bind("providers", settings.providers, true, false)?;
    let (gcp_metadata, gcp_metadata_port) = bind("gcp_metadata", settings.gcp_metadata, false, true)?;
    let (control, control_port) = bind("control", settings.control, false, true)?;

    let directory = match &settings.directory {
        Some(described) => described.directory(&entra.url()),
        None => scenario::directory(&entra.url(), settings.endpoints.iter().map(resource).collect(), &certificate)?,
    };
    let directory = DirectoryHandle::new(directory);
    let mut endpoints = Vec::with_capacity(settings.endpoints.len());
    let mut services = Vec::with_capacity(settings.endpoints.len());
    for endpoint_settings in &settings.endpoints {
        let (server, port) = bind(&endpoint_settings.name, endpoint_settings.bind, endpoint_settings.tls, true)?;
        let hosts = public_host.map_or(EndpointHosts::Address, |host| EndpointHosts::Public(host.into()));
        let endpoint = Endpoint::new(server.clone(), endpoint_settings.access_key.clone(), hosts);
        let tls = if endpoint_settings.tls { Some(ca.tls_acceptor(public_host)?) } else { None };
        let clients = Clients::new(endpoint.clone(), settings.client_timeouts);
        let service = EndpointService { endpoint: endpoint.clone(), clients, directory: directory.clone(), entra: key };
        let service = Arc::new(service);
        tasks.spawn(server.serve(port, tls, Arc::clone(&service)));
        endpoints.push(endpoint);
        services.push(service);
    }
    let mut groups = Vec::with_capacity(settings.groups.len());
    for group in &settings.groups {
        let port = Port::bind(group.bind);
        let port = port.map_err(|source| bind_error(&group.name, group.bind, source))?;
        let first = endpoints.len();
        let mut hosts = Vec::with_capacity(group.endpoints.len());
        for name in &group.endpoints {
            if !names.insert(name.clone()) {
                return Err(SandboxError::DuplicateName { name: name.clone() });
            }
            let host = format!("{name}.{}", group.domain);
            let origin = settings::origin(true, Some(&host), port.address());
            let server = Server::of_shared_port(name, port.address(), origin, group.endpoints.len());
            let endpoint = Endpoint::new(server.clone(), None, EndpointHosts::Selected);
            let clients = Clients::new(endpoint.clone(), settings.client_timeouts);
            let service =
                EndpointService { endpoint: endpoint.clone(), clients, directory: directory.clone(), entra: key };
            let service = Arc::new(service);
            hosts.push((host, server, Arc::clone(&service)));
            endpoints.push(endpoint);
            services.push(service);
        }
        let url = settings::origin(true, Some(&format!("NAME.{}", group.domain)), port.address());
        groups.push(RunningGroup { name: group.name.clone(), url, endpoints: first..endpoints.len() });
        let tls = ca.tls_acceptor(Some(&format!("*.{}", group.domain)))?;
        tasks.spawn(Hosts::new(hosts).serve(port, tls));
    }
    let endpoints: Arc<[Endpoint]> = endpoints.into();
    for hub in &settings.hubs {
        let on: HashSet<&str> = hub.endpoints.iter().map(String::as_str).collect();
        for endpoint in endpoints.iter().filter(|endpoint| on.contains(endpoint.name())) {
            endpoint.hubs.add_users(&hub.name, &hub.users, Instant::now());
        }
    }

    let service = Entra::new(entra.url(), directory.clone(), key);
    tasks.spawn(entra.clone().serve(entra_port, Some(ca.tls_acceptor(public_host)?), Arc::new(service)));
    let issuer = IdentityIssuer { authority: entra.url(), directory: directory.clone(), key };
    tasks.spawn(imds.clone().serve(imds_port, None, Arc::new(Imds(issuer.clone()))));
    let secret = random_string();
    let service = AppService { issuer, secret: secret.clone() };
    tasks.spawn(app_service.clone().serve(app_service_port, None, Arc::new(service)));
    let (external_key, provider_secrets) = (RsaKey::external()?, ProviderSecrets::generate());
    let service = Providers { secrets: provider_secrets.clone(), key: external_key };
    tasks.spawn(providers.clone().serve(providers_port, Some(ca.tls_acceptor(public_host)?), Arc::new(service)));
    let service = GcpMetadata { key: external_key };
    tasks.spawn(gcp_metadata.clone().serve(gcp_metadata_port, None, Arc::new(service)));
    let servers =
        [&entra, &imds, &app_service, &providers, &gcp_metadata].into_iter().chain(endpoints.iter().map(|e| &e.server));
    let servers: Arc<[Server]> = servers.cloned().collect();
    let by_name: HashMap<&str, &Server> = servers.iter().map(|server| (server.name(), server)).collect();
    for (server, fault) in &settings.faults {
        if let Some(server) = by_name.get(server.as_str()) {
            server.faults().set(fault.clone());
        }
    }
    let gateway_addresses = Arc::new(OnceLock::new());
    let ready = Arc::new(OnceLock::new());
    let service = Control {
        servers,
        endpoints: services,
        directory: directory.clone(),
        gateway_addresses: Arc::clone(&gateway_addresses),
        ready: Arc::clone(&ready),
        public_host: settings.public_host.clone(),
    };
    tasks.spawn(control.clone().serve(control_port, None, Arc::new(service)));

    Ok(Parts {
        tasks,
        ca_pem: ca.pem().to_owned(),
        certificate,
        directory,
        entra,
        imds,
        app_service,
        app_service_secret: SecretText::new(secret),
        providers,
        provider_secrets,
        gcp_metadata,
        control,
        gateway_addresses,
        ready,
        public_host: settings.public_host,
        endpoints,
        groups,
        key,
        files: settings.directory.map(|described| described.files).unwrap_or_default(),
    })
}

fn bind_error(server: &str, address: SocketAddr, source: std::io::Error) -> SandboxError {
    SandboxError::Bind { server: server.to_owned(), address, source }
}

/// Returns the resource of an endpoint, with public network access and local authentication.
fn resource(endpoint: &EndpointSettings) -> Resource {
    Resource { name: endpoint.name.clone(), tenant: endpoint.tenant.clone(), local_auth: true, public_network: true }
}
