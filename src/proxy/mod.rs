//! What happens to a request, top to bottom: `Proxy::handle`, then `plan`, then `carry_out`.
//!
//! One [`Snapshot`] is a configuration in force, shared by all workers. Each worker has a [`Proxy`] of it, with
//! connection pools and counts of its own.

mod admission;
mod attempt;
mod body;
mod candidates;
mod deadline;
mod error;
mod exchange;
mod fanout;
mod forward;
mod gate;
pub mod headers;
mod listing;
mod overload;
mod rate;
mod repeats;
mod request_id;
mod retry;
mod settings;
mod worker;

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Response, Uri};

pub use admission::Admission;
pub use body::{DownloadError, ResponseBody};
pub use error::{ERROR_HEADER, ProxyError};
pub use fanout::EndpointOutcome;
pub use gate::QueueSettings;
pub use rate::ClientRateSettings;
pub use repeats::{RepeatSettings, Repeats};
pub use retry::{MessageRetry, RetrySettings};
pub use settings::{AccessLog, AdmissionSettings, ProxySettings};
pub use worker::WorkerProxy;

use body::{Answer, RequestBody};
use deadline::Deadlines;
use exchange::Exchange;
use forward::Outgoing;
use headers::Glance;
use overload::Limits;
use request_id::RequestIds;
use retry::Budget;

use crate::credential::{RequestUrl, in_one_line};
use crate::endpoint::{Endpoint, Pool};
use crate::metrics::{RetryBudgetShare, WorkerMetrics};
use crate::route::{Choice, Inquiry, Manner, Table};
use crate::serve::Peer;
use crate::signalr::{Call, Operation, Together};

/// One configuration in force, shared by all workers.
#[derive(Debug)]
pub struct Snapshot {
    settings: ProxySettings,
    /// By listener.
    admissions: Vec<Admission>,
    routes: Table,
    endpoints: Vec<Arc<Endpoint>>,
    limits: Limits,
    repeats: Arc<Repeats>,
}

impl Snapshot {
    /// Puts a configuration together. The routes refer to endpoints and listeners by their places here. What is remembered of
    /// calls and limits that did not change are taken over from the one `before`.
    pub fn new(
        settings: ProxySettings,
        admissions: Vec<AdmissionSettings>,
        routes: Table,
        endpoints: Vec<Arc<Endpoint>>,
        before: Option<&Self>,
    ) -> Self {
        let admission = |admission| Admission::new(admission, settings.max_header_bytes, settings.max_body_bytes);
        let limits = Limits::new(&admissions, &endpoints, routes.routes(), before);
        let repeats = before.map(|before| Arc::clone(&before.repeats)).unwrap_or_default();
        Self {
            admissions: admissions.into_iter().map(admission).collect(),
            settings,
            routes,
            endpoints,
            limits,
            repeats,
        }
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

/// What is to be done for a request.
enum Plan<'a> {
    /// It asks for the gateway's own health.
    Health,
    Forward(Box<Forward<'a>>),
}

/// A request that goes to endpoints.
struct Forward<'a> {
    operation: Operation,
    choice: Choice<'a>,
    /// The key under which the call may be repeated.
    key: Option<String>,
    outgoing: Outgoing,
    /// The host in the request line, if there was one.
    authority: Option<Authority>,
}

/// One worker's part of a [`Snapshot`].
#[derive(Debug)]
pub struct Proxy {
    snapshot: Arc<Snapshot>,
    pools: Vec<Pool<RequestBody>>,
    /// By endpoint.
    budgets: Vec<Rc<Budget>>,
    budgets_shown: Vec<Rc<RetryBudgetShare>>,
    deadlines: Deadlines,
    request_ids: RequestIds,
    metrics: Rc<WorkerMetrics>,
    /// The configured names, as the log wants them.
    endpoint_names: Vec<Rc<str>>,
    route_names: Vec<Rc<str>>,
}

impl Proxy {
    /// Answers a request. Never fails: an error becomes an answer that is marked as the gateway's own.
    ///
    /// What needs no waiting is done in one go and put down in a [`Plan`]: whatever is alive while a future waits is room in
    /// it, for each request that is on its way.
    async fn handle(&self, peer: &Peer, head: Parts, body: RequestBody) -> Response<ResponseBody> {
        let settings = &self.snapshot.settings;
        let (mut exchange, plan) = self.open(peer, head, &body);
        let result = match plan {
            // In a box, or idle connections would keep room for it. As long as it has less than a kilobyte, the allocator has one
            // at hand.
            Ok(plan) => Box::pin(AssertUnwindSafe(self.carry_out(peer, &plan, &mut exchange)).catch_unwind()).await,
            Err(err) => Ok(Err(err)),
        };
        exchange.received(body.received());
        match result.unwrap_or_else(|_panic| Err(ProxyError::Internal)) {
            Ok(response) => {
                exchange.answers(response.status());
                response.map(|answer| ResponseBody::streamed(answer, settings.request_timeout, exchange))
            }
            Err(err) => {
                body.discard();
                let mut response = err.to_response(exchange.request_id());
                response.headers_mut().insert(headers::REQUEST_ID, exchange.request_id().clone());
                exchange.answers(response.status());
                exchange.fails(err.kind(), std::error::Error::source(&err).map(in_one_line));
                response.map(|text| ResponseBody::whole(text, exchange))
            }
        }
    }

    /// Opens the books of a request, and says what is to be done for it.
    fn open(&self, peer: &Peer, head: Parts, body: &RequestBody) -> (Box<Exchange>, Result<Plan<'_>, ProxyError>) {
        let glance = Glance::at(&head.headers);
        let request_id = if glance.has_request_id { request_id::of_caller(&head.headers) } else { None };
        let request_id = request_id.unwrap_or_else(|| self.request_ids.next());
        let access_log = self.snapshot.settings.access_log;
        let mut exchange = Exchange::open(&self.metrics, access_log, request_id, head.method.clone());
        let plan = AssertUnwindSafe(|| self.plan(peer, head, &glance, body, &mut exchange));
        let plan = std::panic::catch_unwind(plan).unwrap_or(Err(ProxyError::Internal));
        (exchange, plan)
    }

    /// The pipeline, up to where something has to be waited for.
    fn plan(
        &self,
        peer: &Peer,
        mut head: Parts,
        glance: &Glance,
        body: &RequestBody,
        exchange: &mut Exchange,
    ) -> Result<Plan<'_>, ProxyError> {
        // Who and what may pass.
        let admission = self.snapshot.admissions.get(peer.listener).ok_or(ProxyError::Internal)?;
        let head_bytes = admission.admit(peer, &head, glance)?;

        // Which operation it is.
        let authority = head.uri.authority().cloned();
        let uri = origin_form(std::mem::take(&mut head.uri))?;
        let call = Call::parse(&head.method, uri.path(), uri.query())?;
        let operation = call.operation;
        exchange.is_call(&call);
        admission.admit_operation(operation)?;
        if operation == Operation::Health {
            return Ok(Plan::Health);
        }

        // Where it goes.
        let client = peer.address.map(|address| address.ip().to_canonical());
        self.hold_client_rate(peer.listener, client)?;
        let inquiry = Inquiry { call: &call, headers: &head.headers, listener: peer.listener, client };
        let (place, route) = self.snapshot.routes.pick(&inquiry).ok_or(ProxyError::NoRoute)?;
        if let Some(name) = self.route_names.get(place) {
            exchange.takes_route(place, name);
        }
        let choice = route.choose(&inquiry)?;
        self.hold_route_rate(place)?;

        // What goes there.
        let key = if matches!(choice.manner(), Manner::All(_)) { repeats::key(&head.headers)? } else { None };
        let key = key.filter(|_| operation.together() == Together::Deliver).map(str::to_owned);
        let client = peer.forwarded_for.as_ref().filter(|_| self.snapshot.settings.forward_client_address);
        headers::strip_request(&mut head.headers, glance, exchange.request_id(), client);
        let outgoing = Outgoing::new(head, uri, body.clone(), head_bytes);
        Ok(Plan::Forward(Box::new(Forward { operation, choice, key, outgoing, authority })))
    }

    /// The pipeline's other half: as whom a request goes, and going.
    async fn carry_out(
        &self,
        peer: &Peer,
        plan: &Plan<'_>,
        exchange: &mut Exchange,
    ) -> Result<Response<Answer>, ProxyError> {
        let Plan::Forward(forward) = plan else { return self.health(exchange) };
        let Forward { operation, choice, key, outgoing, authority } = &**forward;
        if let Some(entered) = self.enter_listener(peer.listener, exchange).await? {
            exchange.holds(entered);
        }
        let gateway = || gateway_origin(peer, authority.as_ref(), outgoing.host().as_ref());
        // The rare ways are in boxes: every request's future would have room for them.
        let (place, mut response) = match (choice.manner(), operation.together()) {
            (_, Together::List) => Box::pin(self.list(*choice, outgoing, gateway(), exchange)).await?,
            (Manner::All(policy), Together::Deliver | Together::Ask) => {
                Box::pin(self.fan_out(*choice, policy, *operation, key.as_deref(), outgoing, exchange)).await?
            }
            _ => self.deliver(choice, *operation, outgoing, exchange).await?,
        };
        if let Some(pool) = self.pools.get(place) {
            let (id, origin) = (exchange.request_id(), pool.endpoint().origin());
            headers::to_downstream(response.headers_mut(), id, origin, gateway);
        }
        Ok(response)
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

/// Returns `path?query` as the caller sent it. HTTP/1.1 requests nearly always come in this form.
fn origin_form(uri: Uri) -> Result<Uri, ProxyError> {
    if uri.authority().is_none() {
        return Ok(uri);
    }
    let path_and_query = uri.into_parts().path_and_query.ok_or(ProxyError::UnknownPath)?;
    Ok(Uri::from(path_and_query))
}

/// Returns the origin under which the caller reached us, for links in answers.
fn gateway_origin(peer: &Peer, authority: Option<&Authority>, host: Option<&HeaderValue>) -> Option<String> {
    let authority = authority.map(Authority::as_str);
    let host = authority.or_else(|| host?.to_str().ok())?;
    Some(format!("{}://{host}", if peer.is_tls { "https" } else { "http" }))
}
