//! How app registrations and hosts prove who they are. The settings name secrets and files, which are read when they are used.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::files::SecretSource;

/// How an app registration authenticates.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    /// A client secret.
    Secret(SecretSource),
    /// A certificate, whose key signs an assertion for each token request.
    Certificate(CertificateSettings),
    /// A token of another identity that a federated identity credential of the app registration trusts.
    Federated(AssertionSettings),
}

/// A client certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateSettings {
    /// PEM file with the certificate, and with the key if `key` is `None`.
    pub certificate: PathBuf,
    /// PEM file with the unencrypted private key (PKCS#8, PKCS#1).
    pub key: Option<PathBuf>,
    /// The signature algorithm of the assertion.
    pub algorithm: AssertionAlgorithm,
    /// Whether to send the chain in `x5c` (subject name and issuer authentication).
    pub send_chain: bool,
}

/// The signature algorithm of a certificate assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AssertionAlgorithm {
    /// RSASSA-PSS with SHA-256, which Microsoft recommends.
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256, for older authorities.
    Rs256,
}

/// The source of the client assertion of a federated credential.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AssertionSettings {
    /// A user-assigned managed identity of the app registration's own tenant.
    ManagedIdentity {
        /// The identity, and the endpoint that issues its tokens.
        identity: ManagedIdentitySettings,
        /// The exchange audience, such as `api://AzureADTokenExchange`. Without `/.default`.
        audience: String,
    },
    /// A file that another program updates, such as a Kubernetes projected token. Read for each acquisition, trimmed.
    File {
        /// The file.
        path: PathBuf,
    },
    /// The OIDC provider of GitHub Actions, configured by the variables of the job.
    GithubActions {
        /// The requested audience.
        audience: String,
        /// PEM file of the CAs for the provider's certificate. `None`: the system's.
        ca_file: Option<PathBuf>,
    },
    /// The OIDC provider of Azure Pipelines, configured by the variables of the job.
    AzurePipelines {
        /// The id of the service connection.
        service_connection: String,
        /// The job's access token (`System.AccessToken`).
        access_token: SecretSource,
        /// PEM file of the CAs for the provider's certificate. `None`: the system's.
        ca_file: Option<PathBuf>,
    },
    /// The metadata server of Google Cloud.
    GcpMetadata {
        /// The requested audience.
        audience: String,
        /// The service account of the host: `default`, or an e-mail address.
        service_account: String,
        /// Whether to request claims about the instance.
        full: bool,
        /// The origin of the metadata server, without a trailing slash.
        endpoint: String,
    },
    /// An OAuth 2.0 token endpoint, by the client credentials grant (RFC 6749 section 4.4).
    OAuth2(Box<OAuth2Settings>),
    /// A program that prints the assertion.
    Command(CommandSettings),
}

impl AssertionSettings {
    /// Returns the configured file with the CAs that the requests to its provider trust.
    pub fn ca_file(&self) -> Option<&Path> {
        match self {
            Self::GithubActions { ca_file, .. } | Self::AzurePipelines { ca_file, .. } => ca_file.as_deref(),
            Self::OAuth2(settings) => settings.ca_file.as_deref(),
            Self::ManagedIdentity { .. } | Self::File { .. } | Self::GcpMetadata { .. } | Self::Command(_) => None,
        }
    }
}

/// A client of an OAuth 2.0 authorization server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OAuth2Settings {
    /// The token endpoint.
    pub token_url: String,
    /// The client id there.
    pub client_id: String,
    /// The client secret there.
    pub secret: SecretSource,
    /// How the client authenticates.
    pub authentication: ClientAuthentication,
    /// The requested `scope`.
    pub scope: Option<String>,
    /// The requested `audience`.
    pub audience: Option<String>,
    /// Additional parameters of the request, by name.
    pub parameters: Vec<(String, String)>,
    /// Which token of the response is the assertion.
    pub token: OAuth2Token,
    /// PEM file of the CAs for the server's certificate. `None`: the system's.
    pub ca_file: Option<PathBuf>,
}

/// How a client authenticates at a token endpoint (RFC 6749 section 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientAuthentication {
    /// `client_secret_basic`: in `Authorization`.
    Basic,
    /// `client_secret_post`: in the form.
    Post,
}

/// The field of a token response that holds the assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OAuth2Token {
    /// `access_token`.
    Access,
    /// `id_token`.
    Id,
}

/// A program that is run without a shell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CommandSettings {
    /// The program: a path, or a name to find in `PATH`.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The environment variables that it inherits; no others.
    pub environment: Vec<String>,
    /// Its deadline.
    pub timeout: Duration,
}

/// A managed identity and the endpoint that issues its tokens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ManagedIdentitySettings {
    /// The identity.
    pub id: ManagedIdentity,
    /// `http://host[:port]` that replaces the instance metadata service at `http://169.254.169.254`. Hosts that set
    /// `IDENTITY_ENDPOINT` (App Service, Container Apps) do not use it.
    pub imds_endpoint: Option<String>,
}

/// A managed identity of the host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ManagedIdentity {
    /// The host's system-assigned identity.
    System,
    /// A user-assigned identity, by client id.
    ClientId(String),
    /// A user-assigned identity, by object (principal) id.
    ObjectId(String),
    /// A user-assigned identity, by ARM resource id.
    ResourceId(String),
}

impl fmt::Display for ManagedIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("the system-assigned managed identity"),
            Self::ClientId(id) => write!(f, "managed identity with client id {id}"),
            Self::ObjectId(id) => write!(f, "managed identity with object id {id}"),
            Self::ResourceId(id) => write!(f, "managed identity {id}"),
        }
    }
}
