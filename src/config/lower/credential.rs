//! Credentials. Files are looked for, secrets are not read: whether they work is the credential's own business.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::assertion;
use super::context::{Context, Key, below, key};
use super::identity::{managed_identity, secret_source, token_file};
use super::values::{self, PlainHttp};
use crate::config::file::{AlgorithmFile, CloudFile, ConfigFile, CredentialFile};
use crate::config::identifier::{is_guid, is_tenant};
use crate::credential::{
    AppSettings, AssertionAlgorithm, AssertionSettings, AuthoritySettings, CertificateSettings, Cloud, CredentialKind,
    CredentialName, CredentialSettings, Proof,
};

/// Keeps the number of metric series bounded.
const MAX_CREDENTIALS: usize = 32;
/// The scope of the SignalR data plane in all clouds: the one constant of the .NET SDK (`AadAccessKey.DefaultScope`).
const DEFAULT_SCOPE: &str = "https://signalr.azure.com/.default";

/// What the webhook of Azure Workload Identity puts into a pod.
///
/// Source: Azure AD Workload Identity, "Mutating admission webhook".
const TENANT_VARIABLE: &str = "AZURE_TENANT_ID";
const CLIENT_ID_VARIABLE: &str = "AZURE_CLIENT_ID";
const TOKEN_FILE_VARIABLE: &str = "AZURE_FEDERATED_TOKEN_FILE";
const AUTHORITY_VARIABLE: &str = "AZURE_AUTHORITY_HOST";

/// The keys that all kinds with an app registration share, as they were written.
struct App<'f> {
    tenant: &'f str,
    client_id: &'f str,
    cloud: CloudFile,
    authority: Option<&'f str>,
    ca_file: Option<&'f Path>,
    scope: Option<&'f str>,
}

pub(super) fn lower(file: &ConfigFile, context: &mut Context<'_>) -> Vec<CredentialSettings> {
    if file.credentials.len() > MAX_CREDENTIALS {
        let fact = format!("{} credentials, {MAX_CREDENTIALS} are the most", file.credentials.len());
        context.problem(&key(&["credentials"]), fact, "remove some, or run several gateways");
    }
    let mut credentials = Vec::with_capacity(file.credentials.len());
    for (name, credential) in &file.credentials {
        let at = key(&["credentials", name]);
        values::check_name(&at, name, context);
        let kind = lower_one(&at, credential, context);
        let object_id = lower_object_id(&at, credential, context);
        let is_used = file.endpoints.values().any(|endpoint| endpoint.credential == *name);
        if is_used {
            let name = CredentialName::new(name);
            credentials.extend(kind.map(|kind| CredentialSettings { name, kind, object_id }));
        } else {
            let fix = "name it in an endpoint, or remove it";
            context.warning(&at, "no endpoint uses this credential, so no token is asked for with it", fix);
        }
    }
    credentials
}

fn lower_one(at: &Key, file: &CredentialFile, context: &mut Context<'_>) -> Option<CredentialKind> {
    match file {
        CredentialFile::ClientSecret { .. }
        | CredentialFile::ClientCertificate { .. }
        | CredentialFile::Federated { .. }
        | CredentialFile::WorkloadIdentity { .. } => {
            let app = app(at, file, context.environment, context);
            let proof = proof(at, file, app.as_ref().map(|app| app.cloud), context);
            lower_app(at, &app?, proof, context)
        }
        CredentialFile::ManagedIdentity { client_id, object_id, resource_id, imds_endpoint, scope } => {
            let ids = [client_id.as_deref(), object_id.as_deref(), resource_id.as_deref()];
            let identity = managed_identity(at, ids, imds_endpoint.as_deref(), context)?;
            let scope = lower_scope(&below(at, "scope"), scope.as_deref(), context);
            Some(CredentialKind::ManagedIdentity { identity, scope })
        }
        CredentialFile::AzureCli { tenant, scope } => {
            let tenant = lower_tenant(&below(at, "tenant"), tenant, context);
            let scope = lower_scope(&below(at, "scope"), scope.as_deref(), context);
            tenant.map(|tenant| CredentialKind::AzureCli { tenant, scope })
        }
        CredentialFile::AccessKey { key } => {
            secret_source(&below(at, "key"), key, context).map(|key| CredentialKind::AccessKey { key })
        }
        CredentialFile::TokenFile { path } => {
            Some(CredentialKind::TokenFile { path: values::existing_file(&below(at, "path"), path, context) })
        }
    }
}

/// Reads the object id that a token is expected to carry. It changes nothing about how the token is obtained.
fn lower_object_id(at: &Key, file: &CredentialFile, context: &mut Context<'_>) -> Option<String> {
    let object_id = match file {
        // It says which identity is asked for, and is looked at there.
        CredentialFile::ManagedIdentity { object_id, .. } => return object_id.clone(),
        CredentialFile::ClientSecret { object_id, .. }
        | CredentialFile::ClientCertificate { object_id, .. }
        | CredentialFile::Federated { object_id, .. }
        | CredentialFile::WorkloadIdentity { object_id, .. } => object_id.clone()?,
        CredentialFile::AzureCli { .. } | CredentialFile::AccessKey { .. } | CredentialFile::TokenFile { .. } => {
            return None;
        }
    };
    if !is_guid(&object_id) {
        let fix = "copy it from `az ad sp show --id CLIENT_ID --query id`, signed in to the endpoint's tenant";
        context.problem(&below(at, "object_id"), format!("`{object_id}` is not a GUID"), fix);
    }
    Some(object_id)
}

/// Reads the keys that the kinds with an app registration share. `None` for the other kinds, and when one is nowhere.
fn app<'f>(
    at: &Key,
    file: &'f CredentialFile,
    environment: &'f BTreeMap<String, String>,
    context: &mut Context<'_>,
) -> Option<App<'f>> {
    match file {
        CredentialFile::ClientSecret { tenant, client_id, cloud, authority, ca_file, scope, .. }
        | CredentialFile::ClientCertificate { tenant, client_id, cloud, authority, ca_file, scope, .. }
        | CredentialFile::Federated { tenant, client_id, cloud, authority, ca_file, scope, .. } => Some(App {
            tenant,
            client_id,
            cloud: *cloud,
            authority: authority.as_deref(),
            ca_file: ca_file.as_deref(),
            scope: scope.as_deref(),
        }),
        CredentialFile::WorkloadIdentity { tenant, client_id, cloud, authority, ca_file, scope, .. } => {
            let variable = |name: &str| environment.get(name).map(String::as_str).filter(|text| !text.is_empty());
            let (tenant, client_id) = (tenant.as_deref(), client_id.as_deref());
            let tenant = tenant.or_else(|| variable(TENANT_VARIABLE));
            let client_id = client_id.or_else(|| variable(CLIENT_ID_VARIABLE));
            is_there(&below(at, "tenant"), tenant, TENANT_VARIABLE, context);
            is_there(&below(at, "client_id"), client_id, CLIENT_ID_VARIABLE, context);
            let (cloud, authority) = match (cloud, variable(AUTHORITY_VARIABLE)) {
                (None, Some(host)) if authority.is_none() => cloud_of(host),
                (None, _) if authority.is_some() => (CloudFile::Custom, authority.as_deref()),
                (cloud, _) => (cloud.unwrap_or_default(), authority.as_deref()),
            };
            let (ca_file, scope) = (ca_file.as_deref(), scope.as_deref());
            Some(App { tenant: tenant?, client_id: client_id?, cloud, authority, ca_file, scope })
        }
        CredentialFile::ManagedIdentity { .. }
        | CredentialFile::AzureCli { .. }
        | CredentialFile::AccessKey { .. }
        | CredentialFile::TokenFile { .. } => None,
    }
}

/// Reads what the kinds with an app registration differ in. `cloud` is `None` when that is not known.
fn proof(at: &Key, file: &CredentialFile, cloud: Option<CloudFile>, context: &mut Context<'_>) -> Option<Proof> {
    match file {
        CredentialFile::ClientSecret { secret, .. } => {
            secret_source(&below(at, "secret"), secret, context).map(Proof::Secret)
        }
        CredentialFile::ClientCertificate { certificate, key, algorithm, send_chain, .. } => {
            Some(Proof::Certificate(CertificateSettings {
                certificate: values::existing_file(&below(at, "certificate"), certificate, context),
                key: key.as_ref().map(|key| values::existing_file(&below(at, "key"), key, context)),
                algorithm: match algorithm {
                    AlgorithmFile::Ps256 => AssertionAlgorithm::Ps256,
                    AlgorithmFile::Rs256 => AssertionAlgorithm::Rs256,
                },
                send_chain: *send_chain,
            }))
        }
        CredentialFile::Federated { assertion, .. } => {
            let cloud = cloud.unwrap_or_default();
            assertion::lower(&below(at, "assertion"), assertion, cloud, context).map(Proof::Federated)
        }
        CredentialFile::WorkloadIdentity { path, .. } => {
            let key = below(at, "path");
            let path = if let Some(path) = path {
                token_file(&key, path, context)
            } else {
                let found = context.environment.get(TOKEN_FILE_VARIABLE).filter(|text| !text.is_empty());
                is_there(&key, found.map(String::as_str), TOKEN_FILE_VARIABLE, context);
                PathBuf::from(found?)
            };
            Some(Proof::Federated(AssertionSettings::File { path }))
        }
        CredentialFile::ManagedIdentity { .. }
        | CredentialFile::AzureCli { .. }
        | CredentialFile::AccessKey { .. }
        | CredentialFile::TokenFile { .. } => None,
    }
}

/// Reports a key that was neither written nor set by the webhook.
fn is_there(key: &Key, found: Option<&str>, variable: &str, context: &mut Context<'_>) {
    if found.is_none() {
        let fix =
            "label the pod `azure.workload.identity/use: \"true\"` and annotate its service account, or write it here";
        context.problem(key, format!("is missing, and {variable} is not set"), fix);
    }
}

/// Reads `AZURE_AUTHORITY_HOST`.
fn cloud_of(host: &str) -> (CloudFile, Option<&str>) {
    match host.trim_end_matches('/') {
        "https://login.microsoftonline.com" => (CloudFile::Public, None),
        "https://login.microsoftonline.us" => (CloudFile::UsGovernment, None),
        "https://login.chinacloudapi.cn" | "https://login.partner.microsoftonline.cn" => (CloudFile::China, None),
        other => (CloudFile::Custom, Some(other)),
    }
}

fn lower_app(at: &Key, app: &App<'_>, proof: Option<Proof>, context: &mut Context<'_>) -> Option<CredentialKind> {
    let tenant = lower_tenant(&below(at, "tenant"), app.tenant, context);
    if !is_guid(app.client_id) {
        let fix =
            "copy the application (client) id of the app registration, such as 11111111-2222-3333-4444-555555555555";
        // Not shown: people mix it up with the secret beside it.
        context.problem(&below(at, "client_id"), "is not a GUID", fix);
    }
    let cloud = match (app.cloud, app.authority) {
        (CloudFile::Public, _) => Some(Cloud::Public),
        (CloudFile::UsGovernment, _) => Some(Cloud::UsGovernment),
        (CloudFile::China, _) => Some(Cloud::China),
        (CloudFile::Custom, Some(authority)) => {
            let origin = values::origin(&below(at, "authority"), authority, PlainHttp::Never, context);
            origin.map(|origin| Cloud::Custom { authority: origin.to_string() })
        }
        (CloudFile::Custom, None) => {
            let fix = "add authority = \"https://host\"";
            context.problem(&below(at, "authority"), "is missing, and the cloud is custom", fix);
            None
        }
    };
    if app.authority.is_some() && app.cloud != CloudFile::Custom {
        let fix = "add cloud = \"custom\", or remove it";
        context.problem(&below(at, "authority"), "is only for cloud = \"custom\"", fix);
    }
    let ca_file = app.ca_file.map(|path| values::existing_file(&below(at, "ca_file"), path, context));
    let scope = lower_scope(&below(at, "scope"), app.scope, context);
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
        let fix = "name the tenant that the SignalR resource lives in (tenant B), by GUID or domain";
        context.problem(key, format!("`{tenant}` is not one tenant, and an app cannot sign in to it"), fix);
        return None;
    }
    if !is_tenant(tenant) {
        let fix = "write the tenant's GUID or one of its domains, such as contoso.onmicrosoft.com";
        context.problem(key, format!("`{tenant}` is neither a GUID nor a domain"), fix);
        return None;
    }
    Some(tenant.to_owned())
}

fn lower_scope(key: &Key, scope: Option<&str>, context: &mut Context<'_>) -> String {
    let scope = scope.unwrap_or(DEFAULT_SCOPE);
    let is_one_resource = scope.strip_suffix("/.default").is_some_and(|resource| !resource.is_empty());
    if !is_one_resource || scope.contains(char::is_whitespace) || scope.starts_with('-') {
        let fix = format!("write one resource and `/.default`, such as {DEFAULT_SCOPE}");
        context.problem(key, format!("`{scope}` is not a scope that an app can ask for"), fix);
    }
    scope.to_owned()
}
