//! Which step of the cross-tenant set-up is broken: one chain of checks for each endpoint, ended at its first broken link.
//!
//! ```text
//! credential ──► proof on this host ──► assertion ──► exchange in the endpoint's tenant ──► claims
//!                                                                                              │
//!                authorised read ◄── /api/health ◄── TCP, TLS ◄── name of the endpoint ◄───────┘
//! ```
//!
//! `verdict.rs` says which step a failure is about, `mend.rs` which command mends it, `claims.rs` holds a token against
//! the configuration. Prints nothing and reads no configuration file.

mod chain;
mod claims;
mod mend;
mod verdict;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, join_all};
use tokio::runtime::Handle;

pub use claims::{ClaimCheck, Verdict, check_claims};

use crate::credential::{Attempt, CredentialName, CredentialSettings, Credentials, SetupStep};
use crate::endpoint::EndpointSettings;
use crate::metrics::{Metrics, TokenMetrics};

/// How long the credentials may take. Chosen: a request to Entra that hangs is given up after ten seconds, and what it
/// was is still seen.
const CREDENTIAL_TIME: Duration = Duration::from_millis(10_300);

/// How long each question to an endpoint may take. Three of them (its name, its health, a read) and the credential stay
/// below fifteen seconds.
const ENDPOINT_TIME: Duration = Duration::from_millis(1_500);

/// What was found out about one endpoint.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The endpoint's configured name.
    pub endpoint: String,
    /// Its URL.
    pub url: String,
    /// Its credential's configured name.
    pub credential: String,
    /// What was tried and held, in order.
    pub checks: Vec<Check>,
    /// The first broken link, if there is one. Nothing was tried after it.
    pub broken: Option<Broken>,
}

/// Something that was tried.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was tried.
    pub what: String,
    /// What came back.
    pub result: String,
    /// Whether it held, but not as it should.
    pub warning: bool,
}

/// A broken link.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Which step of the set-up it is.
    pub step: SetupStep,
    /// What was tried.
    pub tried: String,
    /// What came back.
    pub came_back: String,
    /// AADSTS numbers, if Entra refused.
    pub codes: Vec<u32>,
    /// The id under which Microsoft's support finds the request.
    pub correlation_id: Option<String>,
    /// What mends it.
    pub mend: Vec<Mend>,
    /// How long a change takes to be known everywhere, where that is more than a moment.
    pub delay: Option<&'static str>,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mend {
    /// Who does it, and why.
    pub note: String,
    /// The command, filled in with what is known. What stands between `<` and `>` is not.
    pub command: Option<String>,
}

/// An attempt that several endpoints wait for.
type SharedAttempt = Shared<BoxFuture<'static, Result<Arc<Attempt>, String>>>;

/// Examines endpoints side by side, each chain up to its first broken link, within fifteen seconds. `progress` is called
/// when a chain ends.
///
/// # Cancel safety
/// Safe: requests under way are broken off. Nothing that was asked changes anything.
pub async fn examine(
    credentials: &[CredentialSettings],
    endpoints: &[EndpointSettings],
    metrics: &Metrics,
    progress: impl Fn(&Finding),
) -> Vec<Finding> {
    // Each by itself, so that one that cannot be built does not stand in the way of the others.
    let attempts: HashMap<&CredentialName, SharedAttempt> = credentials
        .iter()
        .map(|settings| (&settings.name, attempt(settings.clone(), metrics.token().clone()).boxed().shared()))
        .collect();
    let chains = endpoints.iter().map(|endpoint| {
        let settings = credentials.iter().find(|credential| credential.name == endpoint.credential);
        let attempt = attempts.get(&endpoint.credential).cloned();
        let progress = &progress;
        async move {
            let finding = match (settings, attempt) {
                (Some(credential), Some(attempt)) => {
                    chain::Chain::new(endpoint, credential).run(attempt.await, metrics).await
                }
                _ => chain::no_credential(endpoint),
            };
            progress(&finding);
            finding
        }
    });
    join_all(chains).await
}

/// Makes one acquisition with a credential of its own. The error is what is wrong with its settings.
///
/// # Errors
/// If the credential cannot be built.
///
/// # Cancel safety
/// Safe: a request under way is broken off.
pub async fn attempt(settings: CredentialSettings, metrics: TokenMetrics) -> Result<Arc<Attempt>, String> {
    let name = settings.name.clone();
    let built = Credentials::build(&[settings], &metrics, &Handle::current());
    let credentials = built.map_err(|err| err.to_string())?;
    let attempt = credentials.attempt(&name, CREDENTIAL_TIME).await;
    attempt.map(Arc::new).ok_or_else(|| format!("there is no credential `{name}`"))
}
