//! Sends single requests outside the pools, each on a new connection. Diagnosis, health probes and canaries use it.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::connect::Connector;
use super::error::ConnectError;
use super::settings::HttpVersion;
use super::socket::Socket;

/// The maximum length of a response body.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Error of a request that is sent outside the pools.
#[derive(Debug, thiserror::Error)]
pub enum UnpooledError {
    /// The connection could not be opened.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection failed, or the response is invalid or too long.
    #[error("the connection to the endpoint failed, or the response is not valid HTTP")]
    Http(#[source] Box<dyn Error + Send + Sync>),
    /// The response was not complete in time, over an open connection.
    #[error("the endpoint did not respond within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
}

/// A response, and the time at which its request was handed to the open connection.
pub(super) type Timed = (Response<Bytes>, Instant);

/// Sends a request on a new connection, in the given HTTP version, and reads the whole response. Adds the `Host` header. The
/// connection has the timeouts of the endpoint's settings.
///
/// # Errors
/// [`UnpooledError`] if there is no connection, or no complete response over it `within` this time.
///
/// # Cancel safety
/// Safe: cancellation closes the connection.
pub(super) async fn send(
    connector: &Connector,
    host: &HeaderValue,
    version: HttpVersion,
    request: Request<Full<Bytes>>,
    within: Duration,
) -> Result<Timed, UnpooledError> {
    let socket = TokioIo::new(Box::pin(connector.connect(version, |stream| stream)).await?);
    let send = async {
        match version {
            HttpVersion::Http1 => send_http1(host, request, socket).await,
            HttpVersion::Http2 => send_http2(connector.uri(), request, socket).await,
        }
    };
    tokio::time::timeout(within, Box::pin(send)).await.unwrap_or(Err(UnpooledError::Timeout(within)))
}

async fn send_http1(
    host: &HeaderValue,
    mut request: Request<Full<Bytes>>,
    socket: TokioIo<Socket<TcpStream>>,
) -> Result<Timed, UnpooledError> {
    request.headers_mut().insert(HOST, host.clone());
    let (mut sender, connection) = http1::handshake(socket).await.map_err(http_error)?;
    let began = Instant::now();
    let response = async { read_whole(sender.send_request(request).await.map_err(http_error)?).await };
    Ok((drive(connection, response).await?, began))
}

async fn send_http2(
    endpoint: &Uri,
    mut request: Request<Full<Bytes>>,
    socket: TokioIo<Socket<TcpStream>>,
) -> Result<Timed, UnpooledError> {
    let mut uri = endpoint.clone().into_parts();
    uri.path_and_query = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), socket).await.map_err(http_error)?;
    let began = Instant::now();
    let response = async { read_whole(sender.send_request(request).await.map_err(http_error)?).await };
    Ok((drive(connection, response).await?, began))
}

fn http_error(err: hyper::Error) -> UnpooledError {
    UnpooledError::Http(err.into())
}

async fn read_whole(response: Response<Incoming>) -> Result<Response<Bytes>, UnpooledError> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(UnpooledError::Http)?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

/// Drives a connection until the response is complete. If both are ready, the response takes precedence.
async fn drive(
    connection: impl Future<Output = hyper::Result<()>>,
    response: impl Future<Output = Result<Response<Bytes>, UnpooledError>>,
) -> Result<Response<Bytes>, UnpooledError> {
    tokio::pin!(response, connection);
    tokio::select! {
        biased;
        response = &mut response => response,
        ended = &mut connection => {
            ended.map_err(http_error)?;
            response.await
        }
    }
}
