//! Adds to the error of a TLS handshake with an identity endpoint what its certificate says.

use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::Uri;
use tower::Service;

use crate::tls::with_refused_certificate;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Opens connections as `C` does. If the certificate of the server is refused, that is the error.
#[derive(Clone)]
pub(super) struct TlsConnector<C>(pub(super) C);

impl<C> Service<Uri> for TlsConnector<C>
where
    C: Service<Uri, Error = BoxError>,
    C::Future: Send + 'static,
    C::Response: Send,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<C::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connection = self.0.call(uri);
        Box::pin(async move {
            let (connected, refused) = with_refused_certificate(connection).await;
            connected.map_err(|err| refused.map_or(err, BoxError::from))
        })
    }
}
