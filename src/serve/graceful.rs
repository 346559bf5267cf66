//! Connections that finish their requests and accept no others.

use std::pin::Pin;

use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::HttpService;

/// The bound that hyper sets on errors of services and bodies.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A connection that can be asked to finish its requests and end.
pub(super) trait Graceful: Future<Output = Result<(), Self::Error>> {
    /// Why the connection failed.
    type Error;

    /// Starts a graceful shutdown: the connection finishes its requests and accepts no others.
    fn graceful_shutdown(self: Pin<&mut Self>);
}

impl<I, S, B> Graceful for http1::Connection<I, S>
where
    I: Read + Write + Unpin + 'static,
    S: HttpService<Incoming, ResBody = B, Error: Into<Cause>>,
    B: Body<Error: Into<Cause>> + 'static,
{
    type Error = hyper::Error;

    fn graceful_shutdown(self: Pin<&mut Self>) {
        Self::graceful_shutdown(self);
    }
}
