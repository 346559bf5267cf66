//! One request on a connection of its own, beside the pools: for diagnosis and health probes. Does not know what is asked or
//! why.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::socket::Socket;
use super::{ConnectError, Endpoint, HttpVersion};

/// The most of an answer that is read.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke, or what came is not HTTP.
    #[error("the endpoint broke off the connection or does not speak HTTP")]
    Broken(#[source] Box<dyn Error + Send + Sync>),
    /// It took too long.
    #[error("the endpoint did not answer within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
}

impl Endpoint {
    /// Sends a request without a body on a new connection, in the HTTP version that is configured for the endpoint, and
    /// reads the answer whole. The host is filled in.
    ///
    /// # Errors
    /// [`AskError`] when no whole answer came within the time.
    ///
    /// # Cancel safety
    /// Safe: the connection is closed.
    pub async fn ask(&self, request: Request<Empty<Bytes>>, within: Duration) -> Result<Response<Bytes>, AskError> {
        let version = self.settings.http_version;
        let exchange = async {
            let socket = TokioIo::new(self.connector.connect(version, |stream| stream).await?);
            match version {
                HttpVersion::Http1 => self.ask_http1(request, socket).await,
                HttpVersion::Http2 => self.ask_http2(request, socket).await,
            }
        };
        tokio::time::timeout(within, Box::pin(exchange)).await.unwrap_or(Err(AskError::Timeout(within)))
    }

    async fn ask_http1(
        &self,
        mut request: Request<Empty<Bytes>>,
        socket: TokioIo<Socket<TcpStream>>,
    ) -> Result<Response<Bytes>, AskError> {
        request.headers_mut().insert(HOST, self.host.clone());
        let (mut sender, connection) = http1::handshake(socket).await.map_err(broken)?;
        drive(connection, async { whole(sender.send_request(request).await.map_err(broken)?).await }).await
    }

    async fn ask_http2(
        &self,
        mut request: Request<Empty<Bytes>>,
        socket: TokioIo<Socket<TcpStream>>,
    ) -> Result<Response<Bytes>, AskError> {
        let mut uri = self.uri().clone().into_parts();
        uri.path_and_query = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), socket).await.map_err(broken)?;
        drive(connection, async { whole(sender.send_request(request).await.map_err(broken)?).await }).await
    }
}

fn broken(err: hyper::Error) -> AskError {
    AskError::Broken(err.into())
}

async fn whole(answer: Response<Incoming>) -> Result<Response<Bytes>, AskError> {
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(AskError::Broken)?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

/// Drives a connection until the answer is there. It may end together with the answer, which then is looked at first.
async fn drive(
    connection: impl Future<Output = hyper::Result<()>>,
    answer: impl Future<Output = Result<Response<Bytes>, AskError>>,
) -> Result<Response<Bytes>, AskError> {
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
