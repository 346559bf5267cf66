//! Detects whether a caller speaks HTTP/1 or HTTP/2 by the first bytes of its connection, with TLS and without.
//!
//! hyper-util's `auto` server detects it too, but serves HTTP/2 with hyper, and each connection reserves memory for both versions.
//! It also passes the few bytes that it has read to hyper in a read of their own, after which hyper keeps a buffer twice as large
//! for the life of the connection. 2,000 connections took 63.6 MiB with it and 43.6 MiB with this (`bench.sh`, memory table, 2026-11).

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// The first bytes of an HTTP/2 connection (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The length of the prefix of the preface that no HTTP/1.x request has. The HTTP/2 server rejects a preface that differs after it.
const REQUEST_LINE: usize = b"PRI * HTTP/2.0".len();
/// The size of one read. The buffer is on the stack; usual heads fit.
const READ_SIZE: usize = 4 * 1024;

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// 1.0 or 1.1.
    Http1,
    /// 2, by prior knowledge or ALPN.
    Http2,
}

impl Protocol {
    /// Returns the protocol that a TLS handshake negotiated; `None` if it negotiated none.
    pub(super) fn of_alpn(negotiated: Option<&[u8]>) -> Option<Self> {
        Some(if negotiated? == b"h2" { Self::Http2 } else { Self::Http1 })
    }

    /// Detects the protocol of a connection. Also returns the bytes that were read. A connection that ends before that is HTTP/1.
    ///
    /// # Errors
    /// Those of the connection.
    ///
    /// # Cancel safety
    /// Not safe: the read bytes are lost.
    pub(super) async fn detect(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Self, Vec<u8>)> {
        let mut first = Vec::new();
        let protocol = poll_fn(|cx| {
            loop {
                let mut buffer = [MaybeUninit::uninit(); READ_SIZE];
                let mut read = ReadBuf::uninit(&mut buffer);
                ready!(Pin::new(&mut *stream).poll_read(cx, &mut read))?;
                first.extend_from_slice(read.filled());
                let matching = first.iter().zip(PREFACE).take_while(|(read, expected)| read == expected).count();
                let has_ended = read.filled().is_empty();
                if matching == PREFACE.len() || (matching >= REQUEST_LINE && (has_ended || matching < first.len())) {
                    return Poll::Ready(io::Result::Ok(Self::Http2));
                }
                if has_ended || matching < first.len() {
                    return Poll::Ready(Ok(Self::Http1));
                }
            }
        });
        let protocol = protocol.await?;
        Ok((protocol, first))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Detects the protocol of a caller that sends `bytes`, `at_once` of them at a time. Returns it and how many bytes were read.
    async fn detect(bytes: &[u8], at_once: usize) -> (Protocol, usize) {
        let (mut caller, mut stream) = tokio::io::duplex(at_once);
        let send = async move { caller.write_all(bytes).await.unwrap() };
        let read = async {
            let (protocol, mut all) = Protocol::detect(&mut stream).await.unwrap();
            let first = all.len();
            stream.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, bytes, "nothing is lost");
            (protocol, first)
        };
        tokio::join!(send, read).1
    }

    #[tokio::test]
    async fn detects_the_protocol_by_the_first_bytes() {
        let request = b"POST /api/hubs/chat/:send HTTP/1.1\r\nHost: x\r\n\r\n";
        assert_eq!(detect(request, 1024).await, (Protocol::Http1, request.len()), "in one read");
        assert_eq!(detect(request, 1).await, (Protocol::Http1, 2), "the second byte differs from the preface");
        assert_eq!(detect(b"PRI * HTTP/1.1\r\n\r\n", 1).await, (Protocol::Http1, 12));
        assert_eq!(detect(b"", 1).await, (Protocol::Http1, 0));
        assert_eq!(detect(&PREFACE[..12], 64).await, (Protocol::Http1, 12), "the connection ended");
        assert_eq!(detect(&PREFACE[..20], 64).await, (Protocol::Http2, 20), "an incomplete preface");
        let invalid = b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n";
        assert_eq!(detect(invalid, 1024).await, (Protocol::Http2, invalid.len()), "no HTTP/1 request begins like this");
        let settings = [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
        assert_eq!(detect(&settings, 1024).await, (Protocol::Http2, settings.len()));
        assert_eq!(detect(&settings, 1).await, (Protocol::Http2, PREFACE.len()));
    }
}
