//! Every metric of the gateway, its labels and its buckets, in a registry of its own.
//!
//! Label values come from closed enums and configured names alone, so the number of series is bounded by the
//! configuration whatever callers send. Workers count in memory of their own ([`WorkerMetrics`]) and hand their
//! counts over when somebody scrapes, so the request path shares nothing between cores.

mod endpoint;
mod exposition;
mod labels;
mod log;
mod stale;
mod token;
mod worker;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus::core::Collector;
use prometheus::proto::{LabelPair, MetricFamily};
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use tokio::sync::{mpsc, oneshot};

pub use endpoint::EndpointMetrics;
pub use exposition::Exposition;
pub use labels::{
    BreakerState, ConnectionState, ErrorKind, QueueOutcome, RetryOutcome, TokenErrorReason, TokenOutcome, TokenStage,
    UnauthorizedAction, UpstreamErrorReason,
};
use log::LogMetrics;
pub use log::LostLine;
pub use stale::KnownNames;
use stale::Vector;
pub use token::TokenMetrics;
pub use worker::{
    ConnectionCount, ConnectionGauge, InFlight, Names, RequestRecord, RetryBudgetShare, UpstreamRecord, WorkerMetrics,
};

/// How long a scrape waits for the workers' counts. A worker that is busier than that is scraped a little stale.
const FLUSH_PATIENCE: Duration = Duration::from_millis(250);

/// The metrics of one gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    token: TokenMetrics,
    endpoints: EndpointMetrics,
    shared: SharedMetrics,
    /// `signalr_gateway_draining`.
    draining: IntGauge,
    /// `signalr_gateway_config_hash_info`.
    config_hash: IntGaugeVec,
    reloads: IntCounterVec,
    last_reload: IntGauge,
    last_reload_success: Gauge,
    accept_errors: IntCounter,
    body_memory: IntGauge,
    bodies_not_kept: IntCounter,
    log: LogMetrics,
    workers: Mutex<Vec<mpsc::UnboundedSender<FlushRequest>>>,
    /// `None` until there is a configuration.
    known: Mutex<Option<KnownNames>>,
}

/// A wish that a worker hands over its counts; dropping or sending ends the wait.
pub type FlushRequest = oneshot::Sender<()>;

/// The vectors that the workers' counts end in.
#[derive(Clone, Debug)]
struct SharedMetrics {
    requests: IntCounterVec,
    request_duration: HistogramVec,
    overhead: Histogram,
    in_flight: IntGauge,
    request_body: Histogram,
    response_body: Histogram,
    rejected: IntCounterVec,
    upstream_requests: IntCounterVec,
    upstream_duration: HistogramVec,
    upstream_errors: IntCounterVec,
    upstream_connections: IntGaugeVec,
    upstream_connects: IntCounterVec,
    retries: IntCounterVec,
    token_wait: Histogram,
    unauthorized: IntCounterVec,
    fan_out_legs: IntCounterVec,
    fan_out_partial: IntCounterVec,
    fan_out_repeated: IntCounterVec,
    listener_queue: IntCounterVec,
    endpoint_queue: IntCounterVec,
    rate_limited: IntCounterVec,
    client_rate_limited: IntCounterVec,
    /// What is left of the retry budgets of all workers together. Not shown as it is.
    retry_saved: GaugeVec,
    retry_budget: GaugeVec,
}

impl SharedMetrics {
    /// Returns the metrics that have series for configured names.
    fn vectors(&self) -> Vec<Box<dyn Vector>> {
        vec![
            Box::new(self.requests.clone()),
            Box::new(self.upstream_requests.clone()),
            Box::new(self.upstream_duration.clone()),
            Box::new(self.upstream_errors.clone()),
            Box::new(self.upstream_connections.clone()),
            Box::new(self.upstream_connects.clone()),
            Box::new(self.retries.clone()),
            Box::new(self.unauthorized.clone()),
            Box::new(self.fan_out_legs.clone()),
            Box::new(self.fan_out_partial.clone()),
            Box::new(self.fan_out_repeated.clone()),
            Box::new(self.listener_queue.clone()),
            Box::new(self.endpoint_queue.clone()),
            Box::new(self.rate_limited.clone()),
            Box::new(self.client_rate_limited.clone()),
            Box::new(self.retry_saved.clone()),
            Box::new(self.retry_budget.clone()),
        ]
    }

    /// Each worker has a budget of its own for an endpoint; what is shown is their mean.
    #[expect(clippy::cast_precision_loss, reason = "there are no more workers than cores")]
    fn show_retry_budgets(&self, workers: usize) {
        for family in self.retry_saved.collect() {
            for metric in family.get_metric() {
                let endpoint: Vec<&str> = metric.get_label().iter().map(LabelPair::value).collect();
                let mean = metric.get_gauge().get_value() / workers.max(1) as f64;
                self.retry_budget.with_label_values(&endpoint).set(mean);
            }
        }
    }
}

impl Metrics {
    /// Makes the metrics of one gateway, process metrics included.
    ///
    /// # Errors
    /// If two metrics have one name, which a test excludes.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counters = |name, help, labels: &[&str]| register(&registry, IntCounterVec::new(opts(name, help), labels)?);
        let histogram = |name, help, buckets: &[f64]| {
            let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
            register(&registry, Histogram::with_opts(opts)?)
        };
        let histograms = |name, help, label: &str| {
            let opts = HistogramOpts::from(opts(name, help)).buckets(DURATION_BUCKETS.to_vec());
            register(&registry, HistogramVec::new(opts, &[label])?)
        };
        let shared = SharedMetrics {
            requests: counters(
                "requests_total",
                "Requests answered to callers, when their answer ended.",
                &["route", "operation", "code"],
            )?,
            request_duration: histograms(
                "request_duration_seconds",
                "From the head of a request to the end of its answer.",
                "operation",
            )?,
            overhead: histogram(
                "overhead_seconds",
                "The gateway's own share of a request: its duration without upstream and token waits.",
                &OVERHEAD_BUCKETS,
            )?,
            in_flight: register(
                &registry,
                IntGauge::with_opts(opts("requests_in_flight", "Requests whose answer has not ended."))?,
            )?,
            request_body: histogram("request_body_bytes", "Request bodies, as far as they were read.", &BYTE_BUCKETS)?,
            response_body: histogram(
                "response_body_bytes",
                "Response bodies, as far as they were sent.",
                &BYTE_BUCKETS,
            )?,
            rejected: counters(
                "rejected_total",
                "Requests that the gateway answered itself with an error.",
                &["reason"],
            )?,
            upstream_requests: counters(
                "upstream_requests_total",
                "Answers of endpoints, one for each attempt.",
                &["endpoint", "operation", "code"],
            )?,
            upstream_duration: histograms(
                "upstream_duration_seconds",
                "From sending an attempt to the head of its answer.",
                "endpoint",
            )?,
            upstream_errors: counters(
                "upstream_errors_total",
                "Attempts that ended without an answer.",
                &["endpoint", "reason"],
            )?,
            upstream_connections: register(
                &registry,
                IntGaugeVec::new(
                    opts("upstream_connections", "Open connections to endpoints."),
                    &["endpoint", "state"],
                )?,
            )?,
            upstream_connects: counters(
                "upstream_connects_total",
                "Connections to endpoints that were tried.",
                &["endpoint", "result"],
            )?,
            retries: counters(
                "retries_total",
                "Decisions about sending a failed attempt again.",
                &["endpoint", "outcome"],
            )?,
            retry_saved: GaugeVec::new(opts("retry_saved", "Not registered."), &["endpoint"])?,
            retry_budget: register(
                &registry,
                GaugeVec::new(
                    opts("retry_budget_ratio", "What is left of an endpoint's retry budget, 0 to 1."),
                    &["endpoint"],
                )?,
            )?,
            token_wait: histogram(
                "token_wait_seconds",
                "Time that requests waited for a token; only those that had to wait are observed.",
                &DURATION_BUCKETS,
            )?,
            fan_out_legs: counters(
                "fanout_legs_total",
                "What calls to several endpoints came to, one for each endpoint.",
                &["route", "outcome"],
            )?,
            fan_out_partial: counters(
                "fanout_partial_total",
                "Calls to several endpoints that some accepted and others did not.",
                &["route"],
            )?,
            fan_out_repeated: counters(
                "fanout_repeats_total",
                "Calls to several endpoints that came again under their Idempotency-Key after some had accepted them.",
                &["route"],
            )?,
            listener_queue: counters(
                "listener_queue_total",
                "Calls that found max_requests of their listener reached, and what became of them.",
                &["listener", "outcome"],
            )?,
            endpoint_queue: counters(
                "endpoint_queue_total",
                "Attempts that found max_requests of their endpoint reached, and what became of them.",
                &["endpoint", "outcome"],
            )?,
            rate_limited: counters("rate_limited_total", "Calls beyond the rate of their route.", &["route"])?,
            client_rate_limited: counters(
                "client_rate_limited_total",
                "Calls beyond the rate of their caller's network.",
                &["listener"],
            )?,
            unauthorized: counters(
                "upstream_unauthorized_total",
                "Answers 401 and 403 of endpoints, and what became of the token.",
                &["endpoint", "code", "action"],
            )?,
        };
        let build =
            register(&registry, IntGaugeVec::new(opts("build_info", "What is running."), &["version", "tls"])?)?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), "rustls-aws-lc"]).set(1);
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(Self {
            token: TokenMetrics::register(&registry)?,
            log: LogMetrics::register(&registry)?,
            endpoints: EndpointMetrics::register(&registry)?,
            draining: register(&registry, IntGauge::with_opts(opts("draining", "1 while the gateway is stopping."))?)?,
            config_hash: register(
                &registry,
                IntGaugeVec::new(opts("config_hash_info", "The configuration in force."), &["hash"])?,
            )?,
            reloads: counters("config_reloads_total", "Configurations that came in while serving.", &["result"])?,
            last_reload: register(
                &registry,
                IntGauge::with_opts(opts("config_last_reload_successful", "Whether the last one was accepted."))?,
            )?,
            last_reload_success: register(
                &registry,
                Gauge::with_opts(opts(
                    "config_last_reload_success_timestamp_seconds",
                    "When a configuration was last accepted.",
                ))?,
            )?,
            accept_errors: register(
                &registry,
                IntCounter::with_opts(opts(
                    "accept_errors_total",
                    "Connections of callers that could not be accepted.",
                ))?,
            )?,
            body_memory: register(
                &registry,
                IntGauge::with_opts(opts(
                    "request_body_memory_bytes",
                    "Memory taken by request bodies that are kept for sending them again, beyond the first 16 KiB of each.",
                ))?,
            )?,
            bodies_not_kept: register(
                &registry,
                IntCounter::with_opts(opts(
                    "request_bodies_not_kept_total",
                    "Request bodies that could not have been sent again, since limits.body_memory was used up.",
                ))?,
            )?,
            workers: Mutex::default(),
            known: Mutex::default(),
            shared,
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

    /// Returns the count of connections that could not be accepted.
    pub fn accept_errors(&self) -> &IntCounter {
        &self.accept_errors
    }

    /// Returns the memory that request bodies take, which workers count in it.
    pub fn body_memory(&self) -> &IntGauge {
        &self.body_memory
    }

    /// Returns the count of request bodies that were not kept.
    pub fn bodies_not_kept(&self) -> &IntCounter {
        &self.bodies_not_kept
    }

    /// Says that the gateway is stopping.
    pub fn draining(&self) {
        self.draining.set(1);
    }

    /// Says which configuration is in force, and which names it has: series of others are taken out.
    pub fn config_in_force(&self, hash: &str, names: KnownNames) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(names);
        self.last_reload.set(1);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.last_reload_success.set(now.as_secs_f64());
        self.config_hash.reset();
        self.config_hash.with_label_values(&[hash]).set(1);
    }

    /// Counts a configuration that came in while serving.
    pub fn reloaded(&self, accepted: bool) {
        self.reloads.with_label_values(&[if accepted { "success" } else { "failure" }]).inc();
        self.last_reload.set(i64::from(accepted));
    }

    /// Announces a worker. It must hand over its counts ([`WorkerMetrics::flush`]) for each request it receives.
    pub fn register_worker(&self) -> mpsc::UnboundedReceiver<FlushRequest> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    /// Returns all metrics in a text format, the workers' latest counts included.
    ///
    /// # Errors
    /// If a metric cannot be encoded.
    ///
    /// # Cancel safety
    /// Safe; counts that were handed over are kept.
    pub async fn exposition(&self, format: Exposition) -> prometheus::Result<Vec<u8>> {
        self.flush_workers().await;
        self.log.refresh();
        format.encode(&self.gather())
    }

    fn gather(&self) -> Vec<MetricFamily> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let families = self.registry.gather();
        let Some(known) = known.as_ref().filter(|known| known.has_stale(&families)) else { return families };
        for vector in self.shared.vectors().iter().chain(&self.token.vectors()).chain(&self.endpoints.vectors()) {
            vector.forget(known);
        }
        self.registry.gather()
    }

    async fn flush_workers(&self) {
        let waits: Vec<_> = {
            let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
            workers.retain(|worker| !worker.is_closed());
            let ask = |worker: &mpsc::UnboundedSender<FlushRequest>| {
                let (done, wait) = oneshot::channel();
                worker.send(done).is_ok().then_some(wait)
            };
            workers.iter().filter_map(ask).collect()
        };
        let workers = waits.len();
        // A worker that ends drops its sender, which ends the wait as well.
        let all = futures_util::future::join_all(waits);
        let _late_workers_are_scraped_stale = tokio::time::timeout(FLUSH_PATIENCE, all).await;
        self.shared.show_retry_budgets(workers);
    }
}

/// OpenTelemetry's buckets for HTTP durations, and two finer ones, since a call often takes a millisecond.
const DURATION_BUCKETS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const OVERHEAD_BUCKETS: [f64; 10] = [5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 2.5e-2, 0.1, 0.25];
const BYTE_BUCKETS: [f64; 7] = [256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0];

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("signalr_gateway")
}

fn register<M: prometheus::core::Collector + Clone + 'static>(registry: &Registry, metric: M) -> prometheus::Result<M> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_scrape_holds_what_a_worker_counted_a_moment_ago() {
        let metrics = Metrics::new().unwrap();
        let names = Names { routes: vec!["chat".into()], endpoints: vec!["east".into()], operations: vec!["hub_send"] };
        let worker = WorkerMetrics::new(&metrics, names);
        let mut requests = metrics.register_worker();
        worker.rejected(ErrorKind::UnknownPath);
        worker.request_ended(&RequestRecord {
            route: Some(0),
            operation: Some(0),
            code: 202,
            ..RequestRecord::default()
        });
        worker.request_ended(&RequestRecord { route: None, operation: None, code: 299, ..RequestRecord::default() });
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
    async fn a_stuck_worker_does_not_hold_up_a_scrape() {
        let metrics = Metrics::new().unwrap();
        let _never_answers = metrics.register_worker();
        assert!(metrics.exposition(Exposition::Prometheus).await.is_ok());
    }
}
