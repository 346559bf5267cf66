//! Raw HTTP/2 frames, for what no HTTP library would send. Header fields are not compressed.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::with_timeout;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `SETTINGS_INITIAL_WINDOW_SIZE`.
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;

/// An HTTP/2 frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawFrame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// A connection for raw frames.
pub(crate) struct Frames<S> {
    stream: S,
    read: Vec<u8>,
}

impl Frames<TcpStream> {
    /// Connects and sends the connection preface and SETTINGS.
    pub(crate) async fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap(), settings).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    pub(crate) async fn over(stream: S, settings: &[(u16, u32)]) -> Self {
        let mut frames = Self { stream, read: Vec::new() };
        let payload: Vec<u8> =
            settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        frames.write(&[PREFACE.to_vec(), frame(SETTINGS, 0, 0, &payload)].concat()).await;
        frames
    }

    /// Writes, and ignores that the peer may have closed the connection.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _closed = self.try_write(bytes).await;
    }

    /// Writes. Fails when the peer has closed the connection.
    pub(crate) async fn try_write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        with_timeout("writing", self.stream.write_all(bytes)).await
    }

    /// Reads the next frame. Returns `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<RawFrame> {
        loop {
            if let [a, b, c, kind, flags, s0, s1, s2, s3, payload @ ..] = &self.read[..] {
                let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
                if let Some(payload) = payload.get(..length) {
                    let stream = u32::from_be_bytes([*s0, *s1, *s2, *s3]);
                    let next = RawFrame { kind: *kind, flags: *flags, stream, payload: payload.to_vec() };
                    self.read.drain(..9 + length);
                    return Some(next);
                }
            }
            if !with_timeout("a frame", self.stream.read_buf(&mut self.read)).await.is_ok_and(|count| count > 0) {
                return None;
            }
        }
    }

    /// Reads up to the next frame of a type on a stream.
    pub(crate) async fn next_of(&mut self, kind: u8, stream: u32) -> Option<RawFrame> {
        loop {
            let next = self.next().await?;
            if (next.kind, next.stream) == (kind, stream) {
                return Some(next);
            }
        }
    }

    /// Reads up to the response or the reset of a stream. Returns `None` if the connection ends first.
    pub(crate) async fn outcome(&mut self, stream: u32) -> Option<Outcome> {
        loop {
            let next = self.next().await?;
            if next.stream == stream && next.kind == RST_STREAM {
                return Some(Outcome::Reset(u32::from_be_bytes(next.payload.try_into().unwrap())));
            }
            if next.stream == stream && next.kind == HEADERS {
                // h2 writes the status first: an index of the static table, or a literal with a Huffman-coded value.
                return Some(Outcome::Response);
            }
        }
    }

    /// Reads up to GOAWAY and returns its error code.
    pub(crate) async fn goaway(&mut self) -> Option<u32> {
        let payload = self.next_of(GOAWAY, 0).await?.payload;
        Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()))
    }
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Response,
    Reset(u32),
}

/// Encodes a frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// Encodes a HEADERS frame.
pub(crate) fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        // A literal without indexing (RFC 7541 section 6.2.2). Lengths below 127 take one byte.
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "{text}");
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    frame(HEADERS, flags | END_HEADERS, stream, &block)
}

/// Returns the pseudo-header fields of a request.
pub(crate) fn pseudo<'a>(method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![(":method", method), (":scheme", "http"), (":authority", "localhost"), (":path", path)]
}
