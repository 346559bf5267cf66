//! Relays calls of the page to the gateway and to no other host, because the gateway rejects browsers. The control listener
//! checks who may use the relay.

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

use crate::sandbox::server::exchange::{ReceivedRequest, Reply};

/// The timeout of a call. Longer than the gateway's own, so that the page shows the gateway's response.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The largest response that is shown, in bytes.
const MAX_RESPONSE: usize = 1024 * 1024;

/// A call of the page.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    method: String,
    /// The path and the query.
    path: String,
    /// The JSON body as text, so that numbers are relayed exactly as written.
    body: Option<String>,
}

/// Relays a call.
pub(crate) async fn relay(request: &ReceivedRequest, gateway: SocketAddr) -> Reply {
    let call = serde_json::from_slice(&request.body).map_err(|err| format!("the call is invalid: {err}"));
    let call = match call.and_then(|call| build_request(call, gateway)) {
        Ok(call) => call,
        Err(reason) => return error_reply(StatusCode::BAD_REQUEST, &reason),
    };
    match timeout(TIMEOUT, send(call, gateway)).await {
        Ok(Ok(response)) => Reply::json(StatusCode::OK, &summary(&response)).verdict("relayed"),
        Ok(Err(err)) => {
            error_reply(StatusCode::BAD_GATEWAY, &format!("the gateway at {gateway} did not respond: {err}"))
        }
        Err(_) => error_reply(
            StatusCode::GATEWAY_TIMEOUT,
            &format!("the gateway at {gateway} did not respond within {TIMEOUT:?}"),
        ),
    }
}

fn build_request(call: Call, gateway: SocketAddr) -> Result<Request<Full<Bytes>>, String> {
    // With an absolute target, it would be a request to a proxy.
    if !call.path.starts_with('/') {
        return Err(String::from("the call's path must begin with '/'"));
    }
    let mut request = Request::builder().method(call.method.as_str()).uri(&call.path).header(HOST, gateway.to_string());
    if call.body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let body = Full::from(call.body.unwrap_or_default());
    request.body(body).map_err(|err| format!("the call is invalid: {err}"))
}

async fn send(
    request: Request<Full<Bytes>>,
    gateway: SocketAddr,
) -> Result<Response<Bytes>, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(gateway).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let response = async move {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_RESPONSE).collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    };
    // The connection ends with the response, because its sender is dropped.
    let (response, _) = tokio::join!(response, connection);
    response
}

fn summary(response: &Response<Bytes>) -> Value {
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    json!({
        "status": response.status().as_u16(),
        "text": response.status().canonical_reason().unwrap_or_default(),
        "request_id": header("x-request-id"),
        "error_kind": header("signalr-gateway-error"),
        "body": String::from_utf8_lossy(response.body()),
    })
}

fn error_reply(status: StatusCode, reason: &str) -> Reply {
    Reply::json(status, &json!({ "error": reason })).verdict(reason.to_owned())
}
