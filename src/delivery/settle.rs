//! What is remembered of an attempt under the idempotency key of its call.
//!
//! | outcome of an attempt | a repeat of the call |
//! |---|---|
//! | nothing was sent, or the endpoint states that it did not process it; 401, 403, 429 | is sent |
//! | a status after which the gateway itself may retry (`retry`) | is sent |
//! | any other status | gets this response |
//! | no response, and the endpoint may have received the call | is answered 504 and never sent |

use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Response, StatusCode};

use super::body::UpstreamBody;
use super::call::PlannedCall;
use super::outcome::{AttemptOutcome, Ending, Fault, Sent};
use super::retry::{self, MessageRetry, RetryDecision};
use super::upstream::Upstream;
use super::worker::WorkerDelivery;
use crate::idempotency::{LegState, Outcome};
use crate::metrics::UpstreamErrorReason;
use crate::signalr::Operation;

/// The largest response to a call with a key, in bytes. It is read before the caller is answered.
const MAX_RESPONSE: usize = 1024 * 1024;

/// What a repeat of a call finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settlement {
    /// A leg that may be sent.
    Unsent,
    /// A leg that may have been received and has no outcome.
    Unknown,
    /// The response.
    Done,
}

fn settlement(operation: Operation, ending: Ending, messages: MessageRetry) -> Settlement {
    match (ending.sent, ending.status) {
        (Sent::MaybeProcessed, _) | (Sent::Processed, None) => Settlement::Unknown,
        (Sent::Nothing | Sent::NotProcessed, _)
        // The endpoint refused the call, and may accept it once the operator or time has changed something.
        | (Sent::Processed, Some(StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS)) => Settlement::Unsent,
        (Sent::Processed, Some(_)) => match retry::decide(operation, ending, messages) {
            RetryDecision::Retry => Settlement::Unsent,
            RetryDecision::Final | RetryDecision::NotSafe => Settlement::Done,
        },
    }
}

/// Records the outcome of an attempt under the key of its call, if it has one, with the response's body. Returns the
/// outcome for the caller: one that could not be recorded is unknown.
pub(super) async fn settle(
    worker: &WorkerDelivery,
    upstream: &Upstream,
    call: &PlannedCall<'_>,
    outcome: AttemptOutcome,
) -> AttemptOutcome {
    let Some(claim) = call.claim() else { return outcome };
    let (ending, ended) = (outcome.ending, outcome.ended);
    let endpoint = upstream.endpoint();
    let (state, outcome) = match (settlement(call.operation, ending, worker.settings.retry.messages), outcome.result) {
        (Settlement::Unsent, result) => (LegState::Claimed, AttemptOutcome { ending, ended, result }),
        (Settlement::Unknown, result) => (LegState::Sent, AttemptOutcome { ending, ended, result }),
        (Settlement::Done, Err(err)) => (LegState::Sent, AttemptOutcome { ending, ended, result: Err(err) }),
        (Settlement::Done, Ok(response)) => {
            let (head, body) = response.into_parts();
            let read = body.collected(MAX_RESPONSE, call.state.deadline()).await;
            let kept = Outcome::of(head.status, &head.headers, read.as_ref().ok());
            let result = match read {
                Ok(body) => {
                    let mut response = Response::from_parts(head, UpstreamBody::from(body.clone()));
                    if !body.is_empty() {
                        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
                    }
                    Ok(response)
                }
                Err(err) => {
                    worker.metrics.upstream_failed(upstream.label(), UpstreamErrorReason::Body);
                    Err(err)
                }
            };
            (LegState::Done(kept.into()), AttemptOutcome { ending, ended, result })
        }
    };
    match claim.record(endpoint.name().as_str(), endpoint.origin(), state).await {
        Ok(()) => outcome,
        Err(err) => AttemptOutcome::failed(Sent::MaybeProcessed, Fault::Gateway, err.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::outcome::is_transient;

    /// Checks every operation with an effect against every ending of an attempt.
    #[test]
    fn repeats_follow_the_table() {
        use MessageRetry::{Never, Sdk};
        use Settlement::{Done, Unknown, Unsent};
        let status = |code| {
            let status = StatusCode::from_u16(code).unwrap();
            let sent = if code == 401 { Sent::NotProcessed } else { Sent::Processed };
            let fault = if is_transient(status) { Fault::Endpoint } else { Fault::NoneKnown };
            Ending { sent, fault, status: Some(status) }
        };
        let none = |sent, fault| Ending { sent, fault, status: None };
        // ending, message, message with `retry.messages = "sdk"`, other operation
        let rows = [
            (status(200), Done, Done, Done),
            (status(202), Done, Done, Done),
            (status(400), Done, Done, Done),
            (status(401), Unsent, Unsent, Unsent),
            (status(403), Unsent, Unsent, Unsent),
            (status(404), Done, Done, Done),
            (status(408), Done, Done, Unsent),
            (status(413), Done, Done, Done),
            (status(429), Unsent, Unsent, Unsent),
            (status(500), Done, Done, Unsent),
            (status(501), Done, Done, Done),
            (status(503), Done, Unsent, Unsent),
            (none(Sent::Nothing, Fault::Endpoint), Unsent, Unsent, Unsent),
            (none(Sent::NotProcessed, Fault::Caller), Unsent, Unsent, Unsent),
            (none(Sent::MaybeProcessed, Fault::Endpoint), Unknown, Unknown, Unknown),
            (none(Sent::MaybeProcessed, Fault::NoneKnown), Unknown, Unknown, Unknown),
        ];
        for (ending, never, sdk, other) in rows {
            for operation in Operation::ALL.into_iter().filter(|operation| operation.has_effect()) {
                let found = [Never, Sdk].map(|messages| settlement(operation, ending, messages));
                let expected = if operation.is_message() { [never, sdk] } else { [other, other] };
                assert_eq!(found, expected, "{operation} {ending:?}");
            }
        }
    }
}
