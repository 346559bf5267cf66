//! Lowers credentials. Checks that files exist but reads no secret.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::assertion;
use super::context::{Context, Key, below, key};
use super::identity::{managed_identity, secret_source, token_file};
use super::values::{self, PlainHttp};
use crate::config::file::{AlgorithmFile, AppFile, CloudFile, ConfigFile, CredentialFile, OptionalAppFile};
use crate::config::identifier::{is_guid, is_tenant};
use crate::credential::{
    AppSettings, AssertionAlgorithm, AssertionSettings, AuthoritySettings, CertificateSettings, Cloud, CredentialKind,
    CredentialName, CredentialSettings, Proof,
};

/// Bounds the number of metric series.
const MAX_CREDENTIALS: usize = 32;
/// The scope of the SignalR data plane in all clouds. Source: `AadAccessKey.DefaultScope` of the .NET SDK.
const DEFAULT_SCOPE: &str = "https://signalr.azure.com/.default";

/// The variables that the webhook of Azure Workload Identity sets in a pod.
///
/// Source: Azure AD Workload Identity, "Mutating admission webhook".
const TENANT_VARIABLE: &str = "AZURE_TENANT_ID";
const CLIENT_ID_VARIABLE: &str = "AZURE_CLIENT_ID";
const TOKEN_FILE_VARIABLE: &str = "AZURE_FEDERATED_TOKEN_FILE";
const AUTHORITY_VARIABLE: &str = "AZURE_AUTHORITY_HOST";

/// The lowered table of a credential.
struct Lowered {
    kind: Option<CredentialKind>,
    object_id: Option<String>,
}

impl Lowered {
    fn without_object_id(kind: Option<CredentialKind>) -> Self {
        Self { kind, object_id: None }
    }
}

/// The keys that all kinds with an app registration have. Workload identities take some from the environment.
struct App<'f> {
    tenant: &'f str,
    client_id: &'f str,
    cloud: CloudFile,
    authority: Option<&'f str>,
    optional: &'f OptionalAppFile,
}

impl<'f> From<&'f AppFile> for App<'f> {
    fn from(file: &'f AppFile) -> Self {
        let AppFile { tenant, client_id, cloud, optional } = file;
        Self { tenant, client_id, cloud: *cloud, authority: optional.authority.as_deref(), optional }
    }
}

pub(super) fn lower(file: &ConfigFile, context: &mut Context<'_>) -> Vec<CredentialSettings> {
    if file.credentials.len() > MAX_CREDENTIALS {
        let fact = format!("{} credentials, the maximum is {MAX_CREDENTIALS}", file.credentials.len());
        context.problem(&key(&["credentials"]), fact, "remove some, or run several gateways");
    }
    let mut credentials = Vec::with_capacity(file.credentials.len());
    for (name, credential) in &file.credentials {
        let at = key(&["credentials", name]);
        values::check_name(&at, name, context);
        let Lowered { kind, object_id } = lower_one(&at, credential, context);
        let is_used = file.endpoints.values().any(|endpoint| endpoint.credential == *name);
        if is_used {
            let name = CredentialName::new(name);
            credentials.extend(kind.map(|kind| CredentialSettings { name, kind, object_id }));
        } else {
            let fix = "name it in an endpoint, or remove it";
            context.warning(&at, "no endpoint uses this credential, so it requests no token", fix);
        }
    }
    credentials
}

fn lower_one(at: &Key, file: &CredentialFile, context: &mut Context<'_>) -> Lowered {
    match file {
        CredentialFile::ClientSecret { app, secret } => {
            let proof = secret_source(&below(at, "secret"), secret, context).map(Proof::Secret);
            lower_app(at, &app.into(), proof, context)
        }
        CredentialFile::ClientCertificate { app, certificate, key, algorithm, send_chain } => {
            let proof = Proof::Certificate(CertificateSettings {
                certificate: values::existing_file(&below(at, "certificate"), certificate, context),
                key: key.as_ref().map(|key| values::existing_file(&below(at, "key"), key, context)),
                algorithm: match algorithm {
                    AlgorithmFile::Ps256 => AssertionAlgorithm::Ps256,
                    AlgorithmFile::Rs256 => AssertionAlgorithm::Rs256,
                },
                send_chain: *send_chain,
            });
            lower_app(at, &app.into(), Some(proof), context)
        }
        CredentialFile::Federated { app, assertion } => {
            let proof = assertion::lower(&below(at, "assertion"), assertion, app.cloud, context).map(Proof::Federated);
            lower_app(at, &app.into(), proof, context)
        }
        CredentialFile::WorkloadIdentity { tenant, client_id, path, cloud, optional } => {
            let (tenant, client_id) = (tenant.as_deref(), client_id.as_deref());
            let environment = context.environment;
            let app = app_of_pod(at, [tenant, client_id], *cloud, optional, environment, context);
            let path = token_file_of_pod(&below(at, "path"), path.as_deref(), context);
            let proof = path.map(|path| Proof::Federated(AssertionSettings::File { path }));
            match app {
                Some(app) => lower_app(at, &app, proof, context),
                None => Lowered { kind: None, object_id: lower_object_id(at, optional, context) },
            }
        }
        CredentialFile::ManagedIdentity { client_id, object_id, resource_id, imds_endpoint, scope } => {
            let ids = [client_id.as_deref(), object_id.as_deref(), resource_id.as_deref()];
            let identity = managed_identity(at, ids, imds_endpoint.as_deref(), context);
            let scope = lower_scope(&below(at, "scope"), scope.as_deref(), context);
            let kind = identity.map(|identity| CredentialKind::ManagedIdentity { identity, scope });
            // Tokens contain this object id as `oid`.
            Lowered { kind, object_id: object_id.clone() }
        }
        CredentialFile::AzureCli { tenant, scope } => {
            let tenant = lower_tenant(&below(at, "tenant"), tenant, context);
            let scope = lower_scope(&below(at, "scope"), scope.as_deref(), context);
            Lowered::without_object_id(tenant.map(|tenant| CredentialKind::AzureCli { tenant, scope }))
        }
        CredentialFile::AccessKey { key } => {
            let key = secret_source(&below(at, "key"), key, context);
            Lowered::without_object_id(key.map(|key| CredentialKind::AccessKey { key }))
        }
        CredentialFile::TokenFile { path } => {
            let path = values::existing_file(&below(at, "path"), path, context);
            Lowered::without_object_id(Some(CredentialKind::TokenFile { path }))
        }
    }
}

/// Lowers the expected object id of tokens. It does not affect token requests.
fn lower_object_id(at: &Key, file: &OptionalAppFile, context: &mut Context<'_>) -> Option<String> {
    let object_id = file.object_id.clone()?;
    if !is_guid(&object_id) {
        let fix = "copy it from `az ad sp show --id CLIENT_ID --query id`, signed in to the endpoint's tenant";
        context.problem(&below(at, "object_id"), format!("`{object_id}` is not a GUID"), fix);
    }
    Some(object_id)
}

/// Returns the keys of an app, with the variables of the pod as defaults, or `None` if the tenant or the client id is missing.
fn app_of_pod<'f>(
    at: &Key,
    [tenant, client_id]: [Option<&'f str>; 2],
    cloud: Option<CloudFile>,
    optional: &'f OptionalAppFile,
    environment: &'f BTreeMap<String, String>,
    context: &mut Context<'_>,
) -> Option<App<'f>> {
    let variable = |name: &str| environment.get(name).map(String::as_str).filter(|text| !text.is_empty());
    let tenant = tenant.or_else(|| variable(TENANT_VARIABLE));
    let client_id = client_id.or_else(|| variable(CLIENT_ID_VARIABLE));
    check_present(&below(at, "tenant"), tenant, TENANT_VARIABLE, context);
    check_present(&below(at, "client_id"), client_id, CLIENT_ID_VARIABLE, context);
    let authority = optional.authority.as_deref();
    let (cloud, authority) = match (cloud, variable(AUTHORITY_VARIABLE)) {
        (None, Some(host)) if authority.is_none() => cloud_of(host),
        (None, _) if authority.is_some() => (CloudFile::Custom, authority),
        (cloud, _) => (cloud.unwrap_or_default(), authority),
    };
    Some(App { tenant: tenant?, client_id: client_id?, cloud, authority, optional })
}

fn token_file_of_pod(key: &Key, path: Option<&Path>, context: &mut Context<'_>) -> Option<PathBuf> {
    if let Some(path) = path {
        return Some(token_file(key, path, context));
    }
    let found = context.environment.get(TOKEN_FILE_VARIABLE).filter(|text| !text.is_empty());
    check_present(key, found.map(String::as_str), TOKEN_FILE_VARIABLE, context);
    found.map(PathBuf::from)
}

/// Reports a missing key whose variable is not set either.
fn check_present(key: &Key, found: Option<&str>, variable: &str, context: &mut Context<'_>) {
    if found.is_none() {
        let fix =
            "label the pod `azure.workload.identity/use: \"true\"` and annotate its service account, or write it here";
        context.problem(key, format!("is missing, and {variable} is not set"), fix);
    }
}

/// Returns the cloud of `AZURE_AUTHORITY_HOST`, and its authority if it is a custom one.
fn cloud_of(host: &str) -> (CloudFile, Option<&str>) {
    match host.trim_end_matches('/') {
        "https://login.microsoftonline.com" => (CloudFile::Public, None),
        "https://login.microsoftonline.us" => (CloudFile::UsGovernment, None),
        "https://login.chinacloudapi.cn" | "https://login.partner.microsoftonline.cn" => (CloudFile::China, None),
        other => (CloudFile::Custom, Some(other)),
    }
}

/// Lowers the keys that all kinds with an app registration have.
fn lower_app(at: &Key, app: &App<'_>, proof: Option<Proof>, context: &mut Context<'_>) -> Lowered {
    let tenant = lower_tenant(&below(at, "tenant"), app.tenant, context);
    if !is_guid(app.client_id) {
        let fix =
            "copy the application (client) id of the app registration, such as 11111111-2222-3333-4444-555555555555";
        // The message omits the value, which may be the secret by mistake.
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
    let ca_file = app.optional.ca_file.as_ref().map(|path| values::existing_file(&below(at, "ca_file"), path, context));
    let scope = lower_scope(&below(at, "scope"), app.optional.scope.as_deref(), context);
    let object_id = lower_object_id(at, app.optional, context);
    let kind = match (cloud, tenant, proof) {
        (Some(cloud), Some(tenant), Some(proof)) => Some(CredentialKind::App(AppSettings {
            authority: AuthoritySettings { cloud, ca_file },
            tenant,
            client_id: app.client_id.to_owned(),
            scope,
            proof,
        })),
        _ => None,
    };
    Lowered { kind, object_id }
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
        context.problem(key, format!("`{scope}` is not a scope that an app can request"), fix);
    }
    scope.to_owned()
}
