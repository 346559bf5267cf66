//! Counts of lines that are missing from the log. All gateways of a process share its log and so these counts.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::IntCounterVec;

use super::registry::MetricRegistry;

/// Why a line is missing from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostLine {
    /// The reader of stderr was too slow and the buffer was full.
    SlowReader,
    /// Lines of the same kind had reached their rate limit.
    RateLimit,
    /// Writing to stderr failed.
    WriteError,
}

static LOST: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

impl LostLine {
    const ALL: [Self; 3] = [Self::SlowReader, Self::RateLimit, Self::WriteError];

    const fn label(self) -> &'static str {
        match self {
            Self::SlowReader => "slow_reader",
            Self::RateLimit => "rate_limit",
            Self::WriteError => "write_error",
        }
    }

    fn count(self) -> &'static AtomicU64 {
        let [slow_reader, rate_limit, write_error] = &LOST;
        match self {
            Self::SlowReader => slow_reader,
            Self::RateLimit => rate_limit,
            Self::WriteError => write_error,
        }
    }

    /// Counts lost lines.
    pub fn add(self, lines: u64) {
        self.count().fetch_add(lines, Ordering::Relaxed);
    }

    /// Returns how many lines the process has lost for this reason.
    pub fn total(self) -> u64 {
        self.count().load(Ordering::Relaxed)
    }
}

/// `signalr_gateway_log_lines_dropped_total`.
#[derive(Debug)]
pub(super) struct LogMetrics(IntCounterVec);

impl LogMetrics {
    pub(super) fn register(registry: &mut MetricRegistry) -> prometheus::Result<Self> {
        registry.counters("log_lines_dropped_total", "Lines that are missing from the log.", &["reason"]).map(Self)
    }

    /// Raises the counters to the process's counts.
    pub(super) fn refresh(&self) {
        for reason in LostLine::ALL {
            let counter = self.0.with_label_values(&[reason.label()]);
            counter.inc_by(reason.total().saturating_sub(counter.get()));
        }
    }
}
