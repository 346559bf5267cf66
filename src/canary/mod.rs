//! Delivery to a client: a client of the gateway's own connects to a hub of an endpoint, as the clients of an application do, and
//! receives a message that is sent to its connection by the REST API.
//!
//! ```text
//! client token ──► negotiation ──► WebSocket ──► SignalR handshake ──► :send by REST ──► arrival
//! ```
//!
//! `doctor --deliver` does it once, and an endpoint's `canary` does it at intervals, over one connection that it keeps open. Connections go through the endpoint's proxy and trust its `ca_file`, as calls do.

mod authorization;
mod client;
mod error;
mod record;
mod request;
mod status;
mod task;
mod web_socket;

pub use authorization::Authorization;
pub use client::Client;
pub use error::{DeliveryError, Stage};
pub use status::{CanaryFailure, CanaryStatus, Round, SharedStatus};
pub use task::{Canaries, CanaryStatuses, WantedCanary};

/// Returns whether a text can be the hub of a delivery. SignalR allows a few more characters, which URLs must escape.
pub fn is_hub(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128 && text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic) && text.bytes().all(is_allowed)
}
