//! The handle of a running sandbox. Gives access to its servers and its directory, signs tokens, and writes the files of a
//! gateway.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::control::service::GatewayAddresses;
use super::crypto::certificates::ClientCertificate;
use super::crypto::keys::{Claims, RsaKey, expiry, unix_seconds};
use super::directory::described::DescribedContent;
use super::directory::model::{DirectoryHandle, EXCHANGE_AUDIENCES, SecretText};
use super::directory::scenario::{APP_CLIENT_ID, EXTERNAL_ISSUER, EXTERNAL_SUBJECT};
use super::entra::token::{self, ClientAuthentication, TokenParameters};
use super::error::SandboxError;
use super::gateway_config::config::{ConfiguredEndpoint, ConfiguredGroup, GatewayConfig};
use super::gateway_config::credential::{CredentialChoice, GatewayCredential, Urls, access_key_file, token_file};
use super::gateway_config::files::{ASSERTION_COMMAND, ASSERTION_SCRIPT, DescribedFiles, FileWriter, Files};
use super::identity::providers;
use super::server::listen::Server;
use super::settings::{self, SandboxSettings};
use super::signalr::endpoint::Endpoint;
use super::start::{self, Parts};

/// The lifetime of assertions and tokens in files.
const FILE_TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// A running sandbox. Its servers stop when it is dropped.
#[derive(Debug)]
pub struct Sandbox {
    parts: Parts,
}

impl Sandbox {
    /// Binds all servers and serves them in tasks of the calling runtime. The first sandbox of a process generates RSA keys,
    /// which blocks the calling thread for some tenths of a second.
    ///
    /// # Errors
    /// If an address cannot be bound, a name is used twice, or a key or certificate cannot be generated.
    #[expect(clippy::unused_async, reason = "needs a runtime, which an async signature shows")]
    pub async fn start(settings: SandboxSettings) -> Result<Self, SandboxError> {
        Ok(Self { parts: start::start(settings)? })
    }

    /// Stops all servers and waits until they have stopped.
    ///
    /// # Cancel safety
    /// Safe: all servers stop even if the future is dropped.
    pub async fn shutdown(mut self) {
        self.parts.tasks.shutdown().await;
    }

    /// Returns the server of Entra. Its token endpoint is `/{tenant}/oauth2/v2.0/token`.
    pub const fn entra(&self) -> &Server {
        &self.parts.entra
    }

    /// Returns the server of the instance metadata service, which emulates `http://169.254.169.254`.
    pub const fn imds(&self) -> &Server {
        &self.parts.imds
    }

    /// Returns the server of App Service's identity endpoint.
    pub const fn app_service(&self) -> &Server {
        &self.parts.app_service
    }

    /// Returns the values of `IDENTITY_ENDPOINT` and `IDENTITY_HEADER` that App Service sets.
    pub fn app_service_identity(&self) -> (String, SecretText) {
        (format!("{}/msi/token", self.parts.app_service.url()), self.parts.app_service_secret.clone())
    }

    /// Returns the server of the identity providers outside Entra: GitHub Actions, Azure Pipelines and an OAuth 2.0
    /// authorization server.
    pub const fn providers(&self) -> &Server {
        &self.parts.providers
    }

    /// Returns the values of `ACTIONS_ID_TOKEN_REQUEST_URL` and `ACTIONS_ID_TOKEN_REQUEST_TOKEN` that GitHub sets.
    pub fn github_actions(&self) -> (String, SecretText) {
        let url = format!("{}{}?api-version=2.0", self.parts.providers.url(), providers::GITHUB_PATH);
        (url, self.parts.provider_secrets.github.clone())
    }

    /// Returns the values of `SYSTEM_OIDCREQUESTURI` and `System.AccessToken` that Azure Pipelines sets.
    pub fn azure_pipelines(&self) -> (String, SecretText) {
        let url = format!("{}{}", self.parts.providers.url(), providers::PIPELINES_PATH);
        (url, self.parts.provider_secrets.pipelines.clone())
    }

    /// Returns the URL of the OAuth 2.0 token endpoint and the secret of its client
    /// [`OAUTH2_CLIENT_ID`](super::OAUTH2_CLIENT_ID).
    pub fn oauth2_client(&self) -> (String, SecretText) {
        let url = format!("{}{}", self.parts.providers.url(), providers::OAUTH2_PATH);
        (url, self.parts.provider_secrets.oauth2.clone())
    }

    /// Returns the server of Google Cloud's metadata, which emulates `http://metadata.google.internal`.
    pub const fn gcp_metadata(&self) -> &Server {
        &self.parts.gcp_metadata
    }

    /// Returns the server of the control listener. Its root is the web page.
    pub const fn control(&self) -> &Server {
        &self.parts.control
    }

    /// Sets the addresses of the gateway and of its admin listener, for the web page. Only the first call has an effect.
    pub fn set_gateway(&self, gateway: SocketAddr, admin: Option<SocketAddr>) {
        let _ = self.parts.gateway_addresses.set(GatewayAddresses { gateway, admin });
    }

    /// Returns the URL by which others reach the gateway or its admin listener at an address.
    pub fn url_of(&self, address: SocketAddr) -> String {
        settings::url_of(address, self.parts.public_host.as_deref())
    }

    /// Sets the response to `GET /sandbox/ready`, until which it is 503. Only the first call has an effect.
    pub fn set_ready(&self, ready: Value) {
        let _ = self.parts.ready.set(ready);
    }

    /// Returns the SignalR endpoint with this name.
    pub fn endpoint(&self, name: &str) -> Option<&Endpoint> {
        self.parts.endpoints.iter().find(|endpoint| endpoint.name() == name)
    }

    /// Returns the SignalR endpoints, in the order of the settings.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.parts.endpoints
    }

    /// Returns the SignalR endpoints that have a port of their own.
    pub fn endpoints_with_port(&self) -> &[Endpoint] {
        let first_group = self.parts.groups.first().map_or(self.parts.endpoints.len(), |group| group.endpoints.start);
        self.parts.endpoints.get(..first_group).unwrap_or_default()
    }

    /// Returns the groups of SignalR endpoints that share a port: name, URL with `NAME` for that of an endpoint, and endpoints.
    pub fn groups(&self) -> impl Iterator<Item = (&str, &str, &[Endpoint])> {
        self.parts.groups.iter().map(|group| {
            let endpoints = self.parts.endpoints.get(group.endpoints.clone()).unwrap_or_default();
            (group.name.as_str(), group.url.as_str(), endpoints)
        })
    }

    /// Returns the directory. It can be changed while the sandbox runs.
    pub const fn directory(&self) -> &DirectoryHandle {
        &self.parts.directory
    }

    /// Returns the certificate of the authority that signed the servers' certificates, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.parts.ca_pem
    }

    /// Returns the client certificate of the app registration.
    pub const fn client_certificate(&self) -> &ClientCertificate {
        &self.parts.certificate
    }

    /// Returns the first client secret of the app registration, or an empty secret if there is none.
    pub fn client_secret(&self) -> SecretText {
        let secret = self.parts.directory.read(|directory| {
            let application = directory.application(APP_CLIENT_ID)?;
            application.secrets.first().map(|secret| secret.value.clone())
        });
        secret.unwrap_or_else(|| SecretText::new(""))
    }

    /// Returns an access token for an endpoint as Entra would issue it to the app registration, valid for `lifetime`.
    ///
    /// # Errors
    /// If the endpoint is unknown, or its tenant has no service principal of the app registration.
    pub fn access_token(&self, endpoint: &str, lifetime: Duration) -> Result<String, SandboxError> {
        self.sign_access_token(APP_CLIENT_ID, endpoint, lifetime)
    }

    /// Returns an assertion of the external issuer that the app registration trusts, valid for `lifetime`.
    ///
    /// # Errors
    /// If the assertion cannot be signed.
    pub fn external_assertion(&self, lifetime: Duration) -> Result<String, SandboxError> {
        self.assertion(EXTERNAL_ISSUER, EXTERNAL_SUBJECT, EXCHANGE_AUDIENCES[0], lifetime)
    }

    /// Returns a token of the external issuer with these claims.
    ///
    /// # Errors
    /// If the claims are not an object or cannot be signed.
    pub fn external_token(&self, claims: &Value) -> Result<String, SandboxError> {
        let claims = claims.as_object().cloned().unwrap_or_else(Claims::new);
        Ok(RsaKey::external()?.sign(&claims)?)
    }

    /// Returns the configuration of a gateway for this sandbox. Its file paths are relative; [`Self::write_files`] writes the
    /// files.
    pub fn gateway_config(&self, config: &GatewayConfig) -> String {
        let configured = |endpoints: &[Endpoint]| endpoints.iter().map(|e| self.configured_endpoint(e)).collect();
        let groups: Vec<ConfiguredGroup> = self
            .groups()
            .map(|(name, _, endpoints)| ConfiguredGroup { name: name.to_owned(), endpoints: configured(endpoints) })
            .collect();
        let endpoints: Vec<ConfiguredEndpoint> = configured(self.endpoints_with_port());
        let urls = Urls {
            entra: self.entra().url(),
            imds: self.imds().url(),
            gcp_metadata: self.gcp_metadata().url(),
            oauth2: self.oauth2_client().0,
        };
        config.toml(&endpoints, &groups, &urls)
    }

    /// Writes `gateway.toml` and every file that it names into a folder. Creates the folder if it does not exist. Only the
    /// owner can read the secrets.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write_files(&self, folder: &Path, config: &GatewayConfig) -> Result<Files, SandboxError> {
        let writer = FileWriter::new(folder)?;
        let certificate = self.client_certificate();
        self.write_credentials(&writer, config)?;
        Ok(Files {
            ca: writer.public_file("ca.pem", self.ca_pem())?,
            secret: writer.file("client-secret", self.client_secret().expose())?,
            certificate: writer
                .file("client.pem", &format!("{}{}", certificate.certificate_pem(), certificate.key_pem()))?,
            assertion: writer.file("assertion.jwt", &self.external_assertion(FILE_TOKEN_LIFETIME)?)?,
            config: writer.file("gateway.toml", &self.gateway_config(config))?,
        })
    }

    /// Writes the files of a sandbox that was started with a [`DescribedDirectory`](super::DescribedDirectory).
    ///
    /// Without `config`, it writes no gateway configuration.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write_described_files(
        &self,
        folder: &Path,
        config: Option<&GatewayConfig>,
    ) -> Result<DescribedFiles, SandboxError> {
        let writer = FileWriter::new(folder)?;
        for file in &self.parts.files {
            let content = match &file.content {
                DescribedContent::Secret(secret) => secret.expose().to_owned(),
                DescribedContent::Assertion { issuer, subject, audience } => {
                    self.assertion(issuer, subject, audience, FILE_TOKEN_LIFETIME)?
                }
            };
            writer.file(&file.name, &content)?;
        }
        for endpoint in self.endpoints_with_port() {
            writer.file(&access_key_file(endpoint.name()), endpoint.access_key().expose())?;
        }
        let ca = writer.public_file("ca.pem", self.ca_pem())?;
        let Some(config) = config else { return Ok(DescribedFiles { config: None, ca }) };
        self.write_credentials(&writer, config)?;
        Ok(DescribedFiles { config: Some(writer.file("gateway.toml", &self.gateway_config(config))?), ca })
    }

    fn write_credentials(&self, writer: &FileWriter<'_>, config: &GatewayConfig) -> Result<(), SandboxError> {
        for endpoint in self.endpoints_with_port() {
            let name = endpoint.name();
            match config.credential(name) {
                GatewayCredential::AccessKey => {
                    drop(writer.file(&access_key_file(name), endpoint.access_key().expose())?);
                }
                GatewayCredential::Token { client_id } => {
                    let token = self.sign_access_token(&client_id, name, FILE_TOKEN_LIFETIME)?;
                    drop(writer.file(&token_file(name), &token)?);
                }
                GatewayCredential::Secret { .. }
                | GatewayCredential::Certificate { .. }
                | GatewayCredential::FederatedIdentity { .. }
                | GatewayCredential::FederatedFile { .. }
                | GatewayCredential::ManagedIdentity { .. } => {}
                GatewayCredential::Platform(choice) => self.write_platform(writer, choice)?,
            }
        }
        Ok(())
    }

    fn write_platform(&self, writer: &FileWriter<'_>, choice: CredentialChoice) -> Result<(), SandboxError> {
        if matches!(choice, CredentialChoice::FederatedOAuth2 | CredentialChoice::FederatedOAuth2Post) {
            writer.file("idp-secret", self.oauth2_client().1.expose())?;
        }
        if choice == CredentialChoice::FederatedCommand {
            writer.executable(ASSERTION_COMMAND, ASSERTION_SCRIPT)?;
        }
        Ok(())
    }

    fn configured_endpoint(&self, endpoint: &Endpoint) -> ConfiguredEndpoint {
        let name = endpoint.name().to_owned();
        let tenant = self.directory().read(|directory| directory.resource(&name).map(|r| r.tenant.clone()));
        ConfiguredEndpoint { name, url: endpoint.url(), tenant: tenant.unwrap_or_default() }
    }

    fn sign_access_token(&self, client_id: &str, endpoint: &str, lifetime: Duration) -> Result<String, SandboxError> {
        let no_service_principal = || SandboxError::NoServicePrincipal { endpoint: endpoint.to_owned() };
        let found = self.directory().read(|directory| {
            let tenant = directory.tenant(&directory.resource(endpoint)?.tenant)?;
            Some((tenant.id.clone(), tenant.service_principal(client_id)?.object_id.clone()))
        });
        let (tenant, object_id) = found.ok_or_else(no_service_principal)?;
        let parameters = TokenParameters {
            tenant: &tenant,
            client_id,
            object_id: &object_id,
            audience: "https://signalr.azure.com",
            authentication: ClientAuthentication::Secret,
        };
        Ok(token::access_token(&parameters, SystemTime::now(), lifetime, self.parts.key)?)
    }

    fn assertion(
        &self,
        issuer: &str,
        subject: &str,
        audience: &str,
        lifetime: Duration,
    ) -> Result<String, SandboxError> {
        let now = SystemTime::now();
        let issued = unix_seconds(now);
        self.external_token(&json!({
            "iss": issuer,
            "sub": subject,
            "aud": audience,
            "iat": issued,
            "nbf": issued,
            "exp": expiry(now, lifetime),
        }))
    }
}
