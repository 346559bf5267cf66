//! The access log: one line for each request. `config/guide/logs.md` documents its fields.

use std::time::{Duration, SystemTime};

use http::HeaderValue;

use super::failure::Failure;
use crate::delivery::{Leg, Trail, listed};
use crate::metrics::{AddressProblem, ErrorKind};
use crate::serve::{CallerAddress, CallerIdentity};
use crate::signalr::Operation;
use crate::tail::Summary;

/// The target of access log lines.
pub const ACCESS_LOG: &str = "signalr_gateway::access";
/// The name of the log events of failed requests.
pub const FAILED_REQUEST: &str = "failed request";

/// What the line says. It has no query, no body, no token, and no name of a user, group or connection.
pub(super) struct AccessLine<'a> {
    pub(super) request_id: &'a HeaderValue,
    pub(super) trace_id: Option<&'a str>,
    pub(super) address: CallerAddress,
    pub(super) identity: Option<&'a CallerIdentity>,
    pub(super) caller: Option<&'a str>,
    pub(super) listener: Option<&'a str>,
    pub(super) method: &'a str,
    pub(super) operation: Option<Operation>,
    pub(super) hub: Option<&'a str>,
    pub(super) route: Option<&'a str>,
    pub(super) endpoint: Option<&'a str>,
    pub(super) attempts: u32,
    pub(super) trail: Option<&'a Trail>,
    pub(super) status: u16,
    pub(super) duration: Duration,
    /// The part of `duration` that was spent waiting for anything but the caller.
    pub(super) waited: Duration,
    /// The part of `waited` that endpoints took.
    pub(super) upstream: Duration,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    pub(super) is_incomplete: bool,
    pub(super) failure: Option<&'a Failure>,
}

impl AccessLine<'_> {
    /// Returns what the readers of the tail get.
    #[cold]
    pub(super) fn summary(&self) -> Summary<'_> {
        let Self { failure, .. } = self;
        Summary {
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            request_id: self.request_id.to_str().unwrap_or_default(),
            client: self.address.address().map(|address| address.to_string()),
            caller: self.caller,
            listener: self.listener,
            method: self.method,
            operation: self.operation.map(Operation::name),
            hub: self.hub,
            route: self.route,
            endpoint: self.endpoint,
            legs: self.trail.and_then(|trail| listed(&trail.legs)),
            leg_endpoints: self.trail.map_or_else(Vec::new, |trail| trail.legs.iter().map(Leg::endpoint).collect()),
            status: self.status,
            duration_ms: millis(self.duration),
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            broke_off: self.is_incomplete,
            error_kind: failure.and_then(|failure| failure.kind).map(ErrorKind::label),
            error_cause: failure.map(|failure| failure.cause.as_str()),
            has_failed: failure.is_some(),
        }
    }

    /// Writes the line.
    pub(super) fn write(&self) {
        let (legs, failed_attempts) =
            self.trail.map(|trail| (listed(&trail.legs), listed(&trail.failed_attempts))).unwrap_or_default();
        let other_wait = self.waited.saturating_sub(self.upstream);
        macro_rules! line {
            ($name:expr, $level:expr, { $($more:tt)* }) => {
                tracing::event!(
                    name: $name,
                    target: ACCESS_LOG,
                    $level,
                    request_id = self.request_id.to_str().unwrap_or_default(),
                    trace_id = self.trace_id,
                    client = self.address.address().map(tracing::field::display),
                    client.unclear = self.address.problem().map(AddressProblem::label),
                    caller = self.identity.map(CallerIdentity::as_str),
                    caller.name = self.caller,
                    listener = self.listener,
                    method = self.method,
                    operation = self.operation.map(Operation::name),
                    hub = self.hub,
                    route = self.route,
                    endpoint = self.endpoint,
                    attempts = (self.attempts > 0).then_some(self.attempts),
                    failed_attempts = failed_attempts.as_deref(),
                    legs = legs.as_deref(),
                    status = self.status,
                    duration_ms = millis(self.duration),
                    upstream_ms = (self.attempts > 0).then(|| millis(self.upstream)),
                    wait_ms = (!other_wait.is_zero()).then(|| millis(other_wait)),
                    overhead_ms = millis(self.duration.saturating_sub(self.waited)),
                    request_bytes = self.request_bytes,
                    response_bytes = self.response_bytes,
                    $($more)*
                    "request"
                )
            };
        }
        macro_rules! failed_line {
            ($level:expr, $failure:expr) => {
                line!(FAILED_REQUEST, $level, {
                    broke_off = self.is_incomplete.then_some(true),
                    error.kind = $failure.kind.map(ErrorKind::label),
                    error.code = $failure.code.as_deref(),
                    error.cause = $failure.cause.as_str(),
                    side = $failure.side.label(),
                    remedy = $failure.remedy.as_deref(),
                    runbook = $failure.section.map(tracing::field::display),
                })
            };
        }
        // Failed requests have their own event name, by which the log rate-limits them.
        match self.failure {
            None => line!("request", tracing::Level::INFO, {}),
            Some(failure) if failure.needs_operator => failed_line!(tracing::Level::WARN, failure),
            Some(failure) => failed_line!(tracing::Level::INFO, failure),
        }
    }
}

/// Returns a time in milliseconds, to the microsecond.
fn millis(duration: Duration) -> f64 {
    // A request takes less than the 2^32 microseconds (71 minutes) that are exact.
    f64::from(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact_to_the_microsecond() {
        assert_eq!(millis(Duration::from_nanos(1_234_567)).to_string(), "1.234");
        assert_eq!(millis(Duration::from_secs(60)).to_string(), "60000");
    }
}
