//! The settings of credentials. They name secrets and files, which are read when they are used.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::authority_settings::AuthoritySettings;
use super::proof_settings::{AssertionSettings, ManagedIdentity, ManagedIdentitySettings, Proof};
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
