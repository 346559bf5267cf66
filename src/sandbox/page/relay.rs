//! The page's way to the gateway, which refuses browsers: calls it as an internal service would, and tells what it
//! answered. Calls that one gateway alone; who may use the relay is the control listener's to say.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::sandbox::server::exchange::{Received, Reply};

/// How long the gateway may take. Longer than its own limit for a request, which is the answer to see.
const TIME: Duration = Duration::from_secs(60);

/// The largest answer that is shown, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// What the page asks for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    method: String,
    /// Path and query.
    path: String,
    /// The body as it is to be sent: JSON, in a text so that its numbers stay as they are written.
    body: Option<String>,
}

/// Carries out one call.
pub(crate) async fn relay(request: &Received, gateway: SocketAddr) -> Reply {
    let call = serde_json::from_slice(&request.body).map_err(|err| format!("the call is not understood: {err}"));
    let call = match call.and_then(|call| outgoing(call, gateway)) {
        Ok(call) => call,
        Err(reason) => return failed(StatusCode::BAD_REQUEST, &reason),
    };
    match timeout(TIME, exchange(call, gateway)).await {
        Ok(Ok(answer)) => Reply::json(StatusCode::OK, &told(&answer)).verdict("relayed"),
        Ok(Err(err)) => failed(StatusCode::BAD_GATEWAY, &format!("the gateway at {gateway} did not answer: {err}")),
        Err(_) => failed(StatusCode::GATEWAY_TIMEOUT, &format!("the gateway at {gateway} took longer than {TIME:?}")),
    }
}

fn outgoing(call: Call, gateway: SocketAddr) -> Result<Request<Full<Bytes>>, String> {
    // An absolute target would make a proxy request of it.
    if !call.path.starts_with('/') {
        return Err(String::from("the call's path must begin with '/'"));
    }
    let mut request = Request::builder().method(call.method.as_str()).uri(&call.path).header(HOST, gateway.to_string());
    if call.body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let body = Full::from(call.body.unwrap_or_default());
    request.body(body).map_err(|err| format!("the call is not understood: {err}"))
}

async fn exchange(
    request: Request<Full<Bytes>>,
    gateway: SocketAddr,
) -> Result<Response<Bytes>, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(gateway).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = async move {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    };
    // The connection ends when the answer is here, since nobody can send on it any more.
    let (answer, _) = tokio::join!(answer, connection);
    answer
}

fn told(answer: &Response<Bytes>) -> Value {
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
    json!({
        "status": answer.status().as_u16(),
        "text": answer.status().canonical_reason().unwrap_or_default(),
        "request_id": header("x-request-id"),
        "error_kind": header("signalr-gateway-error"),
        "body": String::from_utf8_lossy(answer.body()),
    })
}

fn failed(status: StatusCode, reason: &str) -> Reply {
    Reply::json(status, &json!({ "error": reason })).verdict(reason.to_owned())
}
