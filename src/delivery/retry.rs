//! Which attempts are retried, and how often.
//!
//! | outcome of an attempt | message operations | other operations |
//! |---|---|---|
//! | nothing was sent, or the endpoint states that it did not process it | retry | retry |
//! | 408, 5xx except 501, no response | no (`retry.messages = "sdk"`: status above 500) | retry |
//! | 429 | no | retry after `Retry-After` |
//! | the caller, or this host, is at fault | no | no |
//!
//! Source of the split and of the 500: the Management SDK (`DependencyInjectionExtensions.cs`). A 500 may be the
//! service's own timeout after the message was delivered.

use std::cell::Cell;
use std::time::Duration;

use http::StatusCode;

use super::outcome::{Ending, Fault, Sent, is_transient};
use crate::signalr::Operation;

/// The longest pause before the first retry.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The longest pause before any retry.
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// The retries in a full budget.
const MAX_BUDGET: f32 = 10.0;

/// How attempts are retried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetrySettings {
    /// Which message operations are retried.
    pub messages: MessageRetry,
    /// The maximum number of attempts of one request. Failovers to another endpoint do not count.
    pub attempts: u32,
    /// The retries that an endpoint may get, as a share of its requests.
    pub budget: f32,
}

/// Which message operations are retried after something was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageRetry {
    /// None: a message is never sent twice.
    Never,
    /// Those with a status above 500, like the Management SDK.
    Sdk,
}

/// Whether an attempt is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryDecision {
    /// It is not retried: a retry would not help.
    Final,
    /// It is not retried: a retry could help, but might deliver the message twice.
    NotSafe,
    /// It is retried.
    Retry,
}

/// Decides whether an attempt is retried at the same endpoint.
pub(super) fn decide(operation: Operation, ending: Ending, messages: MessageRetry) -> RetryDecision {
    match ending.fault {
        // More attempts do not repair a wrong request, and do not relieve this host.
        Fault::Caller | Fault::Gateway => return RetryDecision::Final,
        Fault::NoneKnown | Fault::Token | Fault::Endpoint | Fault::Client => {}
    }
    let may_help = match (ending.sent, ending.status) {
        (Sent::Nothing, _) | (Sent::NotProcessed, None) => return RetryDecision::Retry,
        // The endpoint rejected the token and its replacement, or there is no replacement.
        (Sent::NotProcessed, Some(_)) => return RetryDecision::Final,
        (Sent::MaybeProcessed, _) | (Sent::Processed, None) => true,
        // A throttled message goes back to the caller, who knows whether it is still worth sending.
        (Sent::Processed, Some(StatusCode::TOO_MANY_REQUESTS)) => !operation.is_message(),
        (Sent::Processed, Some(status)) => is_transient(status),
    };
    let is_retried_by_sdk =
        messages == MessageRetry::Sdk && ending.status.is_some_and(|status| status > StatusCode::INTERNAL_SERVER_ERROR);
    match (may_help, operation.is_message()) {
        (false, _) => RetryDecision::Final,
        (true, true) if !is_retried_by_sdk => RetryDecision::NotSafe,
        (true, _) => RetryDecision::Retry,
    }
}

/// Returns the pause before retry `number`, from 1: exponential backoff with full jitter, which spreads calls that
/// failed at the same time.
pub(super) fn backoff(number: u32) -> Duration {
    let most = FIRST_BACKOFF.saturating_mul(1 << number.saturating_sub(1).min(16)).min(MAX_BACKOFF);
    most.mul_f32(fastrand::f32())
}

/// One worker's retry budget for one endpoint: each request deposits a share of a retry, each retry withdraws one. When
/// an endpoint is down, retries add at most that share of load.
#[derive(Debug)]
pub(super) struct RetryBudget {
    balance: Cell<f32>,
    share: Cell<f32>,
}

impl RetryBudget {
    /// Returns a full budget, to which requests deposit nothing.
    pub(super) fn new() -> Self {
        Self { balance: Cell::new(MAX_BUDGET), share: Cell::new(0.0) }
    }

    /// Sets the share that each request deposits. The balance stays.
    pub(super) fn set_share(&self, share: f32) {
        self.share.set(share);
    }

    /// Returns the balance as a fraction of a full budget.
    pub(super) fn level(&self) -> f64 {
        f64::from(self.balance.get() / MAX_BUDGET)
    }

    /// Deposits the share of one request. Retries deposit nothing.
    pub(super) fn deposit(&self) {
        self.balance.set((self.balance.get() + self.share.get()).min(MAX_BUDGET));
    }

    /// Withdraws one retry. Returns whether there was one.
    pub(super) fn withdraw(&self) -> bool {
        let left = self.balance.get() - 1.0;
        if left < 0.0 {
            return false;
        }
        self.balance.set(left);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks every operation against every ending of an attempt.
    #[test]
    fn retries_follow_the_table() {
        use Fault::{Caller, Client, Endpoint, Gateway, NoneKnown, Token};
        use RetryDecision::{Final, NotSafe, Retry};
        let ending = |sent, fault, code: Option<u16>| {
            let status = code.map(|code| StatusCode::from_u16(code).unwrap());
            Ending { sent, fault, status }
        };
        let status = |code| {
            let sent = if code == 401 { Sent::NotProcessed } else { Sent::Processed };
            let is_failure = is_transient(StatusCode::from_u16(code).unwrap());
            ending(sent, if is_failure { Endpoint } else { NoneKnown }, Some(code))
        };
        // ending, message, message with `retry.messages = "sdk"`, other operation
        let mut rows = vec![
            (status(202), Final, Final, Final),
            (status(400), Final, Final, Final),
            (status(401), Final, Final, Final),
            (status(403), Final, Final, Final),
            (status(404), Final, Final, Final),
            (status(408), NotSafe, NotSafe, Retry),
            (status(413), Final, Final, Final),
            (status(429), Final, Final, Retry),
            (status(500), NotSafe, NotSafe, Retry),
            (status(501), Final, Final, Final),
            (status(502), NotSafe, Retry, Retry),
            (status(503), NotSafe, Retry, Retry),
            (status(504), NotSafe, Retry, Retry),
        ];
        for fault in [NoneKnown, Token, Endpoint, Client] {
            rows.push((ending(Sent::Nothing, fault, None), Retry, Retry, Retry));
            rows.push((ending(Sent::NotProcessed, fault, None), Retry, Retry, Retry));
            rows.push((ending(Sent::MaybeProcessed, fault, None), NotSafe, NotSafe, Retry));
        }
        for fault in [Caller, Gateway] {
            for sent in [Sent::Nothing, Sent::NotProcessed, Sent::MaybeProcessed] {
                rows.push((ending(sent, fault, None), Final, Final, Final));
            }
        }
        for (ending, never, sdk, other) in rows {
            for operation in Operation::ALL {
                let decided = |messages| decide(operation, ending, messages);
                let expected = if operation.is_message() { (never, sdk) } else { (other, other) };
                let got = (decided(MessageRetry::Never), decided(MessageRetry::Sdk));
                assert_eq!(got, expected, "{operation} {ending:?}");
            }
        }
    }

    #[test]
    fn retries_are_a_share_of_requests_once_the_budget_is_spent() {
        let budget = RetryBudget::new();
        budget.set_share(0.2);
        let mut retries = 0;
        for _ in 0..1000 {
            budget.deposit();
            retries += i32::from(budget.withdraw());
        }
        assert!((200..=211).contains(&retries), "{retries}");
    }

    #[test]
    fn backoff_is_bounded() {
        for number in 1..100 {
            assert!(backoff(number) <= MAX_BACKOFF);
        }
        assert!(backoff(1) <= FIRST_BACKOFF);
    }

    #[test]
    fn full_budget_allows_ten_retries() {
        let budget = RetryBudget::new();
        assert_eq!((0..20).filter(|_| budget.withdraw()).count(), 10);
        assert!(budget.level().abs() < f64::EPSILON, "{}", budget.level());
    }
}
