//! Limits the rate of log lines that callers cause: failed requests, connections, panics. Each kind of line has its own rate.
//! Lines above the rate are left out and counted. A log line reports their number.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::metrics::LostLine;
use crate::proxy::{ACCESS_LOG, FAILED_REQUEST};
use crate::runbook::{Condition, Section, lost_lines_remedy};

/// The target of panics.
pub(super) const PANICS: &str = "signalr_gateway::panics";
/// The target of lines about the log itself.
pub(super) const LOG: &str = "signalr_gateway::log";
/// The targets of lines about one connection or one call.
const CALLER_TARGETS: [&str; 5] =
    ["signalr_gateway::serve", "signalr_gateway::proxy", "signalr_gateway::delivery", "signalr_gateway::admin", PANICS];
/// The burst of a kind, in seconds of its rate.
const BURST_SECONDS: u32 = 10;
/// The shortest interval between two reports of lines left out.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// The rate limiters of all kinds of lines.
#[derive(Debug)]
pub(super) struct Throttle {
    kinds: Mutex<Kinds>,
    hasher: RandomState,
    /// The number of lines dropped for a slow reader that have been reported.
    reported_dropped: AtomicU64,
    /// The number of lines that could not be written and have been reported.
    reported_unwritten: AtomicU64,
}

/// What the runbook says about lines that are missing.
const LOST: Section = Section::Condition(Condition::LostLines);

#[derive(Debug)]
struct Kinds {
    /// The rate of each kind. `None` is no limit.
    quota: Option<Quota>,
    /// By call site and label. Labels are error kinds and statuses, so the number of entries is bounded.
    seen: HashMap<(Identifier, u64), Kind>,
    reported: Instant,
}

struct Kind {
    target: &'static str,
    label: Label,
    limiter: DefaultDirectRateLimiter,
    left_out: u64,
}

/// The fields that determine a line's kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Label {
    error_kind: Option<String>,
    status: Option<u64>,
}

impl Throttle {
    /// Creates a throttle with a rate for each kind, in lines a second. 0 is no limit.
    pub(super) fn new(per_second: u32) -> Self {
        let kinds = Kinds { quota: quota(per_second), seen: HashMap::new(), reported: Instant::now() };
        Self {
            kinds: Mutex::new(kinds),
            hasher: RandomState::new(),
            reported_dropped: AtomicU64::new(0),
            reported_unwritten: AtomicU64::new(0),
        }
    }

    /// Replaces the rate of each kind.
    pub(super) fn set_rate(&self, per_second: u32) {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let quota = quota(per_second);
        if kinds.quota != quota {
            kinds.quota = quota;
            if let Some(quota) = quota {
                kinds.seen.values_mut().for_each(|kind| kind.limiter = RateLimiter::direct(quota));
            }
        }
    }

    /// Returns whether a line may be written. If not, counts it as left out.
    fn allows(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        let mut label = Label::default();
        event.record(&mut label);
        let key = (metadata.callsite(), self.hasher.hash_one(&label));
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(quota) = kinds.quota else { return true };
        let kind = kinds.seen.entry(key).or_insert_with(|| Kind {
            target: metadata.target(),
            label,
            limiter: RateLimiter::direct(quota),
            left_out: 0,
        });
        let is_allowed = kind.limiter.check().is_ok();
        if !is_allowed {
            kind.left_out += 1;
            LostLine::RateLimit.add(1);
        }
        is_allowed
    }

    /// Logs how many lines were dropped for a slow reader since the last report.
    pub(super) fn report_dropped(&self) {
        let new = |reason: LostLine, reported: &AtomicU64| {
            let dropped = reason.total();
            let reported = reported.fetch_max(dropped, Ordering::Relaxed);
            dropped.checked_sub(reported).filter(|lines| *lines > 0)
        };
        if let Some(lines) = new(LostLine::SlowReader, &self.reported_dropped) {
            tracing::warn!(
                target: LOG,
                lines,
                side = "gateway",
                remedy = lost_lines_remedy(LostLine::SlowReader),
                runbook = %LOST,
                "log lines were dropped: stderr was not read fast enough; calls are served as before"
            );
        }
        if let Some(lines) = new(LostLine::WriteError, &self.reported_unwritten) {
            tracing::warn!(
                target: LOG,
                lines,
                error = LostLine::WriteError.os_error().map(tracing::field::display),
                side = "gateway",
                remedy = lost_lines_remedy(LostLine::WriteError),
                runbook = %LOST,
                "log lines were lost: stderr could not be written, such as on a full disk; calls are served as before"
            );
        }
    }

    /// Logs how many lines were left out, at most every ten seconds.
    pub(super) fn report_periodically(&self) {
        let is_due = {
            let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
            let is_due = kinds.reported.elapsed() >= REPORT_INTERVAL;
            if is_due {
                kinds.reported = Instant::now();
            }
            is_due
        };
        if is_due {
            self.report();
        }
    }

    /// Logs how many lines were left out since the last report.
    pub(super) fn report(&self) {
        for (target, label, left_out) in self.take_left_out() {
            let Label { error_kind, status } = label;
            tracing::warn!(target: LOG, of = target, error.kind = error_kind, status, left_out, remedy = LOST.remedy(), runbook = %LOST, "more lines like this were left out");
        }
    }

    fn take_left_out(&self) -> Vec<(&'static str, Label, u64)> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let left_out = kinds.seen.values_mut().filter(|kind| kind.left_out > 0);
        left_out.map(|kind| (kind.target, kind.label.clone(), std::mem::take(&mut kind.left_out))).collect()
    }
}

fn quota(per_second: u32) -> Option<Quota> {
    NonZeroU32::new(per_second).map(|per_second| {
        Quota::per_second(per_second)
            .allow_burst(per_second.saturating_mul(NonZeroU32::MIN.saturating_add(BURST_SECONDS - 1)))
    })
}

/// Whether callers can cause a line at any rate.
fn is_caused_by_callers(metadata: &Metadata<'_>) -> bool {
    if metadata.target() == ACCESS_LOG {
        return metadata.name() == FAILED_REQUEST;
    }
    CALLER_TARGETS.iter().any(|part| metadata.target().starts_with(part))
}

impl Visit for Label {
    fn record_u64(&mut self, field: &Field, value: u64) {
        // Lines about an endpoint's response have a status and no error kind.
        if field.name() == "status" {
            self.status = Some(value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "error.kind" {
            self.error_kind = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn fmt::Debug) {}
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kind").field("label", &self.label).field("left_out", &self.left_out).finish_non_exhaustive()
    }
}

/// A layer that leaves out the lines that a [`Throttle`] does not allow.
pub(super) struct ThrottleLayer(pub(super) Arc<Throttle>);

// A layer, not a `Filter`: a filter that rejects an event leaves state in its thread (tracing-subscriber 0.3.23), which
// rejects the next event as well.
impl<S: Subscriber> Layer<S> for ThrottleLayer {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        !is_caused_by_callers(event.metadata()) || self.0.allows(event)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// A layer that counts the lines that pass.
    struct Count(Arc<AtomicUsize>);

    impl<S: Subscriber> Layer<S> for Count {
        fn on_event(&self, _event: &Event<'_>, _context: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn with_throttle(per_second: u32, log: impl FnOnce()) -> (usize, Arc<Throttle>) {
        let (throttle, count) = (Arc::new(Throttle::new(per_second)), Arc::new(AtomicUsize::new(0)));
        let subscriber =
            tracing_subscriber::registry().with(Count(Arc::clone(&count))).with(ThrottleLayer(Arc::clone(&throttle)));
        tracing::subscriber::with_default(subscriber, log);
        (count.load(Ordering::Relaxed), throttle)
    }

    fn failed(kind: &str) {
        tracing::info!(name: FAILED_REQUEST, target: ACCESS_LOG, status = 404_u16, error.kind = kind, "request");
    }

    #[test]
    fn each_kind_has_its_own_burst_and_lines_above_the_rate_are_counted() {
        let (lines, throttle) = with_throttle(1, || {
            for _ in 0..1000 {
                failed("unknown_path");
            }
            for _ in 0..5 {
                failed("malformed");
                tracing::debug!(target: "signalr_gateway::serve::connection", "a caller's TLS handshake failed");
            }
        });
        let left_out = throttle.take_left_out();
        assert_eq!(left_out.len(), 1, "{left_out:?}");
        let (target, label, left_out) = &left_out[0];
        assert_eq!((*target, label.error_kind.as_deref()), (ACCESS_LOG, Some("unknown_path")));
        // On a slow machine the rate allows a few more.
        assert_eq!(lines + usize::try_from(*left_out).unwrap(), 1010);
        assert!((20..100).contains(&lines), "{lines}");
        assert!(throttle.take_left_out().is_empty(), "reported once");
    }

    #[test]
    fn never_leaves_out_successful_requests_or_lines_that_callers_do_not_cause() {
        let (lines, _) = with_throttle(1, || {
            for _ in 0..500 {
                tracing::info!(target: ACCESS_LOG, status = 202_u16, "request");
                tracing::error!(target: "signalr_gateway::credential::refresh", "no valid token");
            }
        });
        assert_eq!(lines, 1000);
    }

    #[test]
    fn leaves_out_no_line_without_a_rate() {
        let (lines, throttle) = with_throttle(0, || (0..500).for_each(|_| failed("malformed")));
        assert_eq!(lines, 500);
        // A reload may set one.
        throttle.set_rate(1);
        assert!(throttle.kinds.lock().unwrap().quota.is_some());
    }
}
