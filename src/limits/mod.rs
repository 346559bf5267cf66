//! The limits of a call: rates, concurrency and time. Independent of HTTP.
//!
//! Rates and concurrency limits are shared by all workers, and off unless configured. Time limits belong to one worker.

mod concurrency;
mod deadline;
mod rate;
mod table;
mod timer;

pub use concurrency::{ConcurrencyLimit, ConcurrencyPermit, QueueSettings, Queued};
pub use deadline::RequestDeadline;
pub use rate::{ClientRateSettings, RateExceeded, RateLimit, RateSettings};
pub use table::{EndpointLimits, Limits, ListenerLimits, NamedRate};
pub use timer::{DeadlineTimer, Until};
