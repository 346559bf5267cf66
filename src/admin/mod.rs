//! The admin listener: metrics, liveness, readiness and status, apart from callers' traffic.
//!
//! | path | answers |
//! |---|---|
//! | `/metrics` | all metrics, Prometheus text or OpenMetrics, whichever is asked for |
//! | `/livez` | 200 while this process can answer; says nothing of anything else |
//! | `/readyz` | 200 while calls can be served and the gateway is not stopping; never dials an upstream |
//! | `/status` | JSON: configuration, endpoints, credentials, routes |
//! | `/` | the same for people |
//!
//! It only reads. It runs on the control runtime, so a busy data path does not hold it up, nor the other way round.

mod page;
mod status;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::{Service, ServiceBuilder};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;

pub use status::{CredentialView, EndpointStatus, EndpointView, RouteView, Status, View};

use crate::metrics::{Exposition, Metrics};

/// The longest an admin answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// The first and longest pauses after an accept error.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the admin listener shows.
#[derive(Debug)]
pub struct Admin {
    metrics: Arc<Metrics>,
    view: ArcSwap<View>,
    /// Why the last configuration was refused, if it was.
    refused: ArcSwapOption<String>,
    draining: AtomicBool,
}

impl Admin {
    /// Makes it show `view`.
    pub fn new(metrics: Arc<Metrics>, view: View) -> Arc<Self> {
        Arc::new(Self {
            metrics,
            view: ArcSwap::from_pointee(view),
            refused: ArcSwapOption::empty(),
            draining: AtomicBool::new(false),
        })
    }

    /// Shows another configuration from now on.
    pub fn show(&self, view: View) {
        self.view.store(Arc::new(view));
        self.refused.store(None);
    }

    /// Shows why a configuration was refused, until one is accepted.
    pub fn refused(&self, problem: String) {
        self.refused.store(Some(Arc::new(problem)));
    }

    /// Says that the gateway is stopping: it is not ready from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.metrics.draining();
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Serves until it is dropped.
    ///
    /// # Cancel safety
    /// Safe: dropping the future closes the listener and all connections.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new());
        let service = TowerToHyperService::new(self.service());
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_ended) = connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, _)) => {
                    let connection = http.serve_connection(TokioIo::new(stream), service.clone());
                    connections.spawn(async move {
                        if let Err(err) = connection.await {
                            tracing::debug!(error = &err as &dyn std::error::Error, "an admin connection ended badly");
                        }
                    });
                }
                Err(err) => {
                    tracing::warn!(error = %err, "cannot accept admin connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// The answers, in a shell of stock layers.
    fn service(
        self: Arc<Self>,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<impl http_body::Body<Data = Bytes, Error: Into<tower::BoxError>> + Send>,
        Error = Infallible,
        Future: Send,
    > + Clone
    + Send
    + Sync
    + 'static {
        let answer = tower::service_fn(move |request: Request<Incoming>| {
            let admin = Arc::clone(&self);
            async move { Ok::<_, Infallible>(admin.answer(&request).await) }
        });
        ServiceBuilder::new()
            .layer(CatchPanicLayer::new())
            .layer(SetResponseHeaderLayer::overriding(CACHE_CONTROL, HeaderValue::from_static("no-store")))
            .layer(SetResponseHeaderLayer::overriding(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
            .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, ANSWER_TIME))
            .layer(CompressionLayer::new())
            .service(answer)
    }

    async fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "the admin listener only answers GET and HEAD\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.ready(),
            "/metrics" => self.metrics(request.headers().get(ACCEPT)).await,
            "/status" => match serde_json::to_vec_pretty(&self.status()) {
                Ok(json) => whole(StatusCode::OK, "application/json", json),
                Err(err) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("the status cannot be written: {err}\n")),
            },
            "/" => whole(StatusCode::OK, "text/html; charset=utf-8", page::render(&self.status())),
            _ => text(StatusCode::NOT_FOUND, "not found; try /, /status, /metrics, /livez or /readyz\n"),
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        let status = self.status();
        if status.draining {
            text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
        } else if status.ready {
            text(StatusCode::OK, "ready\n")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "no endpoint has a valid token yet; see /status for the cause\n")
        }
    }

    async fn metrics(&self, accept: Option<&HeaderValue>) -> Response<Full<Bytes>> {
        let wanted = Exposition::preferred(accept.and_then(|accept| accept.to_str().ok()));
        match self.metrics.exposition(wanted).await {
            Ok(exposition) => whole(StatusCode::OK, wanted.media_type(), exposition),
            Err(err) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("the metrics cannot be written: {err}\n")),
        }
    }

    fn status(&self) -> Status {
        self.view.load().status(self.is_draining(), self.refused.load().as_deref())
    }
}

fn text(status: StatusCode, line: &str) -> Response<Full<Bytes>> {
    whole(status, "text/plain; charset=utf-8", line.to_owned())
}

fn whole(status: StatusCode, media_type: &'static str, content: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(content.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
