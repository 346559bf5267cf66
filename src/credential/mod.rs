//! Who the gateway is towards an endpoint: where bearers come from and how long they live.
//!
//! The seam is [`BearerSource`]: the request path reads a ready bearer without a lock and waits only when there is
//! none. Knows nothing of requests, routes or endpoints.
//!
//! # The life of a token
//!
//! ```text
//! worker ── ready() ──► cell ◄── refresh task ──► acquirer ──► azure_identity ──► LegClient ──► hyper, rustls
//!           acquire()           (control runtime)     │        (built afresh)     (judges the answer,
//!           replace()                                 │                            records the leg)
//!                                                     └─ secret · certificate · another identity's token
//! ```
//!
//! * `cell.rs`: the token in service, and how callers wait; `refresh.rs`: the task that keeps it fresh; `schedule.rs`: when.
//! * `acquire.rs`: the seam of an acquisition and the legs it took; `entra.rs`, `azure_cli.rs`, `token_file.rs`, `access_key.rs`: the ways.
//! * `assertion/`: how an app proves that it is itself; `transport.rs`, `answer.rs`: the client below the identity library;
//!   `process.rs`: programs that print tokens.
//!
//! # The flows, and the two tenants
//!
//! Tenant A is where the app registration lives, tenant B where the SignalR resource lives. The role is always assigned
//! in B, to the object id of what calls there. [`SetupStep`] numbers what can be wrong on the way.
//!
//! `client_secret` and `client_certificate`: the app proves itself with what is registered on it.
//!
//! ```text
//! this host                        tenant A                         tenant B
//! secret, or an assertion    app registration, multi-tenant    enterprise application ── role ──► SignalR
//! signed with the key        (secret or certificate)           of the same client id                 ▲
//!     └── POST /{tenant B}/oauth2/v2.0/token ────────────────────────► token ── request ─────────────┘
//! ```
//!
//! `federated`: another identity's token takes the place of the secret; the app registration says whose it trusts.
//!
//! ```text
//! this host                        tenant A                         tenant B
//! managed identity of A, or  app registration, multi-tenant    enterprise application ── role ──► SignalR
//! another provider's token   (federated credential:            of the same client id                 ▲
//!     │                       issuer, subject, audience)             │                               │
//!     └── assertion ── POST /{tenant B}/oauth2/v2.0/token ───────────┴► token ── request ────────────┘
//! ```
//!
//! Where another provider's token comes from (each has its own picture in `assertion/`):
//!
//! ```text
//! file             kubelet, or any program ──► file                            trimmed, read at each exchange
//! github_actions   GET  $ACTIONS_ID_TOKEN_REQUEST_URL&audience=…               {"value"}
//! azure_pipelines  POST $SYSTEM_OIDCREQUESTURI?serviceConnectionId=…           {"oidcToken"}
//! gcp_metadata     GET  metadata.google.internal/…/identity?audience=…         the token
//! oauth2           POST token_url, grant_type=client_credentials               {"access_token"} or {"id_token"}
//! command          argv, no shell ──► stdout                                   the token, or {"token", "expires_at"}
//! ```
//!
//! `workload_identity` is `federated` with a file, taken from what Azure's webhook puts into a pod.
//!
//! `managed_identity`: the host is in the resource's own tenant, and no app registration is needed.
//!
//! ```text
//! this host (tenant B)                                              tenant B
//! metadata service ── token of its identity ── request ──► SignalR ◄── role ── managed identity
//! ```
//!
//! `azure_cli`: a person is in the resource's tenant, signed in to the Azure CLI on a developer's desk.
//!
//! ```text
//! this host                                                         tenant B
//! az account get-access-token ── token of the user ── request ──► SignalR ◄── role ── user
//! ```
//!
//! `access_key` and `token_file`: no tenant is asked. The key signs a token for each request; the file's token was
//! obtained by somebody else.

mod access_key;
mod access_key_source;
mod acquire;
mod answer;
mod assertion;
mod azure_cli;
mod bearer;
mod cell;
mod entra;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod identity_endpoint;
mod jwt;
mod legs;
mod lifetime;
mod local_error;
mod process;
mod refresh;
mod refusal;
mod remedy;
mod schedule;
mod secret;
mod settings;
mod state;
mod token_file;
mod transport;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

pub use crate::files::Secret;
pub(crate) use bearer::NoBearer;
pub use bearer::{
    Actor, Bearer, BearerSource, CredentialState, CredentialStatus, Fingerprint, NotAToken, RequestUrl,
    TokenUnavailable,
};
pub use error::CredentialError;
pub(crate) use error::{in_one_line, one_line};
pub use identity_endpoint::{IdentityEndpoint, IdentityEndpointKind, IdentityProvider};
pub use jwt::Claims;
pub(crate) use jwt::expiry as token_expiry;
pub use legs::{Leg, LegOutcome, NotAfter};
pub use local_error::CertificateError;
pub use local_error::SecretError;
pub use process::CommandError;
pub use refusal::{NoAnswer, TokenHttpError, UnusableAnswer};
pub use remedy::{REMEDIES, Remedy, SetupStep, remedy};
pub use schedule::ErrorClass;
pub use settings::{
    AppSettings, AssertionAlgorithm, AssertionSettings, AuthoritySettings, CertificateSettings, ClientAuthentication,
    Cloud, CommandSettings, CredentialKind, CredentialName, CredentialSettings, Identity, KindFacts, ManagedIdentity,
    ManagedIdentitySettings, OAuth2Settings, OAuth2Token, Proof, SecretSource,
};

use acquire::{Acquire, Material, QuickTries};
use cell::TokenCell;
use legs::Legs;
use refresh::Refresher;
use state::{TokenState, View};
use tokio::sync::watch as published;
use transport::IdentityClient;

use crate::metrics::TokenMetrics;
use crate::redact::Foreign;
use crate::tls::{Trust, TrustError};

/// All credentials of a gateway. Dropping it stops their tasks; bearers in service stay usable until they expire.
#[derive(Debug)]
pub struct Credentials {
    sources: HashMap<CredentialName, Arc<Source>>,
}

/// One token life. Its task stops when nobody holds it any more.
#[derive(Debug)]
struct Source {
    kind: CredentialKind,
    /// The credentials that share it.
    names: Vec<CredentialName>,
    cell: Arc<TokenCell>,
    acquirer: Arc<dyn Acquire>,
}

impl Drop for Source {
    fn drop(&mut self) {
        self.cell.stop();
    }
}

impl Credentials {
    /// Builds the credentials. Does no network I/O and reads no secret: those are read when they are used. CA files are
    /// read here. Credentials that differ in nothing but their name share one token life.
    ///
    /// `control` runs the refresh tasks; it may be another runtime than those that ask for bearers, with time and I/O on.
    ///
    /// # Errors
    /// [`CredentialBuildError`] names every credential that cannot work, whatever Entra answers.
    pub fn build(
        settings: &[CredentialSettings],
        metrics: &TokenMetrics,
        control: &tokio::runtime::Handle,
    ) -> Result<Self, CredentialBuildError> {
        Self { sources: HashMap::new() }.rebuild(settings, metrics, control)
    }

    /// Builds credentials anew, as [`Credentials::build`], and takes over the token lives of those that are the same as
    /// before. One that is the same identity with another proof (a new secret, a certificate in place of a secret) begins
    /// with the token in service and obtains one of its own; another identity begins with none. Changes no metric.
    ///
    /// # Errors
    /// As [`Credentials::build`]; nothing has changed then.
    pub fn rebuild(
        &self,
        settings: &[CredentialSettings],
        metrics: &TokenMetrics,
        control: &tokio::runtime::Handle,
    ) -> Result<Self, CredentialBuildError> {
        let mut lives: Vec<(&CredentialKind, Vec<CredentialName>)> = Vec::new();
        for credential in settings {
            match lives.iter_mut().find(|(kind, _)| **kind == credential.kind) {
                Some((_, names)) => names.push(credential.name.clone()),
                None => lives.push((&credential.kind, vec![credential.name.clone()])),
            }
        }
        let mut clients = Clients::default();
        let (mut sources, mut problems) = (HashMap::new(), Vec::new());
        for (kind, names) in lives {
            let same = self.sources.values().find(|source| source.kind == *kind && source.names == names);
            if let Some(same) = same {
                sources.extend(names.into_iter().map(|name| (name, Arc::clone(same))));
                continue;
            }
            let acquirer = match acquirer(kind, &mut clients) {
                Ok(acquirer) => acquirer,
                Err(problem) => {
                    problems.push((names, problem));
                    continue;
                }
            };
            let state = self.before(kind).map(|before| TokenState::continuing(before.cell.state()));
            let (state, (publish, view)) = (Arc::new(state.unwrap_or_default()), published::channel(View::default()));
            let refresher =
                Refresher::new(Arc::clone(&state), publish, Arc::clone(&acquirer), names.clone(), metrics.clone());
            let cell = Arc::new(TokenCell::new(state, view, refresher, control.clone()));
            let source = Arc::new(Source { kind: kind.clone(), names: names.clone(), cell, acquirer });
            sources.extend(names.into_iter().map(|name| (name, Arc::clone(&source))));
        }
        if problems.is_empty() { Ok(Self { sources }) } else { Err(CredentialBuildError { problems }) }
    }

    /// Finds a token life whose tokens say the same as those that `kind` will obtain.
    fn before(&self, kind: &CredentialKind) -> Option<&Arc<Source>> {
        let identity = kind.facts().identity?;
        self.sources.values().find(|source| source.kind.facts().identity == Some(identity))
    }

    /// Reads what lies on this host for a credential, as far as that can be judged here: secrets, keys and certificates,
    /// token files. Sends nothing and runs no program. `None` when there is no credential of that name.
    pub async fn inspect(&self, name: &CredentialName) -> Option<Inspection> {
        let source = self.sources.get(name)?;
        let legs = Legs::default();
        let problem = source.acquirer.inspect(&legs).await.err();
        Some(Inspection { problem, remarks: legs.take_remarks() })
    }

    /// Begins the first acquisition of every credential now, instead of when it is first asked for.
    pub fn start(&self) {
        self.sources.values().for_each(|source| source.cell.start());
    }

    /// Returns where a credential's bearers come from.
    pub fn get(&self, name: &CredentialName) -> Option<Arc<dyn BearerSource>> {
        let source = self.sources.get(name)?;
        Some(Arc::<TokenCell>::clone(&source.cell))
    }

    /// Makes one acquisition beside the token life and puts nothing in service: for showing each leg of it. `None` when
    /// there is no credential of that name. To be called on a runtime with time and I/O on.
    ///
    /// It is given up after `within`, and its legs so far are shown.
    ///
    /// # Cancel safety
    /// Safe: a request under way is broken off.
    pub async fn attempt(&self, name: &CredentialName, within: Duration) -> Option<Attempt> {
        let source = self.sources.get(name)?;
        let legs = Legs::default();
        let outcome = tokio::time::timeout(within, source.acquirer.acquire(&legs)).await;
        let outcome = outcome.unwrap_or(Err(CredentialError::Deadline(within)));
        let outcome = outcome.map(|acquired| match acquired.material {
            Material::Bearer(bearer) => Some(bearer),
            Material::AccessKey(_) => None,
        });
        Some(Attempt { remarks: legs.take_remarks(), legs: legs.take(), outcome })
    }
}

/// What lies on this host for a credential.
#[derive(Debug)]
pub struct Inspection {
    /// Why it cannot be used.
    pub problem: Option<CredentialError>,
    /// What is odd about it and does not stop its use.
    pub remarks: Vec<String>,
}

/// One acquisition, laid open.
#[derive(Debug)]
pub struct Attempt {
    /// The steps it took, in the order in which they ended; more than one of a kind when there were several tries.
    pub legs: Vec<Leg>,
    /// What is odd about the files that it read.
    pub remarks: Vec<String>,
    /// The bearer, or why there is none. An access key that could be read gives no bearer: it signs each request.
    pub outcome: Result<Option<Bearer>, CredentialError>,
}

/// Some credentials cannot work, whatever Entra answers.
#[derive(Debug)]
pub struct CredentialBuildError {
    /// The credentials (those that share a token life together) and what is wrong with them. Never empty.
    pub problems: Vec<(Vec<CredentialName>, CredentialProblem)>,
}

impl std::fmt::Display for CredentialBuildError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (names, problem)) in self.problems.iter().enumerate() {
            let names: Vec<&str> = names.iter().map(CredentialName::as_str).collect();
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}credentials.{}: {}", names.join(", credentials."), error::in_one_line(problem))?;
        }
        Ok(())
    }
}

impl std::error::Error for CredentialBuildError {}

/// What is wrong with a credential before anything was sent.
#[derive(Debug, thiserror::Error)]
pub enum CredentialProblem {
    /// The CAs for the authority cannot be loaded.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The identity library refuses the tenant, client id or authority.
    #[error("the identity library refuses the tenant, client id or authority")]
    Settings(#[source] Foreign),
}

/// One client for each set of CAs.
#[derive(Default)]
struct Clients(HashMap<Trust, IdentityClient>);

impl Clients {
    fn get(&mut self, trust: Trust) -> Result<IdentityClient, TrustError> {
        if let Some(client) = self.0.get(&trust) {
            return Ok(client.clone());
        }
        let client = IdentityClient::new(&trust)?;
        self.0.insert(trust, client.clone());
        Ok(client)
    }
}

fn acquirer(kind: &CredentialKind, clients: &mut Clients) -> Result<Arc<dyn Acquire>, CredentialProblem> {
    Ok(match kind {
        CredentialKind::App(settings) => {
            let trust = Trust::of(settings.authority.ca_file.as_deref());
            let client = clients.get(trust)?;
            let of_provider = assertion::provider_trust(&settings.proof).map(|trust| clients.get(trust)).transpose()?;
            let app = entra::App::new(settings.clone(), client, of_provider);
            Arc::new(QuickTries(app.map_err(|err| CredentialProblem::Settings(Foreign::new(&err)))?))
        }
        CredentialKind::ManagedIdentity { identity, scope } => {
            let client = clients.get(Trust::Nobody)?;
            Arc::new(QuickTries(entra::Identity { settings: identity.clone(), scope: scope.clone(), client }))
        }
        CredentialKind::AzureCli { tenant, scope } => {
            Arc::new(QuickTries(azure_cli::AzureCli { tenant: tenant.clone(), scope: scope.clone() }))
        }
        CredentialKind::AccessKey { key } => Arc::new(access_key_source::AccessKeySource { key: key.clone() }),
        CredentialKind::TokenFile { path } => Arc::new(token_file::TokenFile { path: path.clone() }),
    })
}

#[cfg(test)]
mod canary_tests;
#[cfg(test)]
#[path = "../../tests/it/support/leaks.rs"]
mod leaks;
#[cfg(test)]
mod tests;
