//! The clients of a SignalR endpoint: `/client/negotiate` and `/client/` over WebSocket, server-sent events and long
//! polling.
//!
//! `requests` checks the hub and the token and passes the request to negotiation or to a transport. A transport carries
//! records between HTTP and a `session`. A session implements the hub protocol for one connection of the hub. `registry`
//! holds the negotiated connections by id.
//!
//! Source: TransportProtocols.md and HubProtocol.md of ASP.NET Core, and the responses of its server.

pub(super) mod cors;
mod hub_protocol;
mod long_polling;
pub(super) mod negotiate;
mod polling;
pub(super) mod registry;
mod replay;
pub(super) mod requests;
mod server_sent_events;
mod session;
pub(super) mod timeouts;
mod websocket;
