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
//! 2. [`proxy`] opens the request's record (in-flight gauge, start time, request id) and plans the request, one line per
//!    step: admission → [`signalr::Operation`] → [`route`]. Errors become answers that are marked as the gateway's own. The
//!    body of the answer carries the record, which is closed when the body ends *or is dropped*.
//! 3. [`delivery`] carries the plan out: an endpoint of the route, the bearer of its [`credential`], failover and retries; a
//!    fan-out does so for every endpoint. It answers, or says what was sent.
//! 4. `delivery::forward` writes the caller's headers that may pass to a connection of the [`endpoint`]. It streams the body
//!    and keeps what it sent, so that a refused request (401) can be sent again.
//! 5. [`write_batch`] batches the small writes of a worker, to callers and endpoints, until the end of the scheduler tick.
//!
//! # Three lives of a thing
//!
//! *file* (what the operator wrote; serde) → *settings* (decided; no serde, no I/O) → *running* (owns sockets, tasks,
//! clocks). [`config`] makes settings of files and ends there; [`gateway`] makes running parts of settings.
//!
//! # Who may import whom
//!
//! ```text
//! signalr, redact   →  nothing of ours
//! metrics           →  nothing of ours
//! descriptors       →  nothing of ours
//! write_batch       →  nothing of ours
//! files             →  nothing of ours
//! limits            →  metrics
//! tls               →  files
//! credential        →  files, metrics, redact, tls
//! endpoint          →  credential, descriptors, metrics, write_batch, tls
//! route             →  endpoint, limits, signalr
//! serve             →  descriptors, files, metrics, write_batch
//! delivery          →  route, endpoint, credential, signalr, serve, limits, metrics, write_batch
//! proxy             →  delivery, route, endpoint, credential, signalr, serve, limits, metrics, write_batch
//! admin             →  serve, metrics, endpoint, credential
//! diagnosis         →  endpoint, credential, signalr, metrics, tls
//! gateway           →  all above
//! config            →  gateway, the parts' settings, signalr
//! cli               →  anything; sandbox only from cli/sandbox.rs
//! sandbox           →  nothing of ours
//! fuzzing           →  anything; built for tests and with `--cfg fuzzing` alone
//! ```
//!
//! No files import each other in a circle, within a module either. A parent file that only declares and re-exports its
//! children imports none of them. If its own code uses a child, that child may not import what the parent's file defines:
//! what both need goes into a file of its own. A type has its methods in one file.
//!
//! `tests/it/architecture.rs` holds the source against these rules.

// In reading order: what the caller speaks, how it gets in, what happens to it, where it goes, as whom.
pub mod signalr;

pub mod serve;

pub mod proxy;

pub mod delivery;

pub mod limits;

pub mod route;

pub mod endpoint;

pub mod credential;

pub mod tls;

pub mod files;

pub mod redact;

pub mod metrics;

pub mod write_batch;

pub mod descriptors;

pub mod admin;

pub mod diagnosis;

pub mod gateway;

pub mod config;

pub mod cli;

#[cfg(feature = "sandbox")]
pub mod sandbox;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
