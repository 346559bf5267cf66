//! Counts of lines that are missing from the log. All gateways of a process share its log and so these counts.

use std::io;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// How many lines were lost, and when.
struct Loss {
    total: AtomicU64,
    /// When the last line was lost, in seconds since the Unix epoch. 0: none was lost.
    last: AtomicU64,
    /// When the losses began of which the last one is a part, and how many there were before.
    began: AtomicU64,
    before: AtomicU64,
    /// The system's error with which the last line was lost. 0: there is none.
    os_error: AtomicI32,
}

/// Losses that follow each other within this time belong together, and are recent for as long. Chosen: the window of the alert.
const RECENT: u64 = 600;

static LOST: [Loss; 3] = [const {
    Loss {
        total: AtomicU64::new(0),
        last: AtomicU64::new(0),
        began: AtomicU64::new(0),
        before: AtomicU64::new(0),
        os_error: AtomicI32::new(0),
    }
}; 3];

/// Losses that go on, or have ended in the last minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecentLoss {
    /// When they began.
    pub since: SystemTime,
    /// How many lines have been lost since then.
    pub lines: u64,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl LostLine {
    const ALL: [Self; 3] = [Self::SlowReader, Self::RateLimit, Self::WriteError];

    const fn label(self) -> &'static str {
        match self {
            Self::SlowReader => "slow_reader",
            Self::RateLimit => "rate_limit",
            Self::WriteError => "write_error",
        }
    }

    fn loss(self) -> &'static Loss {
        let [slow_reader, rate_limit, write_error] = &LOST;
        match self {
            Self::SlowReader => slow_reader,
            Self::RateLimit => rate_limit,
            Self::WriteError => write_error,
        }
    }

    /// Counts lost lines.
    pub fn add(self, lines: u64) {
        let (loss, now) = (self.loss(), now());
        let before = loss.total.fetch_add(lines, Ordering::Relaxed);
        let last = loss.last.swap(now, Ordering::Relaxed);
        if now.saturating_sub(last) > RECENT {
            loss.before.store(before, Ordering::Relaxed);
            loss.began.store(now, Ordering::Relaxed);
        }
    }

    /// Counts a line that could not be written.
    pub fn add_write_error(error: &io::Error) {
        let loss = Self::WriteError.loss();
        loss.os_error.store(error.raw_os_error().unwrap_or_default(), Ordering::Relaxed);
        Self::WriteError.add(1);
    }

    /// Returns the system's error with which the last line was lost, such as `No space left on device`.
    pub fn os_error(self) -> Option<io::Error> {
        let code = self.loss().os_error.load(Ordering::Relaxed);
        (code != 0).then(|| io::Error::from_raw_os_error(code))
    }

    /// Returns how many lines the process has lost for this reason.
    pub fn total(self) -> u64 {
        self.loss().total.load(Ordering::Relaxed)
    }

    /// Returns the losses that go on or have ended in the last ten minutes.
    pub fn recent_loss(self) -> Option<RecentLoss> {
        let loss = self.loss();
        let is_recent = now().saturating_sub(loss.last.load(Ordering::Relaxed)) <= RECENT;
        is_recent.then(|| RecentLoss {
            since: UNIX_EPOCH + Duration::from_secs(loss.began.load(Ordering::Relaxed)),
            lines: self.total().saturating_sub(loss.before.load(Ordering::Relaxed)),
        })
    }

    /// Returns how many lines the process has lost because stderr was not read or could not be written.
    pub fn lost() -> u64 {
        Self::SlowReader.total() + Self::WriteError.total()
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
