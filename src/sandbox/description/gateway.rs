//! The table `[gateway]`: the addresses and credentials of a gateway in front of the sandbox.

use std::net::SocketAddr;

use super::groups::Group;
use super::reader::Reader;
use super::tenants::{Names, assertion_file, resolve, secret_file};
use crate::sandbox::directory::described::DescribedDirectory;
use crate::sandbox::directory::model::{Application, Directory, Resource};
use crate::sandbox::gateway_config::config::GatewayConfig;
use crate::sandbox::gateway_config::credential::GatewayCredential;

const KINDS: [&str; 7] = [
    "client_secret",
    "client_certificate",
    "federated_identity",
    "federated_file",
    "managed_identity",
    "access_key",
    "token_file",
];

/// The default of `operations`: every operation.
const OPERATIONS: [&str; 7] = ["messages", "execute", "groups", "queries", "close", "credentials", "claims"];

/// Reads `[gateway]`.
pub(super) fn config(
    root: &Reader<'_>,
    names: &Names,
    described: &DescribedDirectory,
    groups: &[Group],
) -> GatewayConfig {
    let table = root.table("gateway");
    let address = |key, default: &str| {
        let parsed: Option<SocketAddr> =
            table.as_ref()?.parsed(key, "an address with a port, such as \"127.0.0.1:8080\"");
        Some(parsed.map_or_else(|| default.to_owned(), |address| address.to_string()))
    };
    let listen = address("listen", "127.0.0.1:8080").unwrap_or_else(|| String::from("127.0.0.1:8080"));
    let admin = address("admin", "127.0.0.1:9090").unwrap_or_else(|| String::from("127.0.0.1:9090"));
    let mut operations = table.as_ref().and_then(|table| table.texts("operations")).unwrap_or_default();
    if operations.is_empty() {
        operations = OPERATIONS.map(str::to_owned).to_vec();
    }
    let more = table.as_ref().and_then(|table| table.text("more")).unwrap_or_default();
    let mut credentials = Vec::new();
    for table in table.as_ref().map(|table| table.named_tables("credentials")).unwrap_or_default() {
        let is_group = groups.iter().any(|group| group.name == table.name());
        if !is_group && !names.endpoints.iter().any(|endpoint| endpoint == table.name()) {
            table.table_problem("there is no such endpoint or group of tenants");
        }
        if let Some(credential) = credential(&table, names) {
            check_secret(&table, &credential, described);
            if is_group && !credential.serves_tenants() {
                table.problem(
                    "kind",
                    "is of one endpoint; a group of tenants needs an application with a proof of its own",
                );
            }
            credentials.push((table.name().to_owned(), credential));
        }
    }
    for resource in &described.directory.resources {
        let is_configured = credentials.iter().any(|(endpoint, _)| *endpoint == resource.name);
        if let Some(credential) = default_credential(&described.directory, resource, names).filter(|_| !is_configured) {
            credentials.push((resource.name.clone(), credential));
        }
    }
    for group in groups {
        if !credentials.iter().any(|(name, _)| *name == group.name) {
            let application = names.applications.iter().find(|(_, id)| *id == group.client_id);
            let file = secret_file(application.map_or("", |(name, _)| name));
            let credential = GatewayCredential::Secret { client_id: group.client_id.clone(), file };
            credentials.push((group.name.clone(), credential));
        }
    }
    GatewayConfig { listen, hosts: Vec::new(), admin, credentials, operations, more }
}

/// Reports a `client_secret` credential whose application has no secret.
fn check_secret(table: &Reader<'_>, credential: &GatewayCredential, described: &DescribedDirectory) {
    let GatewayCredential::Secret { client_id, .. } = credential else { return };
    if described.directory.application(client_id).is_some_and(|application| application.secrets.is_empty()) {
        table.problem("application", "has no secret; add `secrets`");
    }
}

fn credential(table: &Reader<'_>, names: &Names) -> Option<GatewayCredential> {
    let kind = table.required("kind");
    let client_id = || resolve(table, "application", &names.applications, "application");
    Some(match kind.as_str() {
        "client_secret" => {
            let client_id = client_id();
            GatewayCredential::Secret { client_id, file: secret_file(&table.required("application")) }
        }
        "client_certificate" => {
            // The path is absolute because the gateway's configuration is in another folder.
            let file = table.source().resolve(&table.required("certificate"));
            let file = std::path::absolute(&file).unwrap_or(file).display().to_string();
            GatewayCredential::Certificate { client_id: client_id(), file, rs256: table.flag("rs256", false) }
        }
        "federated_identity" => {
            let identity = resolve(table, "identity", &names.identities, "managed identity");
            GatewayCredential::FederatedIdentity { client_id: client_id(), identity }
        }
        "federated_file" => {
            let issuers: Vec<_> = names.issuers.iter().map(|name| (name.clone(), name.clone())).collect();
            let issuer = resolve(table, "issuer", &issuers, "external issuer that the sandbox signs for");
            GatewayCredential::FederatedFile { client_id: client_id(), file: assertion_file(&issuer) }
        }
        "managed_identity" => GatewayCredential::ManagedIdentity {
            client_id: resolve(table, "identity", &names.identities, "managed identity"),
        },
        "access_key" => GatewayCredential::AccessKey,
        "token_file" => GatewayCredential::Token { client_id: client_id() },
        "" => return None,
        other => {
            table.unknown_name("kind", other, "kind of credential", &KINDS);
            return None;
        }
    })
}

/// Returns the default credential of an endpoint. In order of preference: an application with a secret and a service principal
/// in the endpoint's tenant, a managed identity of that tenant, the access key. Does not check roles: the endpoint rejects calls
/// without one.
fn default_credential(directory: &Directory, resource: &Resource, names: &Names) -> Option<GatewayCredential> {
    let tenant = directory.tenant(&resource.tenant)?;
    let has_secret = |app: &&Application| !app.secrets.is_empty() && tenant.service_principal(&app.client_id).is_some();
    if let Some(application) = directory.applications.iter().find(has_secret) {
        let named = names.applications.iter().find(|(_, id)| *id == application.client_id);
        let file = secret_file(named.map_or("", |(name, _)| name));
        return Some(GatewayCredential::Secret { client_id: application.client_id.clone(), file });
    }
    let identity = directory.managed_identities.iter().find(|identity| identity.tenant == resource.tenant);
    Some(match identity {
        Some(identity) => GatewayCredential::ManagedIdentity { client_id: identity.client_id.clone() },
        None => GatewayCredential::AccessKey,
    })
}
