//! Health probes: `HEAD /api/health` without a token, as the Management SDK does. They detect failure and recovery of endpoints
//! that get no calls.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request};
use http_body_util::Empty;
use tokio::task::JoinHandle;

use super::{Endpoint, UnpooledError};

/// The timeout of a probe. Source: the SDK's `RestHealthCheckService` gives it two seconds.
const PROBE_TIME: Duration = Duration::from_secs(2);
/// The factor by which an endpoint with an open circuit is probed more often.
const OPEN_CIRCUIT_FACTOR: u32 = 6;
/// The path of a probe; any API version that has it works.
const PROBE_PATH: &str = "/api/health?api-version=2022-06-01";

/// The probes of a set of endpoints. They stop when it is dropped.
#[derive(Debug, Default)]
pub struct Probes {
    running: Vec<Probing>,
}

/// The probes of one endpoint, until it is dropped.
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
    /// Probes exactly these endpoints from now on. Endpoints that are probed already continue. Call it on the control runtime.
    pub fn set_endpoints(&mut self, endpoints: &[Arc<Endpoint>]) {
        self.running.retain(|probing| endpoints.iter().any(|endpoint| Arc::ptr_eq(endpoint, &probing.endpoint)));
        for endpoint in endpoints {
            if !self.running.iter().any(|probing| Arc::ptr_eq(endpoint, &probing.endpoint)) {
                endpoint.health().announce();
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
            endpoint.health().probed(ok);
        }
        let pause = if endpoint.health().is_closed() { interval } else { interval / OPEN_CIRCUIT_FACTOR };
        // Jitter: replicas that started together do not probe together.
        tokio::time::sleep(pause.mul_f32(0.9 + fastrand::f32() * 0.2)).await;
    }
}

/// Returns whether the endpoint answers with a status below 500. `None` if the gateway's host lacks what a connection needs.
async fn probe(endpoint: &Endpoint) -> Option<bool> {
    let request = Request::builder().method(Method::HEAD).uri(PROBE_PATH).body(Empty::new());
    let request = request.ok()?;
    match endpoint.send_unpooled(request, PROBE_TIME).await {
        Ok(answer) => Some(!answer.status().is_server_error()),
        Err(err) => {
            let is_shortage = matches!(&err, UnpooledError::Connect(err) if err.is_shortage_here());
            let cause = std::error::Error::source(&err).map(tracing::field::display);
            tracing::debug!(endpoint = %endpoint.name(), error = %err, cause, "a health probe was not answered");
            (!is_shortage).then_some(false)
        }
    }
}
