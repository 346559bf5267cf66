//! What became of one attempt at an endpoint. Whether it is repeated, what the endpoint's health and the metrics note, the
//! caller's status and a leg's part of a fan-out are derived from it and from nothing else.

use std::time::{Duration, Instant};

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, Response, StatusCode};

use super::body::Answer;
use super::error::DeliveryError;
use crate::endpoint::Permit;
use crate::signalr::{LegOutcome, Operation};

/// The pause that an endpoint gets for calls of a class when it answers 429 without `Retry-After`.
const COOL_DOWN: Duration = Duration::from_secs(1);
/// Distinguishes "it does not exist" from "there is no such path".
const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");

/// What an endpoint may have received of a request, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sent {
    /// Nothing.
    Nothing,
    /// Something, and the endpoint states that it did not process it.
    NotProcessed,
    /// Something may have been received.
    Perhaps,
    /// It was answered.
    Processed,
}

/// Who was at fault or slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nobody, or it cannot be said who.
    Nobody,
    /// The caller: its request is at fault, or its upload was slow.
    Caller,
    /// The credential: there was no token.
    Token,
    /// The gateway: too many calls, or this host is short of something.
    Gateway,
    /// The endpoint.
    Endpoint,
    /// A client of the hub, whose answer the endpoint waited for.
    Client,
}

/// How an attempt ended, without its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) sent: Sent,
    pub(super) fault: Fault,
    /// The endpoint's status, if it answered.
    pub(super) status: Option<StatusCode>,
}

/// What became of one attempt.
pub(super) struct AttemptOutcome {
    pub(super) ending: Ending,
    /// When it ended.
    pub(super) ended: Instant,
    pub(super) result: Result<Response<Answer>, DeliveryError>,
}

impl Ending {
    /// Whether another endpoint may take the request: nothing was processed, and what was in the way is not the request itself.
    pub(super) fn moves_on(self) -> bool {
        match (self.sent, self.fault) {
            (Sent::Nothing, Fault::Nobody | Fault::Token | Fault::Gateway | Fault::Endpoint | Fault::Client) => true,
            (Sent::NotProcessed, Fault::Nobody | Fault::Token | Fault::Gateway | Fault::Endpoint | Fault::Client) => {
                self.status.is_none()
            }
            (Sent::Nothing | Sent::NotProcessed, Fault::Caller) | (Sent::Perhaps | Sent::Processed, _) => false,
        }
    }
}

impl AttemptOutcome {
    /// The endpoint answered.
    pub(super) fn answered(operation: Operation, response: Response<Answer>, ended: Instant) -> Self {
        let status = response.status();
        let is_up_to_client =
            operation.waits_for_client() && matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT);
        let fault = match is_transient(status) {
            false => Fault::Nobody,
            true if is_up_to_client => Fault::Client,
            true => Fault::Endpoint,
        };
        // RFC 9110 section 15.5.2: it lacks valid credentials, so it was not applied.
        let sent = if status == StatusCode::UNAUTHORIZED { Sent::NotProcessed } else { Sent::Processed };
        Self { ending: Ending { sent, fault, status: Some(status) }, ended, result: Ok(response) }
    }

    /// The endpoint did not answer.
    #[cold]
    pub(super) fn failed(sent: Sent, fault: Fault, err: DeliveryError) -> Self {
        Self { ending: Ending { sent, fault, status: None }, ended: Instant::now(), result: Err(err) }
    }

    /// Nothing was sent.
    #[cold]
    pub(super) fn unsent(fault: Fault, err: DeliveryError) -> Self {
        Self::failed(Sent::Nothing, fault, err)
    }

    /// The same, after an attempt of which an endpoint had received as much as `before`.
    pub(super) fn after(mut self, before: Sent) -> Self {
        self.ending.sent = self.ending.sent.max(before);
        self
    }

    /// Returns the pause that the endpoint asked for.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.result.as_ref().ok().and_then(|response| retry_after(response.headers()))
    }

    /// Reports to the endpoint's health what the attempt says about it. Returns how it ended.
    pub(super) fn report(&self, permit: Permit<'_>) -> Ending {
        let Ending { sent, fault, status } = self.ending;
        match (fault, sent) {
            (Fault::Nobody, Sent::Processed | Sent::NotProcessed) => {
                if status == Some(StatusCode::TOO_MANY_REQUESTS) {
                    permit.throttled(self.retry_after().unwrap_or(COOL_DOWN), self.ended);
                } else {
                    permit.succeeded(self.ended);
                }
            }
            (Fault::Endpoint, Sent::Nothing | Sent::NotProcessed) => permit.unreachable(self.ended),
            (Fault::Endpoint, Sent::Perhaps | Sent::Processed) => {
                let pause = self.retry_after().filter(|_| status == Some(StatusCode::SERVICE_UNAVAILABLE));
                match pause {
                    Some(pause) => permit.unavailable(pause, self.ended),
                    None => permit.failed(self.ended),
                }
            }
            // These say nothing about the endpoint.
            (Fault::Nobody, Sent::Nothing | Sent::Perhaps)
            | (Fault::Caller | Fault::Token | Fault::Gateway | Fault::Client, _) => drop(permit),
        }
        self.ending
    }

    /// Returns what the attempt comes to as a leg of a fan-out.
    pub(super) fn leg(&self) -> LegOutcome {
        match (&self.result, self.ending.sent) {
            (Ok(response), _) => match response.status() {
                status if status.is_success() => LegOutcome::Accepted,
                StatusCode::NOT_FOUND if response.headers().contains_key(ERROR_CODE) => LegOutcome::NotFound,
                StatusCode::TOO_MANY_REQUESTS => LegOutcome::Throttled,
                _ => LegOutcome::Refused,
            },
            (Err(_), Sent::Nothing | Sent::NotProcessed) => LegOutcome::Unsent,
            (Err(_), Sent::Perhaps | Sent::Processed) => LegOutcome::NoAnswer,
        }
    }

    /// Lets the endpoint's connection be used again.
    pub(super) fn discard(self) {
        if let Ok(response) = self.result {
            response.into_body().discard();
        }
    }
}

/// Whether a status may be gone next time.
pub(super) fn is_transient(status: StatusCode) -> bool {
    status == StatusCode::REQUEST_TIMEOUT || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED)
}

/// Reads `Retry-After`: seconds, or a date.
///
/// Source: RFC 9110 section 10.2.3.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_a_date) => {
            let at = httpdate::parse_http_date(value).ok()?;
            Some(at.duration_since(std::time::SystemTime::now()).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::{CallClass, FailureRatio, Health, HealthSettings};
    use crate::metrics::Metrics;

    fn answered(operation: Operation, status: u16) -> AttemptOutcome {
        let mut response = Response::new(Answer::Empty);
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        AttemptOutcome::answered(operation, response, Instant::now())
    }

    /// Whether an outcome, seen again and again, takes its endpoint out.
    fn takes_out(outcome: impl Fn() -> AttemptOutcome) -> bool {
        let second = Duration::from_secs(1);
        let failure_ratio = FailureRatio::ALL;
        let settings =
            HealthSettings { failures: 2, failure_ratio, window: 3600 * second, pause: second, probe_interval: second };
        let health = Health::new("east", settings, Metrics::new().unwrap().endpoints().clone());
        for _ in 0..3 {
            outcome().report(health.enter_anyway(CallClass::new(0)));
        }
        !health.is_closed()
    }

    #[test]
    fn only_what_is_the_endpoints_fault_takes_it_out() {
        use Fault::{Caller, Client, Endpoint, Gateway, Nobody, Token};
        for fault in [Nobody, Caller, Token, Gateway, Endpoint, Client] {
            for sent in [Sent::Nothing, Sent::NotProcessed, Sent::Perhaps] {
                let is_out = takes_out(|| AttemptOutcome::failed(sent, fault, DeliveryError::Internal));
                assert_eq!(is_out, fault == Endpoint, "{fault:?} {sent:?}");
            }
        }
        for operation in Operation::ALL {
            for (status, expected) in [
                (202, false),
                (401, false),
                (404, false),
                (408, !operation.waits_for_client()),
                (429, false),
                (500, true),
                (501, false),
                (503, true),
                (504, !operation.waits_for_client()),
            ] {
                assert_eq!(takes_out(|| answered(operation, status)), expected, "{operation} {status}");
            }
        }
    }

    #[test]
    fn legs_say_what_was_sent() {
        for (status, leg) in [
            (200, LegOutcome::Accepted),
            (202, LegOutcome::Accepted),
            (401, LegOutcome::Refused),
            (404, LegOutcome::Refused),
            (429, LegOutcome::Throttled),
            (500, LegOutcome::Refused),
        ] {
            assert_eq!(answered(Operation::HubSend, status).leg(), leg, "{status}");
        }
        for (sent, leg) in [
            (Sent::Nothing, LegOutcome::Unsent),
            (Sent::NotProcessed, LegOutcome::Unsent),
            (Sent::Perhaps, LegOutcome::NoAnswer),
            (Sent::Processed, LegOutcome::NoAnswer),
        ] {
            assert_eq!(AttemptOutcome::failed(sent, Fault::Endpoint, DeliveryError::Internal).leg(), leg, "{sent:?}");
        }
    }

    #[test]
    fn what_was_sent_before_is_not_forgotten() {
        let unsent = || AttemptOutcome::unsent(Fault::Endpoint, DeliveryError::Internal);
        assert!(unsent().ending.moves_on() && unsent().after(Sent::NotProcessed).ending.moves_on());
        assert!(!unsent().after(Sent::Perhaps).ending.moves_on());
        assert_eq!(unsent().after(Sent::Perhaps).leg(), LegOutcome::NoAnswer);
    }
}
