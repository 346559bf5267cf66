//! The tasks of canaries: each sends a message to a client of its own at intervals, over one connection that it keeps open.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::authorization::Authorization;
use super::client::Client;
use super::error::DeliveryError;
use super::status::{CanaryFailure, Change, SharedStatus};
use crate::credential::RequestUrl;
use crate::endpoint::{CanarySettings, Endpoint, EndpointName};
use crate::redact::in_one_line;
use crate::runbook::{Condition, Section};

/// How long a message may take to arrive after the REST API has accepted it. Chosen: it takes milliseconds; a service that is
/// scaled or updated takes seconds.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a round waits for a token of the endpoint's credential.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest delay of the first round. Chosen: spreads the canaries of replicas that start together.
const FIRST_ROUND: Duration = Duration::from_secs(5);
/// The pause after the first failure. It doubles with each further one, up to the interval.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The runbook's section about a canary that fails.
const CANARY_FAILED: Section = Section::Condition(Condition::CanaryFailed);

/// A canary that the configuration wants.
#[derive(Debug)]
pub struct WantedCanary {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Its settings.
    pub settings: CanarySettings,
    /// Whether the endpoint's credential is an access key.
    pub is_access_key: bool,
}

/// The statuses of the canaries in force, by endpoint.
pub type CanaryStatuses = HashMap<EndpointName, Arc<SharedStatus>>;

/// The canaries in force. Dropping it stops them.
#[derive(Debug, Default)]
pub struct Canaries {
    running: HashMap<EndpointName, Running>,
}

#[derive(Debug)]
struct Running {
    wanted: WantedCanary,
    status: Arc<SharedStatus>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Canaries {
    /// Replaces the canaries. Those of unchanged endpoints with unchanged settings go on. Must be called on the control runtime.
    pub fn set(&mut self, wanted: impl IntoIterator<Item = WantedCanary>) {
        let mut before = std::mem::take(&mut self.running);
        for wanted in wanted {
            let name = wanted.endpoint.name().clone();
            let kept = before.remove(&name).filter(|running| running.wanted.is_same(&wanted));
            self.running.insert(name, kept.unwrap_or_else(|| Running::start(wanted)));
        }
    }

    /// Returns the statuses.
    pub fn statuses(&self) -> CanaryStatuses {
        self.running.iter().map(|(name, running)| (name.clone(), Arc::clone(&running.status))).collect()
    }
}

impl Running {
    fn start(wanted: WantedCanary) -> Self {
        let status = SharedStatus::new(&wanted.settings);
        let task = Task {
            endpoint: Arc::clone(&wanted.endpoint),
            settings: wanted.settings.clone(),
            is_access_key: wanted.is_access_key,
            status: Arc::clone(&status),
            client: None,
        };
        Self { wanted, status, task: tokio::spawn(task.run()) }
    }
}

impl WantedCanary {
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.endpoint, &other.endpoint)
            && (&self.settings, self.is_access_key) == (&other.settings, other.is_access_key)
    }
}

/// The task of one canary.
struct Task {
    endpoint: Arc<Endpoint>,
    settings: CanarySettings,
    is_access_key: bool,
    status: Arc<SharedStatus>,
    /// The client that is connected.
    client: Option<Client>,
}

impl Task {
    async fn run(mut self) {
        let interval = self.settings.interval;
        sleep(interval.min(FIRST_ROUND).mul_f32(fastrand::f32())).await;
        let mut failures = 0;
        loop {
            let outcome = Box::pin(self.round()).await;
            failures = if outcome.is_ok() { 0 } else { failures + 1 };
            self.record(&outcome);
            let pause = pause(interval, failures).mul_f32(0.9 + fastrand::f32() * 0.2);
            self.wait_until(Instant::now() + pause).await;
        }
    }

    /// Sends a message to the client, which connects first if it is not connected. Keeps the client if the message arrives.
    async fn round(&mut self) -> Result<Duration, DeliveryError> {
        let endpoint = Arc::clone(&self.endpoint);
        let bearer = |url: RequestUrl<'_>| endpoint.bearer().current(url);
        if bearer(RequestUrl { origin: endpoint.origin(), path: "/" }).is_none() {
            let acquired = timeout(TOKEN_TIMEOUT, endpoint.bearer().acquire()).await;
            acquired.unwrap_or(Ok(())).map_err(|err| DeliveryError::NoBearer(Some(err.into())))?;
        }
        let authorization = Authorization { bearer: &bearer, is_access_key: self.is_access_key };
        if let Some(mut client) = self.client.take() {
            match client.deliver(&endpoint, &authorization, ARRIVAL_TIMEOUT, |_| ()).await {
                Ok(took) => {
                    self.client = Some(client);
                    return Ok(took);
                }
                // The service closes connections when it moves them. Clients of applications reconnect as well.
                Err(DeliveryError::Closed { reason, .. }) => self.report_closed(reason.as_deref()),
                Err(err) => return Err(err),
            }
        }
        let mut client = Client::connect(&endpoint, &self.settings.hub, &authorization, |_| ()).await?;
        let took = client.deliver(&endpoint, &authorization, ARRIVAL_TIMEOUT, |_| ()).await?;
        self.client = Some(client);
        Ok(took)
    }

    /// Keeps the connection alive until the next round is due. If it is closed, the next round connects again.
    async fn wait_until(&mut self, due: Instant) {
        if let Some(client) = &mut self.client {
            let closed = tokio::select! {
                closed = client.keep_alive() => closed,
                () = sleep_until(due) => return,
            };
            self.client = None;
            self.report_closed(Some(&in_one_line(&closed)));
        }
        sleep_until(due).await;
    }

    fn report_closed(&self, reason: Option<&str>) {
        tracing::debug!(endpoint = %self.endpoint.name(), reason, "the connection of a canary was closed");
    }

    fn record(&self, outcome: &Result<Duration, DeliveryError>) {
        let endpoint = self.endpoint.name();
        let hub = &*self.settings.hub;
        let failure = outcome.as_ref().map(|took| *took).map_err(CanaryFailure::from);
        match (self.status.record(failure.clone(), SystemTime::now()), failure) {
            (Change::Failed, Err(CanaryFailure { stage, problem, remedy })) => tracing::warn!(
                %endpoint,
                hub,
                stage,
                error.cause = problem,
                fix = remedy,
                side = "endpoint",
                remedy = CANARY_FAILED.remedy(),
                runbook = %CANARY_FAILED,
                "the canary fails: a message to a client of the endpoint did not arrive"
            ),
            (Change::Recovered(after), _) => {
                let failed_for = humantime::format_duration(Duration::from_secs(after.as_secs()));
                tracing::info!(%endpoint, hub, %failed_for, "the canary's messages arrive again");
            }
            (Change::Failed | Change::None, Ok(took)) => {
                tracing::debug!(%endpoint, hub, took_ms = took.as_secs_f64() * 1000.0, "a canary's message arrived");
            }
            (Change::None, Err(CanaryFailure { stage, problem, .. })) => {
                tracing::debug!(%endpoint, hub, stage, error.cause = problem, "a canary's message did not arrive");
            }
        }
    }
}

/// Returns the pause after a round, without jitter.
fn pause(interval: Duration, failures: u32) -> Duration {
    match failures.checked_sub(1) {
        None => interval,
        Some(further) => FIRST_PAUSE.saturating_mul(1 << further.min(16)).min(interval),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_more_frequent_after_failures_but_never_rarer_than_the_interval() {
        let seconds = Duration::from_secs;
        let pauses = [0, 1, 2, 3, 4, 5, 100].map(|failures| pause(seconds(60), failures));
        assert_eq!(pauses, [60, 5, 10, 20, 40, 60, 60].map(seconds));
    }
}
