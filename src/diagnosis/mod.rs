//! Finds the broken step of the cross-tenant setup. Each endpoint has a chain of checks that ends at the first failure.
//!
//! ```text
//! proof on this host ──► DNS, TCP, TLS to Entra ──► assertion ──► exchange in the endpoint's tenant ──► claims
//!                                                                                                         │
//!               authorised read ◄── /api/health ◄── DNS, TCP, TLS to the endpoint ◄───────────────────────┘
//! ```
//!
//! | file | content |
//! |---|---|
//! | `acquisition.rs` | the checks up to the claims, once for each credential |
//! | `chain.rs` | the checks of the endpoint, after those of its credential |
//! | `connectivity.rs` | name resolution, TCP and TLS to one server |
//! | `claims.rs` | the comparison of a token with the configuration |
//! | `cause.rs` | the map from a failure to the step of the setup that caused it |
//! | `remediation/` | what to do about a broken step |
//! | `finding.rs` | the report |
//!
//! Prints nothing, reads no configuration file and changes nothing.

mod acquisition;
mod cause;
mod chain;
mod claims;
mod connectivity;
mod finding;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod remediation;

use std::collections::HashMap;

use futures_util::FutureExt as _;
use futures_util::future::join_all;

pub use acquisition::Acquisition;
pub use finding::{BrokenStep, Check, Finding, Progress, Remediation, Verdict};

use crate::credential::CredentialSettings;
use crate::endpoint::EndpointSettings;
use crate::metrics::{Metrics, TokenMetrics};

/// Examines endpoints concurrently, each chain up to its first broken step, within fifteen seconds.
///
/// # Cancel safety
/// Safe: requests in flight are cancelled. None of them changes anything.
pub async fn examine(
    credentials: &[CredentialSettings],
    endpoints: &[EndpointSettings],
    metrics: &Metrics,
    progress: impl Fn(Progress<'_>),
) -> Vec<Finding> {
    // Each credential is built separately, so that one that cannot be built does not affect others.
    let acquisitions: HashMap<_, _> = credentials
        .iter()
        .map(|settings| (&settings.id, Acquisition::make(settings, metrics.token()).boxed_local().shared()))
        .collect();
    let chains = endpoints.iter().map(|endpoint| {
        let settings = credentials.iter().find(|credential| credential.id == endpoint.credential);
        let acquisition = acquisitions.get(&endpoint.credential).cloned();
        let progress = &progress;
        async move {
            let finding = match (settings, acquisition) {
                (Some(credential), Some(acquisition)) => {
                    let name = endpoint.name.as_str();
                    progress(Progress::Trying { endpoint: name, what: "obtain a token" });
                    let acquisition = acquisition.await;
                    chain::Chain::new(endpoint, credential, &acquisition, progress).run(metrics).await
                }
                _ => chain::no_credential(endpoint),
            };
            progress(Progress::Ended(&finding));
            finding
        }
    });
    join_all(chains).await
}

/// Obtains one token with a new credential, as [`examine`] does, without contacting the endpoint.
///
/// # Cancel safety
/// Safe: a request in flight is cancelled.
pub async fn acquire(
    credential: &CredentialSettings,
    endpoint: &EndpointSettings,
    metrics: &TokenMetrics,
) -> (Acquisition, Finding) {
    let acquisition = Acquisition::make(credential, metrics).await;
    let finding = chain::acquisition_only(endpoint, credential, &acquisition);
    (acquisition, finding)
}
