//! One request on a connection of its own, beside the pools: for diagnosis. Does not know what is asked or why.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
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
    /// Sends a request without a body on a new connection and reads the answer whole. The host is filled in.
    ///
    /// # Errors
    /// [`AskError`] when no whole answer came within the time.
    ///
    /// # Cancel safety
    /// Safe: the connection is closed.
    pub async fn ask(&self, mut request: Request<Empty<Bytes>>, within: Duration) -> Result<Response<Bytes>, AskError> {
        request.headers_mut().insert(HOST, self.host.clone());
        let exchange = async {
            let socket = self.connector.connect(HttpVersion::Http1, |stream| stream).await?;
            exchange(request, TokioIo::new(socket)).await
        };
        tokio::time::timeout(within, Box::pin(exchange)).await.unwrap_or(Err(AskError::Timeout(within)))
    }
}

async fn exchange(request: Request<Empty<Bytes>>, io: TokioIo<Socket<TcpStream>>) -> Result<Response<Bytes>, AskError> {
    let broken = |err: hyper::Error| AskError::Broken(err.into());
    let (mut sender, connection) = http1::handshake(io).await.map_err(broken)?;
    let answer = async {
        let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(AskError::Broken)?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    // The connection is driven here; it may end together with the answer, which then is looked at first.
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
