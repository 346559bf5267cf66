//! Sends a call to one endpoint under one deadline. Does not decide what follows.

use std::cell::Cell;
use std::time::{Duration, Instant};

use http::header::ACCEPT_ENCODING;
use http::uri::PathAndQuery;
use http::{HeaderValue, Response};

use super::body::{RequestBody, UpstreamBody};
use super::call::PlannedCall;
use super::error::DeliveryError;
use super::headers;
use super::outcome::{AttemptOutcome, Fault, Sent};
use crate::credential::Bearer;
use crate::endpoint::{
    ConnectError, Endpoint, HeaderVisitor, Lease, Pool, Processing, RequestHead, SendError, Sending, TransportError,
};
use crate::idempotency::ClaimError;
use crate::limits::{DeadlineTimer, RequestDeadline};
use crate::metrics::UpstreamErrorReason;
use crate::signalr::Operation;
use crate::trace::TRACE_PARENT;

/// The time that an attempt may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttemptTime {
    /// When it began.
    pub(super) began: Instant,
    /// How long the endpoint may take. Waits for the caller do not count.
    pub(super) limit: Duration,
    /// The deadline of the request.
    pub(super) request: RequestDeadline,
}

impl AttemptTime {
    /// Returns when the attempt ends if it never waits for the caller.
    fn deadline(&self) -> Instant {
        (self.began + self.limit).min(self.request.at())
    }

    /// Returns the attempt's time without `caller_wait`, the time spent waiting for the caller.
    fn endpoint_time(&self, now: Instant, caller_wait: Duration) -> Duration {
        now.saturating_duration_since(self.began).saturating_sub(caller_wait)
    }

    /// Returns when the attempt ends if it has waited for the caller as long as `caller_wait`; `None` if that is now.
    fn extended(&self, now: Instant, caller_wait: Duration) -> Option<Instant> {
        let left = self.limit.checked_sub(self.endpoint_time(now, caller_wait)).filter(|left| !left.is_zero())?;
        Some((now + left).min(self.request.at())).filter(|later| *later > now)
    }
}

/// Why an attempt got no response.
#[derive(Debug)]
pub(super) enum Failure {
    /// There was no connection. Nothing was sent.
    Connect(ConnectError),
    /// The call may not be sent under its idempotency key. Nothing was sent.
    Claim(ClaimError),
    /// The connection ended before the request was written to it. Nothing was sent.
    Unsent(TransportError),
    /// The endpoint states that it did not process the request.
    NotProcessed(TransportError),
    /// The connection ended, or the response cannot be read. Something may have been received.
    Broken(TransportError),
    /// The deadline of the attempt or of the request passed.
    Deadline {
        /// What the attempt had reached.
        stage: Stage,
        /// How long the attempt waited for the endpoint.
        waited: Duration,
    },
}

/// What an attempt has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It waits for the addresses of the endpoint.
    Resolving,
    /// It waits for a connection.
    Connecting,
    /// The request was given to a connection, so something may have been received.
    Sent,
}

impl Stage {
    /// Returns the stage of an attempt that may have waited for addresses or for a connection.
    fn of(sent: &Cell<bool>) -> Self {
        if sent.get() { Self::Sent } else { Self::Connecting }
    }
}

impl Failure {
    /// Distinguishes an attempt that waited for the addresses of its endpoint from one that waited for a connection. Not part of
    /// [`send`], which would have to keep the endpoint in the future of every request.
    pub(super) fn or_resolving(self, endpoint: &Endpoint) -> Self {
        if let Self::Deadline { stage: Stage::Connecting, waited } = self
            && endpoint.is_resolving()
        {
            return Self::Deadline { stage: Stage::Resolving, waited };
        }
        self
    }

    /// Returns the outcome of the attempt, and its metric label unless the caller's body is the cause.
    #[cold]
    pub(super) fn outcome(
        self,
        operation: Operation,
        body: &RequestBody,
        time: &AttemptTime,
    ) -> (AttemptOutcome, Option<UpstreamErrorReason>) {
        if let Some(failure) = body.failure() {
            return (AttemptOutcome::body_failed(failure), None);
        }
        if let Self::Claim(err) = self {
            return (AttemptOutcome::unsent(Fault::Gateway, err.into()), None);
        }
        let waits_for_caller = body.is_waiting_for_caller();
        if waits_for_caller && matches!(self, Self::Deadline { stage: Stage::Sent, .. }) {
            // The endpoint received a part and cannot mistake it for the whole.
            return (AttemptOutcome::failed(Sent::NotProcessed, Fault::Caller, DeliveryError::SlowRequest), None);
        }
        let (sent, fault, err, reason) = self.classify(operation, time);
        let fault = match sent {
            // The endpoint may have given up on the rest of the body.
            Sent::MaybeProcessed if waits_for_caller => Fault::NoneKnown,
            Sent::Nothing | Sent::NotProcessed | Sent::MaybeProcessed | Sent::Processed => fault,
        };
        (AttemptOutcome::failed(sent, fault, err), Some(reason))
    }

    /// Returns what was sent, who is at fault, the error and its metric label, as if the caller's body had been
    /// complete.
    fn classify(self, operation: Operation, time: &AttemptTime) -> (Sent, Fault, DeliveryError, UpstreamErrorReason) {
        use UpstreamErrorReason::{
            ConnectTimeout, Dns, Local, Protocol, RequestTimeout, ResetAfterSend, ResetBeforeSend, TryTimeout,
        };
        match self {
            Self::Connect(err) if err.is_local_shortage() => {
                (Sent::Nothing, Fault::Gateway, DeliveryError::Shortage(err.into()), Local)
            }
            Self::Connect(err) => {
                let reason = err.reason();
                // An attempt that only waited for a connection says nothing about the endpoint.
                let fault = if matches!(err, ConnectError::Queue(_)) { Fault::NoneKnown } else { Fault::Endpoint };
                (Sent::Nothing, fault, DeliveryError::EndpointUnavailable(err.into()), reason)
            }
            Self::Claim(err) => (Sent::Nothing, Fault::Gateway, err.into(), Local),
            Self::Unsent(err) => {
                let err = DeliveryError::EndpointUnavailable(err.into());
                (Sent::Nothing, Fault::Endpoint, err, ResetBeforeSend)
            }
            Self::NotProcessed(err) => {
                let err = DeliveryError::EndpointUnavailable(err.into());
                (Sent::NotProcessed, Fault::Endpoint, err, ResetBeforeSend)
            }
            // The endpoint responded in a way that this gateway cannot read. That is no failure of the endpoint.
            Self::Broken(err) if err.is_invalid_response() => {
                (Sent::MaybeProcessed, Fault::NoneKnown, DeliveryError::ResponseUnreadable(err.into()), Protocol)
            }
            Self::Broken(err) => {
                (Sent::MaybeProcessed, Fault::Endpoint, DeliveryError::UpstreamBroken(err), ResetAfterSend)
            }
            Self::Deadline { stage, waited } => {
                let sent = stage == Stage::Sent;
                // A token, a queue or a slow upload may have taken the rest of the request's time.
                let fault = match waited >= time.limit / 2 {
                    true if sent && operation.waits_for_client() => Fault::Client,
                    true => Fault::Endpoint,
                    false => Fault::NoneKnown,
                };
                let reached_attempt_limit = waited >= time.limit;
                let reason = match (reached_attempt_limit, stage) {
                    (_, Stage::Resolving) => Dns,
                    (false, Stage::Connecting | Stage::Sent) => RequestTimeout,
                    (true, Stage::Connecting) => ConnectTimeout,
                    (true, Stage::Sent) => TryTimeout,
                };
                if sent {
                    let limit = if reached_attempt_limit { time.limit } else { time.request.limit() };
                    (Sent::MaybeProcessed, fault, DeliveryError::Deadline { limit }, reason)
                } else {
                    let cause = if stage == Stage::Resolving {
                        "name resolution of the endpoint did not finish in time"
                    } else {
                        "no connection in time"
                    };
                    let err = DeliveryError::EndpointUnavailable(cause.into());
                    (Sent::Nothing, fault, err, reason)
                }
            }
        }
    }
}

impl From<SendError> for Failure {
    fn from(err: SendError) -> Self {
        match err.processing {
            Processing::Unsent => Self::Unsent(err.source),
            Processing::NotProcessed => Self::NotProcessed(err.source),
            Processing::Possible => Self::Broken(err.source),
        }
    }
}

/// Sends a call to an endpoint and waits for the head of its response, as long as `time` allows.
///
/// A pooled connection may turn out to be closed, or the endpoint may refuse more requests on it. Then nothing was
/// processed, and one fresh connection is tried.
///
/// A call that has claimed an idempotency key is marked as sent once there is a connection, before the first byte is written.
pub(super) async fn send(
    pool: &Pool<RequestBody>,
    call: &PlannedCall<'_>,
    bearer: &Bearer,
    timer: &DeadlineTimer,
    time: &AttemptTime,
) -> Result<Response<UpstreamBody>, Failure> {
    let sent = Cell::new(false);
    let attempt = async {
        let lease = pool.lease(time.began).await.map_err(Failure::Connect)?;
        let reused = lease.is_reused();
        if let Some(claim) = call.claim() {
            let endpoint = pool.endpoint();
            // Boxed because it is rare.
            Box::pin(claim.mark_sent(endpoint.name().as_str(), endpoint.origin())).await.map_err(Failure::Claim)?;
        }
        sent.set(true);
        let once_more = match send_over(call, lease, pool.endpoint(), bearer).await {
            Ok(response) => return Ok(response.map(UpstreamBody::new)),
            // Boxed because it is rare: locals held across an await enlarge every request's future.
            Err(err) if err.is_safe_to_repeat() && reused && call.body.failure().is_none() => {
                Box::pin(send_over_fresh_connection(pool, call, bearer, &sent))
            }
            Err(err) => return Err(err.into()),
        };
        once_more.await
    };
    let caller_wait = |now| if sent.get() { call.body.waited_for_caller(now) } else { Duration::ZERO };
    let extend = |now| time.extended(now, caller_wait(now));
    let result = timer.until(time.deadline(), extend, attempt).await;
    result.unwrap_or_else(|| {
        let now = Instant::now();
        Err(Failure::Deadline { stage: Stage::of(&sent), waited: time.endpoint_time(now, caller_wait(now)) })
    })
}

async fn send_over_fresh_connection(
    pool: &Pool<RequestBody>,
    call: &PlannedCall<'_>,
    bearer: &Bearer,
    sent: &Cell<bool>,
) -> Result<Response<UpstreamBody>, Failure> {
    sent.set(false);
    let lease = pool.connect().await.map_err(Failure::Connect)?;
    sent.set(true);
    let response = send_over(call, lease, pool.endpoint(), bearer).await?;
    Ok(response.map(UpstreamBody::new))
}

/// Writes a call to a connection of an endpoint, with the endpoint's own bearer.
fn send_over(
    call: &PlannedCall<'_>,
    lease: Lease<RequestBody>,
    endpoint: &Endpoint,
    bearer: &Bearer,
) -> Sending<RequestBody> {
    let target = call.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let head = call.head();
    let lines = |line: &mut HeaderVisitor<'_>| {
        if call.edits_response() {
            head.write_upstream(endpoint.host(), bearer, &mut |name, value| {
                if *name != ACCEPT_ENCODING {
                    line(name, value);
                }
            });
            line(&ACCEPT_ENCODING, &HeaderValue::from_static("identity"));
        } else {
            head.write_upstream(endpoint.host(), bearer, line);
        }
    };
    let request = RequestHead { method: &head.method, target, lines: &lines, unwanted: headers::is_unwanted };
    let Some(trace) = call.state.trace() else { return lease.send(&request, call.body.rewound()) };
    // The endpoint's spans are children of the attempt's.
    let header = trace.header(endpoint.name().as_str());
    let traced_lines = |line: &mut HeaderVisitor<'_>| {
        lines(&mut |name, value| {
            if !trace.replaces(name) {
                line(name, value);
            }
        });
        if let Some(header) = &header {
            line(&TRACE_PARENT, header);
        }
    };
    lease.send(&RequestHead { lines: &traced_lines, ..request }, call.body.rewound())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_for_the_caller_extend_an_attempt_up_to_the_requests_deadline() {
        let began = Instant::now();
        let time = AttemptTime { began, limit: 10 * SECOND, request: RequestDeadline::new(began, 30 * SECOND) };
        assert_eq!(time.deadline(), began + 10 * SECOND);
        assert_eq!(time.extended(began + 10 * SECOND, Duration::ZERO), None);
        assert_eq!(time.extended(began + 10 * SECOND, 4 * SECOND), Some(began + 14 * SECOND));
        assert_eq!(time.extended(began + 25 * SECOND, 24 * SECOND), Some(began + 30 * SECOND));
        assert_eq!(time.extended(began + 30 * SECOND, 29 * SECOND), None);
    }

    #[test]
    fn endpoint_is_at_fault_only_if_it_used_half_of_the_attempt_timeout() {
        use UpstreamErrorReason::{ConnectTimeout, Dns, RequestTimeout, TryTimeout};
        let began = Instant::now();
        let time = AttemptTime { began, limit: 10 * SECOND, request: RequestDeadline::new(began, 30 * SECOND) };
        for operation in Operation::ALL {
            let slow_side = if operation.waits_for_client() { Fault::Client } else { Fault::Endpoint };
            for (stage, waited, fault, reason) in [
                (Stage::Sent, 10 * SECOND, slow_side, TryTimeout),
                (Stage::Sent, 2 * SECOND, Fault::NoneKnown, RequestTimeout),
                (Stage::Connecting, 10 * SECOND, Fault::Endpoint, ConnectTimeout),
                (Stage::Connecting, 2 * SECOND, Fault::NoneKnown, RequestTimeout),
                (Stage::Resolving, 10 * SECOND, Fault::Endpoint, Dns),
                (Stage::Resolving, 2 * SECOND, Fault::NoneKnown, Dns),
            ] {
                let sent = stage == Stage::Sent;
                let classified = Failure::Deadline { stage, waited }.classify(operation, &time);
                let (received, found, err, label) = classified;
                assert_eq!((found, label), (fault, reason), "{operation} {stage:?} {waited:?}");
                assert_eq!(received, if sent { Sent::MaybeProcessed } else { Sent::Nothing });
                assert_eq!(err.status().as_u16(), if sent { 504 } else { 503 });
            }
        }
    }
}
