//! The credentials of a gateway in front of a sandbox, as tables of its configuration.

use super::files::ASSERTION_COMMAND;
use crate::sandbox::directory::model::EXCHANGE_AUDIENCES;
use crate::sandbox::directory::scenario::{
    APP_CLIENT_ID, IDENTITY_CLIENT_ID, LOCAL_IDENTITY_CLIENT_ID, OAUTH2_CLIENT_ID, SERVICE_CONNECTION,
};

/// A credential of the built-in scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialChoice {
    /// The secret of the app registration.
    ClientSecret,
    /// The certificate of the app registration, with PS256.
    ClientCertificate,
    /// The certificate of the app registration, with RS256 and the certificate chain in the header.
    ClientCertificateRs256,
    /// The app registration, federated with the managed identity of its own tenant.
    FederatedIdentity,
    /// The app registration, federated with the external issuer, whose assertion is in a file.
    FederatedFile,
    /// The app registration, federated with GitHub Actions.
    FederatedGithubActions,
    /// The app registration, federated with a service connection of Azure Pipelines.
    FederatedAzurePipelines,
    /// The app registration, federated with a Google service account.
    FederatedGcp,
    /// The app registration, federated with the OAuth 2.0 server. The client authenticates in the header and uses the access
    /// token.
    FederatedOAuth2,
    /// The app registration, federated with the OAuth 2.0 server. The client authenticates in the form and uses the ID token.
    FederatedOAuth2Post,
    /// The app registration, federated with the external issuer, whose assertion a program prints.
    FederatedCommand,
    /// The app registration, as the environment of a Kubernetes pod configures it.
    WorkloadIdentity,
    /// The account that is signed in to the Azure CLI.
    AzureCli,
    /// The managed identity of tenant B, for endpoints of that tenant.
    ManagedIdentity,
    /// The endpoint's access key.
    AccessKey,
    /// An access token in a file.
    TokenFile,
}

/// The credential of the gateway for one endpoint. File paths are relative to the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayCredential {
    /// The secret of an app registration.
    Secret {
        /// The app registration.
        client_id: String,
        /// The file with the secret.
        file: String,
    },
    /// The certificate of an app registration.
    Certificate {
        /// The app registration.
        client_id: String,
        /// The file with certificate and key.
        file: String,
        /// Whether to sign with RS256 and send the certificate chain, instead of PS256.
        rs256: bool,
    },
    /// An app registration, federated with a managed identity.
    FederatedIdentity {
        /// The app registration.
        client_id: String,
        /// The client id of the managed identity.
        identity: String,
    },
    /// An app registration, federated with an issuer whose assertion is in a file.
    FederatedFile {
        /// The app registration.
        client_id: String,
        /// The file with the assertion.
        file: String,
    },
    /// A managed identity of the endpoint's own tenant.
    ManagedIdentity {
        /// Its client id.
        client_id: String,
    },
    /// The endpoint's access key.
    AccessKey,
    /// An access token of an app registration, in a file.
    Token {
        /// The app registration.
        client_id: String,
    },
    /// A credential of another platform in the built-in scenario.
    Platform(CredentialChoice),
}

/// The URLs in the tables of credentials.
pub(crate) struct Urls {
    /// Entra's authority.
    pub(crate) entra: String,
    /// The instance metadata service.
    pub(crate) imds: String,
    /// Google Cloud's metadata server.
    pub(crate) gcp_metadata: String,
    /// The OAuth 2.0 token endpoint.
    pub(crate) oauth2: String,
}

impl From<CredentialChoice> for GatewayCredential {
    /// Returns a credential of the built-in scenario.
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

impl GatewayCredential {
    /// Returns whether one such credential serves endpoints of many tenants.
    pub(crate) const fn serves_tenants(&self) -> bool {
        matches!(
            self,
            Self::Secret { .. }
                | Self::Certificate { .. }
                | Self::FederatedIdentity { .. }
                | Self::FederatedFile { .. }
        )
    }

    /// Formats the body of the credential's table, for an endpoint of `tenant`. Without a tenant, the endpoints name theirs.
    pub(super) fn toml(&self, endpoint: &str, tenant: Option<&str>, urls: &Urls) -> String {
        let app = |kind: &str, client_id: &str, proof: &str| app_toml(kind, tenant, client_id, proof, urls);
        let imds = quote(&urls.imds);
        let audience = EXCHANGE_AUDIENCES[0];
        match self {
            Self::Secret { client_id, file } => {
                app("client_secret", client_id, &format!("secret = {{ file = {} }}\n", quote(file)))
            }
            Self::Certificate { client_id, file, rs256 } => {
                let algorithm = if *rs256 { "algorithm = \"RS256\"\nsend_chain = true\n" } else { "" };
                app("client_certificate", client_id, &format!("certificate = {}\n{algorithm}", quote(file)))
            }
            Self::FederatedIdentity { client_id, identity } => app(
                "federated",
                client_id,
                &format!(
                    "assertion = {{ source = \"managed_identity\", client_id = {}, audience = \"{audience}\", \
                     imds_endpoint = {imds} }}\n",
                    quote(identity)
                ),
            ),
            Self::FederatedFile { client_id, file } => {
                app("federated", client_id, &format!("assertion = {{ source = \"file\", path = {} }}\n", quote(file)))
            }
            Self::ManagedIdentity { client_id } => {
                format!("kind = \"managed_identity\"\nclient_id = {}\nimds_endpoint = {imds}\n", quote(client_id))
            }
            Self::AccessKey => {
                format!("kind = \"access_key\"\nkey = {{ file = {} }}\n", quote(&access_key_file(endpoint)))
            }
            Self::Platform(choice) => platform_toml(*choice, tenant, urls),
            Self::Token { .. } => format!("kind = \"token_file\"\npath = {}\n", quote(&token_file(endpoint))),
        }
    }
}

/// Formats the body of the table of an app registration's credential. `proof` has the keys of its kind.
fn app_toml(kind: &str, tenant: Option<&str>, client_id: &str, proof: &str, urls: &Urls) -> String {
    let tenant = tenant.map(|tenant| format!("tenant = {}\n", quote(tenant))).unwrap_or_default();
    format!(
        "kind = \"{kind}\"\n{tenant}client_id = {}\n{proof}cloud = \"custom\"\nauthority = {}\nca_file = \"ca.pem\"\n",
        quote(client_id),
        quote(&urls.entra),
    )
}

/// Formats the body of the table of a credential of another platform, in the built-in scenario.
fn platform_toml(choice: CredentialChoice, tenant: Option<&str>, urls: &Urls) -> String {
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
            let metadata = quote(&urls.gcp_metadata);
            format!("assertion = {{ source = \"gcp_metadata\", metadata_endpoint = {metadata} }}\n")
        }
        CredentialChoice::FederatedOAuth2 => oauth2_assertion(urls, &format!("audience = \"{audience}\"")),
        CredentialChoice::FederatedOAuth2Post => {
            oauth2_assertion(urls, "authentication = \"post\", scope = \"openid\", token = \"id_token\"")
        }
        CredentialChoice::FederatedCommand => {
            format!("assertion = {{ source = \"command\", argv = [\"./{ASSERTION_COMMAND}\"] }}\n")
        }
        // The pod's environment sets the client id and the assertion file.
        CredentialChoice::WorkloadIdentity => {
            let (tenant, authority) = (quote(tenant.unwrap_or_default()), quote(&urls.entra));
            return format!(
                "kind = \"workload_identity\"\ntenant = {tenant}\nauthority = {authority}\nca_file = \"ca.pem\"\n"
            );
        }
        CredentialChoice::AzureCli => {
            return format!("kind = \"azure_cli\"\ntenant = {}\n", quote(tenant.unwrap_or_default()));
        }
        CredentialChoice::ClientSecret
        | CredentialChoice::ClientCertificate
        | CredentialChoice::ClientCertificateRs256
        | CredentialChoice::FederatedIdentity
        | CredentialChoice::FederatedFile
        | CredentialChoice::ManagedIdentity
        | CredentialChoice::AccessKey
        | CredentialChoice::TokenFile => String::new(),
    };
    app_toml("federated", tenant, APP_CLIENT_ID, &assertion, urls)
}

fn oauth2_assertion(urls: &Urls, more: &str) -> String {
    let url = quote(&urls.oauth2);
    format!(
        "assertion = {{ source = \"oauth2\", token_url = {url}, client_id = \"{OAUTH2_CLIENT_ID}\", \
         secret = {{ file = \"idp-secret\" }}, ca_file = \"ca.pem\", {more} }}\n"
    )
}

/// Returns the name of the file with an endpoint's access key.
pub(crate) fn access_key_file(endpoint: &str) -> String {
    format!("{endpoint}-access-key")
}

/// Returns the name of the file with an access token for an endpoint.
pub(crate) fn token_file(endpoint: &str) -> String {
    format!("{endpoint}-token")
}

/// Quotes a text as a TOML string. JSON's escapes are a subset of TOML's.
pub(super) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}
