//! What may be sent again, and how often. Pure but for the dice.
//!
//! | outcome of an attempt | message operations | other operations |
//! |---|---|---|
//! | nothing was sent, or the endpoint states that it did not process it | again | again |
//! | 408, 500 and above, no answer | no (`retry.messages = "sdk"`: status above 500) | again |
//! | 429 | no | after `Retry-After` |
//! | the caller, or this host, is at fault | no | no |
//!
//! Source of the split and of the 500: the Management SDK (`DependencyInjectionExtensions.cs`). A 500 may be the
//! service's own timeout after the message was delivered.

use std::cell::Cell;
use std::time::Duration;

use http::StatusCode;

use super::outcome::{Ending, Fault, Sent, is_transient};
use crate::signalr::Operation;

/// The first pause before an attempt is repeated.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How many retries an endpoint may save up.
const SAVED_RETRIES: f32 = 10.0;

/// How attempts are repeated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetrySettings {
    /// What is repeated of message operations.
    pub messages: MessageRetry,
    /// The most attempts of one request, those not counted that failed before anything was sent while there was another
    /// endpoint to go to.
    pub attempts: u32,
    /// Retries an endpoint may get, as a share of the requests it gets.
    pub budget: f32,
}

/// What is repeated of message operations after something was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageRetry {
    /// Nothing: a message is never sent twice.
    Never,
    /// As the Management SDK does: after a status above 500.
    Sdk,
}

/// Whether an attempt is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It stands as it is.
    Final,
    /// It would be worth it, but the message might be delivered twice.
    NotSafe,
    /// It is repeated.
    Again,
}

/// Decides whether an attempt at an endpoint is repeated there.
pub(super) fn judge(operation: Operation, ending: Ending, messages: MessageRetry) -> Verdict {
    match ending.fault {
        // The caller's own fault stays, and this host's is not ended by more attempts.
        Fault::Caller | Fault::Gateway => return Verdict::Final,
        Fault::Nobody | Fault::Token | Fault::Endpoint | Fault::Client => {}
    }
    let worth_it = match (ending.sent, ending.status) {
        (Sent::Nothing, _) | (Sent::NotProcessed, None) => return Verdict::Again,
        // It was refused, with another token as well, or there is none.
        (Sent::NotProcessed, Some(_)) => return Verdict::Final,
        (Sent::Perhaps, _) | (Sent::Processed, None) => true,
        // Refused for now; a message waits for its caller, who knows whether it is still worth sending.
        (Sent::Processed, Some(StatusCode::TOO_MANY_REQUESTS)) => !operation.is_message(),
        (Sent::Processed, Some(status)) => is_transient(status),
    };
    let as_the_sdk_does =
        messages == MessageRetry::Sdk && ending.status.is_some_and(|status| status > StatusCode::INTERNAL_SERVER_ERROR);
    match (worth_it, operation.is_message()) {
        (false, _) => Verdict::Final,
        (true, true) if !as_the_sdk_does => Verdict::NotSafe,
        (true, _) => Verdict::Again,
    }
}

/// Returns the pause before attempt `number` (the first retry is 1): doubling, with full jitter, so that callers that
/// failed together do not come back together.
pub(super) fn pause(number: u32) -> Duration {
    let most = FIRST_PAUSE.saturating_mul(1 << number.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
    most.mul_f32(fastrand::f32())
}

/// One worker's retry budget for one endpoint: each request pays in a share of a retry, each retry takes one out. When an
/// endpoint is down, retries then add no more than that share to its load.
#[derive(Debug)]
pub(super) struct Budget {
    saved: Cell<f32>,
    share: Cell<f32>,
}

impl Budget {
    pub(super) fn new(share: f32) -> Self {
        Self { saved: Cell::new(SAVED_RETRIES), share: Cell::new(share) }
    }

    /// Goes on with another share; what was saved stays.
    pub(super) fn set_share(&self, share: f32) {
        self.share.set(share);
    }

    /// Returns what is left, from 0 to 1.
    pub(super) fn left(&self) -> f64 {
        f64::from(self.saved.get() / SAVED_RETRIES)
    }

    /// Pays in for a request; its repeats pay nothing.
    pub(super) fn pay_in(&self) {
        self.saved.set((self.saved.get() + self.share.get()).min(SAVED_RETRIES));
    }

    /// Takes out one retry, if there is one.
    pub(super) fn take(&self) -> bool {
        let left = self.saved.get() - 1.0;
        if left < 0.0 {
            return false;
        }
        self.saved.set(left);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each operation by each way in which an attempt can end.
    #[test]
    fn the_table_of_what_may_be_sent_again() {
        use Fault::{Caller, Client, Endpoint, Gateway, Nobody, Token};
        use Verdict::{Again, Final, NotSafe};
        let ending = |sent, fault, code: Option<u16>| {
            let status = code.map(|code| StatusCode::from_u16(code).unwrap());
            Ending { sent, fault, status }
        };
        let status = |code| {
            let sent = if code == 401 { Sent::NotProcessed } else { Sent::Processed };
            let is_failure = is_transient(StatusCode::from_u16(code).unwrap());
            ending(sent, if is_failure { Endpoint } else { Nobody }, Some(code))
        };
        // ending, a message, a message as the SDK does, another operation
        let mut rows = vec![
            (status(202), Final, Final, Final),
            (status(400), Final, Final, Final),
            (status(401), Final, Final, Final),
            (status(403), Final, Final, Final),
            (status(404), Final, Final, Final),
            (status(408), NotSafe, NotSafe, Again),
            (status(413), Final, Final, Final),
            (status(429), Final, Final, Again),
            (status(500), NotSafe, NotSafe, Again),
            (status(501), Final, Final, Final),
            (status(502), NotSafe, Again, Again),
            (status(503), NotSafe, Again, Again),
            (status(504), NotSafe, Again, Again),
        ];
        for fault in [Nobody, Token, Endpoint, Client] {
            rows.push((ending(Sent::Nothing, fault, None), Again, Again, Again));
            rows.push((ending(Sent::NotProcessed, fault, None), Again, Again, Again));
            rows.push((ending(Sent::Perhaps, fault, None), NotSafe, NotSafe, Again));
        }
        for fault in [Caller, Gateway] {
            for sent in [Sent::Nothing, Sent::NotProcessed, Sent::Perhaps] {
                rows.push((ending(sent, fault, None), Final, Final, Final));
            }
        }
        for (ending, never, sdk, other) in rows {
            for operation in Operation::ALL {
                let judged = |messages| judge(operation, ending, messages);
                let expected = if operation.is_message() { (never, sdk) } else { (other, other) };
                let got = (judged(MessageRetry::Never), judged(MessageRetry::Sdk));
                assert_eq!(got, expected, "{operation} {ending:?}");
            }
        }
    }

    #[test]
    fn retries_are_a_share_of_requests_once_the_savings_are_gone() {
        let budget = Budget::new(0.2);
        let mut retries = 0;
        for _ in 0..1000 {
            budget.pay_in();
            retries += i32::from(budget.take());
        }
        assert!((200..=211).contains(&retries), "{retries}");
    }

    #[test]
    fn pauses_double_and_end_somewhere() {
        for number in 1..100 {
            assert!(pause(number) <= LONGEST_PAUSE);
        }
        assert!(pause(1) <= FIRST_PAUSE);
    }
}
