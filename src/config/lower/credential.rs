//! Credentials. Files are looked for, secrets are not read: whether they work is the credential's own business.

use std::path::PathBuf;

use super::values::PlainHttp;
use super::{Context, Key, key};
use crate::config::file::{AlgorithmFile, AssertionFile, CloudFile, ConfigFile, CredentialFile, SecretFile};
use crate::credential::{
    AppSettings, AssertionAlgorithm, AssertionSettings, AuthoritySettings, CertificateSettings, Cloud, CredentialKind,
    CredentialName, CredentialSettings, ManagedIdentity, ManagedIdentitySettings, Proof, SecretSource,
};

/// Keeps the number of metric series bounded.
const MAX_CREDENTIALS: usize = 32;
/// The scope of the SignalR data plane in all clouds: the one constant of the .NET SDK (`AadAccessKey.DefaultScope`).
const DEFAULT_SCOPE: &str = "https://signalr.azure.com/.default";

/// The keys that all kinds with an app registration share.
struct App<'f> {
    tenant: &'f str,
    client_id: &'f str,
    cloud: CloudFile,
    authority: Option<&'f str>,
    ca_file: Option<&'f PathBuf>,
    scope: Option<&'f str>,
}

pub(super) fn lower(file: &ConfigFile, context: &mut Context<'_>) -> Vec<CredentialSettings> {
    if file.credentials.len() > MAX_CREDENTIALS {
        let fact = format!("{} credentials, {MAX_CREDENTIALS} are the most", file.credentials.len());
        context.problem(&key(&["credentials"]), fact, None);
    }
    let mut credentials = Vec::with_capacity(file.credentials.len());
    for (name, credential) in &file.credentials {
        let at = key(&["credentials", name]);
        context.is_name(&at, name);
        let kind = lower_one(&at, credential, context);
        let is_used = file.endpoints.values().any(|endpoint| endpoint.credential == *name);
        if is_used {
            credentials.extend(kind.map(|kind| CredentialSettings { name: CredentialName::new(name), kind }));
        } else {
            let fix = Some("name it in an endpoint, or remove it".to_owned());
            context.warning(&at, "no endpoint uses this credential, so no token is asked for with it", fix);
        }
    }
    credentials
}

fn lower_one(at: &Key, file: &CredentialFile, context: &mut Context<'_>) -> Option<CredentialKind> {
    let below = |name: &str| -> Key { at.iter().cloned().chain([name.to_owned()]).collect() };
    match file {
        CredentialFile::ClientSecret { tenant, client_id, secret, cloud, authority, ca_file, scope } => {
            let app = App {
                tenant,
                client_id,
                cloud: *cloud,
                authority: authority.as_deref(),
                ca_file: ca_file.as_ref(),
                scope: scope.as_deref(),
            };
            let proof = secret_source(&below("secret"), secret, context).map(Proof::Secret);
            lower_app(at, &app, proof, context)
        }
        CredentialFile::ClientCertificate {
            tenant,
            client_id,
            certificate,
            key,
            algorithm,
            send_chain,
            cloud,
            authority,
            ca_file,
            scope,
        } => {
            let app = App {
                tenant,
                client_id,
                cloud: *cloud,
                authority: authority.as_deref(),
                ca_file: ca_file.as_ref(),
                scope: scope.as_deref(),
            };
            let settings = CertificateSettings {
                certificate: context.existing(&below("certificate"), certificate),
                key: key.as_ref().map(|key| context.existing(&below("key"), key)),
                algorithm: match algorithm {
                    AlgorithmFile::Ps256 => AssertionAlgorithm::Ps256,
                    AlgorithmFile::Rs256 => AssertionAlgorithm::Rs256,
                },
                send_chain: *send_chain,
            };
            lower_app(at, &app, Some(Proof::Certificate(settings)), context)
        }
        CredentialFile::Federated { tenant, client_id, assertion, cloud, authority, ca_file, scope } => {
            let app = App {
                tenant,
                client_id,
                cloud: *cloud,
                authority: authority.as_deref(),
                ca_file: ca_file.as_ref(),
                scope: scope.as_deref(),
            };
            let proof = lower_assertion(&below("assertion"), assertion, *cloud, context).map(Proof::Federated);
            lower_app(at, &app, proof, context)
        }
        CredentialFile::ManagedIdentity { client_id, object_id, resource_id, imds_endpoint, scope } => {
            let ids = [client_id.as_deref(), object_id.as_deref(), resource_id.as_deref()];
            let identity = managed_identity(at, ids, imds_endpoint.as_deref(), context)?;
            let scope = lower_scope(&below("scope"), scope.as_deref(), context);
            Some(CredentialKind::ManagedIdentity { identity, scope })
        }
        CredentialFile::AccessKey { key } => {
            secret_source(&below("key"), key, context).map(|key| CredentialKind::AccessKey { key })
        }
        CredentialFile::TokenFile { path } => {
            Some(CredentialKind::TokenFile { path: context.existing(&below("path"), path) })
        }
    }
}

fn lower_app(at: &Key, app: &App<'_>, proof: Option<Proof>, context: &mut Context<'_>) -> Option<CredentialKind> {
    let below = |name: &str| -> Key { at.iter().cloned().chain([name.to_owned()]).collect() };
    let tenant = lower_tenant(&below("tenant"), app.tenant, context);
    if !is_guid(app.client_id) {
        let fix =
            "copy the application (client) id of the app registration, such as 11111111-2222-3333-4444-555555555555";
        // Not shown: people mix it up with the secret beside it.
        context.problem(&below("client_id"), "is not a GUID", Some(fix.to_owned()));
    }
    let cloud = match (app.cloud, app.authority) {
        (CloudFile::Public, _) => Some(Cloud::Public),
        (CloudFile::UsGovernment, _) => Some(Cloud::UsGovernment),
        (CloudFile::China, _) => Some(Cloud::China),
        (CloudFile::Custom, Some(authority)) => {
            let origin = context.origin(&below("authority"), authority, PlainHttp::Never);
            origin.map(|origin| Cloud::Custom { authority: origin.to_string() })
        }
        (CloudFile::Custom, None) => {
            let fix = "add authority = \"https://host\"".to_owned();
            context.problem(&below("authority"), "is missing, and the cloud is custom", Some(fix));
            None
        }
    };
    if app.authority.is_some() && app.cloud != CloudFile::Custom {
        let fix = "add cloud = \"custom\", or remove it".to_owned();
        context.problem(&below("authority"), "is only for cloud = \"custom\"", Some(fix));
    }
    let ca_file = app.ca_file.map(|path| context.existing(&below("ca_file"), path));
    let scope = lower_scope(&below("scope"), app.scope, context);
    Some(CredentialKind::App(AppSettings {
        authority: AuthoritySettings { cloud: cloud?, ca_file },
        tenant: tenant?,
        client_id: app.client_id.to_owned(),
        scope,
        proof: proof?,
    }))
}

fn lower_tenant(key: &Key, tenant: &str, context: &mut Context<'_>) -> Option<String> {
    if ["common", "organizations", "consumers"].contains(&tenant.to_ascii_lowercase().as_str()) {
        let fix = "name the tenant that the SignalR resource lives in (tenant B), by GUID or domain".to_owned();
        context.problem(key, format!("`{tenant}` is not one tenant, and an app cannot sign in to it"), Some(fix));
        return None;
    }
    // A GUID, or a domain, which has a dot. The identity library takes the same characters.
    let is_plain = tenant.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-');
    let is_domain = is_plain && tenant.contains('.');
    if !is_guid(tenant) && !is_domain {
        let fix = "write the tenant's GUID or one of its domains, such as contoso.onmicrosoft.com".to_owned();
        context.problem(key, format!("`{tenant}` is neither a GUID nor a domain"), Some(fix));
        return None;
    }
    Some(tenant.to_owned())
}

fn lower_scope(key: &Key, scope: Option<&str>, context: &mut Context<'_>) -> String {
    let scope = scope.unwrap_or(DEFAULT_SCOPE);
    let is_one_resource = scope.strip_suffix("/.default").is_some_and(|resource| !resource.is_empty());
    if !is_one_resource || scope.contains(char::is_whitespace) {
        let fix = format!("write one resource and `/.default`, such as {DEFAULT_SCOPE}");
        context.problem(key, format!("`{scope}` is not a scope that an app can ask for"), Some(fix));
    }
    scope.to_owned()
}

fn lower_assertion(
    at: &Key,
    file: &AssertionFile,
    cloud: CloudFile,
    context: &mut Context<'_>,
) -> Option<AssertionSettings> {
    let below = |name: &str| -> Key { at.iter().cloned().chain([name.to_owned()]).collect() };
    match file {
        AssertionFile::ManagedIdentity { client_id, object_id, resource_id, audience, imds_endpoint } => {
            let ids = [client_id.as_deref(), object_id.as_deref(), resource_id.as_deref()];
            let identity = managed_identity(at, ids, imds_endpoint.as_deref(), context)?;
            if identity.id == ManagedIdentity::System && !context.is_incomplete(at) {
                let fix =
                    "add client_id, object_id or resource_id: only a user-assigned identity can be trusted by an app \
                           registration"
                        .to_owned();
                context.problem(at, "names no managed identity", Some(fix));
            }
            let audience = audience.as_deref().unwrap_or(exchange_audience(cloud));
            if audience.ends_with("/.default") {
                let fix = "remove `/.default`: it is added where it is needed".to_owned();
                context.problem(&below("audience"), format!("`{audience}` is a scope, not an audience"), Some(fix));
            }
            Some(AssertionSettings::ManagedIdentity { identity, audience: audience.to_owned() })
        }
        // It may be mounted later than the gateway starts, so it need not be there yet.
        AssertionFile::File { path } => {
            let key = below("path");
            if super::is_content(path) {
                let fix = "write the path of the file that it stands in".to_owned();
                context.problem(&key, "is a token, must be the path of a file", Some(fix));
            }
            Some(AssertionSettings::File { path: context.path(&key, path) })
        }
    }
}

/// Returns the audience that a token must have to serve as an assertion.
///
/// Source: Microsoft's page on trusting a managed identity by an app registration, one audience for each cloud.
fn exchange_audience(cloud: CloudFile) -> &'static str {
    match cloud {
        CloudFile::Public | CloudFile::Custom => "api://AzureADTokenExchange",
        CloudFile::UsGovernment => "api://AzureADTokenExchangeUSGov",
        CloudFile::China => "api://AzureADTokenExchangeChina",
    }
}

fn managed_identity(
    at: &Key,
    [client_id, object_id, resource_id]: [Option<&str>; 3],
    imds_endpoint: Option<&str>,
    context: &mut Context<'_>,
) -> Option<ManagedIdentitySettings> {
    let below = |name: &str| -> Key { at.iter().cloned().chain([name.to_owned()]).collect() };
    for (name, id) in [("client_id", client_id), ("object_id", object_id)] {
        if let Some(id) = id.filter(|id| !is_guid(id)) {
            context.problem(&below(name), format!("`{id}` is not a GUID"), None);
        }
    }
    let id = match (client_id, object_id, resource_id) {
        (None, None, None) => ManagedIdentity::System,
        (Some(id), None, None) => ManagedIdentity::ClientId(id.to_owned()),
        (None, Some(id), None) => ManagedIdentity::ObjectId(id.to_owned()),
        (None, None, Some(id)) => ManagedIdentity::ResourceId(id.to_owned()),
        _ => {
            let fix = "keep one of client_id, object_id and resource_id".to_owned();
            context.problem(at, "names a managed identity in more than one way", Some(fix));
            return None;
        }
    };
    let imds_endpoint = match imds_endpoint {
        None => None,
        Some(text) => Some(context.origin(&below("imds_endpoint"), text, PlainHttp::OnHost)?.to_string()),
    };
    Some(ManagedIdentitySettings { id, imds_endpoint })
}

fn secret_source(key: &Key, file: &SecretFile, context: &mut Context<'_>) -> Option<SecretSource> {
    match (&file.file, &file.env) {
        (Some(path), None) => Some(SecretSource::File(context.existing(key, path))),
        (None, Some(name)) => {
            if context.environment.get(name).is_none_or(String::is_empty) {
                // What does not look like the name of a variable may be the secret itself.
                let is_name = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
                let shown = if name.bytes().all(is_name) { name } else { "that `env` names" };
                context.problem(key, format!("the environment variable {shown} is not set or empty"), None);
            }
            Some(SecretSource::Env(name.clone()))
        }
        (None, None) if context.is_incomplete(key) => None,
        (None, None) | (Some(_), Some(_)) => {
            let fix = "write either { file = \"/path\" } or { env = \"NAME\" }".to_owned();
            context.problem(key, "does not say where the secret is", Some(fix));
            None
        }
    }
}

fn is_guid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths = groups.iter().map(|group| group.len());
    lengths.eq([8, 4, 4, 4, 12]) && groups.concat().bytes().all(|byte| byte.is_ascii_hexdigit())
}
