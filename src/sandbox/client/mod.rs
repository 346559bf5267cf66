//! The clients of a SignalR endpoint: `/client/negotiate` and `/client/` over WebSocket, server-sent events and long
//! polling.
//!
//! `requests` checks the hub and the token and passes the request to negotiation or to a transport. A transport moves
//! records between HTTP and a `session`, which speaks the hub protocol and is one connection of the hub. `registry` has the
//! negotiated connections by their ids.
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
pub(super) mod times;
mod websocket;
