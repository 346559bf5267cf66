//! The embedded emulator: Entra, the identity endpoints of a host, and SignalR endpoints in memory, each at a URL of
//! its own. The gateway meets it by configuration alone; nothing in here is of the gateway.
//!
//! [`Sandbox::start`] binds and serves everything in tasks of the calling runtime. Tests change the [`Directory`] to
//! break one step of the cross-tenant set-up, set [`Fault`]s, add in-process [`Connection`]s to a hub, and read each
//! server's [`Journal`].
//!
//! A walk: `listen` accepts, reads the request whole, writes it in the `journal` and lets `faults` happen; the rest
//! goes to a service: `entra` (with `assertion`, `token`, `refusal`), `identity`, `provider`, `endpoint` (with `access`,
//! `path`, `parameters`, `rest`, `problem`) or `control`. What endpoints deliver goes through `hub` and its `roster` to
//! `connection`, and from there to a test in this process or, by `client` and `hub_protocol`, to a real client. People
//! watch it on a `page` of the control listener, which sends by way of `relay`.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use tokio::task::JoinSet;

mod client;
mod control;
mod crypto;
mod description;
mod directory;
mod entra;
mod error;
mod gateway_config;
mod identity;
mod page;
mod server;
mod settings;
mod signalr;

#[cfg(test)]
mod tests;

pub use client::ClientTimes;
pub use crypto::certificates::ClientCertificate;
pub use crypto::keys::PublicKey;
pub use description::{Description, FileError};
pub use directory::model::{
    Application, ClientSecret, Directory, DirectoryHandle, ExternalIssuer, FederatedCredential, ManagedIdentity,
    Resource, SecretText, ServicePrincipal, Tenant, TokenPolicy,
};
pub use directory::roles::Role;
pub use directory::scenario::{
    APP_CLIENT_ID, EXTERNAL_ISSUER, EXTERNAL_SUBJECT, IDENTITY_CLIENT_ID, IDENTITY_OBJECT_ID, LOCAL_IDENTITY_CLIENT_ID,
    OAUTH2_CLIENT_ID, SERVICE_CONNECTION, TENANT_A, TENANT_B, TENANT_C,
};
pub use directory::world::World;
pub use error::SandboxError;
pub use gateway_config::config::{CredentialChoice, GatewayConfig, GatewayCredential};
pub use gateway_config::files::{Files, WorldFiles};
pub use server::faults::{Fault, FaultKind, Faults};
pub use server::journal::{Authorization, Entry, Journal, fingerprint};
pub use server::listen::Server;
pub use settings::{EndpointSettings, HubSettings, SandboxSettings};
pub use signalr::connection::{Close, Connection, Delivery};
pub use signalr::endpoint::Endpoint;
pub use signalr::hub::Hubs;
pub use signalr::message::{Content, Invocation, Message, Packed};

use client::Clients;
use control::{Control, Front};
use crypto::certificates::CertificateAuthority;
use crypto::ids::unique;
use crypto::keys::{Claims, RsaKey, expiry, unix_seconds};
use entra::service::Entra;
use identity::managed_identity::{AppService, IdentityIssuer, Imds};
use identity::providers::{GcpMetadata, ProviderSecrets, Providers};
use server::listen::Port;
use signalr::endpoint::EndpointService;

/// A running sandbox. Everything stops when it is dropped.
#[derive(Debug)]
pub struct Sandbox {
    tasks: JoinSet<()>,
    ca_pem: String,
    certificate: ClientCertificate,
    directory: DirectoryHandle,
    entra: Server,
    imds: Server,
    app_service: Server,
    app_service_secret: SecretText,
    providers: Server,
    provider_secrets: ProviderSecrets,
    gcp_metadata: Server,
    control: Server,
    front: Arc<OnceLock<Front>>,
    endpoints: Arc<[Endpoint]>,
    key: &'static RsaKey,
    /// What is written for a world, besides what is written for every sandbox.
    files: Vec<directory::world::WorldFile>,
}

impl Sandbox {
    /// Binds all listeners and serves them in tasks of the calling runtime. The first sandbox of a process makes RSA
    /// keys, which takes some tenths of a second of this thread.
    ///
    /// # Errors
    /// If an address cannot be bound, a name is used twice, or a key or certificate cannot be made.
    #[expect(clippy::unused_async, reason = "must be called on a runtime, which an async function makes plain")]
    pub async fn start(settings: SandboxSettings) -> Result<Self, SandboxError> {
        let key = RsaKey::entra()?;
        let ca = CertificateAuthority::generate()?;
        let now = SystemTime::now();
        let certificate =
            ClientCertificate::generate(now - Duration::from_secs(3600), now + Duration::from_secs(365 * 24 * 3600))?;
        let mut tasks = JoinSet::new();
        let mut names = std::collections::HashSet::new();
        let public_host = settings.public_host.as_deref();
        let mut bind = |name: &str, address: SocketAddr, tls: bool, show_bodies: bool| {
            if !names.insert(name.to_owned()) {
                return Err(SandboxError::Name { name: name.to_owned() });
            }
            let port = Port::bind(address);
            let port = port.map_err(|source| SandboxError::Bind { server: name.to_owned(), address, source })?;
            let origin = settings::origin(tls, public_host, port.address());
            Ok((Server::new(name, port.address(), origin, show_bodies), port))
        };
        // Forms with secrets go to Entra; its bodies are for tests in this process, not for HTTP.
        let (entra, entra_port) = bind("entra", settings.entra, true, false)?;
        let (imds, imds_port) = bind("imds", settings.imds, false, true)?;
        let (app_service, app_service_port) = bind("app_service", settings.app_service, false, true)?;
        let (providers, providers_port) = bind("providers", settings.providers, true, false)?;
        let (gcp_metadata, gcp_metadata_port) = bind("gcp_metadata", settings.gcp_metadata, false, true)?;
        let (control, control_port) = bind("control", settings.control, false, true)?;

        let directory = match &settings.world {
            Some(world) => world.directory(&entra.url()),
            None => directory::scenario::directory(&entra.url(), &settings.endpoints, &certificate)?,
        };
        let directory = DirectoryHandle::new(directory);
        let mut endpoints = Vec::with_capacity(settings.endpoints.len());
        let mut services = Vec::with_capacity(settings.endpoints.len());
        for of_endpoint in &settings.endpoints {
            let (server, port) = bind(&of_endpoint.name, of_endpoint.bind, of_endpoint.tls, true)?;
            let endpoint = Endpoint::new(server.clone(), of_endpoint.access_key.clone(), public_host);
            let tls = if of_endpoint.tls { Some(ca.acceptor(public_host)?) } else { None };
            let clients = Clients::new(endpoint.clone(), settings.client_times);
            let service =
                EndpointService { endpoint: endpoint.clone(), clients, directory: directory.clone(), entra: key };
            let service = Arc::new(service);
            tasks.spawn(server.serve(port, tls, Arc::clone(&service)));
            endpoints.push(endpoint);
            services.push(service);
        }
        let endpoints: Arc<[Endpoint]> = endpoints.into();
        for hub in &settings.hubs {
            for endpoint in endpoints.iter().filter(|endpoint| hub.endpoints.iter().any(|on| on == endpoint.name())) {
                endpoint.hubs.prepare(hub, Instant::now());
            }
        }

        let service = Entra::new(entra.url(), directory.clone(), key);
        tasks.spawn(entra.clone().serve(entra_port, Some(ca.acceptor(public_host)?), Arc::new(service)));
        let issuer = IdentityIssuer { authority: entra.url(), directory: directory.clone(), key };
        tasks.spawn(imds.clone().serve(imds_port, None, Arc::new(Imds(issuer.clone()))));
        let secret = unique();
        let service = AppService { issuer, secret: secret.clone() };
        tasks.spawn(app_service.clone().serve(app_service_port, None, Arc::new(service)));
        let (external, provider_secrets) = (RsaKey::external()?, ProviderSecrets::generate());
        let service = Providers { secrets: provider_secrets.clone(), key: external };
        tasks.spawn(providers.clone().serve(providers_port, Some(ca.acceptor(public_host)?), Arc::new(service)));
        let service = GcpMetadata { key: external };
        tasks.spawn(gcp_metadata.clone().serve(gcp_metadata_port, None, Arc::new(service)));
        let servers = [&entra, &imds, &app_service, &providers, &gcp_metadata]
            .into_iter()
            .chain(endpoints.iter().map(|e| &e.server));
        let servers: Arc<[Server]> = servers.cloned().collect();
        for (server, fault) in &settings.faults {
            if let Some(server) = servers.iter().find(|other| other.name() == server) {
                server.faults().set(fault.clone());
            }
        }
        let public_host = settings.public_host.clone();
        let front = Arc::new(OnceLock::new());
        let service = Control {
            servers,
            endpoints: services,
            directory: directory.clone(),
            front: Arc::clone(&front),
            public_host,
        };
        tasks.spawn(control.clone().serve(control_port, None, Arc::new(service)));

        Ok(Self {
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
            front,
            endpoints,
            key,
            files: settings.world.map(|world| world.files).unwrap_or_default(),
        })
    }

    /// Stops everything and returns when it has stopped.
    ///
    /// # Cancel safety
    /// Safe: everything stops all the same.
    pub async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }

    /// Entra: its token endpoint is at `/{tenant}/oauth2/v2.0/token`.
    pub const fn entra(&self) -> &Server {
        &self.entra
    }

    /// The instance metadata service, in place of `http://169.254.169.254`.
    pub const fn imds(&self) -> &Server {
        &self.imds
    }

    /// The identity endpoint of App Service.
    pub const fn app_service(&self) -> &Server {
        &self.app_service
    }

    /// What App Service sets in `IDENTITY_ENDPOINT` and `IDENTITY_HEADER`.
    pub fn app_service_identity(&self) -> (String, SecretText) {
        (format!("{}/msi/token", self.app_service.url()), self.app_service_secret.clone())
    }

    /// The identity providers outside Entra: GitHub Actions, Azure Pipelines, an OAuth 2.0 authorization server.
    pub const fn providers(&self) -> &Server {
        &self.providers
    }

    /// What GitHub sets in `ACTIONS_ID_TOKEN_REQUEST_URL` and `ACTIONS_ID_TOKEN_REQUEST_TOKEN`.
    pub fn github_actions(&self) -> (String, SecretText) {
        let url = format!("{}{}?api-version=2.0", self.providers.url(), identity::providers::GITHUB_PATH);
        (url, self.provider_secrets.github.clone())
    }

    /// What Azure Pipelines sets in `SYSTEM_OIDCREQUESTURI`, and the value of `System.AccessToken`.
    pub fn azure_pipelines(&self) -> (String, SecretText) {
        let url = format!("{}{}", self.providers.url(), identity::providers::PIPELINES_PATH);
        (url, self.provider_secrets.pipelines.clone())
    }

    /// The OAuth 2.0 token endpoint, and the secret of its client [`OAUTH2_CLIENT_ID`].
    pub fn oauth2_client(&self) -> (String, SecretText) {
        let url = format!("{}{}", self.providers.url(), identity::providers::OAUTH2_PATH);
        (url, self.provider_secrets.oauth2.clone())
    }

    /// The metadata server of Google Cloud, in place of `http://metadata.google.internal`.
    pub const fn gcp_metadata(&self) -> &Server {
        &self.gcp_metadata
    }

    /// Says where the gateway is that stands in front of the endpoints, so that the page can send by way of it, and
    /// where its admin listener is. The first time counts.
    pub fn introduce_gateway(&self, gateway: SocketAddr, admin: Option<SocketAddr>) {
        let _ = self.front.set(Front { gateway, admin });
    }

    /// The control listener; at its root is the page for people.
    pub const fn control(&self) -> &Server {
        &self.control
    }

    /// The SignalR endpoint with this name.
    pub fn endpoint(&self, name: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.name() == name)
    }

    /// The SignalR endpoints, in the order of the settings.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The directory, to look at and to change.
    pub const fn directory(&self) -> &DirectoryHandle {
        &self.directory
    }

    /// The certificate of the authority that signed the listeners' certificates, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The certificate that is registered on the app registration.
    pub const fn client_certificate(&self) -> &ClientCertificate {
        &self.certificate
    }

    /// The first secret of the app registration; empty if a test has taken all away.
    pub fn client_secret(&self) -> SecretText {
        let secret = self.directory.read(|directory| {
            let application = directory.application(APP_CLIENT_ID)?;
            application.secrets.first().map(|secret| secret.value.clone())
        });
        secret.unwrap_or_else(|| SecretText::new(""))
    }

    /// An assertion of the external issuer that the app registration trusts, good for `lifetime`.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn external_assertion(&self, lifetime: Duration) -> Result<String, SandboxError> {
        self.assertion(EXTERNAL_ISSUER, EXTERNAL_SUBJECT, entra::token::EXCHANGE_AUDIENCES[0], lifetime)
    }

    fn assertion(&self, issuer: &str, subject: &str, audience: &str, life: Duration) -> Result<String, SandboxError> {
        let now = SystemTime::now();
        let issued = unix_seconds(now);
        self.external_token(&json!({
            "iss": issuer,
            "sub": subject,
            "aud": audience,
            "iat": issued,
            "nbf": issued,
            "exp": expiry(now, life),
        }))
    }

    /// A token with any claims, signed by the external issuer.
    ///
    /// # Errors
    /// If the claims are no object or cannot be signed.
    pub fn external_token(&self, claims: &serde_json::Value) -> Result<String, SandboxError> {
        let claims = claims.as_object().cloned().unwrap_or_else(Claims::new);
        Ok(RsaKey::external()?.sign(&claims)?)
    }

    const fn entra_key(&self) -> &'static RsaKey {
        self.key
    }
}
