//! Every metric of the gateway, with its labels and buckets, in a registry of its own.
//!
//! Label values are names from the configuration and closed enums, so the configuration bounds the number of series, whatever
//! callers send. Each worker counts in thread-local memory ([`WorkerMetrics`]) and flushes when the metrics are scraped, so
//! the request path writes no memory that cores share.
//!
//! Several parts may share a label; [`MERGES`] says how each metric combines them.
//!
//! A new metric is a field and its registration in the struct that holds it ([`TokenMetrics`], `StateGauges` for what a
//! scrape reads, or `SharedMetrics` for what workers count), and a method that records it.

mod acquisition;
mod callers;
mod canaries;
mod connections;
mod exemplars;
mod exposition;
mod idempotency;
mod label_table;
mod labels;
mod local;
mod log;
mod merge;
#[cfg(target_os = "linux")]
mod process;
mod prune;
mod registry;
mod retry_budgets;
mod sample;
mod shared;
mod states;
mod token;
mod trace;
mod worker;
mod zeros;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use tokio::sync::{mpsc, oneshot};

pub use acquisition::{Acquisition, AcquisitionObserver};
pub use callers::CallerMetrics;
use canaries::CanaryGauges;
pub use connections::{ConnectionCount, ConnectionGauge};
pub use exemplars::TraceId;
pub use exposition::Exposition;
pub use idempotency::IdempotencyMetrics;
pub use label_table::{Label, LabelTable, Labels};
pub(crate) use labels::label_enum;
pub use labels::{
    AddressProblem, BreakerState, CallerCloseReason, ConnectionState, ErrorKind, FanOutOutcome, ProxyProtocolError,
    QueueOutcome, RetryOutcome, StoreOperation, TlsRefusal, TokenErrorReason, TokenOutcome, TokenStage,
    UnauthorizedAction, UpstreamCloseReason, UpstreamErrorReason,
};
use log::LogMetrics;
pub use log::{LostLine, RecentLoss};
pub use merge::{MERGES, Merge};
pub use registry::MetricRegistry;
pub use sample::{Distribution, EndpointSample, Responses, Sample};
use shared::SharedMetrics;
use states::StateGauges;
pub use states::{EndpointState, ProofExpiries, StateSource, TokenTimes};
pub use token::{CountedTokenRequest, TokenMetrics};
pub use trace::TraceMetrics;
pub use worker::{CompletedRequest, CountedCaller, InFlight, UpstreamResponse, WorkerMetrics};

/// How long a scrape waits for the workers to flush. The counts of a worker that takes longer are missing from this scrape
/// and part of a later one.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(250);

/// The metrics of one gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: MetricRegistry,
    token: TokenMetrics,
    idempotency: IdempotencyMetrics,
    trace: TraceMetrics,
    states: StateGauges,
    canaries: CanaryGauges,
    shared: SharedMetrics,
    draining: IntGauge,
    config_hash: IntGaugeVec,
    reloads: IntCounterVec,
    restart_pending: IntGauge,
    last_reload: IntGauge,
    last_reload_success: Gauge,
    callers: CallerMetrics,
    body_memory: IntGauge,
    bodies_not_kept: IntCounter,
    log: LogMetrics,
    workers: Mutex<Vec<mpsc::UnboundedSender<FlushRequest>>>,
    ca_files_refused: IntGauge,
    /// Names that share `_other`, by label.
    labels_over_limit: IntGaugeVec,
    /// The parts of the configuration in force; `None` before the first one.
    parts: Mutex<Option<Arc<dyn StateSource>>>,
    /// Held during a scrape: the gauges of states are set anew for each.
    scraping: tokio::sync::Mutex<()>,
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
            idempotency: IdempotencyMetrics::register(&mut registry)?,
            trace: TraceMetrics::register(&mut registry)?,
            states: StateGauges::register(&mut registry)?,
            canaries: CanaryGauges::register(&mut registry)?,
            shared: SharedMetrics::register(&mut registry)?,
            log: LogMetrics::register(&mut registry)?,
            draining: registry.gauge("draining", "1 while the gateway is stopping.")?,
            config_hash: registry.gauges("config_hash_info", "The configuration in force.", &["hash"])?,
            reloads: {
                let reloads = registry.counters(
                    "config_reloads_total",
                    "Configurations that were loaded while serving.",
                    &["result"],
                )?;
                zeros::create(&reloads, &[&["success", "failure"]]);
                reloads
            },
            restart_pending: registry.gauge(
                "config_restart_pending",
                "Changed settings of the configuration in force that take effect only after a restart.",
            )?,
            last_reload: registry
                .gauge("config_last_reload_successful", "1 if the last configuration load succeeded.")?,
            last_reload_success: registry.float_gauge(
                "config_last_reload_success_timestamp_seconds",
                "When a configuration was last accepted.",
            )?,
            callers: CallerMetrics::register(&mut registry)?,
            body_memory: registry.gauge(
                "request_body_memory_bytes",
                "Memory taken by request bodies that are kept for sending them again, beyond the first 16 KiB of each.",
            )?,
            bodies_not_kept: registry.counter(
                "request_bodies_not_kept_total",
                "Request bodies that could not have been sent again, since limits.body_memory was used up.",
            )?,
            ca_files_refused: registry.gauge(
                "ca_files_refused",
                "CA files of endpoints or credentials that cannot be used, so that the CAs that were read before stay in force.",
            )?,
            labels_over_limit: registry.gauges(
                "metric_labels_over_limit",
                "Names that share the label _other, since the maximum of the metrics settings is reached.",
                &["label"],
            )?,
            workers: Mutex::default(),
            parts: Mutex::default(),
            scraping: tokio::sync::Mutex::default(),
            registry,
        })
    }

    /// Returns the metrics of the credentials.
    pub fn token(&self) -> &TokenMetrics {
        &self.token
    }

    /// Returns the metrics of the shared idempotency store.
    pub fn idempotency(&self) -> &IdempotencyMetrics {
        &self.idempotency
    }

    /// Returns the metrics of the export of traces.
    pub fn trace(&self) -> &TraceMetrics {
        &self.trace
    }

    /// Returns the metrics of callers' connections.
    pub fn callers(&self) -> &CallerMetrics {
        &self.callers
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

    /// Records the configuration in force: its hash, its labels, and its parts, whose states are shown. Series of names that
    /// are not among `labels` are pruned from now on.
    pub fn config_in_force(&self, hash: &str, labels: Arc<Labels>, parts: Arc<dyn StateSource>) {
        for (label, table) in labels.tables() {
            let shared = i64::try_from(table.shared()).unwrap_or(i64::MAX);
            self.labels_over_limit.with_label_values(&[label]).set(shared);
        }
        zeros::create_shared(&self.shared, &labels, &*parts);
        self.token.create_series(&labels);
        self.registry.labels().store(Some(labels));
        *self.parts.lock().unwrap_or_else(PoisonError::into_inner) = Some(parts);
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

    /// Sets how many CA files cannot be used.
    pub fn ca_files_refused(&self, files: usize) {
        self.ca_files_refused.set(i64::try_from(files).unwrap_or(i64::MAX));
    }

    /// Records how many changed settings take effect only after a restart.
    pub fn restart_pending(&self, settings: usize) {
        self.restart_pending.set(i64::try_from(settings).unwrap_or(i64::MAX));
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
    pub async fn exposition(self: &Arc<Self>, format: Exposition) -> prometheus::Result<Vec<u8>> {
        let _one_at_a_time = self.scraping.lock().await;
        self.flush_workers().await;
        let this = Arc::clone(self);
        // Encoding thousands of series takes milliseconds, and the control runtime also obtains tokens.
        let encoded = tokio::task::spawn_blocking(move || this.encode(format)).await;
        encoded.unwrap_or_else(|err| Err(prometheus::Error::Msg(format!("the encoder failed: {err}"))))
    }

    /// Returns what the status page shows as live figures, including what the workers have counted until now; `None` if it cannot
    /// be read.
    ///
    /// # Cancel safety
    /// Safe; counts that were flushed are kept.
    pub async fn sample(self: &Arc<Self>) -> Option<Sample> {
        let _one_at_a_time = self.scraping.lock().await;
        self.flush_workers().await;
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || Sample::of(&this.shared)).await.ok()
    }

    fn encode(&self, format: Exposition) -> prometheus::Result<Vec<u8>> {
        self.log.refresh();
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(parts) = parts {
            self.states.refresh(&*parts, &self.shared.retry_budgets);
            self.canaries.refresh(&*parts);
            self.token.refresh(&*parts);
        }
        let families = self.registry.gather();
        let exemplars = self.shared.exemplars();
        if let Some(labels) = self.registry.labels().load().as_deref() {
            for exemplars in &exemplars {
                exemplars.prune(labels);
            }
        }
        format.encode(&families, &exemplars)
    }

    /// Returns how many requests have ended, of routes that are configured now.
    pub fn request_totals(&self) -> Responses {
        Responses::of(&self.shared)
    }

    async fn flush_workers(&self) {
        self.shared.retry_budgets.lock().clear();
        let waits: Vec<_> = {
            let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
            workers.retain(|worker| !worker.is_closed());
            let request = |worker: &mpsc::UnboundedSender<FlushRequest>| {
                let (done, wait) = oneshot::channel();
                worker.send(done).is_ok().then_some(wait)
            };
            workers.iter().filter_map(request).collect()
        };
        // A worker that ends drops its sender, which ends the wait as well.
        let all = futures_util::future::join_all(waits);
        let _elapsed = tokio::time::timeout(FLUSH_TIMEOUT, all).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_scrape_includes_what_a_worker_has_just_counted() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let routes = LabelTable::new(1).next(["chat"].into_iter());
        let worker = WorkerMetrics::new(&metrics, ["hub_send"]);
        let mut requests = metrics.register_worker();
        worker.rejected(ErrorKind::UnknownPath);
        worker.request_ended(&CompletedRequest {
            route: Some(routes.get("chat")),
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

    #[test]
    fn every_metric_with_a_label_that_may_be_shared_says_how_it_is_combined() {
        let described = Metrics::new().unwrap().registry.described();
        let may_be_shared = |label: &String| Labels::new(0, 0, 0, 0).tables().iter().any(|(name, _)| name == label);
        let mut found: Vec<&str> = described
            .iter()
            .filter(|(_, labels)| labels.iter().any(may_be_shared))
            .map(|(name, _)| name.as_str())
            .collect();
        found.sort_unstable();
        assert_eq!(found, MERGES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }

    /// Ten thousand healthy endpoints.
    #[derive(Debug)]
    struct Healthy(Vec<Label>);

    impl StateSource for Healthy {
        fn endpoints(&self, visit: &mut dyn FnMut(&Label, EndpointState)) {
            let state = EndpointState { breaker: BreakerState::Closed, up: Some(true), cool_down: None };
            self.0.iter().for_each(|label| visit(label, state));
        }

        fn certificates(&self, _visit: &mut dyn FnMut(&str, SystemTime, bool)) {}

        fn tokens(&self, _visit: &mut dyn FnMut(&str, Option<TokenTimes>)) {}

        fn proofs(&self, _visit: &mut dyn FnMut(&str, ProofExpiries)) {}

        fn fan_outs(&self, _visit: &mut dyn FnMut(&str)) {}
    }

    /// The time depends on the machine, so it is printed: `cargo test --lib scrape_of_ten -- --ignored --nocapture`.
    #[tokio::test]
    #[ignore = "a measurement"]
    async fn scrape_of_ten_thousand_endpoints_with_five_hundred_labels_is_at_most_4_mib() {
        let names: Vec<String> = (0..10_000).map(|number| format!("tenant-{number:05}")).collect();
        let names = || names.iter().map(String::as_str);
        let mut labels = Labels::new(500, 500, 500, 500);
        labels.endpoints = labels.endpoints.next(names());
        labels.routes = labels.routes.next(names());
        labels.credentials = labels.credentials.next(["saas"].into_iter());
        let metrics = Arc::new(Metrics::new().unwrap());
        let endpoints: Vec<Label> = names().map(|name| labels.endpoints.get(name).clone()).collect();
        let routes: Vec<Label> = names().map(|name| labels.routes.get(name).clone()).collect();
        let worker = WorkerMetrics::new(&metrics, ["hub_send", "group_send", "user_send"]);
        for (endpoint, route) in endpoints.iter().zip(&routes) {
            let _connections = worker.connections(endpoint);
            worker.upstream_connected(endpoint, true);
            for operation in 0..3 {
                let (code, duration, delivered) = (202, Duration::from_millis(3), Some(2049));
                worker.upstream_responded(&UpstreamResponse {
                    endpoint,
                    operation,
                    code,
                    duration,
                    delivered,
                    trace: None,
                });
                let request = CompletedRequest {
                    route: Some(route),
                    operation: Some(operation),
                    code,
                    duration,
                    ..CompletedRequest::default()
                };
                worker.request_ended(&request);
            }
        }
        worker.flush();
        metrics.config_in_force("0", Arc::new(labels), Arc::new(Healthy(endpoints)));
        let began = std::time::Instant::now();
        let text = metrics.exposition(Exposition::Prometheus).await.unwrap();
        println!(
            "{} KiB, {} lines, {:?}",
            text.len() / 1024,
            text.split(|byte| *byte == b'\n').count(),
            began.elapsed()
        );
        assert!(text.len() <= 4 * 1024 * 1024);
    }

    #[tokio::test]
    async fn failed_sends_have_series_before_the_first_one() {
        let mut labels = Labels::new(1, 1, 1, 1);
        labels.routes = labels.routes.next(["chat"].into_iter());
        let metrics = Arc::new(Metrics::new().unwrap());
        metrics.config_in_force("0", Arc::new(labels), Arc::new(Healthy(Vec::new())));
        let text = String::from_utf8(metrics.exposition(Exposition::Prometheus).await.unwrap()).unwrap();
        for route in ["chat", "_none"] {
            let line =
                format!(r#"signalr_gateway_requests_total{{code="503",operation="hub_send",route="{route}"}} 0"#);
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_worker_does_not_block_a_scrape() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let _never_flushes = metrics.register_worker();
        assert!(metrics.exposition(Exposition::Prometheus).await.is_ok());
    }
}
