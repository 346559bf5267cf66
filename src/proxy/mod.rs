//! What happens to a request, top to bottom.

mod settings;

pub use settings::{AccessLog, AdmissionSettings, ProxySettings};
