//! The admin listener: metrics, liveness, readiness and status, separate from the listeners of callers.
//!
//! | path | response |
//! |---|---|
//! | `/metrics` | all metrics, as Prometheus text or OpenMetrics by `Accept` |
//! | `/tail` | live summaries of requests as lines of JSON, filtered by `route`, `endpoint`, `hub` and `failures` |
//! | `/livez` | 200 while this process can respond |
//! | `/readyz` | 200 once the first tokens were obtained, until the gateway stops; contacts no upstream |
//! | `/status` | JSON: configuration, counts, and a page of endpoints, credentials and routes, those with problems first |
//! | `/` | the status as an HTML page |
//!
//! `/status` and `/` take `page` (from 1; a hundred entries of each kind, on `/` twenty), `name` (a part of the name, of the credential or tenant of an
//! endpoint, or of an endpoint of a route) and `state` (`broken`, or one of the states that the entries have). With `series=true`, `/status` has the points of the charts as well.
//!
//! The listener is read-only. It rejects requests of browser pages, as callers' listeners do. `/livez` and `/readyz` contain
//! nothing confidential and accept any `Host`, so that probes need no configuration. With `tls` and `client_ca`, everything else
//! needs a certificate, and with `client_auth = "optional"` these two need none. The listener runs on the control runtime, so
//! it and the workers do not delay each other.

mod access;
mod callers;
mod calls;
mod canary;
mod concerns;
mod entries;
mod failure;
mod figures;
mod names;
mod page;
mod problem;
mod quantile;
mod query;
mod repair;
mod response;
mod status;
mod time;
mod traces;
mod verdict;
mod write_timeout;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::{Service, ServiceBuilder};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate as _};
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;

use access::{Access, refuse};
pub use calls::{CallsView, PointView, TimesView, TrafficView};
pub use canary::CanaryView;
pub use concerns::ConnectionLimit;
use concerns::Rejection;
pub use entries::{CredentialView, DisabledView, EndpointStatus, ListenerView, ProbeView, RouteView, StoreView};
pub use failure::{DetailView, FailureView, RemediationView};
use figures::Figures;
pub use problem::ProblemView;
use query::Query;
use response::{response, text};
pub use status::{Counts, LabelCounts, PageView, Status, View};
pub use traces::TracesView;
pub use verdict::VerdictView;
use write_timeout::WriteTimeout;

use crate::metrics::{Exposition, Metrics};
use crate::runbook::{Condition, Section};
use crate::serve::{ListenerTls, ListenerTlsSettings, LiveTls, report_failed_handshake};
use crate::tail::{Filter, Lines, MAX_READERS, Tail};

/// The name of the admin listener in logs, metrics and reports. No configured listener can have it.
pub const LISTENER_NAME: &str = "_admin";

/// The body of a response: complete, or lines of a tail.
type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

/// The media type of lines of JSON.
const LINES: &str = "application/x-ndjson";
/// How long a response may take.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after an accept error.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The interval at which connections are compared with the CAs and revocation lists in force.
const TRUST_INTERVAL: Duration = Duration::from_secs(5);
/// How long a client may take to send a request head, and how long its connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest request head. Those of probes and scrapers are far smaller.
const MAX_HEAD: usize = 16 * 1024;
/// The most connections at once. A further one closes the oldest, so that idle connections cannot block a probe.
/// Chosen: far more than there are clients, and few descriptors.
const MAX_CONNECTIONS: usize = 128;

/// Settings of the admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    /// The address to bind.
    pub bind: SocketAddr,
    /// Host names that `Host` may have, in lower case and without port. `*.example.com` matches any subdomain. IP addresses and
    /// `localhost` are always allowed.
    pub allowed_hosts: Vec<String>,
    /// TLS; plain HTTP if `None`.
    pub tls: Option<ListenerTlsSettings>,
}

/// The admin listener.
#[derive(Debug)]
pub struct Admin {
    metrics: Arc<Metrics>,
    tail: Arc<Tail>,
    allowed_hosts: Vec<String>,
    view: ArcSwap<View>,
    /// Why the last configuration was rejected, if it was.
    rejection: ArcSwapOption<Rejection>,
    /// Whether it was ready once. It then is until it stops: an outage of Entra must not take all replicas out of service.
    was_ready: AtomicBool,
    draining: AtomicBool,
    figures: Figures,
}

impl Admin {
    /// Makes an admin listener that shows `view` to requests whose `Host` is one of `allowed_hosts`.
    pub fn new(metrics: Arc<Metrics>, tail: Arc<Tail>, allowed_hosts: Vec<String>, view: View) -> Arc<Self> {
        Arc::new(Self {
            metrics,
            tail,
            allowed_hosts,
            view: ArcSwap::from_pointee(view),
            rejection: ArcSwapOption::empty(),
            was_ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            figures: Figures::default(),
        })
    }

    /// Replaces the configuration that is shown.
    pub fn show(&self, view: View) {
        self.view.store(Arc::new(view));
        self.rejection.store(None);
    }

    /// Replaces what is shown of the configuration in force, which is still the same.
    pub fn refresh(&self, view: View) {
        self.view.store(Arc::new(view));
    }

    /// Shows why a configuration was rejected, until one is accepted.
    pub fn show_rejection(&self, problem: String) {
        self.rejection.store(Some(Arc::new(Rejection { at: SystemTime::now(), problem })));
    }

    /// Marks the gateway as stopping, and so as not ready.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.metrics.draining();
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Accepts and serves connections until the future is dropped, with TLS if `tls` is some. Closes those whose peer stops reading.
    ///
    /// # Cancel safety
    /// Safe: dropping the future closes the listener and all connections.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, tls: Option<Arc<LiveTls>>) {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD);
        let open = TowerToHyperService::new(Arc::clone(&self).service(Access::Full));
        let probes_only = TowerToHyperService::new(Arc::clone(&self).service(Access::Probes));
        let mut sampling = JoinSet::new();
        let admin = Arc::clone(&self);
        sampling.spawn(async move { admin.figures.keep_sampling(&admin.metrics).await });
        let mut connections = JoinSet::new();
        let mut oldest_first = VecDeque::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_ended) = connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (admin, tls, http) = (Arc::clone(&self), tls.clone(), http.clone());
                    let (open, probes_only) = (open.clone(), probes_only.clone());
                    let connection = connections.spawn(async move {
                        let stream = WriteTimeout::new(stream);
                        let Some(live) = tls else {
                            return log_failure(http.serve_connection(TokioIo::new(stream), open).await);
                        };
                        let tls = live.current();
                        let Some(stream) = admin.handshake(&live, tls.http1_acceptor(), stream, peer).await else {
                            return;
                        };
                        let is_identified = stream.get_ref().1.peer_certificates().is_some();
                        let must_identify = tls.client_trust().is_some();
                        let service = if must_identify && !is_identified { probes_only } else { open };
                        tokio::select! {
                            outcome = http.serve_connection(TokioIo::new(stream), service) => log_failure(outcome),
                            () = is_outdated(&live, &tls) => {}
                        }
                    });
                    close_oldest(&mut oldest_first);
                    oldest_first.push_back(connection);
                }
                Err(err) => {
                    let section = Section::Condition(Condition::CannotAccept);
                    tracing::warn!(error = %err, side = "gateway", remedy = section.remedy(), runbook = %section, "cannot accept admin connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn handshake(
        &self,
        live: &LiveTls,
        acceptor: &TlsAcceptor,
        stream: WriteTimeout<TcpStream>,
        peer: SocketAddr,
    ) -> Option<TlsStream<WriteTimeout<TcpStream>>> {
        let outcome = tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await;
        let err = match outcome {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(err)) => err,
            Err(_late) => std::io::ErrorKind::TimedOut.into(),
        };
        report_failed_handshake(live.listener(), Some(peer), &err, self.metrics.callers());
        None
    }

    /// Returns the service: [`Self::respond`], wrapped in tower-http layers.
    fn service(
        self: Arc<Self>,
        access: Access,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<impl http_body::Body<Data = Bytes, Error: Into<tower::BoxError>> + Send>,
        Error = Infallible,
        Future: Send,
    > + Clone
    + Send
    + Sync
    + 'static {
        let respond = tower::service_fn(move |request: Request<Incoming>| {
            let admin = Arc::clone(&self);
            async move { Ok::<_, Infallible>(admin.respond(&request, access).await) }
        });
        // Compression would hold the lines of a tail back.
        let compressed = DefaultPredicate::new().and(NotForContentType::const_new(LINES));
        ServiceBuilder::new()
            .layer(CatchPanicLayer::new())
            .layer(SetResponseHeaderLayer::overriding(CACHE_CONTROL, HeaderValue::from_static("no-store")))
            .layer(SetResponseHeaderLayer::overriding(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
            .layer(SetResponseHeaderLayer::overriding(X_FRAME_OPTIONS, HeaderValue::from_static("DENY")))
            .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, RESPONSE_TIMEOUT))
            .layer(CompressionLayer::new().compress_when(compressed))
            .service(respond)
    }

    async fn respond<B>(&self, request: &Request<B>, access: Access) -> Response<AnyBody> {
        if let Some(refusal) = refuse(request, access, &self.allowed_hosts) {
            return refusal.map(BodyExt::boxed_unsync);
        }
        if request.uri().path() == "/tail" {
            return self.tail(request.uri().query());
        }
        self.answer(request).await.map(BodyExt::boxed_unsync)
    }

    /// Streams summaries of requests, until the client disconnects.
    fn tail(&self, query: Option<&str>) -> Response<AnyBody> {
        let filter = match Filter::parse(query) {
            Ok(filter) => filter,
            Err(err) => return text(StatusCode::BAD_REQUEST, &format!("{err}\n")).map(BodyExt::boxed_unsync),
        };
        let Some(lines) = Lines::open(&self.tail, filter) else {
            let problem = format!("there are already {MAX_READERS} readers; end one of them\n");
            return text(StatusCode::SERVICE_UNAVAILABLE, &problem).map(BodyExt::boxed_unsync);
        };
        let mut response = Response::new(lines.boxed_unsync());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(LINES));
        response
    }

    async fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.ready(),
            "/metrics" => self.metrics(request.headers().get(ACCEPT)).await,
            path @ ("/status" | "/") => match Query::parse(request.uri().query(), path == "/") {
                Ok(query) => self.status(query, path == "/").await,
                Err(problem) => text(StatusCode::BAD_REQUEST, &format!("{problem}\n")),
            },
            _ => text(StatusCode::NOT_FOUND, "not found; try /, /status, /metrics, /tail, /livez or /readyz\n"),
        }
    }

    fn is_ready(&self) -> bool {
        let ready = self.was_ready.load(Ordering::Relaxed) || self.view.load().readiness.is_ready();
        if ready {
            self.was_ready.store(true, Ordering::Relaxed);
        }
        ready
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        if self.is_draining() {
            text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
        } else if self.is_ready() {
            text(StatusCode::OK, "ready\n")
        } else {
            text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the first tokens have not been obtained yet; see /status for the cause\n",
            )
        }
    }

    async fn metrics(&self, accept: Option<&HeaderValue>) -> Response<Full<Bytes>> {
        let format = Exposition::preferred(accept.and_then(|accept| accept.to_str().ok()));
        match self.metrics.exposition(format).await {
            Ok(exposition) => response(StatusCode::OK, format.media_type(), exposition),
            Err(err) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("the metrics cannot be encoded: {err}\n")),
        }
    }

    /// Responds with the status. It reads the state of every endpoint and credential, so it runs on a thread for blocking work:
    /// the control runtime also obtains tokens.
    async fn status(&self, query: Query, as_page: bool) -> Response<Full<Bytes>> {
        let (view, rejection) = (self.view.load_full(), self.rejection.load_full());
        let (ready, draining, recent) = (self.is_ready(), self.is_draining(), self.figures.recent());
        let response = tokio::task::spawn_blocking(move || {
            let status = view.status((ready, draining), rejection.as_deref(), &query, &recent);
            if as_page {
                let mut page = response(StatusCode::OK, "text/html; charset=utf-8", page::render(&status, &query));
                page.headers_mut().insert(CONTENT_SECURITY_POLICY, page::policy());
                page.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
                return Ok(page);
            }
            let json = serde_json::to_vec_pretty(&status).map_err(|err| err.to_string())?;
            Ok(response(StatusCode::OK, "application/json", json))
        });
        response.await.unwrap_or_else(|err| Err(err.to_string())).unwrap_or_else(|problem: String| {
            text(StatusCode::INTERNAL_SERVER_ERROR, &format!("the status cannot be shown: {problem}\n"))
        })
    }
}

/// Waits until a connection must end because its client was verified by other CAs or revocation lists than those in force.
async fn is_outdated(live: &LiveTls, at_handshake: &Arc<ListenerTls>) {
    while !live.has_other_trust(at_handshake) {
        tokio::time::sleep(TRUST_INTERVAL).await;
    }
}

fn log_failure(outcome: hyper::Result<()>) {
    if let Err(err) = outcome {
        tracing::debug!(error = &err as &dyn std::error::Error, "an admin connection failed");
    }
}

/// Closes the oldest connections if there are too many.
fn close_oldest(oldest_first: &mut VecDeque<AbortHandle>) {
    if oldest_first.len() < MAX_CONNECTIONS {
        return;
    }
    oldest_first.retain(|connection| !connection.is_finished());
    while oldest_first.len() >= MAX_CONNECTIONS {
        if let Some(oldest) = oldest_first.pop_front() {
            oldest.abort();
        }
    }
}
