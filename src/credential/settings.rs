//! The settings of credentials. They name secrets and files, which are read when they are used.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::remedy::SetupStep;
use crate::egress::Egress;
use crate::files::SecretSource;

/// The configured name of a credential: the key of its `[credentials.*]` table, also a metric label and a log field.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialName(Arc<str>);

impl CredentialName {
    /// Creates a name that the configuration has validated.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Returns the name as the operator wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The identifier of a token life. A credential has one for each tenant that its endpoints name, or one if it names the tenant
/// itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialId {
    /// The credential, whose name labels the metrics of all its tenants.
    pub name: CredentialName,
    /// The tenant, if endpoints name it: a GUID or a domain.
    pub tenant: Option<Arc<str>>,
}

impl CredentialId {
    /// Creates the identifier of a credential whose tenant is not named by endpoints.
    pub fn without_tenant(name: &str) -> Self {
        Self { name: CredentialName::new(name), tenant: None }
    }
}

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tenant {
            None => write!(f, "{}", self.name),
            Some(tenant) => write!(f, "{} ({tenant})", self.name),
        }
    }
}

/// When tokens are requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenSettings {
    /// The time without use after which a token that was acquired on demand is released. `None`: tokens are acquired at start and
    /// kept.
    pub release_after: Option<Duration>,
    /// The maximum number of token requests at once, for each authority.
    pub max_requests: usize,
}

/// The settings of a token life. Cloning shares the settings of the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialSettings {
    /// The credential, and the tenant if endpoints name it.
    pub id: CredentialId,
    /// How bearers are obtained.
    pub kind: CredentialKind,
    /// The object id that its tokens should have, if configured. Requests do not depend on it; `doctor` reports a difference.
    pub object_id: Option<Arc<str>>,
}

/// How bearers are obtained.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    /// An app registration, which requests tokens from the token endpoint of the resource's tenant.
    App {
        /// The app registration, shared by all its tenants.
        app: Arc<AppSettings>,
        /// The tenant of the SignalR resource (tenant B), which issues the tokens. Never `common` or `organizations`.
        tenant: Arc<str>,
    },
    /// A managed identity in the endpoint's tenant.
    ManagedIdentity {
        /// The identity, and the endpoint that issues its tokens.
        identity: ManagedIdentitySettings,
        /// The requested scope. Default: `https://signalr.azure.com/.default`.
        scope: String,
    },
    /// The user who is signed in to the Azure CLI on this host, for development.
    AzureCli {
        /// The tenant of the SignalR resource, which issues the tokens.
        tenant: Arc<str>,
        /// The requested scope. Default: `https://signalr.azure.com/.default`.
        scope: String,
    },
    /// A SignalR access key, which signs a token for each request (HS256).
    AccessKey {
        /// The source of the key.
        key: SecretSource,
    },
    /// A file with a bearer token that another program updates. Read again when it changes.
    TokenFile {
        /// The file.
        path: PathBuf,
    },
}

impl CredentialKind {
    /// Returns the settings of its app registration, if it has one.
    fn app(&self) -> Option<&AppSettings> {
        match self {
            Self::App { app, .. } => Some(app),
            Self::ManagedIdentity { .. } | Self::AzureCli { .. } | Self::AccessKey { .. } | Self::TokenFile { .. } => {
                None
            }
        }
    }

    /// Returns how its token requests leave; `None` if they do not go through a proxy.
    pub fn egress(&self) -> Option<&Egress> {
        self.app().map(|app| &*app.egress)
    }

    /// Returns the files with the CAs that its token requests trust.
    pub fn ca_files(&self) -> impl Iterator<Item = &Path> {
        let app = self.app();
        let of_authority = app.and_then(|app| app.authority.ca_file.as_deref());
        let of_provider = app.and_then(|app| match &app.proof {
            Proof::Federated(assertion) => assertion.ca_file(),
            Proof::Secret(_) | Proof::Certificate(_) => None,
        });
        let of_proxy = app.and_then(|app| app.egress.ca_file());
        of_authority.into_iter().chain(of_provider).chain(of_proxy)
    }

    /// Returns what is known about the kind before a token is obtained.
    pub fn facts(&self) -> KindFacts<'_> {
        match self {
            Self::App { app, tenant } => KindFacts {
                identity: Some(Identity {
                    issuer: app.authority.origin(),
                    tenant: Some(tenant),
                    subject: Subject::App(&app.client_id),
                    scope: &app.scope,
                }),
                first_step: match &app.proof {
                    Proof::Federated(AssertionSettings::ManagedIdentity { .. }) => SetupStep::HostIdentity,
                    Proof::Secret(_) | Proof::Certificate(_) | Proof::Federated(_) => SetupStep::Proof,
                },
            },
            Self::ManagedIdentity { identity, scope } => KindFacts {
                identity: Some(Identity {
                    issuer: identity.imds_endpoint.as_deref().unwrap_or_default(),
                    tenant: None,
                    subject: Subject::Managed(&identity.id),
                    scope,
                }),
                first_step: SetupStep::HostIdentity,
            },
            Self::AzureCli { tenant, scope } => KindFacts {
                identity: Some(Identity { issuer: "az", tenant: Some(tenant), subject: Subject::User, scope }),
                first_step: SetupStep::Proof,
            },
            Self::AccessKey { .. } | Self::TokenFile { .. } => {
                KindFacts { identity: None, first_step: SetupStep::Proof }
            }
        }
    }
}

/// What is known about a credential before a token is obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindFacts<'a> {
    /// The identity in its tokens. `None` if the configuration does not determine it.
    pub identity: Option<Identity<'a>>,
    /// The setup step that an acquisition begins with.
    pub first_step: SetupStep,
}

/// The identity in tokens, and their issuer. Credentials with equal identities may use each other's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity<'a> {
    /// The origin of the Entra authority, or the configured `imds_endpoint`.
    issuer: &'a str,
    tenant: Option<&'a str>,
    subject: Subject<'a>,
    scope: &'a str,
}

impl<'a> Identity<'a> {
    /// Returns the tenant that issues the tokens, if it is configured: a GUID or a domain.
    pub const fn tenant(&self) -> Option<&'a str> {
        self.tenant
    }

    /// Returns the client id in the tokens, if it is configured.
    pub fn client_id(&self) -> Option<&'a str> {
        match self.subject {
            Subject::App(id) => Some(id),
            Subject::Managed(ManagedIdentity::ClientId(id)) => Some(id),
            Subject::Managed(
                ManagedIdentity::System | ManagedIdentity::ObjectId(_) | ManagedIdentity::ResourceId(_),
            )
            | Subject::User => None,
        }
    }

    /// Returns the scope that is requested.
    pub const fn scope(&self) -> &'a str {
        self.scope
    }
}

/// The subject of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Subject<'a> {
    App(&'a str),
    Managed(&'a ManagedIdentity),
    /// The user who is signed in to the Azure CLI.
    User,
}

/// An app registration in tenant A whose enterprise application is in tenant B.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AppSettings {
    /// The Entra authority.
    pub authority: AuthoritySettings,
    /// The proxy of its requests to the authority and to identity providers.
    pub egress: Arc<Egress>,
    /// The app registration's client id.
    pub client_id: String,
    /// The requested scope. Default: `https://signalr.azure.com/.default`.
    pub scope: String,
    /// How the app authenticates.
    pub proof: Proof,
}

/// An Entra authority.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AuthoritySettings {
    /// The cloud.
    pub cloud: Cloud,
    /// PEM file of the CAs for the authority's certificate. `None`: the system's.
    pub ca_file: Option<PathBuf>,
}

/// A Microsoft cloud, or another authority.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cloud {
    /// `login.microsoftonline.com`.
    Public,
    /// `login.microsoftonline.us`.
    UsGovernment,
    /// `login.chinacloudapi.cn`.
    China,
    /// Another authority: `https://host[:port]` without a path.
    Custom {
        /// The authority's origin.
        authority: String,
    },
}

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

impl AuthoritySettings {
    /// Returns the origin of the authority, without a trailing slash.
    pub fn origin(&self) -> &str {
        match &self.cloud {
            Cloud::Public => "https://login.microsoftonline.com",
            Cloud::UsGovernment => "https://login.microsoftonline.us",
            Cloud::China => "https://login.chinacloudapi.cn",
            Cloud::Custom { authority } => authority.trim_end_matches('/'),
        }
    }
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
