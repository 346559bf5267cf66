//! Delivers planned calls to the endpoints of their route. Returns the response, or a typed failure that says what was
//! sent.
//!
//! Reading order: [`deliver`], `fan_out` and `list`, `single`, `attempt`, `forward`. Independent of
//! listeners and admission. From [`crate::serve`] it imports only the caller's body, its error and a header name.
//!
//! Futures of rare steps (a wait for a token or permit, a second connection, a retry, a list, a fan-out) are boxed. Held in
//! place, they would take 1,150 of 33,700 instructions more per request (callgrind, `bench.sh --instructions`, plain, 64
//! connections, median of three runs, 2026-11-27).

mod attempt;
mod body;
mod call;
mod candidates;
mod error;
mod fan_out;
mod forward;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod head;
pub mod headers;
mod keyed;
mod list;
mod outcome;
mod retry;
mod settings;
mod settle;
mod single;
mod steps;
#[cfg(test)]
mod tests;
mod trail;
mod upstream;
mod upstreams;
mod worker;

use futures_util::FutureExt as _;
use futures_util::future::Either;
use http::Response;

pub use body::{BodyMemory, RequestBody, UpstreamBody};
pub use call::{CallState, PlannedCall};
pub use error::{DeliveryError, EndpointOutcome, Side};
pub use head::CallHead;
pub use headers::{ERROR_HEADER, REPLAYED_HEADER};
pub use keyed::{KeyedResponse, Replay, deliver_keyed};
pub use outcome::ERROR_CODE;
pub use retry::{MessageRetry, RetrySettings};
pub use settings::DeliverySettings;
pub use steps::STEPS;
pub(crate) use steps::step;
pub use trail::{Leg, Trail, listed, partly_delivered};
pub use upstream::Upstream;
pub use worker::{DeliveryParts, WorkerDelivery};

use crate::route::{Choice, DeliveryMode};
use crate::signalr::FanOutKind;

/// Delivers a call without an idempotency key. Resolves to the response and the endpoint that sent it. `gateway_origin`
/// returns the origin by which the caller reached the gateway.
///
/// # Errors
/// [`DeliveryError`] says what was sent and who is at fault.
///
/// # Cancel safety
/// The call may have been sent.
pub fn deliver<'a>(
    worker: &'a WorkerDelivery,
    choice: &'a Choice<'a>,
    call: &'a PlannedCall<'a>,
    gateway_origin: impl FnOnce() -> Option<String>,
) -> impl Future<Output = Result<(&'a Upstream, Response<UpstreamBody>), DeliveryError>> {
    // Not an async fn, which would store the arguments twice. Fan-outs and lists are rare, so they are boxed: locals
    // held across an await enlarge every request's future.
    match (choice.delivery_mode(), call.operation.fan_out_kind()) {
        (_, FanOutKind::List) => {
            Either::Left(Either::Left(Box::pin(list::list(worker, choice, call, gateway_origin()))))
        }
        (DeliveryMode::All(policy), FanOutKind::Deliver | FanOutKind::FirstSuccess | FanOutKind::SingleOwner) => {
            Either::Left(Either::Right(Box::pin(fan_out::fan_out(worker, *choice, policy, call))))
        }
        (DeliveryMode::All(_), FanOutKind::SingleEndpoint) | (DeliveryMode::One, _) => {
            let delivered = single::deliver(worker, choice, call);
            Either::Right(delivered.map(|delivered| {
                let (upstream, outcome) = delivered?;
                Ok((upstream, outcome.result?))
            }))
        }
    }
}
