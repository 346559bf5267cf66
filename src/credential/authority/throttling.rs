//! Pauses the token requests of a tenant or an app that Entra throttles, so that a fleet of tenants does not prolong it.
//!
//! Status 429 with AADSTS90055 is about the tenant. Any other 429 may be about the tenant or about the app: it pauses the app once
//! several tenants got one within a short time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::credential::error::{CredentialError, OtherRequestError, Relation};
use crate::credential::response_error::{ResponseError, ThrottledParty};
use crate::credential::schedule;
use crate::metrics::{TokenErrorReason, TokenMetrics};
use crate::runbook::Section;

/// How many tenants of an app must be throttled within [`WINDOW`] to pause the app.
const TENANTS: usize = 3;

/// The time within which the responses count. Chosen: a burst of requests at start takes about as long.
const WINDOW: Duration = Duration::from_secs(10);

/// The paused tenants and apps of one authority.
#[derive(Debug)]
pub(super) struct Throttling {
    state: Mutex<State>,
    metrics: TokenMetrics,
}

#[derive(Debug, Default)]
struct State {
    tenants: HashMap<String, Pause>,
    apps: HashMap<String, App>,
}

/// The throttled requests of an app.
#[derive(Debug, Default)]
struct App {
    /// The tenants that got status 429 last, and when.
    recent: Vec<(String, Instant)>,
    pause: Option<Pause>,
}

#[derive(Clone, Debug)]
struct Pause {
    until: Instant,
    cause: Arc<CredentialError>,
    relation: Relation,
}

impl Pause {
    fn error(&self) -> CredentialError {
        let mut retry_at = self.until;
        if self.relation == Relation::AppThrottled {
            // The tenants of the app must not return all at once.
            retry_at += self.until.saturating_duration_since(Instant::now()).mul_f64(0.1 * fastrand::f64());
        }
        OtherRequestError { cause: Arc::clone(&self.cause), relation: self.relation, retry_at: Some(retry_at) }.into()
    }

    fn is_over(&self) -> bool {
        self.until <= Instant::now()
    }
}

impl Throttling {
    pub(super) fn new(metrics: TokenMetrics) -> Self {
        Self { state: Mutex::default(), metrics }
    }

    /// Fails if the requests of the tenant or of the app are paused.
    pub(super) fn check(&self, tenant: &str, client_id: &str) -> Result<(), CredentialError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let app = state.apps.get(client_id).and_then(|app| app.pause.as_ref());
        let pause = app.into_iter().chain(state.tenants.get(tenant)).find(|pause| !pause.is_over());
        pause.map_or(Ok(()), |pause| Err(pause.error()))
    }

    /// Starts a pause if the error of a token request is a reason for one. Returns the error of the request.
    pub(super) fn failed(&self, tenant: &str, client_id: &str, error: CredentialError) -> CredentialError {
        let Some(party) = error.response().and_then(ResponseError::throttled_party) else { return error };
        let until = Instant::now() + schedule::pause(error.retry_after());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.remove_expired();
        match party {
            ThrottledParty::Tenant => {
                let pause = Pause { until, cause: Arc::new(error), relation: Relation::TenantThrottled };
                let error = pause.error();
                if state.tenants.insert(tenant.to_owned(), pause).is_none() {
                    self.metrics.throttled("tenant");
                }
                error
            }
            ThrottledParty::Unknown => {
                let app = state.apps.entry(client_id.to_owned()).or_default();
                app.recent.retain(|(name, _)| name != tenant);
                app.recent.push((tenant.to_owned(), Instant::now()));
                if app.recent.len() < TENANTS {
                    return error;
                }
                let pause = Pause { until, cause: Arc::new(error), relation: Relation::AppThrottled };
                let error = pause.error();
                if app.pause.is_none() {
                    self.metrics.throttled("app");
                    let seconds = until.saturating_duration_since(Instant::now()).as_secs();
                    let section = Section::Token(TokenErrorReason::Throttled);
                    tracing::warn!(
                        client_id,
                        retry_in_secs = seconds,
                        tenants = TENANTS,
                        side = "credential",
                        remedy = section.remedy(),
                        runbook = %section,
                        "Entra throttles an app in several tenants: its token requests pause"
                    );
                }
                // A request that was under way when the pause began can only prolong it.
                let later = app.pause.as_ref().is_none_or(|pause| pause.until < until);
                if later {
                    app.pause = Some(pause);
                }
                error
            }
        }
    }
}

impl State {
    fn remove_expired(&mut self) {
        self.tenants.retain(|_, pause| !pause.is_over());
        self.apps.retain(|_, app| {
            app.recent.retain(|(_, at)| at.elapsed() < WINDOW);
            app.pause.take_if(|pause| pause.is_over());
            app.pause.is_some() || !app.recent.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::metrics::MetricRegistry;

    fn throttling() -> Throttling {
        Throttling::new(TokenMetrics::register(&mut MetricRegistry::default()).unwrap())
    }

    fn status_429(code: u32, retry_after: u64) -> CredentialError {
        Box::new(ResponseError {
            codes: vec![code],
            retry_after: Some(Duration::from_secs(retry_after)),
            ..ResponseError::of_entra(StatusCode::TOO_MANY_REQUESTS)
        })
        .into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_tenant_pauses_alone() {
        let throttling = throttling();
        let error = throttling.failed("contoso", "app", status_429(90_055, 20));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(20)));
        for tenant in ["a", "b", "c"] {
            throttling.failed(tenant, "app", status_429(90_055, 20));
        }
        let error = throttling.check("contoso", "another-app").unwrap_err();
        assert!(error.to_string().contains("429") && error.to_string().contains("this tenant"), "{error}");
        throttling.check("fabrikam", "app").unwrap();
        tokio::time::advance(Duration::from_secs(20)).await;
        throttling.check("contoso", "app").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn three_throttled_tenants_within_ten_seconds_pause_the_app() {
        let throttling = throttling();
        for _ in 0..3 {
            throttling.failed("a", "app", status_429(0, 30));
        }
        throttling.failed("b", "app", status_429(0, 30));
        throttling.check("d", "app").unwrap();
        throttling.failed("c", "app", status_429(0, 30));
        let error = throttling.check("d", "app").unwrap_err();
        assert!((30..=33).contains(&error.retry_after().unwrap().as_secs()), "{error:?}");
        assert!(error.to_string().contains("several tenants"), "{error}");
        let other = throttling.check("e", "app").unwrap_err();
        assert_ne!(other.retry_after(), error.retry_after(), "the tenants return at different times");
        throttling.check("d", "another-app").unwrap();
        tokio::time::advance(Duration::from_secs(30)).await;
        throttling.check("d", "app").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn three_throttled_tenants_in_a_longer_time_pause_nobody() {
        let throttling = throttling();
        for tenant in ["a", "b", "c", "d"] {
            throttling.failed(tenant, "app", status_429(0, 30));
            tokio::time::advance(Duration::from_secs(6)).await;
        }
        throttling.check("e", "app").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_lasts_at_most_five_minutes_and_at_least_a_second() {
        let throttling = throttling();
        for (retry_after, expected) in [(7200, 300), (0, 1)] {
            let error = throttling.failed("contoso", "app", status_429(90_055, retry_after));
            assert_eq!(error.retry_after(), Some(Duration::from_secs(expected)));
        }
    }
}
