//! A reverse proxy for the REST API of Azure SignalR Service. It adds the token of the resource's Microsoft Entra tenant to
//! each request, so that its callers need no credentials.
//!
//! A *caller* sends a hub call without authentication (`POST /api/hubs/chat/:send`). The gateway admits it, determines its
//! operation, selects *endpoints* (SignalR resources) by the configured *routes*, adds the bearer token of the endpoint's
//! *credential*, forwards the call and records it. An *operator* configures the gateway and monitors it.
//!
//! # Life of a request
//!
//! 1. [`serve`] accepts the connection (TCP, Unix, TLS) on a worker, parses HTTP and calls the handler.
//! 2. [`proxy`] opens the request's record (in-flight gauge, start time, request id) and plans the call: admission →
//!    [`signalr::Operation`] → [`route`]. It answers errors itself and marks these answers. The body of the answer owns the
//!    record, which ends when the body ends *or is dropped*; then duration, gauge and log line are final.
//! 3. [`limits`] bounds rates, concurrency and time on the way.
//! 4. [`delivery`] delivers the planned call to one endpoint of the route, or fans it out to all: bearer of the
//!    [`credential`], attempt, failover, retry. It returns an answer, or a typed failure that says what was sent.
//! 5. `delivery::forward` writes the allowed headers and streams the body over a connection of the [`endpoint`]. It keeps
//!    what it sent, so that a request that is refused with 401 can be sent again.
//! 6. [`write_batch`] batches the small writes of a worker, to callers and endpoints, until the end of the scheduler tick.
//!
//! # Three lives of a thing
//!
//! *File*: what the operator wrote, parsed by serde, with optional values. *Settings*: every value decided, without serde and
//! I/O. *Running*: owns sockets, tasks and clocks. `EndpointFile` becomes `EndpointSettings`, which becomes an
//! [`endpoint::Endpoint`]. [`config`] turns files into settings; [`gateway`] turns settings into running parts. A reload
//! builds the parts of the new settings without any effect, then commits them.
//!
//! # Glossary
//!
//! - *caller*: the service that sends a call; *call*: one request to SignalR's REST API; *operation*: the kind of a call
//! - *listener*: an address that callers connect to, with its *admission* rules: who may call which operations
//! - *route*: the conditions that a call must meet, and the endpoints that it then goes to
//! - *endpoint*: one SignalR resource, with its connection pool, its circuit breaker and its credential
//! - *credential*: the identity that calls an endpoint, and how its tokens are obtained
//! - *cell*: the current token of a credential, and the task that renews it; a token is *stale* when its renewal failed
//! - *worker*: a thread that serves connections; it shares no connection with other workers
//! - *attempt*: one try to deliver a call to one endpoint; a retry or failover is another attempt
//! - *fan-out*: the delivery of one call to several endpoints; *leg*: its delivery to one of them; *merge*: making one answer
//!   of the answers of the legs
//! - *lease*: the use of a pooled connection for one request, after which the connection returns to the pool or closes
//! - *lower*: to turn a part of the configuration file into settings
//! - *drain*: to stop accepting calls and wait for those in flight, for a limited time
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
//! `tests/it/architecture.rs` checks these rules.

// In reading order: what callers send, how it arrives, what happens to it, where it goes, with which credential.
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
