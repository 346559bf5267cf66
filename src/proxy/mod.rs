//! Accepts requests: opens the record of each, admits it, plans it, and turns errors into responses.
//!
//! One [`Snapshot`] is a configuration in force, shared by all workers. Each worker has a `Proxy` of it, with
//! connection pools and counts of its own. Reading order: [`WorkerProxy`] → `pipeline` → [`crate::delivery`].

mod access_log;
mod admission;
mod error;
mod failure;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod idempotency_key;
mod pipeline;
mod record;
mod request_id;
mod response_body;
mod settings;
mod snapshot;
mod worker;

pub use access_log::{ACCESS_LOG, FAILED_REQUEST};
pub use admission::{Admission, LastHost};
pub use error::ProxyError;
pub use response_body::{DownloadError, ResponseBody};
pub use settings::{AccessLog, AdmissionSettings, ProxySettings};
pub use snapshot::{Snapshot, SnapshotEndpoints};
pub use worker::WorkerProxy;
