//! What a credential is built from, decided. No serde, no I/O: secrets and files are named here and read when used.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::remedy::SetupStep;

/// The configured name of a credential. Metric label, log field, key of the `[credentials.*]` tables.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialName(Arc<str>);

impl CredentialName {
    /// Wraps a name that configuration has checked.
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

/// One credential: its name and who it makes us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialSettings {
    /// The configured name.
    pub name: CredentialName,
    /// How a bearer is obtained.
    pub kind: CredentialKind,
    /// The object id that its tokens are expected to carry, if that was said. For showing alone: no token is refused for it.
    pub object_id: Option<String>,
}

/// How a bearer is obtained.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    /// An app registration that asks tenant B's token endpoint.
    App(AppSettings),
    /// A managed identity of the endpoint's own tenant asks for a SignalR token directly.
    ManagedIdentity {
        /// Which identity, and where it is asked for.
        identity: ManagedIdentitySettings,
        /// The scope to ask for, `https://signalr.azure.com/.default` unless configured.
        scope: String,
    },
    /// Whoever is signed in to the Azure CLI on this host: for a developer's desk.
    AzureCli {
        /// The tenant that is asked: the one the SignalR resource lives in.
        tenant: String,
        /// The scope to ask for, `https://signalr.azure.com/.default` unless configured.
        scope: String,
    },
    /// A SignalR access key; each request is signed with HS256.
    AccessKey {
        /// Where the key is read from.
        key: SecretSource,
    },
    /// A file that holds a ready bearer, kept fresh by another program. Re-read when it changes.
    TokenFile {
        /// The file.
        path: PathBuf,
    },
}

impl CredentialKind {
    /// Returns what is known about the kind before a token is obtained.
    pub fn facts(&self) -> KindFacts<'_> {
        match self {
            Self::App(app) => KindFacts {
                identity: Some(Identity {
                    issuer: app.authority.origin(),
                    tenant: Some(&app.tenant),
                    id: IdentityId::App(&app.client_id),
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
                    id: IdentityId::Managed(&identity.id),
                    scope,
                }),
                first_step: SetupStep::HostIdentity,
            },
            Self::AzureCli { tenant, scope } => KindFacts {
                identity: Some(Identity { issuer: "az", tenant: Some(tenant), id: IdentityId::User, scope }),
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
    /// The identity that its tokens name. `None` where only the token or the key itself tells.
    pub identity: Option<Identity<'a>>,
    /// The setup step that an acquisition begins with.
    pub first_step: SetupStep,
}

/// The identity that tokens name, and who issues them. Credentials with equal identities may use each other's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity<'a> {
    /// The origin of the Entra authority, or of what replaces the host's identity endpoint.
    issuer: &'a str,
    tenant: Option<&'a str>,
    id: IdentityId<'a>,
    scope: &'a str,
}

impl<'a> Identity<'a> {
    /// Returns the tenant that is asked for tokens, if it is configured: a GUID or a domain.
    pub const fn tenant(&self) -> Option<&'a str> {
        self.tenant
    }

    /// Returns the client id in the tokens, if it is configured.
    pub fn client_id(&self) -> Option<&'a str> {
        match self.id {
            IdentityId::App(id) => Some(id),
            IdentityId::Managed(ManagedIdentity::ClientId(id)) => Some(id),
            IdentityId::Managed(
                ManagedIdentity::System | ManagedIdentity::ObjectId(_) | ManagedIdentity::ResourceId(_),
            )
            | IdentityId::User => None,
        }
    }

    /// Returns the scope that is requested.
    pub const fn scope(&self) -> &'a str {
        self.scope
    }
}

/// The subject of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IdentityId<'a> {
    App(&'a str),
    Managed(&'a ManagedIdentity),
    /// The user who is signed in to the Azure CLI.
    User,
}

/// An app registration (tenant A) whose enterprise application lives in the tenant asked (tenant B).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AppSettings {
    /// The Entra authority to ask.
    pub authority: AuthoritySettings,
    /// The tenant that is asked: the one the SignalR resource lives in. Never `common` or `organizations`.
    pub tenant: String,
    /// The app registration's client id.
    pub client_id: String,
    /// The scope to ask for, `https://signalr.azure.com/.default` unless configured.
    pub scope: String,
    /// How the app proves that it is itself.
    pub proof: Proof,
}

/// An Entra authority.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AuthoritySettings {
    /// Which cloud.
    pub cloud: Cloud,
    /// PEM file of the CAs that the authority's certificate is checked against, in place of the system's.
    pub ca_file: Option<PathBuf>,
}

/// A Microsoft cloud, or an authority of the operator's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cloud {
    /// `login.microsoftonline.com`.
    Public,
    /// `login.microsoftonline.us`.
    UsGovernment,
    /// `login.chinacloudapi.cn`.
    China,
    /// Another authority: `https://host[:port]` with no path.
    Custom {
        /// The authority's origin.
        authority: String,
    },
}

/// How an app registration proves that it is itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    /// A client secret.
    Secret(SecretSource),
    /// A certificate: each token request carries an assertion signed with its key.
    Certificate(CertificateSettings),
    /// A token of another identity, trusted through a federated identity credential on the app registration.
    Federated(AssertionSettings),
}

/// A client certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateSettings {
    /// PEM file with the certificate, and the key unless `key` names another file.
    pub certificate: PathBuf,
    /// PEM file with the unencrypted private key (PKCS#8, PKCS#1).
    pub key: Option<PathBuf>,
    /// The signature algorithm of the assertion.
    pub algorithm: AssertionAlgorithm,
    /// Whether the chain is sent in `x5c` (subject name and issuer authentication).
    pub send_chain: bool,
}

/// The signature algorithm of a certificate assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AssertionAlgorithm {
    /// RSASSA-PSS with SHA-256: what Microsoft asks for.
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256: the older form.
    Rs256,
}

/// Where the client assertion of a federated credential comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AssertionSettings {
    /// A user-assigned managed identity of the app registration's own tenant.
    ManagedIdentity {
        /// Which identity, and where it is asked for.
        identity: ManagedIdentitySettings,
        /// The exchange audience, such as `api://AzureADTokenExchange`. Without `/.default`.
        audience: String,
    },
    /// A file that another program keeps fresh (a Kubernetes projected token). Read at each acquisition, trimmed.
    File {
        /// The file.
        path: PathBuf,
    },
    /// The OIDC provider of GitHub Actions, asked with what GitHub sets in the environment of a job.
    GithubActions {
        /// The audience to ask for.
        audience: String,
        /// PEM file of the CAs that the provider's certificate is checked against, in place of the system's.
        ca_file: Option<PathBuf>,
    },
    /// The OIDC provider of Azure Pipelines, asked with what Azure DevOps sets in the environment of a job.
    AzurePipelines {
        /// The id of the service connection.
        service_connection: String,
        /// The job's access token (`System.AccessToken`).
        access_token: SecretSource,
        /// As for GitHub Actions.
        ca_file: Option<PathBuf>,
    },
    /// The metadata server of Google Cloud.
    GcpMetadata {
        /// The audience to ask for.
        audience: String,
        /// The service account of the host: `default`, or an e-mail address.
        service_account: String,
        /// Whether claims about the instance are wanted.
        full: bool,
        /// The metadata server's origin, without a slash at the end.
        endpoint: String,
    },
    /// An OAuth 2.0 token endpoint, asked by client credentials (RFC 6749 section 4.4).
    OAuth2(Box<OAuth2Settings>),
    /// A program that prints the assertion.
    Command(CommandSettings),
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
    /// The `scope` to ask for.
    pub scope: Option<String>,
    /// The `audience` to ask for.
    pub audience: Option<String>,
    /// More parameters of the request, by name.
    pub parameters: Vec<(String, String)>,
    /// Which token of the answer is the assertion.
    pub token: OAuth2Token,
    /// PEM file of the CAs that the server's certificate is checked against, in place of the system's.
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

/// Which token of an answer is meant.
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
    /// The program: a path, or a name that is looked for in `PATH`.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The environment variables that it sees; no others.
    pub environment: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
}

/// A managed identity and the endpoint that hands out its tokens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ManagedIdentitySettings {
    /// Which identity of the host.
    pub id: ManagedIdentity,
    /// `http://host[:port]` that stands in for the instance metadata service at `http://169.254.169.254`, where
    /// something on the node answers for it. Hosts that set `IDENTITY_ENDPOINT` (App Service, Container Apps) do not
    /// use it.
    pub imds_endpoint: Option<String>,
}

impl AuthoritySettings {
    /// Returns the authority's origin, without a slash at the end.
    pub fn origin(&self) -> &str {
        match &self.cloud {
            Cloud::Public => "https://login.microsoftonline.com",
            Cloud::UsGovernment => "https://login.microsoftonline.us",
            Cloud::China => "https://login.chinacloudapi.cn",
            Cloud::Custom { authority } => authority.trim_end_matches('/'),
        }
    }
}

/// Which managed identity of the host.
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

/// Where a secret is read from, each time it is used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretSource {
    /// A file; a trailing line break is not part of the secret.
    File(PathBuf),
    /// An environment variable.
    Env(String),
}
