//! Lines that are missing from the log. The log is the process's and not one gateway's, so its counts are the process's, too.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::{IntCounterVec, Registry};

use super::{opts, register};

/// Why a line is missing from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostLine {
    /// Whoever reads stderr was too slow, and as many lines as may were waiting.
    SlowReader,
    /// Too many lines of its kind had been written just before.
    RateLimit,
    /// Stderr could not be written to.
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

    /// Returns how many lines were lost for this reason since the process started.
    pub fn total(self) -> u64 {
        self.count().load(Ordering::Relaxed)
    }
}

/// `signalr_gateway_log_lines_dropped_total`.
#[derive(Debug)]
pub(super) struct LogMetrics(IntCounterVec);

impl LogMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let opts = opts("log_lines_dropped_total", "Lines that are missing from the log.");
        register(registry, IntCounterVec::new(opts, &["reason"])?).map(Self)
    }

    /// Takes the process's counts over.
    pub(super) fn refresh(&self) {
        for reason in LostLine::ALL {
            let counter = self.0.with_label_values(&[reason.label()]);
            counter.inc_by(reason.total().saturating_sub(counter.get()));
        }
    }
}
