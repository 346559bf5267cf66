//! `signalr-gateway`: a reverse proxy that lets internal services call the Azure SignalR REST API in any
//! Microsoft Entra tenant without handling auth.
//!
//! A *caller* sends an unauthenticated hub call (`POST /api/hubs/chat/:send`). The gateway admits it, reads which
//! operation it is, picks an *endpoint* (one SignalR resource) by the configured *routes*, puts in the bearer token
//! of that endpoint's *credential*, forwards the call and counts it. An *operator* runs it, scrapes it and is woken
//! by it.
//!
//! # The walk of a request
//!
//! 1. [`serve`] accepts the connection (TCP, Unix, TLS) on one of the workers and calls the handler with the peer.
//! 2. [`proxy`]`::handle` opens the request's guard (in-flight gauge, start time, request id), calls `try_handle`,
//!    turns an error into an answer marked as the gateway's own and writes the one log line. The response body
//!    carries the guard, so duration and gauge close when the body ends *or is dropped*.
//! 3. `try_handle`, one line per step: admit → [`signalr::Operation`] → [`route`] picks → headers →
//!    [`credential`] bearer → forward → headers back.
//! 4. `forward` streams and keeps what it sent, so that a refused request (401) can be sent once more.
//!
//! # Three lives of a thing
//!
//! *file* (what the operator wrote; serde) → *settings* (decided; no serde, no I/O) → *running* (owns sockets, tasks,
//! clocks). [`config`] makes settings of files and ends there; [`gateway`] makes running parts of settings.
//!
//! # Who may import whom
//!
//! ```text
//! signalr, tls      →  nothing of ours
//! metrics, outbox   →  nothing of ours
//! credential        →  metrics, tls
//! endpoint          →  credential, metrics, outbox, tls
//! route             →  endpoint, signalr
//! serve             →  metrics, outbox
//! proxy             →  route, endpoint, credential, signalr, serve, metrics, outbox
//! admin             →  metrics, endpoint, credential
//! diagnosis         →  endpoint, credential, signalr, metrics, tls
//! gateway           →  all above
//! config            →  gateway, the parts' settings, signalr
//! cli               →  anything; sandbox only from cli/sandbox.rs
//! sandbox           →  nothing of ours
//! ```
//!
//! `tests/it/architecture.rs` holds this table against the source.

// In reading order: what the caller speaks, how it gets in, what happens to it, where it goes, as whom.
pub mod signalr;

pub mod serve;

pub mod proxy;

pub mod route;

pub mod endpoint;

pub mod credential;

pub mod tls;

pub mod metrics;

pub mod outbox;

pub mod admin;

pub mod diagnosis;

pub mod gateway;

pub mod config;

pub mod cli;

#[cfg(feature = "sandbox")]
pub mod sandbox;
