//! What happens to a request, top to bottom: `Proxy::handle`, then `try_handle`.
//!
//! One [`Snapshot`] is a configuration in force, shared by all workers. Each worker has a [`Proxy`] of it, with
//! connection pools and counts of its own.

mod admission;
mod attempt;
mod body;
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
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;

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
use crate::route::{Inquiry, Manner, Table};
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
    async fn handle(&self, peer: &Peer, request: Request<Incoming>) -> Response<ResponseBody> {
        let settings = &self.snapshot.settings;
        let (head, incoming) = request.into_parts();
        let glance = Glance::at(&head.headers);
        let request_id = if glance.has_request_id { request_id::of_caller(&head.headers) } else { None };
        let request_id = request_id.unwrap_or_else(|| self.request_ids.next());
        let mut exchange = Exchange::open(&self.metrics, settings.access_log, request_id, head.method.clone());
        let body = RequestBody::new(incoming, settings.max_body_bytes);

        let result = AssertUnwindSafe(self.try_handle(peer, head, &glance, &body, &mut exchange)).catch_unwind().await;
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

    /// The pipeline.
    async fn try_handle(
        &self,
        peer: &Peer,
        mut head: Parts,
        glance: &Glance,
        body: &RequestBody,
        exchange: &mut Exchange,
    ) -> Result<Response<Answer>, ProxyError> {
        // Who and what may pass.
        let admission = self.snapshot.admissions.get(peer.listener).ok_or(ProxyError::Internal)?;
        let head_bytes = admission.admit(peer, &head, glance)?;

        // Which operation it is.
        let authority = head.uri.authority().cloned();
        let uri = origin_form(std::mem::take(&mut head.uri))?;
        let call = Call::parse(&head.method, uri.path(), uri.query())?;
        exchange.is_call(&call);
        admission.admit_operation(call.operation)?;
        if call.operation == Operation::Health {
            return self.health(exchange);
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
        if let Some(entered) = self.enter_listener(peer.listener, exchange).await? {
            exchange.holds(entered);
        }

        // What goes there.
        let is_repeatable = matches!(choice.manner(), Manner::All(_));
        let key = if is_repeatable { repeats::key(&head.headers)?.map(str::to_owned) } else { None };
        let client = peer.forwarded_for.as_ref().filter(|_| self.snapshot.settings.forward_client_address);
        headers::strip_request(&mut head.headers, glance, exchange.request_id(), client);
        let outgoing = Outgoing::new(head, &uri, body.clone(), head_bytes);
        let gateway = || gateway_origin(peer, authority.as_ref(), outgoing.host().as_ref());

        // As whom it goes, and going.
        // The rare ways are in boxes: every request's future would have room for them.
        let (place, mut response) = match (choice.manner(), call.operation.together()) {
            (_, Together::List) => {
                Box::pin(self.list(choice, &call, &outgoing, gateway().as_deref(), exchange)).await?
            }
            (Manner::All(policy), Together::Deliver) => {
                Box::pin(self.fan_out(choice, policy, &call, key.as_deref(), &outgoing, exchange)).await?
            }
            (Manner::All(policy), Together::Ask) => {
                Box::pin(self.fan_out(choice, policy, &call, None, &outgoing, exchange)).await?
            }
            _ => self.deliver(choice, call.operation, &outgoing, exchange).await?,
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
