//! The outcome of one attempt at an endpoint: what was sent, who was at fault, and the response or error.
//!
//! Retries, failover, the endpoint's health, the retry budget, metrics and the merge of a fan-out derive from it, each
//! by an exhaustive match, and from nothing else.

use std::time::{Duration, Instant};

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, Response, StatusCode};

use super::body::{BodyFailure, UpstreamBody};
use super::error::DeliveryError;
use crate::endpoint::Permit;
use crate::signalr::{LegOutcome, Operation};

/// How long an endpoint that responds 429 without `Retry-After` gets no calls of the same class.
const COOL_DOWN: Duration = Duration::from_secs(1);
/// A 404 with this header means that the target does not exist; one without it, that the path does not.
///
/// A 403 with it concerns the target, such as a connection of another user; one without it, the token and its roles.
pub const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");

/// What an endpoint may have received of a request, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sent {
    /// Nothing.
    Nothing,
    /// At least a part, which the endpoint surely did not process: it says so, or the body was never whole.
    NotProcessed,
    /// It may have received and processed the request.
    MaybeProcessed,
    /// It responded.
    Processed,
}

/// Who was at fault or slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No fault, or it is unknown whose.
    NoneKnown,
    /// The caller: its request is wrong, or its upload was slow.
    Caller,
    /// The credential: there was no token.
    Token,
    /// The gateway: a limit is reached, or this host lacks a resource.
    Gateway,
    /// The endpoint.
    Endpoint,
    /// A client of the hub whose reply the endpoint waited for.
    Client,
}

/// How an attempt ended, without its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) sent: Sent,
    pub(super) fault: Fault,
    /// The endpoint's status, if it responded.
    pub(super) status: Option<StatusCode>,
}

/// The outcome of one attempt.
pub(super) struct AttemptOutcome {
    pub(super) ending: Ending,
    /// When it ended.
    pub(super) ended: Instant,
    pub(super) result: Result<Response<UpstreamBody>, DeliveryError>,
}

impl From<BodyFailure> for Fault {
    fn from(failure: BodyFailure) -> Self {
        match failure {
            BodyFailure::TooLarge { .. } | BodyFailure::Broken => Self::Caller,
            BodyFailure::NotKept => Self::Gateway,
        }
    }
}

impl Ending {
    /// Returns whether another endpoint may take the request: nothing was processed, and the request itself is not at
    /// fault.
    pub(super) fn may_fail_over(self) -> bool {
        match (self.sent, self.fault) {
            (Sent::Nothing, Fault::NoneKnown | Fault::Token | Fault::Gateway | Fault::Endpoint | Fault::Client) => true,
            (
                Sent::NotProcessed,
                Fault::NoneKnown | Fault::Token | Fault::Gateway | Fault::Endpoint | Fault::Client,
            ) => self.status.is_none(),
            (Sent::Nothing | Sent::NotProcessed, Fault::Caller) | (Sent::MaybeProcessed | Sent::Processed, _) => false,
        }
    }

    /// Returns whether a retry takes one from the endpoint's budget. Attempts that sent nothing put no load on the
    /// endpoint.
    pub(super) fn costs_budget(self) -> bool {
        match self.sent {
            Sent::Nothing => false,
            Sent::NotProcessed | Sent::MaybeProcessed | Sent::Processed => true,
        }
    }
}

impl AttemptOutcome {
    /// Returns the outcome of an attempt to which the endpoint responded. `waits_for_caller` says whether it still
    /// waited for the caller's body.
    pub(super) fn responded(
        operation: Operation,
        response: Response<UpstreamBody>,
        ended: Instant,
        waits_for_caller: bool,
    ) -> Self {
        let status = response.status();
        let fault = match (is_transient(status), status) {
            (false, _) => Fault::NoneKnown,
            (true, StatusCode::REQUEST_TIMEOUT) if waits_for_caller => Fault::Caller,
            (true, StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT) if operation.waits_for_client() => {
                Fault::Client
            }
            (true, _) => Fault::Endpoint,
        };
        // RFC 9110 section 15.5.2: the request lacked valid credentials, so it was not applied.
        let sent = if status == StatusCode::UNAUTHORIZED { Sent::NotProcessed } else { Sent::Processed };
        Self { ending: Ending { sent, fault, status: Some(status) }, ended, result: Ok(response) }
    }

    /// Returns the outcome of an attempt without a response.
    #[cold]
    pub(super) fn failed(sent: Sent, fault: Fault, err: DeliveryError) -> Self {
        debug_assert!(is_consistent(sent, &err), "{err} after {sent:?}");
        Self { ending: Ending { sent, fault, status: None }, ended: Instant::now(), result: Err(err) }
    }

    /// Returns the outcome of an attempt that sent nothing.
    #[cold]
    pub(super) fn unsent(fault: Fault, err: DeliveryError) -> Self {
        Self::failed(Sent::Nothing, fault, err)
    }

    /// Returns the outcome of an attempt whose body failed. The endpoint may have received a part, never the whole.
    #[cold]
    pub(super) fn body_failed(failure: BodyFailure) -> Self {
        Self::failed(Sent::NotProcessed, failure.into(), failure.into())
    }

    /// Includes what an earlier request of the same attempt sent.
    pub(super) fn after(mut self, before: Sent) -> Self {
        self.ending.sent = self.ending.sent.max(before);
        self
    }

    /// Returns the pause that the endpoint asked for.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.result.as_ref().ok().and_then(|response| retry_after(response.headers()))
    }

    /// Returns whether a retry with this outcome replaces an earlier one: its endpoint received at least as much. A
    /// body that failed was not whole in any attempt.
    pub(super) fn replaces(&self, earlier: Ending) -> bool {
        match (self.ending.sent, self.ending.fault) {
            (Sent::NotProcessed, Fault::Caller) => true,
            (sent, _) => sent >= earlier.sent,
        }
    }

    /// Reports to the endpoint's health what the attempt says about it. Returns how it ended.
    pub(super) fn report(&self, permit: Permit<'_>) -> Ending {
        let Ending { sent, fault, status } = self.ending;
        match (fault, sent) {
            (Fault::NoneKnown, Sent::Processed | Sent::NotProcessed) => match status {
                Some(StatusCode::TOO_MANY_REQUESTS) => {
                    permit.throttled(self.retry_after().unwrap_or(COOL_DOWN), self.ended);
                }
                Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => permit.denied(self.ended),
                Some(_) | None => permit.succeeded(self.ended),
            },
            (Fault::Endpoint, Sent::Nothing | Sent::NotProcessed) => permit.unreachable(self.ended),
            (Fault::Endpoint, Sent::MaybeProcessed | Sent::Processed) => {
                let pause = self.retry_after().filter(|_| status == Some(StatusCode::SERVICE_UNAVAILABLE));
                match pause {
                    Some(pause) => permit.unavailable(pause, self.ended),
                    None => permit.failed(self.ended),
                }
            }
            // These say nothing about the endpoint.
            (Fault::NoneKnown, Sent::Nothing | Sent::MaybeProcessed)
            | (Fault::Caller | Fault::Token | Fault::Gateway | Fault::Client, _) => drop(permit),
        }
        self.ending
    }

    /// Returns the outcome of the attempt as a leg of a fan-out.
    pub(super) fn leg(&self) -> LegOutcome {
        match (&self.result, self.ending.sent) {
            (Ok(response), _) => match response.status() {
                status if status.is_success() => LegOutcome::Accepted,
                StatusCode::NOT_FOUND if response.headers().contains_key(ERROR_CODE) => LegOutcome::NotFound,
                StatusCode::FORBIDDEN if response.headers().contains_key(ERROR_CODE) => LegOutcome::Denied,
                StatusCode::TOO_MANY_REQUESTS => LegOutcome::Throttled,
                _ => LegOutcome::Failed,
            },
            (Err(_), Sent::Nothing | Sent::NotProcessed) => LegOutcome::NotProcessed,
            (Err(_), Sent::MaybeProcessed | Sent::Processed) => LegOutcome::NoResponse,
        }
    }

    /// Drops the response so that the endpoint's connection can be used again.
    pub(super) fn discard(self) {
        if let Ok(response) = self.result {
            response.into_body().discard();
        }
    }
}

/// Returns whether the status of an error is consistent with what was sent: 503 only if nothing was processed.
fn is_consistent(sent: Sent, err: &DeliveryError) -> bool {
    match sent {
        Sent::Nothing | Sent::NotProcessed => true,
        Sent::MaybeProcessed | Sent::Processed => err.status() != StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Returns whether a later attempt may get another status.
pub(super) fn is_transient(status: StatusCode) -> bool {
    status == StatusCode::REQUEST_TIMEOUT || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED)
}

/// Parses `Retry-After`: seconds, or a date.
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
    use std::sync::Arc;

    use crate::endpoint::{CallClass, EndpointSettings, FailureRatio, Health, HealthSettings};

    fn responded(operation: Operation, status: u16) -> AttemptOutcome {
        let mut response = Response::new(UpstreamBody::Empty);
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        AttemptOutcome::responded(operation, response, Instant::now(), false)
    }

    /// Returns whether the repeated report of an outcome opens the endpoint's circuit.
    fn opens_circuit(outcome: impl Fn() -> AttemptOutcome) -> bool {
        let second = Duration::from_secs(1);
        let failure_ratio = FailureRatio::ALL;
        let settings =
            HealthSettings { failures: 2, failure_ratio, window: 3600 * second, pause: second, probe_interval: second };
        let endpoint = EndpointSettings { health: settings, ..crate::endpoint::tests::settings(443) };
        let health = Health::new(&Arc::new(endpoint));
        for _ in 0..3 {
            outcome().report(health.acquire_anyway(CallClass::new(0)));
        }
        !health.is_closed()
    }

    #[test]
    fn only_faults_of_the_endpoint_open_its_circuit() {
        use Fault::{Caller, Client, Endpoint, Gateway, NoneKnown, Token};
        for fault in [NoneKnown, Caller, Token, Gateway, Endpoint, Client] {
            for sent in [Sent::Nothing, Sent::NotProcessed, Sent::MaybeProcessed] {
                let is_open = opens_circuit(|| AttemptOutcome::failed(sent, fault, DeliveryError::Internal));
                assert_eq!(is_open, fault == Endpoint, "{fault:?} {sent:?}");
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
                assert_eq!(opens_circuit(|| responded(operation, status)), expected, "{operation} {status}");
            }
        }
    }

    #[test]
    fn leg_outcome_states_whether_the_call_was_processed() {
        for (status, leg) in [
            (200, LegOutcome::Accepted),
            (202, LegOutcome::Accepted),
            (401, LegOutcome::Failed),
            (404, LegOutcome::Failed),
            (429, LegOutcome::Throttled),
            (500, LegOutcome::Failed),
        ] {
            assert_eq!(responded(Operation::HubSend, status).leg(), leg, "{status}");
        }
        for (sent, leg) in [
            (Sent::Nothing, LegOutcome::NotProcessed),
            (Sent::NotProcessed, LegOutcome::NotProcessed),
            (Sent::MaybeProcessed, LegOutcome::NoResponse),
            (Sent::Processed, LegOutcome::NoResponse),
        ] {
            assert_eq!(AttemptOutcome::failed(sent, Fault::Endpoint, DeliveryError::Internal).leg(), leg, "{sent:?}");
        }
    }

    #[test]
    fn outcome_includes_what_an_earlier_request_sent() {
        let unsent = || AttemptOutcome::unsent(Fault::Endpoint, DeliveryError::Internal);
        assert!(unsent().ending.may_fail_over() && unsent().after(Sent::NotProcessed).ending.may_fail_over());
        assert!(!unsent().after(Sent::MaybeProcessed).ending.may_fail_over());
        assert_eq!(unsent().after(Sent::MaybeProcessed).leg(), LegOutcome::NoResponse);
    }

    #[test]
    fn timeouts_of_an_endpoint_that_waits_for_the_caller_are_the_callers_fault() {
        for (status, waits_for_caller, fault) in [
            (408, true, Fault::Caller),
            (408, false, Fault::Endpoint),
            (504, true, Fault::Endpoint),
            (202, true, Fault::NoneKnown),
        ] {
            let mut response = Response::new(UpstreamBody::Empty);
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            let outcome = AttemptOutcome::responded(Operation::HubSend, response, Instant::now(), waits_for_caller);
            assert_eq!(outcome.ending.fault, fault, "{status}");
        }
    }

    #[test]
    fn error_with_status_503_means_that_nothing_was_processed() {
        let (unavailable, broken) = (|| DeliveryError::NoBodyMemory, || DeliveryError::Internal);
        for (sent, may_be_503) in
            [(Sent::Nothing, true), (Sent::NotProcessed, true), (Sent::MaybeProcessed, false), (Sent::Processed, false)]
        {
            assert_eq!(is_consistent(sent, &unavailable()), may_be_503, "{sent:?}");
            assert!(is_consistent(sent, &broken()), "{sent:?}");
        }
    }
}
