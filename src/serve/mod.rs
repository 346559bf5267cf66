//! Accepts connections and serves HTTP on them: listeners, workers, limits, drain. Knows no SignalR; it takes any
//! handler.

mod settings;

pub use settings::{Bind, ListenerSettings, ListenerTlsSettings, ServeSettings};
