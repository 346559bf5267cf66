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
//!    [`signalr::Operation`] → [`route`]. It turns errors into responses that are marked as the gateway's own. The response
//!    body owns the record and closes it when the body ends *or is dropped*; closing it writes the metrics and the log line.
//! 3. [`delivery`] delivers the planned call to one endpoint of the route, or fans it out to all: bearer of the
//!    [`credential`], attempt, failover, retry. It returns a response, or a typed failure that says what was sent.
//! 4. `delivery::forward` writes the allowed headers and streams the body over a connection of the [`endpoint`]. The request
//!    body (`delivery::body`) keeps what was sent, so that a request refused with 401 can be sent again.
//!
//! [`limits`] bounds rates, concurrency and time in steps 2 to 4. [`write_batch`] batches the small writes of a worker, to
//! callers and endpoints, until the end of the scheduler tick.
//!
//! # From configuration file to running part
//!
//! *File*: what the operator wrote, parsed by serde, with optional values. *Settings*: validated, with every default applied;
//! no serde, no I/O. *Running*: owns sockets, tasks and clocks. `EndpointFile` becomes `EndpointSettings`, which becomes an
//! [`endpoint::Endpoint`]. [`config`] turns files into settings; [`gateway`] turns settings into running parts. A reload
//! builds the new running parts without side effects, then commits them.
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
//! - *attempt*: one try to deliver a call to one endpoint, including its resend after a 401 or over a fresh connection; a
//!   retry or failover is another attempt
//! - *fan-out*: the delivery of one call to several endpoints; *leg*: its delivery to one of them; *merge*: combining
//!   the responses of the legs into one
//! - *lease*: the use of a pooled connection for one request, after which the connection returns to the pool or closes
//! - *claim*: the right of one request to send the call of an `Idempotency-Key`
//! - *lower*: to turn a part of the configuration file into settings
//! - *span*: what is recorded of one step of a traced call: the call itself, or an attempt
//! - *drain*: to stop accepting calls and wait for those in flight, for a limited time
//!
//! # Module dependencies
//!
//! ```text
//! signalr, redact   →  none
//! metrics           →  none
//! write_batch       →  none
//! files             →  none
//! limits            →  metrics
//! trace             →  metrics
//! runbook           →  metrics
//! descriptors       →  runbook
//! tls               →  files, runbook
//! egress            →  files, redact, runbook, tls
//! credential        →  egress, files, metrics, redact, runbook, tls
//! idempotency       →  credential, files, metrics, redact, runbook, tls
//! otlp              →  trace, credential, egress, files, metrics, redact, runbook, tls
//! endpoint          →  credential, descriptors, egress, limits, metrics, redact, runbook, write_batch, tls
//! canary            →  endpoint, credential, redact, runbook
//! route             →  endpoint, limits, signalr
//! tail              →  route
//! serve             →  descriptors, files, metrics, redact, runbook, write_batch
//! delivery          →  route, endpoint, credential, signalr, serve, limits, idempotency, metrics, redact, runbook, trace, write_batch
//! proxy             →  delivery, tail, route, endpoint, credential, signalr, serve, limits, idempotency, metrics, redact, runbook, trace, write_batch
//! diagnosis         →  canary, endpoint, credential, egress, files, redact, signalr, metrics, runbook, tls
//! admin             →  serve, tail, metrics, otlp, route, endpoint, credential, canary, idempotency, signalr, redact, runbook, diagnosis
//! gateway           →  all above
//! setup             →  gateway, endpoint, credential, signalr, diagnosis
//! config            →  gateway, the parts' settings, signalr
//! cli               →  anything; sandbox only from cli/sandbox.rs
//! sandbox           →  none
//! fuzzing           →  anything; built only for tests and with `--cfg fuzzing`
//! ```
//!
//! Imports have no cycles, not even between the files of one module. A parent file that only declares and re-exports its
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

pub mod idempotency;

pub mod route;

pub mod endpoint;

pub mod credential;

pub mod egress;

pub mod tls;

pub mod files;

pub mod redact;

pub mod trace;

pub mod otlp;

pub mod metrics;

pub mod runbook;

pub mod write_batch;

pub mod descriptors;

pub mod admin;

pub mod canary;

pub mod tail;

pub mod diagnosis;

pub mod gateway;

pub mod setup;

pub mod config;

pub mod cli;

#[cfg(feature = "sandbox")]
pub mod sandbox;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
