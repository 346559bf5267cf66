//! The limits of a call: rates, concurrency and time. Independent of HTTP.
//!
//! Rates and concurrency limits are shared by all workers, and off unless configured.

mod concurrency;
mod deadline;
mod rate;
mod table;
mod until;

pub use concurrency::{ConcurrencyLimit, ConcurrencyPermit, QueueSettings, Queued};
pub use deadline::RequestDeadline;
pub use rate::{ClientRateSettings, RateExceeded, RateSettings};
pub use table::{EndpointLimits, Limits, ListenerLimits, RouteLimits};
pub use until::{Until, until};
