//! Exports spans to an OpenTelemetry collector: OTLP over HTTP, as JSON.
//!
//! Written here and not with the OpenTelemetry crates: their HTTP exporter needs a client of its own (reqwest, or an
//! implementation of a trait that runs on the batch processor's thread, which has no reactor), and the SDK's spans would be built
//! while a call runs. OTLP/JSON is one document per export, so serde and the HTTP client of the identity endpoints are enough, and
//! the proxy of `[egress]` and a `ca_file` apply as for any other connection.
//!
//! The exporter never delays a call: the queue of [`crate::trace`] is bounded and drops what does not fit.
//!
//! Source: opentelemetry-proto 1.x, `trace.proto`; OpenTelemetry Protocol, "OTLP/HTTP" and "JSON Protobuf Encoding".

mod collector;
mod error;
mod exporter;
mod json;
mod settings;
mod status;

pub use error::ExportError;
pub use exporter::Exporter;
pub use settings::{OtlpSettings, SERVICE_NAME};
pub use status::{ExportFailure, ExportMonitor, ExportStatus};
