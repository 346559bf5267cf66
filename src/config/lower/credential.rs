//! Lowers credentials. Checks that files exist but reads no secret.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::assertion;
use super::context::{Context, Key, below, key};
use super::digest::Digest;
use super::egress;
use super::identity::{managed_identity, secret_source, token_file};
use super::tenant::{self, Lowered, Source, Tenant, lower_object_id, lower_tenant};
use super::values::{self, PlainHttp};
use crate::config::file::{AlgorithmFile, AppFile, CloudFile, ConfigFile, CredentialFile, OptionalAppFile};
use crate::config::identifier::{UNKNOWN_ID, guid_fault};
use crate::credential::{
    AppSettings, AssertionAlgorithm, AssertionSettings, AuthoritySettings, CertificateSettings, Cloud, CredentialKind,
    CredentialSettings, Proof,
};
use crate::egress::Egress;
use crate::redact::is_guid;

/// The scope of the SignalR data plane in all clouds. Source: `AadAccessKey.DefaultScope` of the .NET SDK.
const DEFAULT_SCOPE: &str = "https://signalr.azure.com/.default";

/// The variables that the webhook of Azure Workload Identity sets in a pod.
///
/// Source: Azure AD Workload Identity, "Mutating admission webhook".
const TENANT_VARIABLE: &str = "AZURE_TENANT_ID";
const CLIENT_ID_VARIABLE: &str = "AZURE_CLIENT_ID";
const TOKEN_FILE_VARIABLE: &str = "AZURE_FEDERATED_TOKEN_FILE";
/// The file that the webhook names in the variable.
const TOKEN_FILE_OF_POD: &str = "/var/run/secrets/azure/tokens/azure-identity-token";
const AUTHORITY_VARIABLE: &str = "AZURE_AUTHORITY_HOST";
/// What to do if one of them is missing.
const POD_FIX: &str =
    "label the pod `azure.workload.identity/use: \"true\"` and annotate its service account, or write it here";

/// The keys that all kinds with an app registration have. Workload identities take some from the environment.
struct App<'f> {
    client_id: &'f str,
    cloud: CloudFile,
    authority: Option<&'f str>,
    optional: &'f OptionalAppFile,
    /// The proxy of credentials that have none of their own.
    egress: &'f Arc<Egress>,
}

/// Returns the digest of each credential. Those of one app share the digest of what they have in common.
pub(super) fn digests(credentials: &[CredentialSettings]) -> Vec<Digest> {
    let mut apps: HashMap<*const AppSettings, Digest> = HashMap::new();
    let digest = |credential: &CredentialSettings| match &credential.kind {
        CredentialKind::App { app, tenant } => {
            let app = *apps.entry(Arc::as_ptr(app)).or_insert_with(|| Digest::of(app));
            Digest::of(&(&credential.id, tenant, &credential.object_id, app))
        }
        CredentialKind::AzureCli { .. }
        | CredentialKind::ManagedIdentity { .. }
        | CredentialKind::AccessKey { .. }
        | CredentialKind::TokenFile { .. } => Digest::of(credential),
    };
    credentials.iter().map(digest).collect()
}

pub(super) fn lower(file: &ConfigFile, egress: &Arc<Egress>, context: &mut Context<'_>) -> Vec<CredentialSettings> {
    let uses = tenant::uses(file);
    let mut credentials = Vec::with_capacity(file.credentials.len());
    for (name, credential) in &file.credentials {
        let at = key(&["credentials", name]);
        values::check_name(&at, name, context);
        let lowered = lower_one(&at, credential, egress, context);
        if let Some(uses) = uses.get(name.as_str()) {
            credentials.extend(tenant::token_lives(&at, name, &lowered, uses, context));
        } else {
            let fix = "name it in an endpoint, or remove it";
            context.warning(&at, "no endpoint uses this credential, so it requests no token", fix);
        }
    }
    credentials
}

fn lower_one(at: &Key, file: &CredentialFile, egress: &Arc<Egress>, context: &mut Context<'_>) -> Lowered {
    match file {
        CredentialFile::ClientSecret { app, secret } => {
            let proof = secret_source(&below(at, "secret"), secret, context).map(Proof::Secret);
            lower_app(at, "client_secret", (app, egress), proof, context)
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
            lower_app(at, "client_certificate", (app, egress), Some(proof), context)
        }
        CredentialFile::Federated { app, assertion } => {
            let proof = assertion::lower(&below(at, "assertion"), assertion, app.cloud, context).map(Proof::Federated);
            lower_app(at, "federated", (app, egress), proof, context)
        }
        CredentialFile::WorkloadIdentity { tenant, client_id, path, cloud, optional } => {
            let tenant = tenant_of_pod(at, tenant.as_deref(), context);
            let environment = context.environment;
            let optional_and_egress = (optional, egress);
            let app = app_of_pod(at, client_id.as_deref(), *cloud, optional_and_egress, environment, context);
            let path = token_file_of_pod(&below(at, "path"), path.as_deref(), context);
            let proof = path.map(|path| Proof::Federated(AssertionSettings::File { path }));
            let app = app.and_then(|app| lower_settings(at, &app, proof, context));
            lowered_app(at, "workload_identity", tenant, app, optional, context)
        }
        CredentialFile::ManagedIdentity { client_id, object_id, resource_id, imds_endpoint, scope } => {
            let ids = [client_id.as_deref(), object_id.as_deref(), resource_id.as_deref()];
            let identity = managed_identity(at, ids, imds_endpoint.as_deref(), context);
            let scope = lower_scope(&below(at, "scope"), scope.as_deref(), context);
            let kind = identity.map(|identity| CredentialKind::ManagedIdentity { identity, scope });
            // Tokens contain this object id as `oid`.
            let object_id = object_id.as_deref().map(Into::into);
            Lowered { object_id, ..without_tenant("managed_identity", kind) }
        }
        CredentialFile::AzureCli { tenant, scope } => Lowered {
            kind: "azure_cli",
            tenant: Tenant::of_key(at, tenant.as_deref(), context),
            source: Some(Source::AzureCli { scope: lower_scope(&below(at, "scope"), scope.as_deref(), context) }),
            object_id: None,
            checks_object_id: false,
        },
        CredentialFile::AccessKey { key } => {
            let key = secret_source(&below(at, "key"), key, context);
            without_tenant("access_key", key.map(|key| CredentialKind::AccessKey { key }))
        }
        CredentialFile::TokenFile { path } => {
            let path = values::existing_file(&below(at, "path"), path, context);
            without_tenant("token_file", Some(CredentialKind::TokenFile { path }))
        }
    }
}

fn without_tenant(name: &'static str, kind: Option<CredentialKind>) -> Lowered {
    let source = kind.map(Source::WithoutTenant);
    Lowered { kind: name, source, tenant: Tenant::None, object_id: None, checks_object_id: false }
}

/// Returns the tenant of a workload identity. An endpoint may name another one.
fn tenant_of_pod(at: &Key, tenant: Option<&str>, context: &mut Context<'_>) -> Tenant {
    let environment = context.environment;
    let variable = environment.get(TENANT_VARIABLE).filter(|text| !text.is_empty());
    match (Tenant::of_key(at, tenant, context), variable) {
        (Tenant::Endpoints { .. }, Some(tenant)) => {
            Tenant::Variable(lower_tenant(&below(at, "tenant"), tenant, context))
        }
        (Tenant::Endpoints { .. }, None) => Tenant::Endpoints { unset: Some((TENANT_VARIABLE, POD_FIX)) },
        (tenant, _) => tenant,
    }
}

/// Returns the keys of an app, with the variables of the pod as defaults, or `None` if the client id is missing.
fn app_of_pod<'f>(
    at: &Key,
    client_id: Option<&'f str>,
    cloud: Option<CloudFile>,
    (optional, egress): (&'f OptionalAppFile, &'f Arc<Egress>),
    environment: &'f BTreeMap<String, String>,
    context: &mut Context<'_>,
) -> Option<App<'f>> {
    let variable = |name: &str| environment.get(name).map(String::as_str).filter(|text| !text.is_empty());
    let client_id = client_id.or_else(|| variable(CLIENT_ID_VARIABLE));
    check_present(&below(at, "client_id"), client_id, CLIENT_ID_VARIABLE, context);
    let client_id = client_id.or_else(|| context.allows_absent().then_some(UNKNOWN_ID));
    let authority = optional.authority.as_deref();
    let (cloud, authority) = match (cloud, variable(AUTHORITY_VARIABLE)) {
        (None, Some(host)) if authority.is_none() => cloud_of(host),
        (None, _) if authority.is_some() => (CloudFile::Custom, authority),
        (cloud, _) => (cloud.unwrap_or_default(), authority),
    };
    Some(App { client_id: client_id?, cloud, authority, optional, egress })
}

fn token_file_of_pod(key: &Key, path: Option<&Path>, context: &mut Context<'_>) -> Option<PathBuf> {
    if let Some(path) = path {
        return Some(token_file(key, path, context));
    }
    let found = context.environment.get(TOKEN_FILE_VARIABLE).filter(|text| !text.is_empty());
    check_present(key, found.map(String::as_str), TOKEN_FILE_VARIABLE, context);
    found.map(PathBuf::from).or_else(|| context.allows_absent().then(|| PathBuf::from(TOKEN_FILE_OF_POD)))
}

/// Reports a missing key whose variable is not set either.
fn check_present(key: &Key, found: Option<&str>, variable: &str, context: &mut Context<'_>) {
    if found.is_none() {
        context.absent(key, format!("is missing, and {variable} is not set"), POD_FIX);
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

fn lower_app(
    at: &Key,
    kind: &'static str,
    (file, egress): (&AppFile, &Arc<Egress>),
    proof: Option<Proof>,
    context: &mut Context<'_>,
) -> Lowered {
    let tenant = Tenant::of_key(at, file.tenant.as_deref(), context);
    let AppFile { tenant: _, client_id, cloud, optional } = file;
    let app = App { client_id, cloud: *cloud, authority: optional.authority.as_deref(), optional, egress };
    let app = lower_settings(at, &app, proof, context);
    lowered_app(at, kind, tenant, app, &file.optional, context)
}

fn lowered_app(
    at: &Key,
    kind: &'static str,
    tenant: Tenant,
    app: Option<AppSettings>,
    optional: &OptionalAppFile,
    context: &mut Context<'_>,
) -> Lowered {
    let object_id = lower_object_id(&below(at, "object_id"), optional.object_id.as_deref(), context);
    Lowered { kind, source: app.map(Arc::new).map(Source::App), tenant, object_id, checks_object_id: true }
}

/// Lowers the keys that all kinds with an app registration have, except the tenant and the object id.
fn lower_settings(at: &Key, app: &App<'_>, proof: Option<Proof>, context: &mut Context<'_>) -> Option<AppSettings> {
    if !is_guid(app.client_id) {
        let fix =
            "copy the application (client) id of the app registration, such as 11111111-2222-3333-4444-555555555555";
        // The message omits the value, which may be the secret by mistake.
        let fault = guid_fault(app.client_id).map(|fault| format!(": {fault}")).unwrap_or_default();
        context.problem(&below(at, "client_id"), format!("is not a GUID{fault}"), fix);
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
    let ca_file = values::ca_file(&below(at, "ca_file"), app.optional.ca_file.as_deref(), context);
    let scope = lower_scope(&below(at, "scope"), app.optional.scope.as_deref(), context);
    let egress = egress::lower_choice(&below(at, "proxy"), app.optional.proxy.as_ref(), app.egress, context);
    Some(AppSettings {
        authority: AuthoritySettings { cloud: cloud?, ca_file },
        egress,
        client_id: app.client_id.to_owned(),
        scope,
        proof: proof?,
    })
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
