//! One attempt at one endpoint under one deadline. Decides nothing about what comes after it.

use std::cell::Cell;
use std::time::{Duration, Instant};

use http::header::ACCEPT_ENCODING;
use http::uri::PathAndQuery;
use http::{HeaderValue, Response};

use super::body::{Answer, RequestBody};
use super::call::PlannedCall;
use super::error::DeliveryError;
use super::headers;
use super::outcome::{Fault, Sent};
use crate::credential::Bearer;
use crate::endpoint::{
    BrokenOff, ConnectError, EachLine, Endpoint, Lease, Pool, Processing, RequestHead, SendError, Sending,
};
use crate::limits::{DeadlineTimer, RequestDeadline};
use crate::metrics::UpstreamErrorReason;
use crate::signalr::Operation;

/// Writes a call onto a connection to an endpoint, with the endpoint's own bearer.
fn send_over(
    call: &PlannedCall<'_>,
    lease: Lease<RequestBody>,
    endpoint: &Endpoint,
    bearer: &Bearer,
) -> Sending<RequestBody> {
    let target = call.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let head = call.head();
    let lines = |line: &mut EachLine<'_>| {
        if call.is_edited {
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
    let head = RequestHead { method: &head.method, target, lines: &lines, unwanted: headers::is_unwanted };
    lease.send(&head, call.body.rewound())
}

/// The time that an attempt may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttemptTime {
    /// When it began.
    pub(super) began: Instant,
    /// How long the endpoint may take, waits for the caller not counted.
    pub(super) limit: Duration,
    /// When the request's time is over.
    pub(super) request: RequestDeadline,
}

impl AttemptTime {
    /// Returns when an attempt ends of whose time the caller takes nothing.
    fn deadline(&self) -> Instant {
        (self.began + self.limit).min(self.request.at())
    }

    /// Returns how long the endpoint was waited for, of an attempt that waited for the caller as long as `caller`.
    fn of_endpoint(&self, now: Instant, caller: Duration) -> Duration {
        now.saturating_duration_since(self.began).saturating_sub(caller)
    }

    /// Returns when the attempt ends if the caller has taken some of its time; `None` if that is now.
    fn extended(&self, now: Instant, caller: Duration) -> Option<Instant> {
        let left = self.limit.checked_sub(self.of_endpoint(now, caller)).filter(|left| !left.is_zero())?;
        Some((now + left).min(self.request.at())).filter(|later| *later > now)
    }
}

/// Why an attempt got no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// There was no connection. Nothing was sent.
    Connect(ConnectError),
    /// The connection ended before the request was written to it. Nothing was sent.
    Unsent(BrokenOff),
    /// The endpoint states that it did not process the request.
    NotProcessed(BrokenOff),
    /// The connection ended, or what came back was not HTTP. Something may have been received.
    Broken(BrokenOff),
    /// The attempt's time, or the request's, was over.
    Deadline {
        /// Whether the request had been given to a connection, so that something may have been received.
        sent: bool,
        /// How long the endpoint was waited for.
        waited: Duration,
    },
}

impl Failure {
    /// Returns the metric label.
    pub(super) fn reason(&self, time: &AttemptTime) -> UpstreamErrorReason {
        match self {
            Self::Connect(err) if err.is_shortage_here() => UpstreamErrorReason::Local,
            Self::Connect(err) => err.reason(),
            Self::Unsent(_) | Self::NotProcessed(_) => UpstreamErrorReason::ResetBeforeSend,
            Self::Broken(err) if err.is_unreadable() => UpstreamErrorReason::Protocol,
            Self::Broken(_) => UpstreamErrorReason::ResetAfterSend,
            Self::Deadline { waited, .. } if *waited < time.limit => UpstreamErrorReason::RequestTimeout,
            Self::Deadline { sent: false, .. } => UpstreamErrorReason::ConnectTimeout,
            Self::Deadline { sent: true, .. } => UpstreamErrorReason::TryTimeout,
        }
    }

    /// Returns what was sent, who is at fault, and the error. What the caller did is not considered.
    pub(super) fn explained(self, operation: Operation, time: &AttemptTime) -> (Sent, Fault, DeliveryError) {
        match self {
            Self::Connect(err) if err.is_shortage_here() => {
                (Sent::Nothing, Fault::Gateway, DeliveryError::Shortage(err.into()))
            }
            // It was not tried; the attempts that were say what there is to say of the endpoint.
            Self::Connect(err @ ConnectError::Queue(_)) => {
                (Sent::Nothing, Fault::Nobody, DeliveryError::EndpointUnavailable(err.into()))
            }
            Self::Connect(err) => (Sent::Nothing, Fault::Endpoint, DeliveryError::EndpointUnavailable(err.into())),
            Self::Unsent(err) => (Sent::Nothing, Fault::Endpoint, DeliveryError::EndpointUnavailable(err.into())),
            Self::NotProcessed(err) => {
                (Sent::NotProcessed, Fault::Endpoint, DeliveryError::EndpointUnavailable(err.into()))
            }
            // It was received, and answered in a way that this gateway does not read: no failure of the endpoint.
            Self::Broken(err) if err.is_unreadable() => {
                (Sent::Perhaps, Fault::Nobody, DeliveryError::AnswerUnreadable(err.into()))
            }
            Self::Broken(err) => (Sent::Perhaps, Fault::Endpoint, DeliveryError::UpstreamBroken(err)),
            Self::Deadline { sent, waited } => {
                // Of an attempt, an endpoint may have had less: a token, a queue or a slow upload took the rest of the request's
                // time.
                let fault = match waited >= time.limit / 2 {
                    true if sent && operation.waits_for_client() => Fault::Client,
                    true => Fault::Endpoint,
                    false => Fault::Nobody,
                };
                if sent {
                    let limit = if waited < time.limit { time.request.limit() } else { time.limit };
                    (Sent::Perhaps, fault, DeliveryError::Deadline { limit })
                } else {
                    (Sent::Nothing, fault, DeliveryError::EndpointUnavailable("no connection in time".into()))
                }
            }
        }
    }
}

/// Sends a request to an endpoint and waits for the head of its answer, as long as `time` allows.
///
/// A kept connection may turn out to be closed when the request is about to be written, or the endpoint may refuse to
/// process more requests on it; then nothing was done, and one fresh connection is tried.
pub(super) async fn send(
    pool: &Pool<RequestBody>,
    call: &PlannedCall<'_>,
    bearer: &Bearer,
    timer: &DeadlineTimer,
    time: &AttemptTime,
) -> Result<Response<Answer>, Failure> {
    let sent = Cell::new(false);
    let attempt = async {
        let lease = pool.lease(time.began).await.map_err(Failure::Connect)?;
        let reused = lease.is_reused();
        sent.set(true);
        let once_more = match send_over(call, lease, pool.endpoint(), bearer).await {
            Ok(response) => return Ok(response.map(Answer::new)),
            // In a box, since it is rare: every request's future would have room for it.
            Err(err) if err.is_safe_to_repeat() && reused && call.body.failure().is_none() => {
                Box::pin(send_over_a_fresh_connection(pool, call, bearer, &sent))
            }
            Err(err) => return Err(err.into()),
        };
        once_more.await
    };
    let caller = |now| if sent.get() { call.body.waited_for_caller(now) } else { Duration::ZERO };
    let extend = |now| time.extended(now, caller(now));
    let result = timer.until(time.deadline(), extend, attempt).await;
    result.unwrap_or_else(|| {
        let now = Instant::now();
        Err(Failure::Deadline { sent: sent.get(), waited: time.of_endpoint(now, caller(now)) })
    })
}

async fn send_over_a_fresh_connection(
    pool: &Pool<RequestBody>,
    call: &PlannedCall<'_>,
    bearer: &Bearer,
    sent: &Cell<bool>,
) -> Result<Response<Answer>, Failure> {
    sent.set(false);
    let lease = pool.connect().await.map_err(Failure::Connect)?;
    sent.set(true);
    let response = send_over(call, lease, pool.endpoint(), bearer).await?;
    Ok(response.map(Answer::new))
}

impl From<SendError> for Failure {
    fn from(err: SendError) -> Self {
        match err.processing {
            Processing::Unsent => Self::Unsent(err.source),
            Processing::Refused => Self::NotProcessed(err.source),
            Processing::Possible => Self::Broken(err.source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn attempt_is_as_much_longer_as_the_caller_takes_and_ends_with_the_request() {
        let began = Instant::now();
        let time = AttemptTime { began, limit: 10 * SECOND, request: RequestDeadline::new(began, 30 * SECOND) };
        assert_eq!(time.deadline(), began + 10 * SECOND);
        assert_eq!(time.extended(began + 10 * SECOND, Duration::ZERO), None);
        assert_eq!(time.extended(began + 10 * SECOND, 4 * SECOND), Some(began + 14 * SECOND));
        assert_eq!(time.extended(began + 25 * SECOND, 24 * SECOND), Some(began + 30 * SECOND));
        assert_eq!(time.extended(began + 30 * SECOND, 29 * SECOND), None);
    }

    #[test]
    fn endpoint_that_had_its_time_is_to_blame_and_no_other() {
        let began = Instant::now();
        let time = AttemptTime { began, limit: 10 * SECOND, request: RequestDeadline::new(began, 30 * SECOND) };
        for operation in Operation::ALL {
            for (sent, waited, fault) in [
                (true, 10 * SECOND, if operation.waits_for_client() { Fault::Client } else { Fault::Endpoint }),
                (true, 2 * SECOND, Fault::Nobody),
                (false, 10 * SECOND, Fault::Endpoint),
                (false, 2 * SECOND, Fault::Nobody),
            ] {
                let (received, blamed, err) = Failure::Deadline { sent, waited }.explained(operation, &time);
                assert_eq!(blamed, fault, "{operation} {sent} {waited:?}");
                assert_eq!(received, if sent { Sent::Perhaps } else { Sent::Nothing });
                assert_eq!(err.status().as_u16(), if sent { 504 } else { 503 });
            }
        }
    }
}
