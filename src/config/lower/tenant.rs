//! Lowers the tenants and object ids of credentials. Either a credential or the endpoints that use it name them. Each tenant that
//! endpoints name has a token life of its own.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::context::{Context, Key, below, key};
use crate::config::file::ConfigFile;
use crate::config::identifier::{UNKNOWN_ID, guid_fault, is_tenant};
use crate::credential::{AppSettings, CredentialId, CredentialKind, CredentialName, CredentialSettings};
use crate::redact::is_guid;

/// What endpoints say about the credentials that they use, by credential.
pub(super) type Uses<'f> = HashMap<&'f str, Vec<Use<'f>>>;

/// What an endpoint says about the credential that it uses.
#[derive(Clone, Copy)]
pub(super) struct Use<'f> {
    endpoint: &'f str,
    is_enabled: bool,
    tenant: Option<&'f str>,
    object_id: Option<&'f str>,
}

impl Use<'_> {
    fn at(&self, name: &str) -> Key {
        key(&["endpoints", self.endpoint, name])
    }
}

/// The lowered table of a credential.
pub(super) struct Lowered {
    /// Its kind, as written.
    pub(super) kind: &'static str,
    /// `None` if a key is invalid, which is reported.
    pub(super) source: Option<Source>,
    pub(super) tenant: Tenant,
    pub(super) object_id: Option<Arc<str>>,
    /// Whether an endpoint may name the object id.
    pub(super) checks_object_id: bool,
}

/// How bearers are obtained, without the tenant.
pub(super) enum Source {
    App(Arc<AppSettings>),
    AzureCli { scope: String },
    WithoutTenant(CredentialKind),
}

/// Who names the tenant of a credential.
pub(super) enum Tenant {
    /// Nobody: its kind has none.
    None,
    /// The credential. The content is `None` if the tenant is invalid.
    Credential(Option<Arc<str>>),
    /// A variable of the pod, for endpoints that name none.
    Variable(Option<Arc<str>>),
    /// Every endpoint that uses it.
    Endpoints {
        /// The variable that would name it, and how to set it.
        unset: Option<(&'static str, &'static str)>,
    },
}

impl Tenant {
    /// Lowers the key `tenant` of a credential.
    pub(super) fn of_key(at: &Key, tenant: Option<&str>, context: &mut Context<'_>) -> Self {
        let at = below(at, "tenant");
        match tenant {
            Some(tenant) => Self::Credential(lower_tenant(&at, tenant, context)),
            // The value was removed, and the problem is reported.
            None if context.is_invalid(&at) => Self::Credential(None),
            None => Self::Endpoints { unset: None },
        }
    }

    const fn may_be_of_endpoint(&self) -> bool {
        matches!(self, Self::Variable(_) | Self::Endpoints { .. })
    }

    fn of_credential(&self) -> Option<&Arc<str>> {
        match self {
            Self::Credential(tenant) | Self::Variable(tenant) => tenant.as_ref(),
            Self::None | Self::Endpoints { .. } => None,
        }
    }
}

/// Collects what endpoints say about credentials.
pub(super) fn uses(file: &ConfigFile) -> Uses<'_> {
    let mut uses = Uses::new();
    for (endpoint, of) in &file.endpoints {
        let (tenant, object_id) = (of.tenant.as_deref(), of.object_id.as_deref());
        uses.entry(of.credential.as_str()).or_default().push(Use {
            endpoint,
            is_enabled: of.enabled,
            tenant,
            object_id,
        });
    }
    uses
}

/// Returns the settings of each token life of the credential `name`, whose table is at `at`.
pub(super) fn token_lives(
    at: &Key,
    name: &str,
    lowered: &Lowered,
    uses: &[Use<'_>],
    context: &mut Context<'_>,
) -> Vec<CredentialSettings> {
    check_tenants(at, lowered, uses, context);
    check_object_ids(at, lowered, uses, context);
    let mut by_tenant: BTreeMap<Option<&str>, Vec<Use<'_>>> = BTreeMap::new();
    for one in uses {
        let tenant = one.tenant.filter(|_| lowered.tenant.may_be_of_endpoint());
        by_tenant.entry(tenant).or_default().push(*one);
    }
    let tenants = by_tenant.keys().flatten().count();
    if lowered.object_id.is_some() && lowered.checks_object_id && tenants > 1 {
        let fact = format!("is the id in one tenant, but the endpoints of this credential name {tenants} tenants");
        context.problem(&below(at, "object_id"), fact, "move it to the endpoints, each with the id in its tenant");
    }
    let (name, mut settings) = (CredentialName::new(name), Vec::with_capacity(by_tenant.len()));
    for (of_endpoint, uses) in by_tenant {
        let object_id = lowered.object_id.clone().or_else(|| lower_object_id_of_endpoints(&uses, context));
        let of_endpoint = match of_endpoint {
            None => None,
            Some(tenant) => {
                // Reports the problem at each endpoint.
                let lowered: Vec<_> = uses.iter().map(|one| lower_tenant(&one.at("tenant"), tenant, context)).collect();
                let Some(tenant) = lowered.into_iter().flatten().next() else { continue };
                Some(tenant)
            }
        };
        let kind = lowered.source.as_ref().and_then(|source| {
            let named = || of_endpoint.as_ref().or_else(|| lowered.tenant.of_credential()).map(Arc::clone);
            let tenant = || named().or_else(|| context.is_absent(&below(at, "tenant")).then(|| UNKNOWN_ID.into()));
            Some(match source {
                Source::App(app) => CredentialKind::App { app: Arc::clone(app), tenant: tenant()? },
                Source::AzureCli { scope } => CredentialKind::AzureCli { tenant: tenant()?, scope: scope.clone() },
                Source::WithoutTenant(kind) => kind.clone(),
            })
        });
        if !uses.iter().any(|one| one.is_enabled) {
            // Nobody needs its tokens.
            continue;
        }
        let id = CredentialId { name: name.clone(), tenant: of_endpoint };
        settings.extend(kind.map(|kind| CredentialSettings { id, kind, object_id }));
    }
    settings
}

/// Reports tenants that are named twice, by nobody, or for a kind that has none.
fn check_tenants(at: &Key, lowered: &Lowered, uses: &[Use<'_>], context: &mut Context<'_>) {
    let path = at.join(".");
    let with_tenant = || uses.iter().filter(|one| one.tenant.is_some());
    match &lowered.tenant {
        Tenant::None => {
            for one in with_tenant() {
                let fact = format!("`{path}` has no tenant: its kind is {}", lowered.kind);
                context.problem(&one.at("tenant"), fact, "remove it, or name another credential");
            }
        }
        Tenant::Credential(_) => {
            for one in with_tenant() {
                let fact = format!("is set here and in `{path}`");
                let fix =
                    format!("remove `{path}.tenant` if each endpoint is to name its tenant, else remove this one");
                context.problem(&one.at("tenant"), fact, fix);
            }
        }
        Tenant::Variable(_) => {}
        Tenant::Endpoints { unset } => {
            let is_named =
                |one: &Use<'_>, context: &Context<'_>| one.tenant.is_some() || context.is_invalid(&one.at("tenant"));
            if uses.iter().any(|one| is_named(one, context)) {
                for one in uses.iter().filter(|one| one.tenant.is_none()) {
                    let fact = format!("is missing, and `{path}` names no tenant");
                    context.problem(&one.at("tenant"), fact, "add the tenant of the SignalR resource: tenant = \"…\"");
                }
            } else {
                let fix = "add the tenant of the SignalR resource here, or to each endpoint that uses the credential";
                let (fact, fix) = unset.map_or_else(
                    || ("is missing, here and in the endpoints".to_owned(), fix),
                    |(variable, fix)| (format!("is missing, and {variable} is not set"), fix),
                );
                if unset.is_some() {
                    context.absent(&below(at, "tenant"), fact, fix);
                } else {
                    context.problem(&below(at, "tenant"), fact, fix);
                }
            }
        }
    }
}

/// Reports object ids that are named twice or for a kind that has none.
fn check_object_ids(at: &Key, lowered: &Lowered, uses: &[Use<'_>], context: &mut Context<'_>) {
    let path = at.join(".");
    for one in uses.iter().filter(|one| one.object_id.is_some()) {
        let key = one.at("object_id");
        if !lowered.checks_object_id {
            let fact = format!("does not apply to `{path}`: its kind is {}", lowered.kind);
            context.problem(&key, fact, "remove it");
        } else if lowered.object_id.is_some() {
            context.problem(
                &key,
                format!("is set here and in `{path}`"),
                format!("remove one of the two: `{path}.object_id`, or this one"),
            );
        }
    }
}

/// Lowers the object id that endpoints with the same token life name.
fn lower_object_id_of_endpoints(uses: &[Use<'_>], context: &mut Context<'_>) -> Option<Arc<str>> {
    let mut first: Option<(&Use<'_>, Arc<str>)> = None;
    for one in uses {
        let Some(lowered) = lower_object_id(&one.at("object_id"), one.object_id, context) else { continue };
        match &first {
            None => first = Some((one, lowered)),
            Some((_, id)) if id.eq_ignore_ascii_case(&lowered) => {}
            Some((other, _)) => {
                let fact = format!("differs from `endpoints.{}.object_id`, in the same tenant", other.endpoint);
                context.problem(
                    &one.at("object_id"),
                    fact,
                    "an app has one object id in a tenant: correct one of the two",
                );
            }
        }
    }
    first.map(|(_, id)| id)
}

/// Lowers the expected object id of tokens. It does not affect token requests.
pub(super) fn lower_object_id(key: &Key, object_id: Option<&str>, context: &mut Context<'_>) -> Option<Arc<str>> {
    let object_id = object_id?;
    if !is_guid(object_id) {
        let fix = "copy it from `az ad sp show --id CLIENT_ID --query id`, signed in to the endpoint's tenant";
        context.problem(key, format!("`{object_id}` is not a GUID"), fix);
    }
    Some(object_id.into())
}

pub(super) fn lower_tenant(key: &Key, tenant: &str, context: &mut Context<'_>) -> Option<Arc<str>> {
    if ["common", "organizations", "consumers"].contains(&tenant.to_ascii_lowercase().as_str()) {
        let fix = "name the tenant that the SignalR resource lives in (tenant B), by GUID or domain";
        context.problem(key, format!("`{tenant}` is not one tenant, and an app cannot sign in to it"), fix);
        return None;
    }
    if !is_tenant(tenant) {
        let fix = "write the tenant's GUID or one of its domains, such as contoso.onmicrosoft.com";
        // The text is masked unless it is harmless, so its fault is described.
        let fault = guid_fault(tenant).map(|fault| format!(": {fault}")).unwrap_or_default();
        context.problem(key, format!("`{tenant}` is neither a GUID nor a domain{fault}"), fix);
        return None;
    }
    Some(tenant.into())
}
