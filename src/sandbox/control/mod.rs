//! The control listener: an HTTP API that controls the sandbox from outside the process. It emulates no Azure service.
//!
//! - `GET /`: the web page.
//! - `GET /sandbox`: the servers with their addresses, and the number of connections of each hub.
//! - `GET /sandbox/ready`: the content of the ready file, or 503 until the sandbox and its gateway serve.
//! - `GET /sandbox/connections?hub=NAME`: the connections of a hub on each endpoint.
//! - `POST /sandbox/relay` with `{"method", "path", "body"}`: sends a call to the gateway and returns the response.
//! - `/endpoints/NAME/client/…`: the endpoint's client URLs without TLS, because browsers do not trust the sandbox's CA.
//! - `POST /endpoints/NAME/negotiate?hub=HUB&user=USER`: responds like an application that redirects its clients to the
//!   service.
//! - `GET /sandbox/journal?server=NAME&after=N`: the journal entries of a server with numbers greater than N.
//! - `DELETE /sandbox/journal?server=NAME`: clears the journal.
//! - `GET /sandbox/faults?server=NAME`: the pending faults; without `server`, those of every server that has any.
//! - `POST /sandbox/faults?server=NAME` with `{"fault": "hang", "times": 3, "path_prefix": "/api/hubs"}`: adds a fault.
//!   Faults: `"hang"`, `"reset"`, `"reset_before_body"`, `"lose_answer"`, `"break_body"`, `{"delay": {"delay_ms": 500}}`,
//!   `{"answer": {"status": 503, "retry_after_secs": 5, "body": "{}"}}`; and `{"fault": "refuse"}` alone.
//!   `PUT` replaces all faults of the server by this one.
//!   A fault does not apply to a CORS preflight, but to the request that follows.
//! - `DELETE /sandbox/faults?server=NAME`: removes all faults of a server; without `server`, of all.
//! - `POST /sandbox/tokens` with `{"lifetime_secs": N, "refresh_in_secs": N}`: changes how Entra issues tokens.

mod faults;
mod reply;
pub(super) mod service;
