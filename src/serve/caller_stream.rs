//! The byte stream of a caller's connection, between its socket and HTTP.
//!
//! [`CallerStream`] replays the bytes that were read to detect the protocol, and records since when the caller has not read.
//! Each protocol adds its own [`ByteFilter`].

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::open_connections::Connection;

/// The byte stream of a connection whose protocol is known.
pub(super) struct CallerStream<S, F> {
    source: Source<S>,
    filter: F,
    connection: Rc<Connection>,
    is_write_shut_down: bool,
}

/// A protocol's filter between the bytes of a connection and the HTTP library.
pub(super) trait ByteFilter<S> {
    /// Reads from `source` the bytes that the HTTP library may see.
    ///
    /// # Errors
    /// If the stream fails or a body is malformed.
    fn poll_read(
        &mut self,
        source: &mut Source<S>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>>;

    /// Records that the stream accepted bytes.
    fn record_written(&self, _bytes: usize) {}

    /// Waits until the connection may be closed, after the write side was shut down.
    ///
    /// # Errors
    /// Those of the stream.
    fn poll_linger(&mut self, _source: &mut Source<S>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The input of a connection: the bytes that were read to detect its protocol, then its stream.
pub(super) struct Source<S> {
    first: Vec<u8>,
    stream: S,
}

impl<S> Source<S> {
    /// Makes the input of a connection from whose `stream` the bytes `first` were already read.
    pub(super) fn new(first: Vec<u8>, stream: S) -> Self {
        Self { first, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Source<S> {
    #[inline]
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.first.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, into);
        }
        let rest = this.first.split_off(into.remaining().min(this.first.len()));
        into.put_slice(&this.first);
        this.first = rest;
        Poll::Ready(Ok(()))
    }
}

impl<S, F: ByteFilter<S>> CallerStream<S, F> {
    pub(super) fn new(source: Source<S>, filter: F, connection: &Rc<Connection>) -> Self {
        Self { source, filter, connection: Rc::clone(connection), is_write_shut_down: false }
    }

    #[inline]
    fn record_write(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Pending => self.connection.record_blocked(),
            Poll::Ready(Ok(bytes)) => {
                self.filter.record_written(*bytes);
                if self.connection.is_blocked() {
                    self.connection.record_progress(*bytes);
                }
            }
            Poll::Ready(Err(_)) => {}
        }
        written
    }

    #[inline]
    fn record_flush(&self, flushed: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        match &flushed {
            Poll::Pending => self.connection.record_blocked(),
            Poll::Ready(_) if self.connection.is_blocked() => self.connection.record_unblocked(),
            Poll::Ready(_) => {}
        }
        flushed
    }
}

impl<S: Unpin, F: ByteFilter<S> + Unpin> AsyncRead for CallerStream<S, F> {
    #[inline]
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.filter.poll_read(&mut this.source, cx, into)
    }
}

impl<S: AsyncWrite + Unpin, F: ByteFilter<S> + Unpin> AsyncWrite for CallerStream<S, F> {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.source.stream).poll_write(cx, bytes);
        self.record_write(written)
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.source.stream).poll_write_vectored(cx, parts);
        self.record_write(written)
    }

    #[inline]
    fn is_write_vectored(&self) -> bool {
        self.source.stream.is_write_vectored()
    }

    #[inline]
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.source.stream).poll_flush(cx);
        self.record_flush(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.is_write_shut_down {
            let shut_down = Pin::new(&mut this.source.stream).poll_shutdown(cx);
            ready!(this.record_flush(shut_down))?;
            this.is_write_shut_down = true;
        }
        this.filter.poll_linger(&mut this.source, cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn replays_the_first_bytes_to_reads_of_any_size() {
        let mut source = Source::new(b"GET / HTTP/1.1".to_vec(), b"!".as_slice());
        let (mut method, mut rest) = ([0; 3], [0; 64]);
        source.read_exact(&mut method).await.unwrap();
        assert_eq!(&method, b"GET");
        assert_eq!(source.read(&mut rest).await.unwrap(), 11);
        assert_eq!(source.read(&mut rest).await.unwrap(), 1);
    }
}
