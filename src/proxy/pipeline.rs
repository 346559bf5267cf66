//! The steps of a request, top to bottom: [`Proxy::begin`], `handle`, `plan`, `carry_out`.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Request, Response};

use super::admission::{Admission, LastHost};
use super::error::{ProxyError, RateScope};
use super::idempotency_key::idempotency_key;
use super::record::{RecordContext, RequestRecord};
use super::request_id::RequestIds;
use super::response_body::ResponseBody;
use super::snapshot::Snapshot;
use crate::delivery::{
    self, BodyMemory, CallHead, DeliveryError, DeliveryParts, KeyedResponse, PlannedCall, REPLAYED_HEADER, RequestBody,
    UpstreamBody, WorkerDelivery, headers, step,
};
use crate::idempotency::{CallKey, Network};
use crate::limits::{ConcurrencyPermit, Queued, RateExceeded};
use crate::metrics::{Metrics, WorkerMetrics};
use crate::route::{Choice, RouteCaller};
use crate::serve::{CallerAddress, CallerBody, CallerIdentity, Peer, is_valid_host};
use crate::signalr::{Call, Operation};
use crate::tail::Tail;
use crate::write_batch::WriteBatch;

/// The largest future of a request, in bytes: what it has today. Its size is part of the price of each request and of the
/// memory of each call in progress, so a change that enlarges it must say so here.
const MAX_FUTURE: usize = 1_144;

/// The plan for a request.
enum Plan<'a> {
    /// The gateway responds to a health probe.
    Health,
    /// The call is forwarded to endpoints.
    Forward {
        operation: Operation,
        choice: Choice<'a>,
        /// The call's idempotency key, if its operation has an effect.
        key: Option<Box<CallKey>>,
    },
}

/// One worker's state under one configuration.
#[derive(Debug)]
pub(super) struct Proxy {
    snapshot: Arc<Snapshot>,
    delivery: WorkerDelivery,
    body_memory: Rc<BodyMemory>,
    request_ids: RequestIds,
    metrics: Rc<WorkerMetrics>,
    /// Shared with records.
    record_context: Rc<RecordContext>,
    /// By listener.
    last_hosts: Vec<LastHost>,
}

impl Proxy {
    /// Creates a worker's state under a configuration; `worker_metrics` are the worker's counts. Endpoints that are the same as in `before` keep their
    /// connections and retry budgets.
    pub(super) fn new(
        snapshot: Arc<Snapshot>,
        metrics: &Metrics,
        worker_metrics: &Rc<WorkerMetrics>,
        write_batch: &WriteBatch,
        tail: &Arc<Tail>,
        before: Option<&Self>,
    ) -> Self {
        let body_memory = Rc::new(BodyMemory {
            used: metrics.body_memory().clone(),
            not_kept: metrics.bodies_not_kept().clone(),
            limit: snapshot.settings.body_memory,
        });
        let parts = DeliveryParts {
            settings: snapshot.settings.delivery,
            endpoints: &snapshot.endpoints,
            limits: &snapshot.limits,
            idle_limit: &snapshot.idle_limit,
            idempotency: &snapshot.idempotency,
        };
        let delivery = WorkerDelivery::new(parts, worker_metrics, write_batch, before.map(|before| &before.delivery));
        let request_ids = RequestIds::default();
        let metrics = Rc::clone(worker_metrics);
        let record_context = Rc::new(RecordContext {
            metrics: Rc::clone(&metrics),
            snapshot: Arc::clone(&snapshot),
            tail: Arc::clone(tail),
        });
        let last_hosts = snapshot.listeners.iter().map(|_| LastHost::default()).collect();
        Self { snapshot, delivery, body_memory, request_ids, metrics, record_context, last_hosts }
    }

    /// Reports the retry budgets to the worker's metrics.
    pub(super) fn report_budgets(&self) {
        self.delivery.report_budgets();
    }

    /// Returns the configuration.
    pub(super) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Opens the record of a request and handles it. Boxed: each idle connection would otherwise reserve memory for the
    /// future.
    pub(super) fn begin(
        self: Rc<Self>,
        peer: &Rc<Peer>,
        request: Request<CallerBody>,
    ) -> Pin<Box<impl Future<Output = Response<ResponseBody>> + use<>>> {
        let (head, incoming) = request.into_parts();
        let (version, head_error) = (head.version, head.extensions.get().copied());
        let settings = &self.snapshot.settings;
        let client = peer.forwarded_for.as_ref().filter(|_| settings.forward_client_address);
        let address = self.caller_address(peer, &head.headers);
        let head = CallHead::new(head, || self.request_ids.next(), client.cloned());
        let record = RequestRecord::open(&self.record_context, peer, address, head, head_error);
        let body = RequestBody::new(incoming, version, settings.max_body_bytes, &self.body_memory);
        // Written where it stays: `Box::pin` would copy the whole future.
        let response = Box::write(Box::new_uninit(), self.handle(record, body));
        debug_assert!(size_of_val(&*response) <= MAX_FUTURE, "{} bytes", size_of_val(&*response));
        Box::into_pin(response)
    }

    /// Handles a request. An error becomes a response that is marked as the gateway's own.
    ///
    /// `plan` does everything that needs no await: locals held across an await enlarge every request's future.
    async fn handle(self: Rc<Self>, mut record: Box<RequestRecord>, body: RequestBody) -> Response<ResponseBody> {
        if record.is_to_be_detached() {
            return detached(self, record, body).await;
        }
        let plan = match std::panic::catch_unwind(AssertUnwindSafe(|| self.plan(&record))) {
            Ok(Ok(plan)) => plan,
            Ok(Err(err)) => return error_response(&err, record, body),
            Err(_panic) => return error_response(&ProxyError::INTERNAL, record, body),
        };
        let result = AssertUnwindSafe(self.carry_out(&plan, &body, &record)).catch_unwind().await;
        match result.unwrap_or_else(|_panic| Err(ProxyError::INTERNAL)) {
            Ok(response) => {
                body.release();
                record.set_request_bytes(body.received());
                record.set_response(&response);
                self.delivery.recycle(record.take_headers());
                let timeout = self.snapshot.settings.request_timeout;
                response.map(|upstream_body| ResponseBody::streamed(upstream_body, timeout, body, record))
            }
            Err(err) => error_response(&err, record, body),
        }
    }

    /// Plans a request: every step that needs no await.
    fn plan<'a>(&'a self, record: &'a RequestRecord) -> Result<Plan<'a>, ProxyError> {
        let (peer, head) = (record.peer(), record.call().head());
        let identity = peer.identity.as_ref().map(CallerIdentity::as_str);
        let caller = identity.and_then(|identity| self.snapshot.callers.find(identity));
        if let Some((index, _)) = caller {
            record.set_caller(index);
        }
        if let Some(head_error) = record.head_error() {
            return Err(ProxyError::rejected_head(head_error, self.snapshot.settings.delivery.max_header_bytes));
        }
        // Admission.
        let listener = self.snapshot.index_of(peer.listener).ok_or(ProxyError::Draining)?;
        let admission = self.snapshot.admissions.get(listener).ok_or(ProxyError::INTERNAL)?;
        let last_host = self.last_hosts.get(listener).ok_or(ProxyError::INTERNAL)?;
        admission.admit(peer, record.address(), head, last_host)?;

        // Operation.
        let call = Call::parse(head.method(), head.uri().path(), head.uri().query())?;
        let operation = call.operation;
        record.set_call(&call);
        admission.admit_operation(operation)?;
        step!(record.call(), "admitted", listener = admission.listener(), operation = operation.name());
        if operation == Operation::Health {
            return Ok(Plan::Health);
        }

        // Caller.
        if let Some((_, caller)) = caller {
            caller.check(&call)?;
        }
        let route_caller = RouteCaller { identity, reach: caller.and_then(|(_, caller)| caller.reach()) };

        // Route.
        let client = record.address().address();
        self.check_client_rate(listener, admission, client)?;
        let input = head.route_input(&call, listener, record.address().certain(), route_caller);
        let routes = &self.snapshot.routes;
        let (index, route) = routes.find(&input).ok_or_else(|| ProxyError::no_route(routes, &input))?;
        record.set_route(index);
        let choice = Choice::new(route, &input)?;
        step!(record.call(), "routed", route = route.name().as_str(), candidates = choice.endpoint_indexes().count());
        let key = if head.summary().idempotency_keys > 0 { idempotency_key(head.headers())? } else { None };
        // After every check of the request itself: a rejected request does not count.
        if let Some((caller, _)) = caller {
            self.check_caller_rate(caller)?;
        }
        self.check_route_rate(index)?;
        let key = key.filter(|_| operation.has_effect()).map(|key| {
            let (listener, caller) = (admission.listener().into(), identity.unwrap_or_default().into());
            Box::new(CallKey { listener, caller, network: Network::of(client), key: key.into() })
        });
        Ok(Plan::Forward { operation, choice, key })
    }

    /// Carries a plan out.
    async fn carry_out(
        &self,
        plan: &Plan<'_>,
        body: &RequestBody,
        record: &RequestRecord,
    ) -> Result<Response<UpstreamBody>, ProxyError> {
        let Plan::Forward { operation, choice, key } = plan else { return self.health(record) };
        let peer = record.peer();
        let listener = self.snapshot.index_of(peer.listener).ok_or(ProxyError::Draining)?;
        if let Some(permit) = self.listener_permit(listener, record).await? {
            record.hold(permit);
        }
        let call = PlannedCall::new(*operation, body, record.call());
        // Each use makes its own closure: one that is used twice would be held across the await.
        let gateway_origin = || Some(link_origin(peer, record.call().head()));
        if let Some(key) = key {
            // Boxed because it is rare.
            return Box::pin(self.carry_out_keyed(choice, key, &call, record)).await;
        }
        let (upstream, mut response) = delivery::deliver(&self.delivery, choice, &call, gateway_origin).await?;
        record.set_endpoint(upstream.index());
        let (head, origin) = (record.call().head(), upstream.endpoint().origin());
        let gateway_origin = || Some(link_origin(peer, head));
        headers::to_downstream(response.headers_mut(), head.request_id(), origin, gateway_origin);
        Ok(response)
    }

    /// Returns the address of the caller, and counts a call whose caller is unclear.
    fn caller_address(&self, peer: &Peer, headers: &HeaderMap) -> CallerAddress {
        let caller = self.snapshot.caller_address(peer, headers);
        if let Some(problem) = caller.problem()
            && let Some(listener) = self.snapshot.listener_name(peer.listener)
        {
            self.metrics.address_unclear(listener, problem);
        }
        caller
    }

    /// Carries out a call with an idempotency key. A replay is marked as one.
    async fn carry_out_keyed(
        &self,
        choice: &Choice<'_>,
        key: &CallKey,
        call: &PlannedCall<'_>,
        record: &RequestRecord,
    ) -> Result<Response<UpstreamBody>, ProxyError> {
        let delivered = delivery::deliver_keyed(&self.delivery, choice, key, call).await;
        let is_replay = match &delivered {
            Ok(delivered) => delivered.replay.is_some(),
            Err(err) => matches!(err, DeliveryError::PartialDelivery { is_replay: true, .. }),
        };
        if is_replay {
            self.metrics.replayed();
        }
        let KeyedResponse { upstream, mut response, replay } = delivered?;
        if let Some(upstream) = upstream {
            record.set_endpoint(upstream.index());
        }
        let (peer, head) = (record.peer(), record.call().head());
        let origin = upstream.map_or("", |upstream| upstream.endpoint().origin());
        headers::to_downstream(response.headers_mut(), head.request_id(), origin, || Some(link_origin(peer, head)));
        if let Some(replay) = replay {
            response.headers_mut().insert(REPLAYED_HEADER, HeaderValue::from_static(replay.header_value()));
        }
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
            ProxyError::RateLimited { scope: RateScope::Network, retry_after }
        })
    }

    /// Checks a call against the rate of its caller.
    fn check_caller_rate(&self, caller: usize) -> Result<(), ProxyError> {
        self.snapshot.limits.check_caller_rate(caller).map_err(|RateExceeded { retry_after }| {
            if let Some(label) = self.snapshot.caller_labels.get(caller) {
                self.metrics.caller_rate_limited(label);
            }
            ProxyError::RateLimited { scope: RateScope::Caller, retry_after }
        })
    }

    /// Checks a call against the rate of its route.
    fn check_route_rate(&self, route: usize) -> Result<(), ProxyError> {
        self.snapshot.limits.check_route_rate(route).map_err(|RateExceeded { retry_after }| {
            let route = self.snapshot.routes.routes().get(route);
            self.metrics.rate_limited(route.map_or("_other", |route| route.name().as_str()));
            ProxyError::RateLimited { scope: RateScope::Route, retry_after }
        })
    }

    /// Returns the permit of the listener's concurrency limit, if it has one.
    async fn listener_permit(
        &self,
        listener: usize,
        record: &RequestRecord,
    ) -> Result<Option<ConcurrencyPermit>, ProxyError> {
        let Some(limit) = self.snapshot.limits.listener_concurrency(listener) else { return Ok(None) };
        if let Some(permit) = limit.try_acquire() {
            return Ok(Some(permit));
        }
        // Boxed because it is rare: locals held across an await enlarge every request's future.
        let queued = Box::pin(limit.acquire(self.snapshot.settings.delivery.queue, record.call().deadline())).await;
        record.call().add_wait(queued.waited);
        let name = self.snapshot.admissions.get(listener).map_or("_other", Admission::listener);
        self.metrics.queued_at_listener(name, queued.outcome);
        queued.permit.map(Some).ok_or_else(|| DeliveryError::Overload { retry_after: Queued::RETRY_AFTER }.into())
    }

    /// Responds to a health probe: 200 while a call could be served, by a token in service or one that is requested on demand.
    fn health(&self, record: &RequestRecord) -> Result<Response<UpstreamBody>, ProxyError> {
        if !self.snapshot.endpoints.iter().any(|endpoint| endpoint.bearer().may_serve()) {
            return Err(DeliveryError::TokenUnavailable(None).into());
        }
        let mut response = Response::new(UpstreamBody::Empty);
        response.headers_mut().insert(headers::REQUEST_ID, record.request_id().clone());
        Ok(response)
    }
}

/// Handles a call with an idempotency key in a task of its own, so that it goes on when its caller disconnects: most
/// repeats come because the caller did not wait for the first.
async fn detached(proxy: Rc<Proxy>, mut record: Box<RequestRecord>, body: RequestBody) -> Response<ResponseBody> {
    record.set_detached();
    match tokio::task::spawn_local(proxy.handle(record, body)).await {
        Ok(response) => response,
        Err(err) => match err.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The worker is shutting down, and with it the connection.
            Err(_cancelled) => std::future::pending().await,
        },
    }
}

/// Returns the response for an error, marked as the gateway's own.
fn error_response(err: &ProxyError, mut record: Box<RequestRecord>, body: RequestBody) -> Response<ResponseBody> {
    record.set_request_bytes(body.received());
    body.discard();
    let note = err.note(record.call().head().headers());
    let mut response = err.to_response(record.request_id(), note);
    response.headers_mut().insert(headers::REQUEST_ID, record.request_id().clone());
    record.set_error(err);
    response.map(|text| ResponseBody::whole(text, record))
}

/// Returns the origin by which the caller reached the gateway, for links in responses. A caller on a Unix socket may
/// send no host; links then name `localhost`.
fn link_origin(peer: &Peer, head: &CallHead) -> String {
    let host = head.host().filter(|host| is_valid_host(host)).unwrap_or("localhost");
    format!("{}://{host}", if peer.is_tls { "https" } else { "http" })
}
