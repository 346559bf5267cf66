//! The books of one request: when it began, what became of it. They close when the answer's body ends or is dropped,
//! however that comes about, and then the metrics and the one log line are written.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, StatusCode};

use super::settings::AccessLog;
use crate::delivery::{CallHead, CallState};
use crate::limits::{ConcurrencyPermit, RequestDeadline};
use crate::metrics::{self, ErrorKind, InFlight, WorkerMetrics};
use crate::serve::Refusal;
use crate::signalr::{Call, Operation};

/// The books of one request, and the head that it came with: one piece of memory for all that is kept of it.
pub(super) struct RequestRecord {
    metrics: Rc<WorkerMetrics>,
    access_log: AccessLog,
    _in_flight: InFlight,
    started: Instant,
    /// Why the server did not pass on the caller's own head; the head is a stand-in then.
    refusal: Option<Refusal>,
    call: CallState,
    hub: Cell<Option<Box<str>>>,
    operation: Cell<Option<Operation>>,
    route: Cell<Option<(usize, Rc<str>)>>,
    /// `None` until there is an answer.
    status: Option<StatusCode>,
    error: Option<ErrorKind>,
    cause: Option<String>,
    broke_off: bool,
    request_bytes: u64,
    response_bytes: u64,
    closed: bool,
    /// The permit of the listener's concurrency limit, if it has one.
    permit: Cell<Option<ConcurrencyPermit>>,
}

impl RequestRecord {
    /// Begins the record of a request, which may take as long as `time` until the head of its answer.
    pub(super) fn open(
        metrics: &Rc<WorkerMetrics>,
        access_log: AccessLog,
        time: Duration,
        head: CallHead,
        refusal: Option<Refusal>,
    ) -> Box<Self> {
        let started = Instant::now();
        Box::new(Self {
            _in_flight: metrics.request_started(),
            metrics: Rc::clone(metrics),
            access_log,
            started,
            refusal,
            call: CallState::new(head, RequestDeadline::new(started, time)),
            hub: Cell::default(),
            operation: Cell::default(),
            route: Cell::default(),
            status: None,
            error: None,
            cause: None,
            broke_off: false,
            request_bytes: 0,
            response_bytes: 0,
            closed: false,
            permit: Cell::default(),
        })
    }

    /// Returns what delivery reads of the request, and where it notes what it does.
    pub(super) fn call(&self) -> &CallState {
        &self.call
    }

    /// Returns why the server did not pass on the caller's own head.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Takes the caller's headers, which are not needed once there is an answer.
    pub(super) fn take_headers(&mut self) -> HeaderMap {
        self.call.take_headers()
    }

    pub(super) fn request_id(&self) -> &HeaderValue {
        self.call.head().request_id()
    }

    pub(super) fn is_call(&self, call: &Call<'_>) {
        self.operation.set(Some(call.operation));
        if self.access_log != AccessLog::Off {
            self.hub.set(call.hub.map(|hub| hub.decoded().into()));
        }
    }

    pub(super) fn takes_route(&self, place: usize, name: &Rc<str>) {
        self.route.set(Some((place, Rc::clone(name))));
    }

    /// Keeps the permit of the listener until the answer has ended.
    pub(super) fn holds(&self, permit: ConcurrencyPermit) {
        self.permit.set(Some(permit));
    }

    pub(super) fn received(&mut self, bytes: u64) {
        self.request_bytes = bytes;
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.response_bytes += bytes as u64;
    }

    pub(super) fn answers(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// Notes an error of the gateway's own; `cause` is for the log alone.
    pub(super) fn fails(&mut self, kind: ErrorKind, cause: Option<String>) {
        self.error = Some(kind);
        self.cause = cause;
        self.metrics.rejected(kind);
    }

    /// Notes that the answer did not reach its end.
    pub(super) fn broke_off(&mut self) {
        self.broke_off = true;
    }

    /// Closes the books.
    pub(super) fn finish(mut self: Box<Self>) {
        self.close();
    }

    fn close(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        // A request whose future was dropped has no answer: the caller went away.
        let code = self.status.map_or(CALLER_GONE, |status| status.as_u16());
        let duration = self.started.elapsed();
        self.metrics.request_ended(&metrics::RequestRecord {
            route: self.route.get_mut().as_ref().map(|(place, _)| *place),
            operation: self.operation.get().map(Operation::index),
            code,
            duration,
            waited: self.call.waited(),
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
        });
        let has_failed = code >= 400 || self.broke_off;
        let is_logged = match self.access_log {
            AccessLog::Off => false,
            _ if has_failed => true,
            AccessLog::Failures => false,
            // No dice for the usual case.
            AccessLog::Sampled { percent } => percent >= 100 || fastrand::u8(..100) < percent,
        };
        if is_logged {
            self.log(code, duration, has_failed);
        }
    }

    fn log(&mut self, code: u16, duration: Duration, has_failed: bool) {
        let (hub, route, endpoint) = (self.hub.take(), self.route.take(), self.call.take_endpoint());
        macro_rules! log {
            ($name:expr) => {
                tracing::info!(
                    name: $name,
                    target: ACCESS_LOG,
                    method = self.call.head().method().as_str(),
                    operation = self.operation.get().map(Operation::name),
                    hub = hub.as_deref(),
                    route = route.as_ref().map(|(_, name)| &**name),
                    endpoint = endpoint.as_deref(),
                    status = code,
                    duration_ms = duration.as_secs_f64() * 1000.0,
                    request_bytes = self.request_bytes,
                    response_bytes = self.response_bytes,
                    request_id = self.request_id().to_str().unwrap_or_default(),
                    error.kind = self.error.map(ErrorKind::label),
                    error.cause = self.cause.as_deref(),
                    broke_off = self.broke_off.then_some(true),
                    "request"
                )
            };
        }
        // Two names, so that failures can be told apart without a look at the fields.
        if has_failed {
            log!(FAILED_REQUEST);
        } else {
            log!("request");
        }
    }
}

/// The target of the lines about requests.
pub const ACCESS_LOG: &str = "signalr_gateway::access";
/// The name of the events that are about requests that failed.
pub const FAILED_REQUEST: &str = "failed request";

/// What is recorded of a request whose caller went away before its answer: nginx's word for it.
const CALLER_GONE: u16 = 499;

impl Drop for RequestRecord {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for RequestRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestRecord").field("request_id", self.request_id()).finish_non_exhaustive()
    }
}
