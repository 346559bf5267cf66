//! The acquirers of a gateway's credentials, and what they share: HTTP clients, the turns of each authority, assertions.

use std::collections::HashMap;
use std::sync::Arc;

use super::acquire::{Acquire, WithRetries};
use super::assertion::SharedAssertions;
use super::authority::Authorities;
use super::entra::Registration;
use super::file_watch::FileChecks;
use super::proof_settings::{AssertionSettings, Proof};
use super::settings::{AppSettings, CredentialKind};
use super::state::TokenState;
use super::transport::IdentityClient;
use super::{access_key_source, assertion, azure_cli, entra, managed_identity, token_file};
use crate::egress::Egress;
use crate::metrics::TokenMetrics;
use crate::redact::MaskedError;
use crate::tls::{Trust, TrustError};

/// The authority of managed identities: the identity endpoint of this host.
const HOST: &str = "host";
/// The authority of users who are signed in to the Azure CLI.
const AZURE_CLI: &str = "az";

/// What the acquirers of a gateway share, also across reloads.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) authorities: Authorities,
    assertions: SharedAssertions,
    pub(super) file_checks: FileChecks,
}

impl Shared {
    pub(super) fn new(metrics: &TokenMetrics) -> Self {
        Self {
            authorities: Authorities::new(metrics.clone()),
            assertions: SharedAssertions::default(),
            file_checks: FileChecks::default(),
        }
    }
}

/// Why a credential cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum CredentialProblem {
    /// The CAs for the authority cannot be loaded.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The identity library rejects the tenant, client id or authority.
    #[error("the identity library rejects the tenant, client id or authority")]
    Settings(#[source] MaskedError),
}

/// What the acquirers of one configuration share.
#[derive(Default)]
pub(super) struct Clients<'a> {
    /// The HTTP clients, one for each set of CAs and proxy.
    by_trust: HashMap<(Trust, Arc<Egress>), IdentityClient>,
    apps: HashMap<&'a AppSettings, Arc<Registration>>,
}

impl<'a> Clients<'a> {
    fn get(&mut self, trust: Trust, egress: &Arc<Egress>) -> Result<IdentityClient, TrustError> {
        let key = (trust, Arc::clone(egress));
        if let Some(client) = self.by_trust.get(&key) {
            return Ok(client.clone());
        }
        let client = IdentityClient::new(&key.0, egress)?;
        self.by_trust.insert(key, client.clone());
        Ok(client)
    }

    /// Returns the acquirer for one tenant of an app. The library checks the settings of the app with its first tenant; a check
    /// builds a client.
    fn app(
        &mut self,
        settings: &'a Arc<AppSettings>,
        tenant: &Arc<str>,
        shared: &Shared,
    ) -> Result<entra::App, CredentialProblem> {
        if let Some(registration) = self.apps.get(&**settings) {
            let app = entra::App::new(Arc::clone(registration), Arc::clone(tenant));
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
            if !tenant.bytes().all(is_plain) {
                check(&app)?;
            }
            return Ok(app);
        }
        let trust = Trust::from_ca_file(settings.authority.ca_file.as_deref());
        let client = self.get(trust.clone(), &settings.egress)?;
        // Metadata servers and the identity endpoints of this host are never behind a proxy.
        let egress = if is_of_host(&settings.proof) { &Arc::default() } else { &settings.egress };
        let provider_client = self.get(assertion::provider_trust(&settings.proof).unwrap_or(trust), egress)?;
        let authority = shared.authorities.get(settings.authority.origin());
        let registration =
            Registration::new(Arc::clone(settings), client, provider_client, authority, &shared.assertions);
        let registration = Arc::new(registration);
        let app = entra::App::new(Arc::clone(&registration), Arc::clone(tenant));
        check(&app)?;
        self.apps.insert(settings, registration);
        Ok(app)
    }
}

fn check(app: &entra::App) -> Result<(), CredentialProblem> {
    app.check().map_err(|err| CredentialProblem::Settings(MaskedError::new(&err)))
}

/// Returns what obtains the tokens of a credential. `state` belongs to its cell.
pub(super) fn acquirer<'a>(
    kind: &'a CredentialKind,
    clients: &mut Clients<'a>,
    shared: &Shared,
    state: &TokenState,
) -> Result<Arc<dyn Acquire>, CredentialProblem> {
    let callers = || Arc::clone(&state.waiting_callers);
    Ok(match kind {
        CredentialKind::App { app: settings, tenant } => {
            let app = clients.app(settings, tenant, shared)?;
            let authority = Arc::clone(app.authority());
            Arc::new(WithRetries::new(app, authority, callers()))
        }
        CredentialKind::ManagedIdentity { identity, scope } => {
            let client = clients.get(Trust::None, &Arc::default())?;
            let authority = shared.authorities.get(identity.imds_endpoint.as_deref().unwrap_or(HOST));
            let identity = managed_identity::HostIdentity { settings: identity.clone(), scope: scope.clone(), client };
            Arc::new(WithRetries::new(identity, authority, callers()))
        }
        CredentialKind::AzureCli { tenant, scope } => {
            let cli = azure_cli::AzureCli { tenant: tenant.clone(), scope: scope.clone() };
            Arc::new(WithRetries::new(cli, shared.authorities.get(AZURE_CLI), callers()))
        }
        CredentialKind::AccessKey { key } => Arc::new(access_key_source::AccessKeySource { key: key.clone() }),
        CredentialKind::TokenFile { path } => Arc::new(token_file::TokenFile { path: path.clone() }),
    })
}

/// Returns whether the assertion comes from an identity endpoint of this host.
fn is_of_host(proof: &Proof) -> bool {
    matches!(proof, Proof::Federated(AssertionSettings::ManagedIdentity { .. } | AssertionSettings::GcpMetadata { .. }))
}
