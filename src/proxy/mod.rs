//! What happens to a request, top to bottom: `Proxy::handle`, then `plan`, then `carry_out`.
//!
//! One [`Snapshot`] is a configuration in force, shared by all workers. Each worker has a [`Proxy`] of it, with
//! connection pools and counts of its own.

mod admission;
mod attempt;
mod body;
mod call_head;
mod candidates;
mod error;
mod exchange;
mod fanout;
mod forward;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod headers;
mod idempotency;
mod listing;
mod outcome;
mod request_id;
mod retry;
mod settings;
mod upstream;
mod worker;

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt;
use http::Response;

pub use admission::Admission;
pub use body::{DownloadError, ResponseBody};
pub use call_head::CallHead;
pub use error::{ERROR_HEADER, ProxyError};
pub use exchange::{ACCESS_LOG, FAILED_REQUEST};
pub use fanout::EndpointOutcome;
pub use idempotency::{IdempotencySettings, IdempotencyStore};
pub use retry::{MessageRetry, RetrySettings};
pub use settings::{AccessLog, AdmissionSettings, ProxySettings};
pub use worker::WorkerProxy;

use body::{Answer, BodyMemory, RequestBody};
use exchange::Exchange;
use forward::Outgoing;
use idempotency::{CallKey, Network};
use request_id::RequestIds;
use upstream::Upstream;

use crate::credential::{RequestUrl, in_one_line};
use crate::endpoint::{Endpoint, SpareMemory};
use crate::limits::{
    ConcurrencyPermit, DeadlineTimer, EndpointLimits, Limits, ListenerLimits, Queued, RateExceeded, RouteLimits,
};
use crate::metrics::WorkerMetrics;
use crate::route::{Choice, DeliveryMode, Route, Table};
use crate::serve::{ListenerId, Peer, is_valid_host};
use crate::signalr::{Call, FanOutKind, Operation};

/// One configuration in force, shared by all workers.
#[derive(Debug)]
pub struct Snapshot {
    settings: ProxySettings,
    /// In configured order.
    listeners: Vec<ListenerId>,
    /// By listener.
    admissions: Vec<Admission>,
    routes: Table,
    endpoints: Vec<Arc<Endpoint>>,
    limits: Limits,
    idempotency: Arc<IdempotencyStore>,
}

impl Snapshot {
    /// Puts a configuration together. The routes refer to endpoints and listeners by their places here. What is remembered of
    /// calls and limits that did not change are taken over from the one `before`. Has no effect on anything else.
    pub fn new(
        settings: ProxySettings,
        listeners: Vec<(ListenerId, AdmissionSettings)>,
        routes: Table,
        endpoints: Vec<Arc<Endpoint>>,
        before: Option<&Self>,
    ) -> Self {
        let (listeners, admissions): (Vec<_>, Vec<_>) = listeners.into_iter().unzip();
        let admission = |admission| Admission::new(admission, settings.max_header_bytes, settings.max_body_bytes);
        let limits = limits(&admissions, routes.routes(), &endpoints, before);
        let idempotency = before.map(|before| Arc::clone(&before.idempotency)).unwrap_or_default();
        Self {
            listeners,
            admissions: admissions.into_iter().map(admission).collect(),
            settings,
            routes,
            endpoints,
            limits,
            idempotency,
        }
    }

    /// Returns a listener's place; `None` if this configuration does not have it.
    fn place_of(&self, listener: ListenerId) -> Option<usize> {
        self.listeners.iter().position(|known| *known == listener)
    }

    /// Returns the endpoints, in configured order.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Returns the routes.
    pub fn routes(&self) -> &Table {
        &self.routes
    }
}

/// Creates the rates and concurrency limits of a configuration.
fn limits(
    listeners: &[AdmissionSettings],
    routes: &[Route],
    endpoints: &[Arc<Endpoint>],
    before: Option<&Snapshot>,
) -> Limits {
    let listeners = listeners.iter().map(|listener| ListenerLimits {
        name: &listener.listener,
        max_requests: listener.max_requests,
        client_rate: listener.client_rate,
    });
    let routes = routes.iter().map(|route| RouteLimits { name: route.name().as_str(), rate: route.rate() });
    let endpoints = endpoints.iter().map(|endpoint| EndpointLimits {
        name: endpoint.name().as_str(),
        max_requests: endpoint.settings().max_requests,
    });
    Limits::new(listeners, routes, endpoints, before.map(|before| &before.limits))
}

/// What is to be done for a request.
enum Plan<'a> {
    /// It asks for the gateway's own health.
    Health,
    /// It goes to endpoints.
    Forward {
        operation: Operation,
        choice: Choice<'a>,
        /// The key under which the call may be repeated.
        key: Option<CallKey<'a>>,
    },
}

/// One worker's part of a [`Snapshot`].
#[derive(Debug)]
pub struct Proxy {
    snapshot: Arc<Snapshot>,
    /// In configured order.
    upstreams: Vec<Upstream>,
    spare: Rc<SpareMemory>,
    body_memory: Rc<BodyMemory>,
    timer: DeadlineTimer,
    request_ids: RequestIds,
    metrics: Rc<WorkerMetrics>,
    /// The routes' names, as the log wants them.
    route_names: Vec<Rc<str>>,
}

impl Proxy {
    /// Answers a request. Never fails: an error becomes an answer that is marked as the gateway's own.
    ///
    /// What needs no waiting is done in one go and put down in a [`Plan`]: whatever is alive while a future waits is room in
    /// it, for each request that is on its way.
    #[expect(clippy::manual_async_fn, reason = "an async fn has room for its arguments twice")]
    fn handle(
        self: Rc<Self>,
        peer: Rc<Peer>,
        mut exchange: Box<Exchange>,
        body: RequestBody,
    ) -> impl Future<Output = Response<ResponseBody>> {
        async move {
            let plan = match std::panic::catch_unwind(AssertUnwindSafe(|| self.plan(&peer, &exchange))) {
                Ok(Ok(plan)) => plan,
                Ok(Err(err)) => return refuse(&err, exchange, body),
                Err(_panic) => return refuse(&ProxyError::Internal, exchange, body),
            };
            let result = AssertUnwindSafe(self.carry_out(&peer, &plan, &body, &exchange)).catch_unwind().await;
            match result.unwrap_or_else(|_panic| Err(ProxyError::Internal)) {
                Ok(response) => {
                    body.forget();
                    exchange.received(body.received());
                    exchange.answers(response.status());
                    self.spare.keep_map(exchange.take_headers());
                    let time = self.snapshot.settings.request_timeout;
                    response.map(|answer| ResponseBody::streamed(answer, time, body, exchange))
                }
                Err(err) => refuse(&err, exchange, body),
            }
        }
    }

    /// The pipeline, up to where something has to be waited for.
    fn plan<'a>(&'a self, peer: &Peer, exchange: &'a Exchange) -> Result<Plan<'a>, ProxyError> {
        let head = exchange.head();
        if let Some(refusal) = head.refusal {
            return Err(ProxyError::refused(refusal, self.snapshot.settings.max_header_bytes));
        }
        // Who and what may pass.
        let listener = self.snapshot.place_of(peer.listener).ok_or(ProxyError::Draining)?;
        let admission = self.snapshot.admissions.get(listener).ok_or(ProxyError::Internal)?;
        admission.admit(peer, head)?;

        // Which operation it is.
        let call = Call::parse(&head.method, head.uri.path(), head.uri.query())?;
        let operation = call.operation;
        exchange.is_call(&call);
        admission.admit_operation(operation)?;
        if operation == Operation::Health {
            return Ok(Plan::Health);
        }

        // Where it goes.
        let client = peer.address.map(|address| address.ip().to_canonical());
        self.check_client_rate(listener, admission, client)?;
        let input = head.route_input(&call, listener, client);
        let (place, route) = self.snapshot.routes.pick(&input).ok_or(ProxyError::NoRoute)?;
        if let Some(name) = self.route_names.get(place) {
            exchange.takes_route(place, name);
        }
        let choice = Choice::new(route, &input)?;
        self.check_route_rate(place)?;
        let key = if matches!(choice.delivery_mode(), DeliveryMode::All(_)) {
            idempotency::key(&head.headers)?
        } else {
            None
        };
        let key = key.filter(|_| operation.fan_out_kind() == FanOutKind::Deliver);
        let key = key.map(|key| CallKey { listener: admission.listener(), network: Network::of(client), key });
        Ok(Plan::Forward { operation, choice, key })
    }

    /// The pipeline's other half: as whom a request goes, and going.
    async fn carry_out(
        &self,
        peer: &Peer,
        plan: &Plan<'_>,
        body: &RequestBody,
        exchange: &Exchange,
    ) -> Result<Response<Answer>, ProxyError> {
        let Plan::Forward { operation, choice, key } = plan else { return self.health(exchange) };
        let listener = self.snapshot.place_of(peer.listener).ok_or(ProxyError::Draining)?;
        if let Some(permit) = self.listener_permit(listener, exchange).await? {
            exchange.holds(permit);
        }
        let head = exchange.head();
        let outgoing = &Outgoing::new(*operation, body, exchange);
        let gateway = || Some(gateway_origin(peer, head));
        // The rare ways are in boxes: every request's future would have room for them.
        let (upstream, mut response) = match (choice.delivery_mode(), operation.fan_out_kind()) {
            (_, FanOutKind::List) => Box::pin(self.list(choice, outgoing, gateway())).await?,
            (DeliveryMode::All(policy), FanOutKind::Deliver | FanOutKind::FirstSuccess) => {
                Box::pin(self.fan_out(*choice, policy, *key, outgoing)).await?
            }
            _ => self.deliver(choice, outgoing).await?,
        };
        let (id, origin) = (exchange.request_id(), upstream.endpoint().origin());
        headers::to_downstream(response.headers_mut(), id, origin, gateway);
        Ok(response)
    }

    /// Checks a call against the rate of its caller's network.
    fn check_client_rate(
        &self,
        listener: usize,
        admission: &Admission,
        client: Option<IpAddr>,
    ) -> Result<(), ProxyError> {
        self.snapshot.limits.check_client_rate(listener, client).map_err(|RateExceeded { retry_after }| {
            self.metrics.client_rate_limited(admission.listener());
            ProxyError::RateLimited { of: "its network", retry_after }
        })
    }

    /// Checks a call against the rate of its route.
    fn check_route_rate(&self, route: usize) -> Result<(), ProxyError> {
        self.snapshot.limits.check_route_rate(route).map_err(|RateExceeded { retry_after }| {
            self.metrics.rate_limited(self.route_names.get(route).map_or("_other", |name| name));
            ProxyError::RateLimited { of: "its route", retry_after }
        })
    }

    /// Gets a call the permit of its listener, if the listener has a concurrency limit.
    async fn listener_permit(
        &self,
        listener: usize,
        exchange: &Exchange,
    ) -> Result<Option<ConcurrencyPermit>, ProxyError> {
        let Some(limit) = self.snapshot.limits.of_listener(listener) else { return Ok(None) };
        if let Some(permit) = limit.try_acquire() {
            return Ok(Some(permit));
        }
        // Boxed because it is rare: locals held across an await enlarge every request's future.
        let queued = Box::pin(limit.acquire(self.snapshot.settings.queue, exchange.deadline())).await;
        exchange.waited(queued.waited);
        let name = self.snapshot.admissions.get(listener).map_or("_other", Admission::listener);
        self.metrics.queued_at_listener(name, queued.outcome);
        queued.permit.map(Some).ok_or(ProxyError::Overload { retry_after: Queued::RETRY_AFTER })
    }

    /// Answers a health probe: 200 while a call could be served.
    fn health(&self, exchange: &Exchange) -> Result<Response<Answer>, ProxyError> {
        let url = |endpoint: &Arc<Endpoint>| {
            endpoint.bearer().ready(RequestUrl { origin: endpoint.origin(), path: "/" }).is_some()
        };
        if !self.snapshot.endpoints.iter().any(url) {
            return Err(ProxyError::TokenUnavailable(None));
        }
        let mut response = Response::new(Answer::Empty);
        response.headers_mut().insert(headers::REQUEST_ID, exchange.request_id().clone());
        Ok(response)
    }
}

/// Answers with an error of the gateway's own.
fn refuse(err: &ProxyError, mut exchange: Box<Exchange>, body: RequestBody) -> Response<ResponseBody> {
    exchange.received(body.received());
    body.discard();
    let mut response = err.to_response(exchange.request_id());
    response.headers_mut().insert(headers::REQUEST_ID, exchange.request_id().clone());
    exchange.answers(response.status());
    exchange.fails(err.kind(), std::error::Error::source(err).map(in_one_line));
    response.map(|text| ResponseBody::whole(text, exchange))
}

/// Returns the origin under which the caller reached us, for links in answers. Callers on a Unix socket may name no host, and
/// then any will do.
fn gateway_origin(peer: &Peer, head: &CallHead) -> String {
    let host = head.host().filter(|host| is_valid_host(host)).unwrap_or("localhost");
    format!("{}://{host}", if peer.is_tls { "https" } else { "http" })
}
