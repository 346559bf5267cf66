//! The configuration that makes an ordinary gateway use this sandbox, written as an operator would. Knows none of the
//! gateway's code, and writes no file.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use super::files::PROGRAM;
use crate::sandbox::directory::scenario::{
    APP_CLIENT_ID, IDENTITY_CLIENT_ID, LOCAL_IDENTITY_CLIENT_ID, OAUTH2_CLIENT_ID, SERVICE_CONNECTION,
};
use crate::sandbox::entra::token::{self, EXCHANGE_AUDIENCES, ProvedBy, Subject};
use crate::sandbox::signalr::endpoint::Endpoint;
use crate::sandbox::{Sandbox, SandboxError};

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

/// As whom, and by what, the gateway is to call one endpoint. Files are relative to the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayCredential {
    /// An app registration's secret.
    Secret {
        /// The app registration.
        client_id: String,
        /// Where the secret is.
        file: String,
    },
    /// An app registration's certificate.
    Certificate {
        /// The app registration.
        client_id: String,
        /// Where certificate and key are.
        file: String,
        /// RS256 with the chain in the header, in place of PS256.
        rs256: bool,
    },
    /// An app registration, by a managed identity that it trusts.
    FederatedIdentity {
        /// The app registration.
        client_id: String,
        /// The client id of the managed identity.
        identity: String,
    },
    /// An app registration, by an assertion in a file.
    FederatedFile {
        /// The app registration.
        client_id: String,
        /// Where the assertion is.
        file: String,
    },
    /// A managed identity of the endpoint's own tenant.
    ManagedIdentity {
        /// Its client id.
        client_id: String,
    },
    /// The endpoint's access key.
    AccessKey,
    /// A ready token of an app registration.
    Token {
        /// The app registration.
        client_id: String,
    },
    /// What the ready-made scenario has of other platforms.
    Platform(CredentialChoice),
}

/// What the configuration is to say.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Where callers come in, such as `127.0.0.1:8080`; port 0 takes a free one.
    pub listen: String,
    /// Names that callers may use for it, besides IP addresses and `localhost`.
    pub hosts: Vec<String>,
    /// The admin listener's address, or `off`.
    pub admin: String,
    /// The endpoints' credentials by endpoint name; endpoints that are not named get a client secret.
    pub credentials: Vec<(String, GatewayCredential)>,
    /// What the listener lets pass; the gateway's own default if empty.
    pub operations: Vec<String>,
    /// More TOML, added at the end: routes, limits, timeouts.
    pub more: String,
}

impl Default for GatewayConfig {
    /// Loopback and free ports; `east` by client secret, `west` by managed identity and federated credential.
    fn default() -> Self {
        Self {
            listen: String::from("127.0.0.1:0"),
            hosts: Vec::new(),
            admin: String::from("127.0.0.1:0"),
            credentials: vec![
                (String::from("east"), CredentialChoice::ClientSecret.into()),
                (String::from("west"), CredentialChoice::FederatedIdentity.into()),
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
        self.credentials.push((endpoint.to_owned(), choice.into()));
        self
    }

    pub(crate) fn credential(&self, endpoint: &str) -> GatewayCredential {
        let named = self.credentials.iter().find(|(name, _)| name == endpoint);
        named.map_or_else(|| CredentialChoice::ClientSecret.into(), |(_, credential)| credential.clone())
    }
}

impl From<CredentialChoice> for GatewayCredential {
    /// Of the ready-made scenario.
    fn from(choice: CredentialChoice) -> Self {
        let client_id = String::from(APP_CLIENT_ID);
        let certificate =
            |rs256| Self::Certificate { client_id: client_id.clone(), file: String::from("client.pem"), rs256 };
        match choice {
            CredentialChoice::ClientSecret => Self::Secret { client_id, file: String::from("client-secret") },
            CredentialChoice::ClientCertificate => certificate(false),
            CredentialChoice::ClientCertificateRs256 => certificate(true),
            CredentialChoice::FederatedIdentity => {
                Self::FederatedIdentity { client_id, identity: String::from(IDENTITY_CLIENT_ID) }
            }
            CredentialChoice::FederatedFile => Self::FederatedFile { client_id, file: String::from("assertion.jwt") },
            CredentialChoice::ManagedIdentity => {
                Self::ManagedIdentity { client_id: String::from(LOCAL_IDENTITY_CLIENT_ID) }
            }
            CredentialChoice::AccessKey => Self::AccessKey,
            CredentialChoice::TokenFile => Self::Token { client_id },
            CredentialChoice::FederatedGithubActions
            | CredentialChoice::FederatedAzurePipelines
            | CredentialChoice::FederatedGcp
            | CredentialChoice::FederatedOAuth2
            | CredentialChoice::FederatedOAuth2Post
            | CredentialChoice::FederatedCommand
            | CredentialChoice::WorkloadIdentity
            | CredentialChoice::AzureCli => Self::Platform(choice),
        }
    }
}

impl Sandbox {
    /// The gateway's configuration for this sandbox. Its files are named relative to it: see [`Self::write_files`].
    pub fn gateway_config(&self, config: &GatewayConfig) -> String {
        let mut toml = format!("[listeners.default]\nbind = {}\n", quote(&config.listen));
        for (key, values) in [("allowed_hosts", &config.hosts), ("operations", &config.operations)] {
            if !values.is_empty() {
                let values: Vec<String> = values.iter().map(|value| quote(value)).collect();
                add(&mut toml, &format!("{key} = [{}]\n", values.join(", ")));
            }
        }
        add(&mut toml, &format!("\n[admin]\nbind = {}\n", quote(&config.admin)));
        for endpoint in self.endpoints() {
            add(&mut toml, &self.credential(endpoint, &config.credential(endpoint.name())));
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

    /// A token for an endpoint that its app registration would get, good for `lifetime`.
    ///
    /// # Errors
    /// If there is no such endpoint, or its tenant has no enterprise application of the app registration.
    pub fn ready_token(&self, endpoint: &str, lifetime: Duration) -> Result<String, SandboxError> {
        self.token_of(APP_CLIENT_ID, endpoint, lifetime)
    }

    pub(crate) fn token_of(&self, client_id: &str, endpoint: &str, lifetime: Duration) -> Result<String, SandboxError> {
        let no_client = || SandboxError::NoClient { endpoint: endpoint.to_owned() };
        let found = self.directory().read(|directory| {
            let tenant = directory.tenant(&directory.resource(endpoint)?.tenant)?;
            Some((tenant.id.clone(), tenant.service_principal(client_id)?.object_id.clone()))
        });
        let (tenant, object_id) = found.ok_or_else(no_client)?;
        let subject = Subject {
            tenant: &tenant,
            client_id,
            object_id: &object_id,
            audience: "https://signalr.azure.com",
            proved_by: ProvedBy::Secret,
        };
        Ok(token::access_token(&subject, SystemTime::now(), lifetime, self.entra_key())?)
    }

    fn credential(&self, endpoint: &Endpoint, credential: &GatewayCredential) -> String {
        let name = endpoint.name();
        let tenant = self.directory().read(|directory| directory.resource(name).map(|r| r.tenant.clone()));
        let app = |kind: &str, client_id: &str, proof: &str| {
            format!(
                "kind = \"{kind}\"\ntenant = {}\nclient_id = {}\n{proof}cloud = \"custom\"\nauthority = {}\n\
                 ca_file = \"ca.pem\"\n",
                quote(tenant.as_deref().unwrap_or_default()),
                quote(client_id),
                quote(&self.entra().url()),
            )
        };
        let imds = quote(&self.imds().url());
        let audience = EXCHANGE_AUDIENCES[0];
        let body = match credential {
            GatewayCredential::Secret { client_id, file } => {
                app("client_secret", client_id, &format!("secret = {{ file = {} }}\n", quote(file)))
            }
            GatewayCredential::Certificate { client_id, file, rs256 } => {
                let algorithm = if *rs256 { "algorithm = \"RS256\"\nsend_chain = true\n" } else { "" };
                app("client_certificate", client_id, &format!("certificate = {}\n{algorithm}", quote(file)))
            }
            GatewayCredential::FederatedIdentity { client_id, identity } => app(
                "federated",
                client_id,
                &format!(
                    "assertion = {{ source = \"managed_identity\", client_id = {}, audience = \"{audience}\", \
                     imds_endpoint = {imds} }}\n",
                    quote(identity)
                ),
            ),
            GatewayCredential::FederatedFile { client_id, file } => {
                app("federated", client_id, &format!("assertion = {{ source = \"file\", path = {} }}\n", quote(file)))
            }
            GatewayCredential::ManagedIdentity { client_id } => {
                format!("kind = \"managed_identity\"\nclient_id = {}\nimds_endpoint = {imds}\n", quote(client_id))
            }
            GatewayCredential::AccessKey => {
                format!("kind = \"access_key\"\nkey = {{ file = {} }}\n", quote(&access_key_file(name)))
            }
            GatewayCredential::Platform(choice) => self.platform(*choice, tenant.as_deref().unwrap_or_default(), &app),
            GatewayCredential::Token { .. } => format!("kind = \"token_file\"\npath = {}\n", quote(&token_file(name))),
        };
        format!("\n[credentials.{name}]\n{body}")
    }
    /// What other platforms offer, in the ready-made scenario.
    fn platform(&self, choice: CredentialChoice, tenant: &str, app: &dyn Fn(&str, &str, &str) -> String) -> String {
        let audience = EXCHANGE_AUDIENCES[0];
        let assertion = match choice {
            CredentialChoice::FederatedGithubActions => {
                String::from("assertion = { source = \"github_actions\", ca_file = \"ca.pem\" }\n")
            }
            CredentialChoice::FederatedAzurePipelines => format!(
                "assertion = {{ source = \"azure_pipelines\", service_connection = \"{SERVICE_CONNECTION}\", \
                 ca_file = \"ca.pem\" }}\n"
            ),
            CredentialChoice::FederatedGcp => {
                let metadata = quote(&self.gcp_metadata().url());
                format!("assertion = {{ source = \"gcp_metadata\", metadata_endpoint = {metadata} }}\n")
            }
            CredentialChoice::FederatedOAuth2 => self.oauth2_assertion(&format!("audience = \"{audience}\"")),
            CredentialChoice::FederatedOAuth2Post => {
                self.oauth2_assertion("authentication = \"post\", scope = \"openid\", token = \"id_token\"")
            }
            CredentialChoice::FederatedCommand => {
                format!("assertion = {{ source = \"command\", argv = [\"./{PROGRAM}\"] }}\n")
            }
            // Its client id and its file are the pod's to say.
            CredentialChoice::WorkloadIdentity => {
                let (tenant, authority) = (quote(tenant), quote(&self.entra().url()));
                return format!(
                    "kind = \"workload_identity\"\ntenant = {tenant}\nauthority = {authority}\nca_file = \"ca.pem\"\n"
                );
            }
            CredentialChoice::AzureCli => return format!("kind = \"azure_cli\"\ntenant = {}\n", quote(tenant)),
            CredentialChoice::ClientSecret
            | CredentialChoice::ClientCertificate
            | CredentialChoice::ClientCertificateRs256
            | CredentialChoice::FederatedIdentity
            | CredentialChoice::FederatedFile
            | CredentialChoice::ManagedIdentity
            | CredentialChoice::AccessKey
            | CredentialChoice::TokenFile => String::new(),
        };
        app("federated", APP_CLIENT_ID, &assertion)
    }

    fn oauth2_assertion(&self, more: &str) -> String {
        let url = quote(&self.oauth2_client().0);
        format!(
            "assertion = {{ source = \"oauth2\", token_url = {url}, client_id = \"{OAUTH2_CLIENT_ID}\", \
             secret = {{ file = \"idp-secret\" }}, ca_file = \"ca.pem\", {more} }}\n"
        )
    }
}

pub(crate) fn access_key_file(endpoint: &str) -> String {
    format!("{endpoint}-access-key")
}

pub(crate) fn token_file(endpoint: &str) -> String {
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
