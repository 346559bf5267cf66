//! The timeouts that an endpoint applies to its clients.

use std::time::Duration;

/// The timeouts that an endpoint applies to its clients.
///
/// Source: the defaults of ASP.NET Core.
#[derive(Clone, Copy, Debug)]
pub struct ClientTimeouts {
    /// From negotiation to the first request of a transport. 15 seconds by default.
    pub connect: Duration,
    /// From the start of the transport to the handshake. 15 seconds by default.
    pub handshake: Duration,
    /// The interval after which an idle session sends a ping. 15 seconds by default.
    pub keep_alive: Duration,
    /// The longest interval in which the client sends nothing. 30 seconds by default.
    pub silence: Duration,
    /// The timeout of one write to the client. 30 seconds by default.
    pub write: Duration,
    /// The longest time that a poll waits. 90 seconds by default.
    pub poll: Duration,
    /// From the loss of a transport to its replacement, with stateful reconnect. 15 seconds by default.
    pub away: Duration,
    /// The longest interval between two polls. 15 seconds by default.
    pub between_polls: Duration,
}

impl Default for ClientTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            handshake: Duration::from_secs(15),
            keep_alive: Duration::from_secs(15),
            silence: Duration::from_secs(30),
            write: Duration::from_secs(30),
            poll: Duration::from_secs(90),
            away: Duration::from_secs(15),
            between_polls: Duration::from_secs(15),
        }
    }
}
