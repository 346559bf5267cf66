//! SignalR's hub protocol: the records that a client and a hub exchange, as JSON and as `MessagePack`. A record is one framed
//! message of the protocol.
//!
//! Source: HubProtocol.md of ASP.NET Core.

pub(super) mod decoder;
mod json;
mod messagepack;
pub(super) mod protocol;
pub(super) mod record;

#[cfg(test)]
mod tests;
