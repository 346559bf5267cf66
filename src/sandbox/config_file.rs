//! The files that make an ordinary gateway use this sandbox: its configuration, the certificate authority, secrets,
//! certificate, assertion and token. Writes the configuration as an operator would; knows none of the gateway's code.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::endpoint::Endpoint;
use super::scenario::{
    APP_CLIENT_ID, IDENTITY_CLIENT_ID, LOCAL_IDENTITY_CLIENT_ID, OAUTH2_CLIENT_ID, SERVICE_CONNECTION,
};
use super::token::{EXCHANGE_AUDIENCES, ProvedBy, Subject};
use super::{Sandbox, SandboxError, token};

/// How long a written assertion and a written token are good for.
const WRITTEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// How the gateway is to prove itself to one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialChoice {
    /// The app registration's secret.
    ClientSecret,
    /// The app registration's certificate, PS256.
    ClientCertificate,
    /// The app registration's certificate, RS256 and the chain in the header.
    ClientCertificateRs256,
    /// The app registration, by the managed identity of its own tenant.
    FederatedIdentity,
    /// The app registration, by an assertion of the external issuer in a file.
    FederatedFile,
    /// The app registration, by the ID token of a GitHub Actions job.
    FederatedGithubActions,
    /// The app registration, by the ID token of a service connection of Azure Pipelines.
    FederatedAzurePipelines,
    /// The app registration, by the ID token of a Google service account.
    FederatedGcp,
    /// The app registration, by a token of the OAuth 2.0 server; the client authenticates in the header.
    FederatedOAuth2,
    /// As before; the client authenticates in the form, and the ID token is taken.
    FederatedOAuth2Post,
    /// The app registration, by an assertion of the external issuer that a program prints.
    FederatedCommand,
    /// The app registration, by what the environment of a Kubernetes pod says.
    WorkloadIdentity,
    /// Whoever is signed in to the Azure CLI.
    AzureCli,
    /// The managed identity of tenant B itself: for endpoints of that tenant.
    ManagedIdentity,
    /// The endpoint's access key.
    AccessKey,
    /// A ready token in a file.
    TokenFile,
}

/// What the configuration is to say.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Where callers come in, such as `127.0.0.1:8080`; port 0 takes a free one.
    pub listen: String,
    /// The admin listener's address, or `off`.
    pub admin: String,
    /// The endpoints' credentials by endpoint name; endpoints that are not named get a client secret.
    pub credentials: Vec<(String, CredentialChoice)>,
    /// What the listener lets pass; the gateway's own default if empty.
    pub operations: Vec<String>,
    /// More TOML, added at the end: routes, limits, timeouts.
    pub more: String,
}

/// The files that were written.
#[derive(Clone, Debug)]
pub struct Files {
    /// The configuration.
    pub config: PathBuf,
    /// The certificate authority.
    pub ca: PathBuf,
    /// The app registration's secret.
    pub secret: PathBuf,
    /// Its certificate and key.
    pub certificate: PathBuf,
    /// An assertion of the external issuer.
    pub assertion: PathBuf,
}

impl Default for GatewayConfig {
    /// Loopback and free ports; `east` by client secret, `west` by managed identity and federated credential.
    fn default() -> Self {
        Self {
            listen: String::from("127.0.0.1:0"),
            admin: String::from("127.0.0.1:0"),
            credentials: vec![
                (String::from("east"), CredentialChoice::ClientSecret),
                (String::from("west"), CredentialChoice::FederatedIdentity),
            ],
            operations: Vec::new(),
            more: String::new(),
        }
    }
}

impl GatewayConfig {
    /// Another credential for one endpoint.
    #[must_use]
    pub fn with_credential(mut self, endpoint: &str, choice: CredentialChoice) -> Self {
        self.credentials.retain(|(name, _)| name != endpoint);
        self.credentials.push((endpoint.to_owned(), choice));
        self
    }

    fn choice(&self, endpoint: &str) -> CredentialChoice {
        let named = self.credentials.iter().find(|(name, _)| name == endpoint);
        named.map_or(CredentialChoice::ClientSecret, |(_, choice)| *choice)
    }
}

impl Sandbox {
    /// The gateway's configuration for this sandbox. Its files are named relative to it: see [`Self::write_files`].
    pub fn gateway_config(&self, config: &GatewayConfig) -> String {
        let mut toml = format!("[listeners.default]\nbind = {}\n", quote(&config.listen));
        if !config.operations.is_empty() {
            let names: Vec<String> = config.operations.iter().map(|name| quote(name)).collect();
            add(&mut toml, &format!("operations = [{}]\n", names.join(", ")));
        }
        add(&mut toml, &format!("\n[admin]\nbind = {}\n", quote(&config.admin)));
        for endpoint in self.endpoints() {
            add(&mut toml, &self.credential(endpoint, config.choice(endpoint.name())));
        }
        for endpoint in self.endpoints() {
            let name = endpoint.name();
            let table =
                format!("\n[endpoints.{name}]\nurl = {}\ncredential = {}\n", quote(&endpoint.url()), quote(name));
            add(&mut toml, &table);
            if endpoint.url().starts_with("https://") {
                add(&mut toml, "ca_file = \"ca.pem\"\n");
            }
        }
        if !config.more.is_empty() {
            add(&mut toml, &format!("\n{}", config.more));
        }
        toml
    }

    /// Writes `gateway.toml` and everything it names into a folder, which is made if need be. Secrets can be read by
    /// their owner alone.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write_files(&self, folder: &Path, config: &GatewayConfig) -> Result<Files, SandboxError> {
        let failed = |path: &Path, source| SandboxError::Write { path: path.to_owned(), source };
        fs::create_dir_all(folder).map_err(|source| failed(folder, source))?;
        let write = |name: &str, content: &str| {
            let path = folder.join(name);
            write_private(&path, content).map_err(|source| failed(&path, source))?;
            Ok::<_, SandboxError>(path)
        };
        let certificate = self.client_certificate();
        for endpoint in self.endpoints() {
            let name = endpoint.name();
            match config.choice(name) {
                CredentialChoice::AccessKey => drop(write(&access_key_file(name), endpoint.access_key().expose())?),
                CredentialChoice::FederatedOAuth2 | CredentialChoice::FederatedOAuth2Post => {
                    drop(write("idp-secret", self.oauth2_client().1.expose())?);
                }
                CredentialChoice::FederatedCommand => {
                    let program = write(PROGRAM, "#!/bin/sh\nexec cat \"${0%/*}/assertion.jwt\"\n")?;
                    make_executable(&program).map_err(|source| failed(&program, source))?;
                }
                CredentialChoice::TokenFile => drop(write(&token_file(name), &self.ready_token(name, WRITTEN_LIFE)?)?),
                CredentialChoice::ClientSecret
                | CredentialChoice::ClientCertificate
                | CredentialChoice::ClientCertificateRs256
                | CredentialChoice::FederatedIdentity
                | CredentialChoice::FederatedFile
                | CredentialChoice::FederatedGithubActions
                | CredentialChoice::FederatedAzurePipelines
                | CredentialChoice::FederatedGcp
                | CredentialChoice::WorkloadIdentity
                | CredentialChoice::AzureCli
                | CredentialChoice::ManagedIdentity => {}
            }
        }
        Ok(Files {
            ca: write("ca.pem", self.ca_pem())?,
            secret: write("client-secret", self.client_secret().expose())?,
            certificate: write("client.pem", &format!("{}{}", certificate.certificate_pem(), certificate.key_pem()))?,
            assertion: write("assertion.jwt", &self.external_assertion(WRITTEN_LIFE)?)?,
            config: write("gateway.toml", &self.gateway_config(config))?,
        })
    }

    /// A token for an endpoint that its app registration would get, good for `lifetime`.
    ///
    /// # Errors
    /// If there is no such endpoint, or its tenant has no enterprise application of the app registration.
    pub fn ready_token(&self, endpoint: &str, lifetime: Duration) -> Result<String, SandboxError> {
        let no_client = || SandboxError::NoClient { endpoint: endpoint.to_owned() };
        let found = self.directory().read(|directory| {
            let tenant = directory.tenant(&directory.resource(endpoint)?.tenant)?;
            Some((tenant.id.clone(), tenant.service_principal(APP_CLIENT_ID)?.object_id.clone()))
        });
        let (tenant, object_id) = found.ok_or_else(no_client)?;
        let subject = Subject {
            tenant: &tenant,
            client_id: APP_CLIENT_ID,
            object_id: &object_id,
            audience: "https://signalr.azure.com",
            proved_by: ProvedBy::Secret,
        };
        Ok(token::access_token(&subject, SystemTime::now(), lifetime, self.entra_key())?)
    }

    fn credential(&self, endpoint: &Endpoint, choice: CredentialChoice) -> String {
        let name = endpoint.name();
        let tenant = self.directory().read(|directory| directory.resource(name).map(|r| r.tenant.clone()));
        let app = |kind: &str, proof: &str| {
            format!(
                "kind = \"{kind}\"\ntenant = {}\nclient_id = \"{APP_CLIENT_ID}\"\n{proof}cloud = \"custom\"\nauthority = {}\n\
                 ca_file = \"ca.pem\"\n",
                quote(tenant.as_deref().unwrap_or_default()),
                quote(&self.entra().url()),
            )
        };
        let imds = quote(&self.imds().url());
        let audience = EXCHANGE_AUDIENCES[0];
        let body = match choice {
            CredentialChoice::ClientSecret => app("client_secret", "secret = { file = \"client-secret\" }\n"),
            CredentialChoice::ClientCertificate => app("client_certificate", "certificate = \"client.pem\"\n"),
            CredentialChoice::ClientCertificateRs256 => {
                app("client_certificate", "certificate = \"client.pem\"\nalgorithm = \"RS256\"\nsend_chain = true\n")
            }
            CredentialChoice::FederatedIdentity => app(
                "federated",
                &format!(
                    "assertion = {{ source = \"managed_identity\", client_id = \"{IDENTITY_CLIENT_ID}\", \
                     audience = \"{audience}\", imds_endpoint = {imds} }}\n"
                ),
            ),
            CredentialChoice::FederatedFile => {
                app("federated", "assertion = { source = \"file\", path = \"assertion.jwt\" }\n")
            }
            CredentialChoice::FederatedGithubActions => {
                app("federated", "assertion = { source = \"github_actions\", ca_file = \"ca.pem\" }\n")
            }
            CredentialChoice::FederatedAzurePipelines => app(
                "federated",
                &format!(
                    "assertion = {{ source = \"azure_pipelines\", service_connection = \"{SERVICE_CONNECTION}\", \
                     ca_file = \"ca.pem\" }}\n"
                ),
            ),
            CredentialChoice::FederatedGcp => {
                let metadata = quote(&self.gcp_metadata().url());
                app(
                    "federated",
                    &format!("assertion = {{ source = \"gcp_metadata\", metadata_endpoint = {metadata} }}\n"),
                )
            }
            CredentialChoice::FederatedOAuth2 => {
                app("federated", &self.oauth2_assertion(&format!("audience = \"{audience}\"")))
            }
            CredentialChoice::FederatedOAuth2Post => app(
                "federated",
                &self.oauth2_assertion("authentication = \"post\", scope = \"openid\", token = \"id_token\""),
            ),
            CredentialChoice::FederatedCommand => {
                app("federated", &format!("assertion = {{ source = \"command\", argv = [\"./{PROGRAM}\"] }}\n"))
            }
            // Its client id and its file are the pod's to say.
            CredentialChoice::WorkloadIdentity => format!(
                "kind = \"workload_identity\"\ntenant = {}\nauthority = {}\nca_file = \"ca.pem\"\n",
                quote(tenant.as_deref().unwrap_or_default()),
                quote(&self.entra().url()),
            ),
            CredentialChoice::AzureCli => {
                format!("kind = \"azure_cli\"\ntenant = {}\n", quote(tenant.as_deref().unwrap_or_default()))
            }
            CredentialChoice::ManagedIdentity => format!(
                "kind = \"managed_identity\"\nclient_id = \"{LOCAL_IDENTITY_CLIENT_ID}\"\nimds_endpoint = {imds}\n"
            ),
            CredentialChoice::AccessKey => {
                format!("kind = \"access_key\"\nkey = {{ file = {} }}\n", quote(&access_key_file(name)))
            }
            CredentialChoice::TokenFile => format!("kind = \"token_file\"\npath = {}\n", quote(&token_file(name))),
        };
        format!("\n[credentials.{name}]\n{body}")
    }

    fn oauth2_assertion(&self, more: &str) -> String {
        let url = quote(&self.oauth2_client().0);
        format!(
            "assertion = {{ source = \"oauth2\", token_url = {url}, client_id = \"{OAUTH2_CLIENT_ID}\", \
             secret = {{ file = \"idp-secret\" }}, ca_file = \"ca.pem\", {more} }}\n"
        )
    }
}

/// The name of the program that prints an assertion.
const PROGRAM: &str = "get-assertion";

fn access_key_file(endpoint: &str) -> String {
    format!("{endpoint}-access-key")
}

fn token_file(endpoint: &str) -> String {
    format!("{endpoint}-token")
}

fn add(toml: &mut String, text: &str) {
    // Writing to a string cannot fail.
    let _ = toml.write_str(text);
}

/// A TOML string; JSON's escapes are among TOML's.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(unix)]
fn write_private(path: &Path, content: &str) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(content.as_bytes())
}

#[cfg(not(unix))]
fn write_private(path: &Path, content: &str) -> io::Result<()> {
    fs::write(path, content)
}

#[cfg(unix)]
fn make_executable(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

#[cfg(not(unix))]
fn make_executable(_path: &Path) -> io::Result<()> {
    Ok(())
}
