//! Finds the broken step of the cross-tenant setup. Each endpoint has a chain of checks that ends at the first failure.
//!
//! ```text
//! proof on this host ──► DNS, TCP, TLS to Entra ──► assertion ──► exchange in the endpoint's tenant ──► claims
//!                                                                                                         │
//!               authorised read ◄── /api/health ◄── DNS, TCP, TLS to the endpoint ◄───────────────────────┘
//!                      │
//!                      └──► delivery to a client, if asked for
//! ```
//!
//! | file | content |
//! |---|---|
//! | `acquisition.rs` | the checks up to the claims, once for each credential |
//! | `chain.rs` | the checks of the endpoint, after those of its credential |
//! | `delivery.rs` | the delivery of a message to a client |
//! | `connectivity.rs` | name resolution, TCP and TLS to one server |
//! | `claims.rs` | the comparison of a token with the configuration |
//! | `details.rs` | what is known about a broken step |
//! | `clock.rs` | times for people |
//! | `cause.rs` | the map from a failure to the step of the setup that caused it |
//! | `commands.rs` | the `az` commands of the setup |
//! | `remediation/` | what to do about a broken step |
//! | `observed.rs` | the same explanations for failures that the running gateway has observed |
//! | `failure.rs` | a failed check |
//! | `finding.rs` | the report |
//! | `causes.rs` | endpoints that have the same cause |
//!
//! Prints nothing, reads no configuration file and changes nothing.

mod acquisition;
mod cause;
mod causes;
mod chain;
mod claims;
mod clock;
pub mod commands;
mod connectivity;
mod delivery;
mod details;
mod failure;
mod finding;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod observed;
mod remediation;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::time::{Instant, timeout_at};

pub use acquisition::Acquisition;
use acquisition::NewCredentials;
pub use causes::{SharedCause, shared_causes};
pub use clock::clock;
pub use delivery::{DELIVERY_HUB, Deliver, NotAHub};
pub use finding::{BrokenStep, Check, Detail, Finding, Progress, Remediation, Verdict};
pub use observed::{explain_acquisition, explain_endpoint, explain_refused_access_key};

use crate::credential::CredentialSettings;
use crate::endpoint::{EndpointName, EndpointSettings};
use crate::metrics::{Metrics, TokenMetrics};

/// How many endpoints are examined at once. Chosen: as many as a gateway's token requests to one authority at once, by default.
const SIDE_BY_SIDE: usize = 16;
/// How long an examination takes at most. One endpoint takes up to 14.8 seconds, see `connectivity.rs`.
const TIME_LIMIT: Duration = Duration::from_millis(14_900);
/// How much longer it takes with a delivery. Each stage of a delivery that hangs takes five seconds.
const DELIVERY_TIME: Duration = Duration::from_secs(15);

/// The result of an examination.
#[derive(Clone, Debug, Default)]
pub struct Examination {
    /// The findings, in the order of the configuration.
    pub findings: Vec<Finding>,
    /// The endpoints whose examination did not end in time, in the same order.
    pub not_reached: Vec<EndpointName>,
}

/// Examines endpoints, each chain up to its first broken step, a bounded number side by side and within fifteen seconds, or
/// thirty with a delivery.
///
/// # Cancel safety
/// Safe: requests in flight are cancelled. None of them changes anything.
pub async fn examine(
    credentials: &[CredentialSettings],
    endpoints: &[Arc<EndpointSettings>],
    deliver: Deliver<'_>,
    metrics: &Metrics,
    progress: impl Fn(Progress<'_>),
) -> Examination {
    let delivery_time = if matches!(deliver, Deliver::No) { Duration::ZERO } else { DELIVERY_TIME };
    let deadline = Instant::now() + TIME_LIMIT + delivery_time;
    let settings: HashMap<_, _> = credentials.iter().map(|settings| (&settings.id, settings)).collect();
    let used: HashSet<_> = endpoints.iter().map(|endpoint| &endpoint.credential).collect();
    let used = credentials.iter().filter(|credential| used.contains(&credential.id));
    let new_credentials = NewCredentials::build(used, metrics.token());
    let acquisitions = RefCell::new(HashMap::new());
    let (settings, new_credentials, acquisitions, progress) = (&settings, &new_credentials, &acquisitions, &progress);
    let chain = |(index, endpoint)| async move {
        let endpoint: &Arc<EndpointSettings> = endpoint;
        let finding = match settings.get(&endpoint.credential) {
            Some(credential) => {
                let make = || Acquisition::make(credential, new_credentials).boxed_local().shared();
                let acquisition = acquisitions.borrow_mut().entry(&credential.id).or_insert_with(make).clone();
                progress(Progress::Trying { endpoint: endpoint.name.as_str(), what: "obtain a token" });
                let acquisition = acquisition.await;
                chain::Chain::new(endpoint, credential, &acquisition, progress).run(deliver).await
            }
            None => chain::no_credential(endpoint),
        };
        progress(Progress::Ended(&finding));
        (index, finding)
    };
    let mut ended: Vec<Option<Finding>> = endpoints.iter().map(|_| None).collect();
    let mut chains = Box::pin(stream::iter(endpoints.iter().enumerate()).map(chain).buffer_unordered(SIDE_BY_SIDE));
    while let Ok(Some((index, finding))) = timeout_at(deadline, chains.next()).await {
        if let Some(ended) = ended.get_mut(index) {
            *ended = Some(finding);
        }
    }
    let missing = endpoints.iter().zip(&ended).filter(|(_, finding)| finding.is_none());
    let not_reached = missing.map(|(endpoint, _)| endpoint.name.clone()).collect();
    Examination { findings: ended.into_iter().flatten().collect(), not_reached }
}

/// Obtains one token with a new credential, as [`examine`] does, without contacting the endpoint.
///
/// # Cancel safety
/// Safe: a request in flight is cancelled.
pub async fn acquire(
    credential: &CredentialSettings,
    endpoint: &Arc<EndpointSettings>,
    metrics: &TokenMetrics,
) -> (Acquisition, Finding) {
    let new_credentials = NewCredentials::build([credential], metrics);
    let acquisition = Acquisition::make(credential, &new_credentials).await;
    let finding = chain::acquisition_only(endpoint, credential, &acquisition);
    (acquisition, finding)
}
