//! Which step of the cross-tenant set-up is broken: one chain of checks for each endpoint, ended at its first broken link.
//!
//! ```text
//! proof on this host ──► DNS, TCP, TLS to Entra ──► assertion ──► exchange in the endpoint's tenant ──► claims
//!                                                                                                         │
//!                authorised read ◄── /api/health ◄── DNS, TCP, TLS to the endpoint ◄──────────────────────┘
//! ```
//!
//! `acquisition.rs` follows the upper half, once for each credential, `chain.rs` the lower, `reach.rs` tries the way to a
//! server. `verdict.rs` says which step a failure is about, `mend.rs` what mends it, `claims.rs` holds a token against
//! the configuration. Prints nothing and reads no configuration file.

mod acquisition;
mod chain;
mod claims;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod mend;
mod reach;
mod verdict;

use std::collections::HashMap;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;

pub use acquisition::Acquisition;

use crate::credential::{CredentialSettings, SetupStep};
use crate::endpoint::EndpointSettings;
use crate::metrics::{Metrics, TokenMetrics};

/// How long the credentials may take. Chosen: a request to Entra that hangs is given up after ten seconds, and what it
/// was is still seen.
const CREDENTIAL_TIME: Duration = Duration::from_millis(10_300);

/// How long the way to a server may take in all, and how long each question to an endpoint. The way, its health and a read,
/// and the credential before them stay below fifteen seconds.
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
    /// The first broken link, if there is one. What comes after it is not shown.
    pub broken: Option<Broken>,
}

/// Something that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was tried, or the claim that was looked at.
    pub what: String,
    /// What came back.
    pub result: String,
    /// What the configuration expects, if it says.
    pub expected: Option<String>,
    /// What comes of it.
    pub verdict: Verdict,
}

/// What comes of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As expected.
    Good,
    /// Nothing is expected; for reading.
    Shown,
    /// Not as expected, in a way that may do all the same.
    Odd,
    /// Not as expected.
    Wrong,
}

impl Check {
    fn held(what: impl Into<String>, result: impl Into<String>) -> Self {
        Self { what: what.into(), result: result.into(), expected: None, verdict: Verdict::Good }
    }

    fn odd(what: impl Into<String>, result: impl Into<String>) -> Self {
        Self { verdict: Verdict::Odd, ..Self::held(what, result) }
    }
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
    /// Entra's own words, if it refused.
    pub description: Option<String>,
    /// AADSTS numbers, if Entra refused.
    pub codes: Vec<u32>,
    /// The id under which Microsoft's support finds the request.
    pub correlation_id: Option<String>,
    /// The id of Entra's answer.
    pub trace_id: Option<String>,
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

/// What the examination is at.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// An endpoint's chain has come to this.
    Trying {
        /// The endpoint's configured name.
        endpoint: &'a str,
        /// What is tried now.
        what: &'a str,
    },
    /// An endpoint's chain has ended.
    Ended(&'a Finding),
}

/// Examines endpoints side by side, each chain up to its first broken link, within fifteen seconds.
///
/// # Cancel safety
/// Safe: requests under way are broken off. Nothing that was asked changes anything.
pub async fn examine(
    credentials: &[CredentialSettings],
    endpoints: &[EndpointSettings],
    metrics: &Metrics,
    progress: impl Fn(Progress<'_>),
) -> Vec<Finding> {
    // Each by itself, so that one that cannot be built does not stand in the way of the others.
    let acquisitions: HashMap<_, _> = credentials
        .iter()
        .map(|settings| (&settings.name, Acquisition::make(settings, metrics.token()).boxed_local().shared()))
        .collect();
    let chains = endpoints.iter().map(|endpoint| {
        let settings = credentials.iter().find(|credential| credential.name == endpoint.credential);
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

/// Makes one acquisition with a credential of its own, as [`examine`] does for the endpoint, and leaves the endpoint alone.
///
/// # Cancel safety
/// Safe: a request under way is broken off.
pub async fn acquire(
    credential: &CredentialSettings,
    endpoint: &EndpointSettings,
    metrics: &TokenMetrics,
) -> (Acquisition, Finding) {
    let acquisition = Acquisition::make(credential, metrics).await;
    let finding = chain::without_endpoint(endpoint, credential, &acquisition);
    (acquisition, finding)
}
