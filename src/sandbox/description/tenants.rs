//! Tenants and what is in them: app registrations, managed identities, service principals and their roles, issuers
//! outside Entra. Knows no servers.

use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::reader::Reader;
use crate::sandbox::crypto::keys::{PublicKey, RsaKey};
use crate::sandbox::directory::model::{
    Application, ClientSecret, Directory, EXCHANGE_AUDIENCES, ExternalIssuer, FederatedCredential, ManagedIdentity,
    Resource, SecretText, ServicePrincipal, Tenant, TokenPolicy,
};
use crate::sandbox::directory::roles::Role;
use crate::sandbox::directory::scenario::object_id;
use crate::sandbox::directory::world::{Trust, World, WorldContent, WorldFile};

/// How long a secret is good for if not said.
const SECRET_LIFE: Duration = Duration::from_secs(180 * 24 * 3600);

/// What can be referred to by name, with the id it has.
#[derive(Debug, Default)]
pub(super) struct Names {
    tenants: Vec<(String, String)>,
    pub(super) applications: Vec<(String, String)>,
    pub(super) identities: Vec<(String, String)>,
    pub(super) endpoints: Vec<String>,
    /// Issuers that the sandbox signs for.
    pub(super) issuers: Vec<String>,
}

impl Names {
    /// The id of the tenant that a key names, which must be there; empty if there is none, which is noted.
    pub(super) fn tenant(&self, table: &Reader<'_>, key: &'static str) -> String {
        refer(table, key, &self.tenants, "tenant")
    }
}

/// The id of what a key refers to, which must be there; empty if there is none, which is noted.
pub(super) fn refer(table: &Reader<'_>, key: &'static str, among: &[(String, String)], what: &str) -> String {
    let name = table.needed(key);
    let found = among.iter().find(|(known, _)| *known == name);
    if found.is_none() && !name.is_empty() {
        let known: Vec<&str> = among.iter().map(|(known, _)| known.as_str()).collect();
        table.unknown(key, &name, what, &known);
    }
    found.map(|(_, id)| id.clone()).unwrap_or_default()
}

/// The tenants, empty still.
pub(super) fn tenants(root: &Reader<'_>, names: &mut Names) -> Vec<Tenant> {
    let mut tenants = Vec::new();
    for table in root.named("tenants") {
        let id = new_id(&table, "id", names.tenants.iter());
        let domain = table.text("domain").unwrap_or_else(|| format!("{}.onmicrosoft.com", table.name()));
        names.tenants.push((table.name().to_owned(), id.clone()));
        tenants.push(Tenant {
            signalr_provider: table.flag("signalr_provider", true),
            conditional_access_blocks: table.flag("conditional_access_blocks", false),
            in_other_cloud: table.flag("in_other_cloud", false),
            throttled: table.duration("throttled"),
            ..Tenant::new(&id, &domain)
        });
    }
    tenants
}

/// Everything in the tenants.
pub(super) fn world(root: &Reader<'_>, names: &mut Names, mut tenants: Vec<Tenant>, resources: Vec<Resource>) -> World {
    let mut files = Vec::new();
    let (identities, of_identities) = identities(root, names);
    let external_issuers = issuers(root, names, &mut files);
    let (applications, trusts) = applications(root, names, &mut files);
    for (tenant, principal) in of_identities.into_iter().chain(service_principals(root, names)) {
        if let Some(tenant) = tenants.iter_mut().find(|other| other.id == tenant) {
            tenant.service_principals.push(principal);
        }
    }
    let tokens = tokens(root);
    let directory =
        Directory { tenants, applications, managed_identities: identities, external_issuers, resources, tokens };
    World { directory, trusts, files }
}

fn applications(root: &Reader<'_>, names: &mut Names, files: &mut Vec<WorldFile>) -> (Vec<Application>, Vec<Trust>) {
    let (mut applications, mut trusts) = (Vec::new(), Vec::new());
    for table in root.named("applications") {
        let client_id = new_id(&table, "client_id", names.applications.iter().chain(&names.identities));
        names.applications.push((table.name().to_owned(), client_id.clone()));
        let secrets: Vec<ClientSecret> = table.list("secrets").iter().map(secret).collect();
        if let Some(secret) = secrets.first() {
            let content = WorldContent::Secret(secret.value.clone());
            files.push(WorldFile { name: secret_file(table.name()), content });
        }
        let mut federated = Vec::new();
        for table in table.list("federated") {
            let audience = table.text("audience").unwrap_or_else(|| String::from(EXCHANGE_AUDIENCES[0]));
            if table.has("identity") {
                let identity = refer(&table, "identity", &names.identities, "managed identity");
                trusts.push(Trust { application: client_id.clone(), identity, audience });
            } else {
                let (issuer, subject) = (table.needed("issuer"), table.needed("subject"));
                federated.push(FederatedCredential { issuer, subject, audience });
            }
        }
        applications.push(Application {
            home_tenant: names.tenant(&table, "tenant"),
            multi_tenant: table.flag("multi_tenant", true),
            enabled: table.flag("enabled", true),
            secrets,
            certificates: certificates(&table),
            federated,
            client_id,
        });
    }
    (applications, trusts)
}

/// The file that an application's first secret is written to.
pub(super) fn secret_file(application: &str) -> String {
    format!("{application}-secret")
}

/// The file that an assertion of an issuer is written to.
pub(super) fn assertion_file(issuer: &str) -> String {
    format!("{issuer}-assertion.jwt")
}

fn secret(table: &Reader<'_>) -> ClientSecret {
    ClientSecret {
        value: SecretText::new(table.needed("value")),
        id: table.text("id").unwrap_or_else(crate::sandbox::crypto::ids::guid),
        expires: SystemTime::now() + table.duration("expires_in").unwrap_or(SECRET_LIFE),
    }
}

fn certificates(table: &Reader<'_>) -> Vec<Vec<u8>> {
    let mut certificates = Vec::new();
    for file in table.texts("certificates").unwrap_or_default() {
        let path = table.notes().beside(&file);
        match CertificateDer::from_pem_file(&path) {
            Ok(certificate) => certificates.push(certificate.to_vec()),
            Err(err) => table.problem("certificates", &format!("{} has no certificate: {err}", path.display())),
        }
    }
    certificates
}

/// The managed identities, and each one's service principal with its tenant.
fn identities(root: &Reader<'_>, names: &mut Names) -> (Vec<ManagedIdentity>, Vec<(String, ServicePrincipal)>) {
    let (mut identities, mut principals) = (Vec::new(), Vec::new());
    for table in root.named("managed_identities") {
        let client_id = new_id(&table, "client_id", names.identities.iter());
        names.identities.push((table.name().to_owned(), client_id.clone()));
        let tenant = names.tenant(&table, "tenant");
        let object_id = table.text("object_id").unwrap_or_else(|| object_id(&tenant, &client_id));
        let roles = roles(&table, names);
        principals.push((
            tenant.clone(),
            ServicePrincipal { client_id: client_id.clone(), object_id: object_id.clone(), enabled: true, roles },
        ));
        let made_up = || {
            let (group, name) = ("/subscriptions/sandbox/resourceGroups/sandbox/providers", table.name());
            format!("{group}/Microsoft.ManagedIdentity/userAssignedIdentities/{name}")
        };
        identities.push(ManagedIdentity {
            tenant,
            client_id,
            object_id,
            resource_id: table.text("resource_id").unwrap_or_else(made_up),
            system_assigned: table.flag("system_assigned", false),
            assigned_to_host: table.flag("assigned_to_host", true),
        });
    }
    (identities, principals)
}

/// The service principals of applications, each with its tenant.
fn service_principals(root: &Reader<'_>, names: &Names) -> Vec<(String, ServicePrincipal)> {
    let mut principals: Vec<(String, ServicePrincipal)> = Vec::new();
    for table in root.list("service_principals") {
        let client_id = refer(&table, "application", &names.applications, "application");
        let tenant = names.tenant(&table, "tenant");
        if principals.iter().any(|(other, principal)| *other == tenant && principal.client_id == client_id) {
            table.problem_here("the application has a service principal in this tenant already");
        }
        let object_id = table.text("object_id").unwrap_or_else(|| object_id(&tenant, &client_id));
        let (enabled, roles) = (table.flag("enabled", true), roles(&table, names));
        principals.push((tenant, ServicePrincipal { client_id, object_id, enabled, roles }));
    }
    principals
}

/// Role assignments: the endpoints, each with its roles.
fn roles(table: &Reader<'_>, names: &Names) -> Vec<(String, Role)> {
    let mut roles = Vec::new();
    let Some(table) = table.table("roles") else { return roles };
    let endpoints: Vec<&str> = names.endpoints.iter().map(String::as_str).collect();
    let known = Role::ALL.map(Role::name);
    let what = format!("a list of roles, such as [\"{}\"]", Role::RestApiOwner.name());
    for (endpoint, listed) in table.lists(&what) {
        if !endpoints.contains(&endpoint) {
            table.unknown(endpoint, endpoint, "endpoint", &endpoints);
        }
        for name in listed {
            match Role::ALL.iter().find(|role| role.name().eq_ignore_ascii_case(name)) {
                Some(role) => roles.push((endpoint.to_owned(), *role)),
                None => table.unknown(endpoint, name, "role", &known),
            }
        }
    }
    roles
}

fn issuers(root: &Reader<'_>, names: &mut Names, files: &mut Vec<WorldFile>) -> Vec<ExternalIssuer> {
    let mut issuers = Vec::new();
    for table in root.named("external_issuers") {
        let issuer = table.needed("issuer");
        if !issuer.is_empty() && !issuer.starts_with("https://") {
            table.problem("issuer", "must begin with https://");
        }
        let audience = table.text("audience").unwrap_or_else(|| String::from(EXCHANGE_AUDIENCES[0]));
        let jwks = table.text("jwks");
        let subject = table.text("subject");
        let keys = match (jwks, subject) {
            (Some(_), Some(_)) => {
                table.problem("subject", "goes without `jwks`: the sandbox has no key to sign with for this issuer");
                Vec::new()
            }
            (Some(file), None) => published_keys(&table, &file),
            (None, subject) => {
                let subject = subject.unwrap_or_else(|| table.needed("subject"));
                let content = WorldContent::Assertion { issuer: issuer.clone(), subject, audience };
                files.push(WorldFile { name: assertion_file(table.name()), content });
                names.issuers.push(table.name().to_owned());
                // Without a key no assertion is accepted; that one cannot be made has been told at the start.
                RsaKey::external().map(|key| vec![key.public().clone()]).unwrap_or_default()
            }
        };
        issuers.push(ExternalIssuer { issuer, keys });
    }
    issuers
}

fn published_keys(table: &Reader<'_>, file: &str) -> Vec<PublicKey> {
    let path = table.notes().beside(file);
    let read = std::fs::read(&path).map_err(|err| err.to_string());
    let set = read.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).map_err(|err| err.to_string()));
    let keys = set.map(|set| {
        let keys = set.get("keys").and_then(serde_json::Value::as_array).into_iter().flatten();
        keys.filter_map(PublicKey::from_jwk).collect::<Vec<_>>()
    });
    match keys {
        Ok(keys) if !keys.is_empty() => return keys,
        Ok(_) => table.problem("jwks", &format!("{} has no RSA key with a `kid`", path.display())),
        Err(err) => table.problem("jwks", &format!("{} is no key set: {err}", path.display())),
    }
    Vec::new()
}

fn tokens(root: &Reader<'_>) -> TokenPolicy {
    let policy = TokenPolicy::default();
    let Some(table) = root.table("tokens") else { return policy };
    TokenPolicy {
        lifetime: table.duration("lifetime").unwrap_or(policy.lifetime),
        identity_lifetime: table.duration("identity_lifetime").unwrap_or(policy.identity_lifetime),
        refresh_in: table.duration("refresh_in"),
        clock_offset_secs: table.number("clock_offset_secs").unwrap_or(0),
        repeat: table.flag("repeat", false),
        expires_in: None,
    }
}

/// An id that nothing of its kind has yet.
fn new_id<'n>(table: &Reader<'_>, key: &'static str, mut others: impl Iterator<Item = &'n (String, String)>) -> String {
    let id = table.guid(key);
    if let Some((name, _)) = others.find(|(_, other)| !id.is_empty() && other.eq_ignore_ascii_case(&id)) {
        table.problem(key, &format!("`{name}` has this id already"));
    }
    id
}
