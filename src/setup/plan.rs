//! What the endpoints of a configuration need in their tenants.

use std::collections::HashMap;
use std::path::PathBuf;

use super::labels::Labels;
use crate::credential::{
    AssertionSettings, AuthoritySettings, Cloud, CredentialId, CredentialKind, CredentialSettings, ManagedIdentity,
    Proof, SecretSource,
};
use crate::endpoint::EndpointName;
use crate::gateway::Settings;
use crate::signalr::Operation;

/// The role that every call needs. Source: Microsoft, "Azure built-in roles", as are the ids.
const REST_API_OWNER: Role = Role {
    name: "SignalR REST API Owner",
    identifier: "signalr_rest_api_owner",
    id: "fd53cd77-2268-407a-8f46-7e7863d0f521",
};
/// The role that the operation `access_key` needs.
const APP_SERVER: Role =
    Role { name: "SignalR App Server", identifier: "signalr_app_server", id: "420fcaa2-552c-430f-98ca-3264be4806c7" };

/// What the endpoints of a configuration need in their tenants.
#[derive(Debug)]
pub struct Plan {
    pub(super) apps: Vec<AppPlan>,
    pub(super) grants: Vec<Grant>,
    /// The roles that each grant assigns.
    pub(super) roles: Vec<Role>,
    /// What needs no setup in Entra, and why.
    pub(super) notes: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Role {
    pub(super) name: &'static str,
    /// Its part of identifiers of Terraform and Bicep.
    pub(super) identifier: &'static str,
    pub(super) id: &'static str,
}

/// What an app registration needs in its own tenant (tenant A).
#[derive(Debug)]
pub(super) struct AppPlan {
    /// A name for identifiers of Terraform.
    pub(super) label: String,
    pub(super) credential: String,
    pub(super) client_id: String,
    pub(super) proof: ProofPlan,
}

#[derive(Debug)]
pub(super) enum ProofPlan {
    /// A client secret, and where the gateway reads it.
    Secret {
        source: String,
    },
    Certificate {
        path: PathBuf,
    },
    /// Trust in the tokens of another issuer.
    Federated {
        issuer: Value,
        subject: Value,
        audience: Value,
    },
}

/// A value that the configuration determines, or the description of one that it does not.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Known(String),
    Unknown(&'static str),
}

/// The access of one identity to the resources of one tenant (tenant B).
#[derive(Debug)]
pub(super) struct Grant {
    /// A name for identifiers of Terraform and Bicep.
    pub(super) label: String,
    pub(super) credential: String,
    pub(super) principal: Principal,
    /// `None`: the tenant of the host's identity.
    pub(super) tenant: Option<String>,
    /// The origin of the Entra authority.
    pub(super) authority: String,
    pub(super) resources: Vec<Resource>,
}

#[derive(Clone, Debug)]
pub(super) enum Principal {
    App { client_id: String },
    Managed(ManagedIdentity),
    User,
}

#[derive(Debug)]
pub(super) struct Resource {
    /// A name for identifiers of Terraform and Bicep.
    pub(super) label: String,
    pub(super) endpoint: String,
    pub(super) host: String,
    /// The name of the resource, if its host tells.
    pub(super) name: Option<String>,
}

impl Plan {
    /// Makes the plan of all endpoints, or of those with these names and in this tenant. Reads no secret.
    pub fn new(settings: &Settings, endpoints: &[EndpointName], tenant: Option<&str>) -> Self {
        let credentials: HashMap<_, _> =
            settings.credentials.iter().map(|credential| (&credential.id, credential)).collect();
        let mut plan = Self { apps: Vec::new(), grants: Vec::new(), roles: vec![REST_API_OWNER], notes: Vec::new() };
        let admissions = settings.listeners.iter().map(|(_, admission)| admission);
        if admissions.into_iter().any(|admission| admission.operations.contains(Operation::AccessKey)) {
            plan.roles.push(APP_SERVER);
        }
        // Of all names, so that those of a part of the plan are those of the whole.
        let labels = PlanLabels::new(settings, &credentials);
        for endpoint in &settings.endpoints {
            let is_wanted = endpoints.is_empty() || endpoints.contains(&endpoint.name);
            let Some(credential) = credentials.get(&endpoint.credential).filter(|_| is_wanted) else { continue };
            let of_tenant = tenant_of(credential);
            if tenant.is_some_and(|wanted| of_tenant != Some(wanted)) {
                continue;
            }
            let host = endpoint.origin.host.clone();
            let endpoint = endpoint.name.to_string();
            let label = labels.endpoints.of(&endpoint);
            let resource = Resource { label, endpoint, name: name_of(&host), host };
            plan.add(credential, resource, &labels);
        }
        plan
    }

    fn add(&mut self, credential: &CredentialSettings, resource: Resource, labels: &PlanLabels) {
        let name = credential.id.name.to_string();
        let (principal, authority) = match &credential.kind {
            CredentialKind::App { app, .. } => {
                if !self.apps.iter().any(|known| known.credential == name) {
                    let proof = proof_of(&app.proof, &app.authority);
                    let client_id = app.client_id.clone();
                    let label = labels.credentials.of(&name);
                    self.apps.push(AppPlan { label, credential: name.clone(), client_id, proof });
                }
                (Principal::App { client_id: app.client_id.clone() }, app.authority.origin().to_owned())
            }
            CredentialKind::ManagedIdentity { identity, .. } => {
                (Principal::Managed(identity.id.clone()), String::new())
            }
            CredentialKind::AzureCli { .. } => (Principal::User, String::new()),
            CredentialKind::AccessKey { .. } | CredentialKind::TokenFile { .. } => {
                let why = if matches!(credential.kind, CredentialKind::AccessKey { .. }) {
                    "an access key needs no identity"
                } else {
                    "another program obtains its tokens"
                };
                self.notes.push(format!("endpoint {} needs nothing here: {why}", resource.endpoint));
                return;
            }
        };
        let tenant = tenant_of(credential).map(str::to_owned);
        let known = self.grants.iter_mut().find(|grant| grant.credential == name && grant.tenant == tenant);
        if let Some(grant) = known {
            grant.resources.push(resource);
            return;
        }
        let label = labels.grants.of(&grant_name(credential));
        let resources = vec![resource];
        self.grants.push(Grant { label, credential: name, principal, tenant, authority, resources });
    }

    /// Returns the tenants of its endpoints, in order.
    pub fn tenants(&self) -> Vec<&str> {
        let mut tenants: Vec<&str> = self.grants.iter().filter_map(|grant| grant.tenant.as_deref()).collect();
        tenants.sort_unstable();
        tenants.dedup();
        tenants
    }
}

/// The identifiers of a plan's parts.
struct PlanLabels {
    credentials: Labels,
    endpoints: Labels,
    grants: Labels,
}

impl PlanLabels {
    fn new(settings: &Settings, credentials: &HashMap<&CredentialId, &CredentialSettings>) -> Self {
        let endpoints = settings.endpoints.iter();
        let granted = endpoints.clone().filter_map(|endpoint| credentials.get(&endpoint.credential));
        Self {
            credentials: Labels::new(settings.credentials.iter().map(|credential| credential.id.name.to_string())),
            endpoints: Labels::new(endpoints.map(|endpoint| endpoint.name.to_string())),
            grants: Labels::new(granted.map(|credential| grant_name(credential))),
        }
    }
}

/// Returns a name for the access of a credential in its tenant. Names of credentials have no `/`.
fn grant_name(credential: &CredentialSettings) -> String {
    let name = &credential.id.name;
    tenant_of(credential).map_or_else(|| name.to_string(), |tenant| format!("{name}/{tenant}"))
}

fn tenant_of(credential: &CredentialSettings) -> Option<&str> {
    credential.kind.facts().identity.and_then(|identity| identity.tenant())
}

/// Returns the name of the resource that has a host.
fn name_of(host: &str) -> Option<String> {
    Cloud::of_resource(host).is_some().then(|| host.split('.').next().unwrap_or(host).to_owned())
}

/// Returns where a secret is. A text that is not the name of a variable may be the secret itself.
fn shown(source: &SecretSource) -> String {
    match source {
        SecretSource::Env(name) if !SecretSource::is_variable_name(name) => {
            "configured environment variable".to_owned()
        }
        SecretSource::Env(_) | SecretSource::File(_) => source.to_string(),
    }
}

fn proof_of(proof: &Proof, authority: &AuthoritySettings) -> ProofPlan {
    let assertion = match proof {
        Proof::Secret(source) => return ProofPlan::Secret { source: shown(source) },
        Proof::Certificate(settings) => return ProofPlan::Certificate { path: settings.certificate.clone() },
        Proof::Federated(assertion) => assertion,
    };
    let known = |text: &str| Value::Known(text.to_owned());
    let default_audience = known(authority.cloud.exchange_audience());
    let claim = (Value::Unknown("claim iss of the assertion"), Value::Unknown("claim sub of the assertion"));
    let ((issuer, subject), audience) = match assertion {
        AssertionSettings::ManagedIdentity { identity, audience } => {
            let subject = match &identity.id {
                ManagedIdentity::ObjectId(id) => known(id),
                ManagedIdentity::System | ManagedIdentity::ClientId(_) | ManagedIdentity::ResourceId(_) => {
                    Value::Unknown("principal id of the managed identity")
                }
            };
            (
                (Value::Unknown("issuer of tenant A: https://login.microsoftonline.com/TENANT/v2.0"), subject),
                known(audience),
            )
        }
        AssertionSettings::GithubActions { audience, .. } => {
            let subject = Value::Unknown("subject of the job, such as repo:OWNER/REPOSITORY:ref:refs/heads/main");
            ((known("https://token.actions.githubusercontent.com"), subject), known(audience))
        }
        AssertionSettings::AzurePipelines { .. } => {
            let issuer = Value::Unknown("issuer on the page of the service connection");
            ((issuer, Value::Unknown("subject identifier on the page of the service connection")), default_audience)
        }
        AssertionSettings::GcpMetadata { audience, .. } => {
            let subject = Value::Unknown("unique id of the Google service account");
            ((known("https://accounts.google.com"), subject), known(audience))
        }
        AssertionSettings::OAuth2(settings) => {
            let audience = settings.audience.as_deref().map_or(Value::Unknown("claim aud of the assertion"), known);
            (claim, audience)
        }
        AssertionSettings::File { .. } | AssertionSettings::Command(_) => (claim, default_audience),
    };
    ProofPlan::Federated { issuer, subject, audience }
}
