//! Sends one request on a connection of its own, outside the pools. For diagnosis and health probes.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::connect::Connector;
use super::error::ConnectError;
use super::settings::HttpVersion;
use super::socket::Socket;

/// The most bytes of a response body that are read.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum UnpooledError {
    /// The connection could not be opened.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection failed, or the response is not HTTP.
    #[error("the endpoint broke off the connection or does not speak HTTP")]
    Http(#[source] Box<dyn Error + Send + Sync>),
    /// It took too long.
    #[error("the endpoint did not answer within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
}

/// Sends a request without a body on a new connection, in the given HTTP version, and reads the whole response. Sets the host.
///
/// # Errors
/// [`UnpooledError`] when no whole response came within the time.
///
/// # Cancel safety
/// Safe: the connection is closed.
pub(super) async fn send(
    connector: &Connector,
    host: &HeaderValue,
    version: HttpVersion,
    request: Request<Empty<Bytes>>,
    within: Duration,
) -> Result<Response<Bytes>, UnpooledError> {
    let exchange = async {
        let socket = TokioIo::new(connector.connect(version, |stream| stream).await?);
        match version {
            HttpVersion::Http1 => send_http1(host, request, socket).await,
            HttpVersion::Http2 => send_http2(connector.uri(), request, socket).await,
        }
    };
    tokio::time::timeout(within, Box::pin(exchange)).await.unwrap_or(Err(UnpooledError::Timeout(within)))
}

async fn send_http1(
    host: &HeaderValue,
    mut request: Request<Empty<Bytes>>,
    socket: TokioIo<Socket<TcpStream>>,
) -> Result<Response<Bytes>, UnpooledError> {
    request.headers_mut().insert(HOST, host.clone());
    let (mut sender, connection) = http1::handshake(socket).await.map_err(broken)?;
    drive(connection, async { read_whole(sender.send_request(request).await.map_err(broken)?).await }).await
}

async fn send_http2(
    endpoint: &Uri,
    mut request: Request<Empty<Bytes>>,
    socket: TokioIo<Socket<TcpStream>>,
) -> Result<Response<Bytes>, UnpooledError> {
    let mut uri = endpoint.clone().into_parts();
    uri.path_and_query = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), socket).await.map_err(broken)?;
    drive(connection, async { read_whole(sender.send_request(request).await.map_err(broken)?).await }).await
}

fn broken(err: hyper::Error) -> UnpooledError {
    UnpooledError::Http(err.into())
}

async fn read_whole(answer: Response<Incoming>) -> Result<Response<Bytes>, UnpooledError> {
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(UnpooledError::Http)?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

/// Drives a connection until the response is complete. If both are ready at once, the response wins.
async fn drive(
    connection: impl Future<Output = hyper::Result<()>>,
    answer: impl Future<Output = Result<Response<Bytes>, UnpooledError>>,
) -> Result<Response<Bytes>, UnpooledError> {
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = &mut connection => {
            ended.map_err(broken)?;
            answer.await
        }
    }
}
