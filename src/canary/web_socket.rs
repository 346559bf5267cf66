//! Opens a WebSocket to an endpoint. hyper sends the upgrade, tungstenite handles the frames.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::error::{DeliveryError, Stage};
use super::request::refusal;
use crate::endpoint::Endpoint;

/// The largest message that is read. Chosen: far more than the records of a canary, and bounded for what else the hub sends.
pub(super) const MAX_MESSAGE: usize = 64 * 1024;
/// The size of the read buffer. Records of a canary are shorter than a kilobyte.
const READ_BUFFER: usize = 1024;
/// The largest body of a refusal that is read.
const MAX_REFUSAL: usize = 4 * 1024;

/// An open WebSocket.
pub(super) type WebSocket = WebSocketStream<TokioIo<Upgraded>>;

/// Opens a WebSocket to a path of the endpoint, over a connection of its own.
///
/// # Cancel safety
/// Safe: cancellation closes the connection.
pub(super) async fn open(
    endpoint: &Endpoint,
    target: &str,
    authorization: HeaderValue,
) -> Result<WebSocket, DeliveryError> {
    let unusable = |problem: String| DeliveryError::Unusable { stage: Stage::WebSocket, problem };
    let lost = |err: hyper::Error| unusable(crate::redact::in_one_line(&err));
    let key = STANDARD.encode(fastrand::u128(..).to_le_bytes());
    let request = Request::get(target)
        .header(HOST, endpoint.host())
        .header(AUTHORIZATION, authorization)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key)
        .body(Full::<Bytes>::default())
        .map_err(|err| unusable(err.to_string()))?;
    let stream = TokioIo::new(endpoint.connect_unpooled().await?);
    let (mut sender, connection) = http1::handshake(stream).await.map_err(lost)?;
    let upgrade = async {
        let mut response = sender.send_request(request).await.map_err(lost)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_REFUSAL).collect().await.map(http_body_util::Collected::to_bytes);
            return Err(refusal(Stage::WebSocket, &Response::from_parts(head, body.unwrap_or_default())));
        }
        let accept = response.headers().get(SEC_WEBSOCKET_ACCEPT);
        if accept.is_none_or(|accept| accept.as_bytes() != accept_of(&key).as_bytes()) {
            return Err(unusable("the response to the upgrade has a wrong Sec-WebSocket-Accept".to_owned()));
        }
        hyper::upgrade::on(&mut response).await.map_err(lost)
    };
    let upgraded = {
        tokio::pin!(upgrade);
        let connection = std::pin::pin!(connection.with_upgrades());
        tokio::select! {
            biased;
            upgraded = &mut upgrade => upgraded?,
            ended = connection => {
                ended.map_err(lost)?;
                upgrade.await?
            }
        }
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    Ok(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, Some(config)).await)
}

/// Returns the `Sec-WebSocket-Accept` that proves that the server understood the upgrade.
///
/// Source: RFC 6455 section 1.3. SHA-1 protects nothing there.
fn accept_of(key: &str) -> String {
    const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    STANDARD.encode(digest.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computes_the_accept_key_of_the_example_in_the_standard() {
        assert_eq!(accept_of("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
