//! Every metric of the gateway, with its labels and buckets, in a registry of its own.
//!
//! Label values are names from the configuration and closed enums, so the configuration bounds the number of series, whatever
//! callers send. Each worker counts in thread-local memory ([`WorkerMetrics`]) and flushes when the metrics are scraped, so
//! the request path writes no memory that cores share.
//!
//! A new metric is a field and its registration in the struct that holds it ([`EndpointMetrics`], [`TokenMetrics`] or
//! `SharedMetrics` for what workers count), and a method that records it.

mod connections;
mod endpoint;
mod exposition;
mod labels;
mod local;
mod log;
mod prune;
mod registry;
mod shared;
mod token;
mod worker;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use tokio::sync::{mpsc, oneshot};

pub use connections::{ConnectionCount, ConnectionGauge};
pub use endpoint::EndpointMetrics;
pub use exposition::Exposition;
pub use labels::{
    BreakerState, ConnectionState, ErrorKind, QueueOutcome, RetryOutcome, TokenErrorReason, TokenOutcome, TokenStage,
    UnauthorizedAction, UpstreamErrorReason,
};
use log::LogMetrics;
pub use log::LostLine;
pub use prune::KnownNames;
pub use registry::MetricRegistry;
use shared::SharedMetrics;
pub use token::TokenMetrics;
pub use worker::{CompletedRequest, InFlight, LabelNames, RetryBudgetShare, UpstreamResponse, WorkerMetrics};

/// How long a scrape waits for the workers to flush. The counts of a worker that takes longer are missing from this scrape
/// and part of a later one.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(250);

/// The metrics of one gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: MetricRegistry,
    token: TokenMetrics,
    endpoints: EndpointMetrics,
    shared: SharedMetrics,
    draining: IntGauge,
    config_hash: IntGaugeVec,
    reloads: IntCounterVec,
    last_reload: IntGauge,
    last_reload_success: Gauge,
    accept_errors: IntCounter,
    body_memory: IntGauge,
    bodies_not_kept: IntCounter,
    log: LogMetrics,
    workers: Mutex<Vec<mpsc::UnboundedSender<FlushRequest>>>,
    /// `None` before the first configuration.
    known: Mutex<Option<KnownNames>>,
}

/// A request to a worker to flush its counts. Sending on it or dropping it ends the wait.
pub type FlushRequest = oneshot::Sender<()>;

impl Metrics {
    /// Registers the metrics of one gateway, process metrics included.
    ///
    /// # Errors
    /// If two metrics have the same name, which a test excludes.
    pub fn new() -> prometheus::Result<Self> {
        let mut registry = MetricRegistry::default();
        registry.process()?;
        let build =
            registry.gauges("build_info", "Version and TLS backend of the running build.", &["version", "tls"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), "rustls-aws-lc"]).set(1);
        Ok(Self {
            token: TokenMetrics::register(&mut registry)?,
            endpoints: EndpointMetrics::register(&mut registry)?,
            shared: SharedMetrics::register(&mut registry)?,
            log: LogMetrics::register(&mut registry)?,
            draining: registry.gauge("draining", "1 while the gateway is stopping.")?,
            config_hash: registry.gauges("config_hash_info", "The configuration in force.", &["hash"])?,
            reloads: registry.counters(
                "config_reloads_total",
                "Configurations that were loaded while serving.",
                &["result"],
            )?,
            last_reload: registry
                .gauge("config_last_reload_successful", "1 if the last configuration load succeeded.")?,
            last_reload_success: registry.float_gauge(
                "config_last_reload_success_timestamp_seconds",
                "When a configuration was last accepted.",
            )?,
            accept_errors: registry
                .counter("accept_errors_total", "Connections of callers that could not be accepted.")?,
            body_memory: registry.gauge(
                "request_body_memory_bytes",
                "Memory taken by request bodies that are kept for sending them again, beyond the first 16 KiB of each.",
            )?,
            bodies_not_kept: registry.counter(
                "request_bodies_not_kept_total",
                "Request bodies that could not have been sent again, since limits.body_memory was used up.",
            )?,
            workers: Mutex::default(),
            known: Mutex::default(),
            registry,
        })
    }

    /// Returns the metrics of the credentials.
    pub fn token(&self) -> &TokenMetrics {
        &self.token
    }

    /// Returns the metrics of the endpoints' health.
    pub fn endpoints(&self) -> &EndpointMetrics {
        &self.endpoints
    }

    /// Returns the counter of connections that could not be accepted.
    pub fn accept_errors(&self) -> &IntCounter {
        &self.accept_errors
    }

    /// Returns the gauge of the memory that request bodies take. Workers add to it directly.
    pub fn body_memory(&self) -> &IntGauge {
        &self.body_memory
    }

    /// Returns the counter of request bodies that were not kept.
    pub fn bodies_not_kept(&self) -> &IntCounter {
        &self.bodies_not_kept
    }

    /// Records that the gateway is stopping.
    pub fn draining(&self) {
        self.draining.set(1);
    }

    /// Records the configuration in force. Series of names that are not among `names` are pruned from now on.
    pub fn config_in_force(&self, hash: &str, names: KnownNames) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(names);
        self.last_reload.set(1);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.last_reload_success.set(now.as_secs_f64());
        self.config_hash.reset();
        self.config_hash.with_label_values(&[hash]).set(1);
    }

    /// Counts a configuration that was loaded while serving.
    pub fn reloaded(&self, accepted: bool) {
        self.reloads.with_label_values(&[if accepted { "success" } else { "failure" }]).inc();
        self.last_reload.set(i64::from(accepted));
    }

    /// Registers a worker. It must call [`WorkerMetrics::flush`] for each request that it receives.
    pub fn register_worker(&self) -> mpsc::UnboundedReceiver<FlushRequest> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    /// Returns all metrics in a text format, including what the workers have counted until now.
    ///
    /// # Errors
    /// If a metric cannot be encoded.
    ///
    /// # Cancel safety
    /// Safe; counts that were flushed are kept.
    pub async fn exposition(&self, format: Exposition) -> prometheus::Result<Vec<u8>> {
        self.flush_workers().await;
        self.log.refresh();
        let families = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            self.registry.gather(known.as_ref())
        };
        format.encode(&families)
    }

    async fn flush_workers(&self) {
        let waits: Vec<_> = {
            let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
            workers.retain(|worker| !worker.is_closed());
            let request = |worker: &mpsc::UnboundedSender<FlushRequest>| {
                let (done, wait) = oneshot::channel();
                worker.send(done).is_ok().then_some(wait)
            };
            workers.iter().filter_map(request).collect()
        };
        let workers = waits.len();
        // A worker that ends drops its sender, which ends the wait as well.
        let all = futures_util::future::join_all(waits);
        let _elapsed = tokio::time::timeout(FLUSH_TIMEOUT, all).await;
        self.shared.refresh_retry_budgets(workers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_scrape_includes_what_a_worker_has_just_counted() {
        let metrics = Metrics::new().unwrap();
        let names =
            LabelNames { routes: vec!["chat".into()], endpoints: vec!["east".into()], operations: vec!["hub_send"] };
        let worker = WorkerMetrics::new(&metrics, names);
        let mut requests = metrics.register_worker();
        worker.rejected(ErrorKind::UnknownPath);
        worker.request_ended(&CompletedRequest {
            route: Some(0),
            operation: Some(0),
            code: 202,
            ..CompletedRequest::default()
        });
        worker.request_ended(&CompletedRequest { code: 299, ..CompletedRequest::default() });
        let serve = async {
            let request = requests.recv().await.unwrap();
            worker.flush();
            request.send(()).unwrap();
        };
        let (text, ()) = tokio::join!(metrics.exposition(Exposition::Prometheus), serve);
        let text = String::from_utf8(text.unwrap()).unwrap();
        for line in [
            r#"signalr_gateway_rejected_total{reason="unknown_path"} 1"#,
            r#"signalr_gateway_requests_total{code="202",operation="hub_send",route="chat"} 1"#,
            r#"signalr_gateway_requests_total{code="_other",operation="_other",route="_none"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_worker_does_not_block_a_scrape() {
        let metrics = Metrics::new().unwrap();
        let _never_flushes = metrics.register_worker();
        assert!(metrics.exposition(Exposition::Prometheus).await.is_ok());
    }
}
