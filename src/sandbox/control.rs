//! The sandbox's own listener, for programs and people outside the process: what runs where, the journals, the
//! faults. No part of what is emulated.
//!
//! - `GET /sandbox`: the servers and their addresses, and how many connections each hub has.
//! - `GET /sandbox/journal?server=NAME&after=N`: what a server received after its request number N.
//! - `DELETE /sandbox/journal?server=NAME`: forgets it.
//! - `GET /sandbox/faults?server=NAME`: the faults still to happen.
//! - `POST /sandbox/faults?server=NAME` with `{"fault": "hang", "times": 3, "path_prefix": "/api/hubs"}`: adds a fault.
//!   Faults: `"hang"`, `"reset"`, `"reset_before_body"`, `"lose_answer"`, `"break_body"`, `{"delay": {"delay_ms": 500}}`,
//!   `{"answer": {"status": 503, "retry_after_secs": 5, "body": "{}"}}`; and `{"fault": "refuse"}` alone.
//! - `DELETE /sandbox/faults?server=NAME`: takes all faults away.
//! - `POST /sandbox/tokens` with `{"lifetime_secs": N, "refresh_in_secs": N}`: how Entra makes tokens from now on.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::directory::DirectoryHandle;
use super::endpoint::Endpoint;
use super::exchange::{Received, Reply, Service};
use super::faults::Fault;
use super::listen::Server;

/// The control listener's service.
pub(super) struct Control {
    pub(super) servers: Arc<[Server]>,
    pub(super) endpoints: Arc<[Endpoint]>,
    pub(super) directory: DirectoryHandle,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokensBody {
    lifetime_secs: Option<u64>,
    refresh_in_secs: Option<u64>,
}

impl Service for Control {
    const MAX_BODY: usize = 64 * 1024;

    async fn answer(&self, request: Received) -> Reply {
        if !is_local(&request.host) {
            return problem(StatusCode::FORBIDDEN, "the sandbox is controlled from this host only");
        }
        // A page of another origin can post text and forms, but not JSON, without being asked first.
        let json = request.header("content-type").is_some_and(|value| value.starts_with("application/json"));
        if request.method == Method::POST && !json {
            return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json");
        }
        match (&request.method, request.path.as_str()) {
            (&Method::GET, "/sandbox") => self.overview(),
            (&Method::POST, "/sandbox/tokens") => self.set_tokens(&request),
            (_, path @ ("/sandbox/journal" | "/sandbox/faults")) => match self.server(&request) {
                Some(server) if path == "/sandbox/journal" => journal(&request, server),
                Some(server) => faults(&request, server).await,
                None => self.no_server(),
            },
            _ => {
                problem(StatusCode::NOT_FOUND, "there is /sandbox, /sandbox/journal, /sandbox/faults, /sandbox/tokens")
            }
        }
    }
}

impl Control {
    fn overview(&self) -> Reply {
        let servers: serde_json::Map<String, Value> =
            self.servers.iter().map(|server| (server.name().to_owned(), server.url().into())).collect();
        let hubs: serde_json::Map<String, Value> = self
            .endpoints
            .iter()
            .map(|endpoint| (endpoint.name().to_owned(), json!(endpoint.hubs.connection_counts())))
            .collect();
        Reply::json(StatusCode::OK, &json!({ "servers": servers, "hubs": hubs }))
    }

    fn set_tokens(&self, request: &Received) -> Reply {
        let body: TokensBody = match serde_json::from_slice(&request.body) {
            Ok(body) => body,
            Err(err) => return problem(StatusCode::BAD_REQUEST, &format!("the body is not understood: {err}")),
        };
        self.directory.edit(|directory| {
            if let Some(seconds) = body.lifetime_secs {
                directory.tokens.lifetime = Duration::from_secs(seconds);
            }
            directory.tokens.refresh_in = body.refresh_in_secs.map(Duration::from_secs);
        });
        Reply::empty(StatusCode::NO_CONTENT)
    }

    fn server(&self, request: &Received) -> Option<&Server> {
        let name = request.query_value("server")?;
        self.servers.iter().find(|server| server.name() == name)
    }

    fn no_server(&self) -> Reply {
        let names: Vec<&str> = self.servers.iter().map(Server::name).collect();
        let detail = format!("the query parameter 'server' must name one of: {}", names.join(", "));
        problem(StatusCode::NOT_FOUND, &detail)
    }
}

fn journal(request: &Received, server: &Server) -> Reply {
    match request.method {
        Method::GET => {
            let after = request.query_value("after").and_then(|after| after.parse().ok()).unwrap_or(0);
            Reply::json(StatusCode::OK, &server.journal().json(after))
        }
        Method::DELETE => {
            server.journal().clear();
            Reply::empty(StatusCode::NO_CONTENT)
        }
        _ => Reply::empty(StatusCode::METHOD_NOT_ALLOWED),
    }
}

async fn faults(request: &Received, server: &Server) -> Reply {
    let faults = server.faults();
    match request.method {
        Method::GET => {
            let body = json!({ "refusing": faults.is_refusing(), "pending": faults.pending() });
            Reply::json(StatusCode::OK, &body)
        }
        Method::DELETE => {
            faults.clear().await;
            Reply::empty(StatusCode::NO_CONTENT)
        }
        Method::POST if is_refuse(&request.body) => {
            faults.refuse().await;
            Reply::empty(StatusCode::NO_CONTENT)
        }
        Method::POST => match serde_json::from_slice::<Fault>(&request.body) {
            Ok(fault) => {
                faults.set(fault);
                Reply::empty(StatusCode::NO_CONTENT)
            }
            Err(err) => problem(StatusCode::BAD_REQUEST, &format!("the fault is not understood: {err}")),
        },
        _ => Reply::empty(StatusCode::METHOD_NOT_ALLOWED),
    }
}

fn is_refuse(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|body| body == json!({ "fault": "refuse" }))
}

/// Whether a host is this machine by address or by the name `localhost`: a name that someone else resolves to this
/// machine is not.
fn is_local(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn problem(status: StatusCode, detail: &str) -> Reply {
    Reply::json(status, &json!({ "error": detail })).verdict(detail.to_owned())
}
