//! The faults of the servers on the control listener.

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::reply::error_reply;
use crate::sandbox::server::exchange::{ReceivedRequest, Reply};
use crate::sandbox::server::faults::{Fault, Faults};
use crate::sandbox::server::listen::Server;

/// A fault in the body of a request.
enum Requested {
    /// The server refuses connections.
    Refuse,
    /// A fault of requests.
    Fault(Fault),
}

/// Responds to a request about the faults of one server.
pub(super) async fn of_server(request: &ReceivedRequest, server: &Server) -> Reply {
    let faults = server.faults();
    match request.method {
        Method::GET => return Reply::json(StatusCode::OK, &described(faults)),
        Method::DELETE => faults.clear().await,
        Method::POST | Method::PUT => {
            let requested = match Requested::parse(&request.body) {
                Ok(requested) => requested,
                Err(err) => return error_reply(StatusCode::BAD_REQUEST, &format!("the fault is invalid: {err}")),
            };
            if request.method == Method::PUT {
                faults.clear().await;
            }
            match requested {
                Requested::Refuse => faults.refuse().await,
                Requested::Fault(fault) => faults.set(fault),
            }
        }
        _ => return Reply::empty(StatusCode::METHOD_NOT_ALLOWED),
    }
    Reply::empty(StatusCode::NO_CONTENT)
}

/// Responds to a request about the faults of all servers. The response names only servers that have faults.
pub(super) async fn of_all(request: &ReceivedRequest, servers: &[Server]) -> Reply {
    match request.method {
        Method::GET => {
            let faulty = servers.iter().filter(|server| is_faulty(server.faults()));
            let faulty: Map<_, _> =
                faulty.map(|server| (server.name().to_owned(), described(server.faults()))).collect();
            Reply::json(StatusCode::OK, &faulty.into())
        }
        Method::DELETE => {
            for server in servers {
                server.faults().clear().await;
            }
            Reply::empty(StatusCode::NO_CONTENT)
        }
        _ => error_reply(StatusCode::BAD_REQUEST, "name the server: /sandbox/faults?server=NAME"),
    }
}

fn is_faulty(faults: &Faults) -> bool {
    faults.is_refusing() || !faults.pending().is_empty()
}

fn described(faults: &Faults) -> Value {
    json!({ "refusing": faults.is_refusing(), "pending": faults.pending() })
}

impl Requested {
    fn parse(body: &[u8]) -> serde_json::Result<Self> {
        let is_refuse = serde_json::from_slice::<Value>(body).is_ok_and(|body| body == json!({ "fault": "refuse" }));
        if is_refuse { Ok(Self::Refuse) } else { serde_json::from_slice(body).map(Self::Fault) }
    }
}
