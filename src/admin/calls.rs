//! The calls of the last minutes on `/status`.

use serde::Serialize;

use super::figures::{EndpointInterval, Interval, LAST_MINUTE, Recent};
use super::quantile::float;

/// The calls to an endpoint in a time.
#[derive(Clone, Debug, Serialize)]
pub struct CallsView {
    /// How many there were per second.
    pub calls_per_second: f64,
    /// The share with an error response, or without a response.
    pub share_failed: f64,
    /// The median time to the head of a response, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    /// The time that 99 % of responses took at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
}

/// How long an endpoint took to respond in a time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TimesView {
    /// The median, in milliseconds.
    pub p50_ms: Option<f64>,
    /// The time that 99 % of responses took at most.
    pub p99_ms: Option<f64>,
}

impl TimesView {
    pub(super) fn of(calls: &EndpointInterval) -> Self {
        let quantile = |share| calls.duration.quantile_ms(share).map(rounded);
        Self { p50_ms: quantile(0.5), p99_ms: quantile(0.99) }
    }
}

/// The calls of all callers in the last ten minutes.
#[derive(Clone, Debug, Serialize)]
pub struct TrafficView {
    /// How many seconds are known: less than 600 after a start.
    pub seconds: f64,
    /// The last minute.
    pub last_minute: PointView,
    /// The points of the charts, the latest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<PointView>,
}

/// The calls of all callers in a time.
#[derive(Clone, Debug, Serialize)]
pub struct PointView {
    /// How many there were per second.
    pub calls_per_second: f64,
    /// The share with a status from 400 to 499.
    pub share_4xx: f64,
    /// The share with a status from 500.
    pub share_5xx: f64,
    /// The median time that the gateway itself added, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overhead_p50_ms: Option<f64>,
    /// The time that it added to 99 % of calls at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overhead_p99_ms: Option<f64>,
}

impl CallsView {
    pub(super) fn of(calls: &EndpointInterval, seconds: f64) -> Self {
        Self {
            calls_per_second: per_second(calls.calls, seconds),
            share_failed: share(calls.failed, calls.calls),
            p50_ms: calls.duration.quantile_ms(0.5).map(rounded),
            p99_ms: calls.duration.quantile_ms(0.99).map(rounded),
        }
    }
}

impl TrafficView {
    pub(super) fn of(recent: &Recent, has_series: bool) -> Self {
        Self {
            seconds: recent.seconds().round(),
            last_minute: PointView::of(&recent.last(LAST_MINUTE)),
            series: if has_series { recent.points().iter().map(PointView::of).collect() } else { Vec::new() },
        }
    }
}

impl PointView {
    fn of(interval: &Interval) -> Self {
        let requests = &interval.requests;
        Self {
            calls_per_second: per_second(requests.total, interval.seconds),
            share_4xx: share(requests.client_errors, requests.total),
            share_5xx: share(requests.server_errors, requests.total),
            overhead_p50_ms: interval.overhead.quantile_ms(0.5).map(rounded),
            overhead_p99_ms: interval.overhead.quantile_ms(0.99).map(rounded),
        }
    }
}

/// Returns a count per second.
pub(super) fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { rounded(float(count) / seconds) } else { 0.0 }
}

fn share(part: u64, total: u64) -> f64 {
    if total == 0 { 0.0 } else { rounded(float(part) / float(total)) }
}

/// Rounds to thousandths.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
