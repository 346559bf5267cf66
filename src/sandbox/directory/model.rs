//! The data of the directory. Tests can change it while the sandbox runs. The emulated services validate requests against
//! it.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use super::index::Index;
use super::roles::Role;
use crate::sandbox::crypto::keys::PublicKey;

/// The application id of the SignalR resource provider, which is the same in every tenant.
pub(crate) const SIGNALR_PROVIDER: &str = "cdad765c-f191-43ba-b9f5-7aef392f811d";

/// The audiences of assertions for workload identity federation, one for each cloud.
pub(crate) const EXCHANGE_AUDIENCES: [&str; 3] =
    ["api://AzureADTokenExchange", "api://AzureADTokenExchangeUSGov", "api://AzureADTokenExchangeChina"];

/// The directory. Tenants and resources may be many; an index finds them.
#[derive(Clone, Debug)]
pub struct Directory {
    /// The tenants.
    pub tenants: Vec<Tenant>,
    /// The app registrations of all tenants.
    pub applications: Vec<Application>,
    /// The managed identities of all tenants.
    pub managed_identities: Vec<ManagedIdentity>,
    /// Identity providers outside Entra whose keys Entra can fetch.
    pub external_issuers: Vec<ExternalIssuer>,
    /// The SignalR resources.
    pub resources: Vec<Resource>,
    /// The properties of issued tokens.
    pub tokens: TokenPolicy,
    pub(crate) index: Index,
}

/// A tenant.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// The tenant id, a GUID.
    pub id: String,
    /// The domain, such as `contoso.onmicrosoft.com`. Token requests name the tenant by its id or its domain.
    pub domain: String,
    /// The enterprise applications (service principals), including those of managed identities.
    pub service_principals: Vec<ServicePrincipal>,
    /// Whether the tenant has the service principal of the SignalR resource provider.
    pub signalr_provider: bool,
    /// Whether a Conditional Access policy for workload identities blocks token requests.
    pub conditional_access_blocks: bool,
    /// Whether the tenant belongs to another national cloud.
    pub in_other_cloud: bool,
    /// If set, token requests get status 429 with this `Retry-After`.
    pub throttled: Option<Duration>,
    /// If set, token requests are answered after this time.
    pub token_delay: Option<Duration>,
}

/// An app registration.
#[derive(Clone, Debug)]
pub struct Application {
    /// The client id, a GUID.
    pub client_id: String,
    /// The id of the tenant in which it is registered.
    pub home_tenant: String,
    /// Whether other tenants can have an enterprise application for it.
    pub multi_tenant: bool,
    /// Whether it is enabled.
    pub enabled: bool,
    /// The client secrets.
    pub secrets: Vec<ClientSecret>,
    /// The certificates in DER.
    pub certificates: Vec<Vec<u8>>,
    /// The federated identity credentials.
    pub federated: Vec<FederatedCredential>,
}

/// A client secret of an app registration.
#[derive(Clone, Debug)]
pub struct ClientSecret {
    /// The id of the secret, which clients must not send instead of its value.
    pub id: String,
    /// The value.
    pub value: SecretText,
    /// The time at which it expires.
    pub expires: SystemTime,
}

/// A secret string. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

/// A federated identity credential of an app registration.
#[derive(Clone, Debug)]
pub struct FederatedCredential {
    /// The trusted issuer, compared exactly.
    pub issuer: String,
    /// The subject of the assertion, compared exactly.
    pub subject: String,
    /// The audience of the assertion, compared exactly.
    pub audience: String,
}

/// An enterprise application: the service principal of an app registration or managed identity in one tenant.
#[derive(Clone, Debug)]
pub struct ServicePrincipal {
    /// The client id of the app registration or managed identity.
    pub client_id: String,
    /// The object id, to which roles are assigned.
    pub object_id: String,
    /// Whether sign-in is enabled.
    pub enabled: bool,
    /// Role assignments on SignalR resources: the resource's name, and the role.
    pub roles: Vec<(String, Role)>,
}

/// A managed identity.
#[derive(Clone, Debug)]
pub struct ManagedIdentity {
    /// The id of its tenant.
    pub tenant: String,
    /// The client id.
    pub client_id: String,
    /// The object (principal) id.
    pub object_id: String,
    /// The ARM resource id. A system-assigned identity has that of the host.
    pub resource_id: String,
    /// Whether it is the host's system-assigned identity.
    pub system_assigned: bool,
    /// Whether it is assigned to the gateway's host.
    pub assigned_to_host: bool,
}

/// An identity provider outside Entra.
#[derive(Clone, Debug)]
pub struct ExternalIssuer {
    /// The issuer in its tokens.
    pub issuer: String,
    /// The keys that verify its tokens.
    pub keys: Vec<PublicKey>,
}

/// A SignalR resource.
#[derive(Clone, Debug)]
pub struct Resource {
    /// The endpoint's name in the sandbox.
    pub name: String,
    /// The id of the tenant whose tokens it accepts.
    pub tenant: String,
    /// Whether tokens signed with an access key are accepted (`disableLocalAuth` is false).
    pub local_auth: bool,
    /// Whether public network access is enabled.
    pub public_network: bool,
}

/// The properties of issued tokens.
#[derive(Clone, Debug)]
pub struct TokenPolicy {
    /// The lifetime of an access token. Entra's is 60 to 90 minutes.
    pub lifetime: Duration,
    /// The lifetime of a managed identity's token. The metadata service's is about 24 hours.
    pub identity_lifetime: Duration,
    /// The value of `refresh_in`, if any.
    pub refresh_in: Option<Duration>,
    /// The value of `expires_in`, if it differs from the lifetime.
    pub expires_in: Option<serde_json::Value>,
    /// The offset of Entra's clock from this host's, in seconds. Positive if ahead.
    pub clock_offset_secs: i64,
    /// Whether repeated requests get the same token until that expires.
    pub repeat: bool,
}

/// A shared handle to a directory.
#[derive(Clone, Debug)]
pub struct DirectoryHandle(Arc<RwLock<Arc<Directory>>>);

impl DirectoryHandle {
    /// Creates a handle to a directory.
    pub fn new(directory: Directory) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(directory))))
    }

    /// Calls a function with the current directory.
    pub fn read<T>(&self, read: impl FnOnce(&Directory) -> T) -> T {
        read(&self.snapshot())
    }

    /// Returns the current directory. Later changes do not affect it.
    pub fn snapshot(&self) -> Arc<Directory> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the directory. The change applies to later requests.
    pub fn edit<T>(&self, change: impl FnOnce(&mut Directory) -> T) -> T {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let directory = Arc::make_mut(&mut current);
        directory.index = Index::default();
        let result = change(directory);
        // The change may have used the index and moved entries afterwards.
        directory.index = Index::default();
        result
    }
}

impl Directory {
    /// Returns the tenant with this id or domain.
    pub fn tenant(&self, id_or_domain: &str) -> Option<&Tenant> {
        let names = self.tenants.iter().map(|tenant| [tenant.id.as_str(), tenant.domain.as_str()]);
        let indexed = self.index.tenant(id_or_domain, names).and_then(|position| self.tenants.get(position));
        let indexed = indexed.filter(|tenant| tenant.is_named(id_or_domain));
        indexed.or_else(|| self.tenants.iter().find(|tenant| tenant.is_named(id_or_domain)))
    }

    /// Returns the tenant with this id or domain for modification.
    pub fn tenant_mut(&mut self, id_or_domain: &str) -> Option<&mut Tenant> {
        self.tenants.iter_mut().find(|tenant| tenant.is_named(id_or_domain))
    }

    /// Returns the app registration with this client id.
    pub fn application(&self, client_id: &str) -> Option<&Application> {
        self.applications.iter().find(|application| application.client_id.eq_ignore_ascii_case(client_id))
    }

    /// Returns the app registration with this client id for modification.
    pub fn application_mut(&mut self, client_id: &str) -> Option<&mut Application> {
        self.applications.iter_mut().find(|application| application.client_id.eq_ignore_ascii_case(client_id))
    }

    /// Returns the enterprise application of a client id in a tenant for modification.
    pub fn service_principal_mut(&mut self, tenant: &str, client_id: &str) -> Option<&mut ServicePrincipal> {
        let tenant = self.tenant_mut(tenant)?;
        tenant.service_principals.iter_mut().find(|principal| principal.client_id.eq_ignore_ascii_case(client_id))
    }

    /// Returns the SignalR resource with this name.
    pub fn resource(&self, name: &str) -> Option<&Resource> {
        let names = self.resources.iter().map(|resource| resource.name.as_str());
        let indexed = self.index.resource(name, names).and_then(|position| self.resources.get(position));
        let indexed = indexed.filter(|resource| resource.name == name);
        indexed.or_else(|| self.resources.iter().find(|resource| resource.name == name))
    }

    /// Returns the SignalR resource with this name for modification.
    pub fn resource_mut(&mut self, name: &str) -> Option<&mut Resource> {
        self.resources.iter_mut().find(|resource| resource.name == name)
    }

    /// Returns the managed identity with this client id for modification.
    pub fn managed_identity_mut(&mut self, client_id: &str) -> Option<&mut ManagedIdentity> {
        self.managed_identities.iter_mut().find(|identity| identity.client_id.eq_ignore_ascii_case(client_id))
    }
}

impl TokenPolicy {
    /// Returns the time of Entra's clock.
    pub(crate) fn now(&self) -> SystemTime {
        let offset = Duration::from_secs(self.clock_offset_secs.unsigned_abs());
        if self.clock_offset_secs < 0 { SystemTime::now() - offset } else { SystemTime::now() + offset }
    }
}

impl Tenant {
    /// Returns a tenant that has only the SignalR resource provider.
    pub fn new(id: &str, domain: &str) -> Self {
        Self {
            id: id.to_owned(),
            domain: domain.to_owned(),
            service_principals: Vec::new(),
            signalr_provider: true,
            conditional_access_blocks: false,
            in_other_cloud: false,
            throttled: None,
            token_delay: None,
        }
    }

    /// Returns the enterprise application of a client id.
    pub fn service_principal(&self, client_id: &str) -> Option<&ServicePrincipal> {
        self.service_principals.iter().find(|principal| principal.client_id.eq_ignore_ascii_case(client_id))
    }

    fn is_named(&self, id_or_domain: &str) -> bool {
        self.id.eq_ignore_ascii_case(id_or_domain) || self.domain.eq_ignore_ascii_case(id_or_domain)
    }
}

impl ServicePrincipal {
    /// Returns whether a role on a resource allows a data action.
    pub fn is_allowed(&self, resource: &str, action: &str) -> bool {
        self.roles.iter().any(|(on, role)| on == resource && role.allows(action))
    }
}

impl SecretText {
    /// Wraps a secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// Returns the secret.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Returns the issuer of a tenant's v2 tokens.
pub(crate) fn v2_issuer(authority: &str, tenant: &str) -> String {
    format!("{authority}/{tenant}/v2.0")
}

impl Default for TokenPolicy {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(3599),
            identity_lifetime: Duration::from_secs(86_399),
            refresh_in: None,
            expires_in: None,
            clock_offset_secs: 0,
            repeat: false,
        }
    }
}
