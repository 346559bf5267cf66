//! Health probes: `HEAD /api/health` without a token, as the Management SDK sends them. They detect failure and recovery of
//! endpoints that receive no calls.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request};
use http_body_util::Empty;
use tokio::task::JoinHandle;

use super::{Endpoint, UnpooledError};

/// The timeout of a probe. Source: the SDK's `RestHealthCheckService` has two seconds.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// The factor by which the probe interval is shorter while the circuit is open.
const OPEN_CIRCUIT_FACTOR: u32 = 6;
/// The path of a probe. Any API version with this path works.
const PROBE_PATH: &str = "/api/health?api-version=2022-06-01";

/// The tasks that probe a set of endpoints. Dropping it stops them.
#[derive(Debug, Default)]
pub struct Probes {
    running: Vec<Probing>,
}

/// The task that probes one endpoint. Dropping it stops the task.
#[derive(Debug)]
struct Probing {
    endpoint: Arc<Endpoint>,
    task: JoinHandle<()>,
}

impl Drop for Probing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Probes {
    /// Replaces the set of probed endpoints. The tasks of endpoints in both sets continue. Must be called on the control runtime.
    pub fn set_endpoints(&mut self, endpoints: &[Arc<Endpoint>]) {
        self.running.retain(|probing| endpoints.iter().any(|endpoint| Arc::ptr_eq(endpoint, &probing.endpoint)));
        for endpoint in endpoints {
            if !self.running.iter().any(|probing| Arc::ptr_eq(endpoint, &probing.endpoint)) {
                let task = tokio::spawn(keep_probing(Arc::clone(endpoint)));
                self.running.push(Probing { endpoint: Arc::clone(endpoint), task });
            }
        }
    }
}

async fn keep_probing(endpoint: Arc<Endpoint>) {
    let interval = endpoint.settings().health.probe_interval;
    loop {
        if let Some(ok) = probe(&endpoint).await {
            endpoint.health().record_probe(ok);
        }
        // The jitter keeps replicas that start together from probing together.
        let jitter = 0.9 + fastrand::f32() * 0.2;
        tokio::time::sleep(pause(interval, endpoint.health().is_closed()).mul_f32(jitter)).await;
    }
}

/// Returns the pause before the next probe, without jitter.
fn pause(interval: Duration, is_circuit_closed: bool) -> Duration {
    if is_circuit_closed { interval } else { interval / OPEN_CIRCUIT_FACTOR }
}

/// Returns whether the endpoint responds with a status below 500; `None` if the gateway's host has run out of a resource.
async fn probe(endpoint: &Endpoint) -> Option<bool> {
    let request = Request::builder().method(Method::HEAD).uri(PROBE_PATH).body(Empty::new());
    let request = request.ok()?;
    match endpoint.send_unpooled(request, PROBE_TIMEOUT).await {
        Ok(response) => Some(!response.status().is_server_error()),
        Err(err) => {
            let is_shortage = matches!(&err, UnpooledError::Connect(err) if err.is_local_shortage());
            let cause = std::error::Error::source(&err).map(tracing::field::display);
            tracing::debug!(endpoint = %endpoint.name(), error = %err, cause, "a health probe got no response");
            (!is_shortage).then_some(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::tests::{endpoint, settings};

    #[test]
    fn probes_are_more_frequent_while_the_circuit_is_open() {
        let minute = Duration::from_secs(60);
        assert_eq!((pause(minute, true), pause(minute, false)), (minute, Duration::from_secs(10)));
    }

    /// Waits until no task probes the endpoint.
    async fn wait_until_unused(endpoint: &Arc<Endpoint>) {
        let unused = async {
            while Arc::strong_count(endpoint) > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), unused).await.expect("the endpoint is still probed");
    }

    #[tokio::test]
    async fn endpoints_are_probed_only_while_they_are_in_the_set() {
        // Nothing listens there.
        let (east, west) = (endpoint(&settings(9)), endpoint(&settings(9)));
        let mut probes = Probes::default();
        probes.set_endpoints(&[Arc::clone(&east), Arc::clone(&west)]);
        assert!(Arc::strong_count(&east) > 1 && Arc::strong_count(&west) > 1);
        probes.set_endpoints(&[Arc::clone(&west)]);
        wait_until_unused(&east).await;
        assert!(Arc::strong_count(&west) > 1);
        drop(probes);
        wait_until_unused(&west).await;
    }
}
