//! As much HTTP/1.1 as both ends need: a head, and a body that has a length.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::Result;

/// More than any head here has.
const HEADERS: usize = 64;

/// Reads until `parse` finds a whole head at the front, and returns what it made of it and how long the head is. `None`
/// when the other side closed between messages.
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

/// Room for the headers of one message.
pub fn headers<'a>() -> [httparse::Header<'a>; HEADERS] {
    [httparse::EMPTY_HEADER; HEADERS]
}

/// Returns the values of a header.
pub fn values<'a>(headers: &'a [httparse::Header<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

/// Returns the length of a body. A message without `Content-Length` is not one of ours.
pub fn body_length(headers: &[httparse::Header<'_>]) -> Result<usize> {
    let length = values(headers, "content-length").next().ok_or("a message without Content-Length")?;
    Ok(std::str::from_utf8(length)?.trim().parse()?)
}

/// Is done when nobody holds the other end of standard input.
pub async fn stdin_closed() {
    let mut stdin = tokio::io::stdin();
    while !matches!(stdin.read(&mut [0; 64]).await, Ok(0) | Err(_)) {}
}
