//! The tables of the directory: tenants, app registrations, managed identities, service principals with their roles, and
//! external issuers.

use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::reader::Reader;
use crate::sandbox::crypto::keys::{PublicKey, RsaKey};
use crate::sandbox::directory::described::{
    DescribedContent, DescribedDirectory, DescribedFile, ManagedIdentityCredential,
};
use crate::sandbox::directory::index::Index;
use crate::sandbox::directory::model::{
    Application, ClientSecret, Directory, EXCHANGE_AUDIENCES, ExternalIssuer, FederatedCredential, ManagedIdentity,
    Resource, SecretText, ServicePrincipal, Tenant, TokenPolicy,
};
use crate::sandbox::directory::roles::Role;
use crate::sandbox::directory::scenario::object_id;

/// The default lifetime of a secret.
const SECRET_LIFETIME: Duration = Duration::from_secs(180 * 24 * 3600);

/// The names that other tables refer to, with their ids.
#[derive(Debug, Default)]
pub(super) struct Names {
    tenants: Vec<(String, String)>,
    pub(super) applications: Vec<(String, String)>,
    pub(super) identities: Vec<(String, String)>,
    pub(super) endpoints: Vec<String>,
    /// The issuers whose assertions the sandbox signs.
    pub(super) issuers: Vec<String>,
}

impl Names {
    /// Returns the id of the tenant that a key names. If the name is unknown, reports that and returns an empty id.
    pub(super) fn tenant(&self, table: &Reader<'_>, key: &'static str) -> String {
        resolve(table, key, &self.tenants, "tenant")
    }
}

/// Returns the id that a required key refers to. If the name is unknown, reports that and returns an empty id.
pub(super) fn resolve(table: &Reader<'_>, key: &'static str, known: &[(String, String)], what: &str) -> String {
    let name = table.required(key);
    let found = known.iter().find(|(known, _)| *known == name);
    if found.is_none() && !name.is_empty() {
        let known: Vec<&str> = known.iter().map(|(known, _)| known.as_str()).collect();
        table.unknown_name(key, &name, what, &known);
    }
    found.map(|(_, id)| id.clone()).unwrap_or_default()
}

/// Reads the tenants, without their service principals.
pub(super) fn tenants(root: &Reader<'_>, names: &mut Names) -> Vec<Tenant> {
    let mut tenants = Vec::new();
    for table in root.named_tables("tenants") {
        let id = new_id(&table, "id", names.tenants.iter());
        let domain = table.text("domain").unwrap_or_else(|| format!("{}.onmicrosoft.com", table.name()));
        names.tenants.push((table.name().to_owned(), id.clone()));
        tenants.push(Tenant {
            signalr_provider: table.flag("signalr_provider", true),
            conditional_access_blocks: table.flag("conditional_access_blocks", false),
            in_other_cloud: table.flag("in_other_cloud", false),
            throttled: table.duration("throttled"),
            token_delay: table.duration("token_delay"),
            ..Tenant::new(&id, &domain)
        });
    }
    tenants
}

/// Reads the remaining content of the directory.
pub(super) fn described_directory(
    root: &Reader<'_>,
    names: &mut Names,
    mut tenants: Vec<Tenant>,
    resources: Vec<Resource>,
) -> DescribedDirectory {
    let mut files = Vec::new();
    let (identities, identity_principals) = identities(root, names);
    let external_issuers = issuers(root, names, &mut files);
    let (applications, identity_credentials) = applications(root, names, &mut files);
    for (tenant, principal) in identity_principals.into_iter().chain(service_principals(root, names)) {
        if let Some(tenant) = tenants.iter_mut().find(|other| other.id == tenant) {
            tenant.service_principals.push(principal);
        }
    }
    let tokens = tokens(root);
    let directory = Directory {
        tenants,
        applications,
        managed_identities: identities,
        external_issuers,
        resources,
        tokens,
        index: Index::default(),
    };
    DescribedDirectory { directory, identity_credentials, files }
}

fn applications(
    root: &Reader<'_>,
    names: &mut Names,
    files: &mut Vec<DescribedFile>,
) -> (Vec<Application>, Vec<ManagedIdentityCredential>) {
    let (mut applications, mut identity_credentials) = (Vec::new(), Vec::new());
    for table in root.named_tables("applications") {
        let client_id = new_id(&table, "client_id", names.applications.iter().chain(&names.identities));
        names.applications.push((table.name().to_owned(), client_id.clone()));
        let secrets: Vec<ClientSecret> = table.tables("secrets").iter().map(secret).collect();
        if let Some(secret) = secrets.first() {
            let content = DescribedContent::Secret(secret.value.clone());
            files.push(DescribedFile { name: secret_file(table.name()), content });
        }
        let mut federated = Vec::new();
        for table in table.tables("federated") {
            let audience = table.text("audience").unwrap_or_else(|| String::from(EXCHANGE_AUDIENCES[0]));
            if table.has("identity") {
                let identity = resolve(&table, "identity", &names.identities, "managed identity");
                identity_credentials.push(ManagedIdentityCredential {
                    application: client_id.clone(),
                    identity,
                    audience,
                });
            } else {
                let (issuer, subject) = (table.required("issuer"), table.required("subject"));
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
    (applications, identity_credentials)
}

/// Returns the name of the file with an application's first secret.
pub(super) fn secret_file(application: &str) -> String {
    format!("{application}-secret")
}

/// Returns the name of the file with an assertion of an issuer.
pub(super) fn assertion_file(issuer: &str) -> String {
    format!("{issuer}-assertion.jwt")
}

fn secret(table: &Reader<'_>) -> ClientSecret {
    ClientSecret {
        value: SecretText::new(table.required("value")),
        id: table.text("id").unwrap_or_else(crate::sandbox::crypto::ids::guid),
        expires: SystemTime::now() + table.duration("expires_in").unwrap_or(SECRET_LIFETIME),
    }
}

fn certificates(table: &Reader<'_>) -> Vec<Vec<u8>> {
    let mut certificates = Vec::new();
    for file in table.texts("certificates").unwrap_or_default() {
        let path = table.source().resolve(&file);
        match CertificateDer::from_pem_file(&path) {
            Ok(certificate) => certificates.push(certificate.to_vec()),
            Err(err) => {
                table.problem("certificates", &format!("{} has no readable certificate: {err}", path.display()));
            }
        }
    }
    certificates
}

/// Reads the managed identities. Returns them with their service principals and the tenant ids of those.
fn identities(root: &Reader<'_>, names: &mut Names) -> (Vec<ManagedIdentity>, Vec<(String, ServicePrincipal)>) {
    let (mut identities, mut principals) = (Vec::new(), Vec::new());
    for table in root.named_tables("managed_identities") {
        let client_id = new_id(&table, "client_id", names.identities.iter());
        names.identities.push((table.name().to_owned(), client_id.clone()));
        let tenant = names.tenant(&table, "tenant");
        let object_id = table.text("object_id").unwrap_or_else(|| object_id(&tenant, &client_id));
        let roles = roles(&table, names);
        principals.push((
            tenant.clone(),
            ServicePrincipal { client_id: client_id.clone(), object_id: object_id.clone(), enabled: true, roles },
        ));
        let default_resource_id = || {
            let (group, name) = ("/subscriptions/sandbox/resourceGroups/sandbox/providers", table.name());
            format!("{group}/Microsoft.ManagedIdentity/userAssignedIdentities/{name}")
        };
        identities.push(ManagedIdentity {
            tenant,
            client_id,
            object_id,
            resource_id: table.text("resource_id").unwrap_or_else(default_resource_id),
            system_assigned: table.flag("system_assigned", false),
            assigned_to_host: table.flag("assigned_to_host", true),
        });
    }
    (identities, principals)
}

/// Reads the service principals of applications, each with the id of its tenant.
fn service_principals(root: &Reader<'_>, names: &Names) -> Vec<(String, ServicePrincipal)> {
    let mut principals: Vec<(String, ServicePrincipal)> = Vec::new();
    for table in root.tables("service_principals") {
        let client_id = resolve(&table, "application", &names.applications, "application");
        let tenant = names.tenant(&table, "tenant");
        if principals.iter().any(|(other, principal)| *other == tenant && principal.client_id == client_id) {
            table.table_problem("the application already has a service principal in this tenant");
        }
        let object_id = table.text("object_id").unwrap_or_else(|| object_id(&tenant, &client_id));
        let (enabled, roles) = (table.flag("enabled", true), roles(&table, names));
        principals.push((tenant, ServicePrincipal { client_id, object_id, enabled, roles }));
    }
    principals
}

/// Returns the role with this name. If it is unknown, reports that.
pub(super) fn role(table: &Reader<'_>, key: &str, name: &str) -> Option<Role> {
    let role = Role::ALL.into_iter().find(|role| role.name().eq_ignore_ascii_case(name));
    if role.is_none() {
        table.unknown_name(key, name, "role", &Role::ALL.map(Role::name));
    }
    role
}

/// Reads role assignments: endpoints with their roles.
fn roles(table: &Reader<'_>, names: &Names) -> Vec<(String, Role)> {
    let mut roles = Vec::new();
    let Some(table) = table.table("roles") else { return roles };
    let endpoints: Vec<&str> = names.endpoints.iter().map(String::as_str).collect();
    let what = format!("a list of roles, such as [\"{}\"]", Role::RestApiOwner.name());
    for (endpoint, listed) in table.string_lists(&what) {
        if !endpoints.contains(&endpoint) {
            table.unknown_name(endpoint, endpoint, "endpoint", &endpoints);
        }
        roles.extend(listed.iter().filter_map(|name| Some((endpoint.to_owned(), role(&table, endpoint, name)?))));
    }
    roles
}

fn issuers(root: &Reader<'_>, names: &mut Names, files: &mut Vec<DescribedFile>) -> Vec<ExternalIssuer> {
    let mut issuers = Vec::new();
    for table in root.named_tables("external_issuers") {
        let issuer = table.required("issuer");
        if !issuer.is_empty() && !issuer.starts_with("https://") {
            table.problem("issuer", "must begin with https://");
        }
        let audience = table.text("audience").unwrap_or_else(|| String::from(EXCHANGE_AUDIENCES[0]));
        let jwks = table.text("jwks");
        let subject = table.text("subject");
        let keys = match (jwks, subject) {
            (Some(_), Some(_)) => {
                table.problem(
                    "subject",
                    "cannot be combined with `jwks`: the sandbox cannot sign assertions with the issuer's own keys",
                );
                Vec::new()
            }
            (Some(file), None) => published_keys(&table, &file),
            (None, subject) => {
                let subject = subject.unwrap_or_else(|| table.required("subject"));
                let content = DescribedContent::Assertion { issuer: issuer.clone(), subject, audience };
                files.push(DescribedFile { name: assertion_file(table.name()), content });
                names.issuers.push(table.name().to_owned());
                // A key that cannot be generated is an error when the sandbox starts.
                RsaKey::external().map(|key| vec![key.public().clone()]).unwrap_or_default()
            }
        };
        issuers.push(ExternalIssuer { issuer, keys });
    }
    issuers
}

fn published_keys(table: &Reader<'_>, file: &str) -> Vec<PublicKey> {
    let path = table.source().resolve(file);
    let read = std::fs::read(&path).map_err(|err| err.to_string());
    let set = read.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).map_err(|err| err.to_string()));
    let keys = set.map(|set| {
        let keys = set.get("keys").and_then(serde_json::Value::as_array).into_iter().flatten();
        keys.filter_map(PublicKey::from_jwk).collect::<Vec<_>>()
    });
    match keys {
        Ok(keys) if !keys.is_empty() => return keys,
        Ok(_) => table.problem("jwks", &format!("{} has no RSA key with a `kid`", path.display())),
        Err(err) => table.problem("jwks", &format!("{} is not a key set: {err}", path.display())),
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

/// Reads an id. Reports an id that another entry of its kind has.
fn new_id<'n>(table: &Reader<'_>, key: &'static str, mut others: impl Iterator<Item = &'n (String, String)>) -> String {
    let id = table.guid(key);
    if let Some((name, _)) = others.find(|(_, other)| !id.is_empty() && other.eq_ignore_ascii_case(&id)) {
        table.problem(key, &format!("`{name}` already has this id"));
    }
    id
}
