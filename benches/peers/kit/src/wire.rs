//! The subset of HTTP/1.1 that both ends need: a head, and a body with `Content-Length`.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::Result;

/// The maximum number of headers of a message.
const HEADERS: usize = 64;

/// Reads until `parse` finds a complete head. Returns its result and the length of the head, or `None` if the peer
/// closed between messages.
pub async fn head<T>(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    mut parse: impl FnMut(&[u8]) -> Result<Option<(usize, T)>>,
) -> Result<Option<(usize, T)>> {
    loop {
        if let Some(found) = parse(buffer)? {
            return Ok(Some(found));
        }
        if stream.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() { Ok(None) } else { Err("closed inside a head".into()) };
        }
    }
}

/// Reads until the buffer holds `length` bytes.
pub async fn fill(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut, length: usize) -> Result<()> {
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Err("closed inside a body".into());
        }
    }
    Ok(())
}

/// Storage for the headers of one message.
pub fn headers<'a>() -> [httparse::Header<'a>; HEADERS] {
    [httparse::EMPTY_HEADER; HEADERS]
}

/// Returns the values of a header.
pub fn values<'a>(headers: &'a [httparse::Header<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

/// Returns the length of a body. All messages here have `Content-Length`.
pub fn body_length(headers: &[httparse::Header<'_>]) -> Result<usize> {
    let length = values(headers, "content-length").next().ok_or("a message without Content-Length")?;
    Ok(std::str::from_utf8(length)?.trim().parse()?)
}

/// Ends when standard input is closed.
pub async fn stdin_closed() {
    let mut stdin = tokio::io::stdin();
    while !matches!(stdin.read(&mut [0; 64]).await, Ok(0) | Err(_)) {}
}
