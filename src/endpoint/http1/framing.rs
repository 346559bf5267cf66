//! Decodes the framing of response bodies, which determines where a body ends. Does no I/O.
//!
//! Source: RFC 9112 sections 6 and 7.

use bytes::{Buf, Bytes, BytesMut};

use super::error::Http1Error;

/// The maximum length of a chunk-size line with its extensions, and of a trailer section. Chosen: far more than servers send.
const MAX_LINE: usize = 16 * 1024;
/// The maximum number of trailer fields.
const MAX_TRAILERS: usize = 128;

/// The decoder of a body. The variant is what follows in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoder {
    /// This many bytes.
    Length(u64),
    /// The rest of a chunked body.
    Chunked(Chunk),
    /// All bytes until the connection is closed.
    UntilClose,
    /// Nothing: the body has ended.
    Ended,
}

/// The next element of a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// A chunk-size line.
    Size,
    /// This many bytes of chunk data.
    Data(u64),
    /// The line end after chunk data.
    DataEnd,
    /// The trailer section. It is not forwarded.
    Trailers,
}

impl Decoder {
    /// Returns the decoder of a body of this length.
    pub(super) fn of_length(length: u64) -> Self {
        if length == 0 { Self::Ended } else { Self::Length(length) }
    }

    /// Returns the next piece of the body; `None` if `input` has no more of it.
    ///
    /// # Errors
    /// [`Http1Error`] if the chunked coding is not valid.
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, Http1Error> {
        loop {
            match self {
                Self::Ended => return Ok(None),
                _ if input.is_empty() => return Ok(None),
                Self::UntilClose => return Ok(Some(input.split().freeze())),
                Self::Length(left) => {
                    let piece = take(input, left);
                    if *left == 0 {
                        *self = Self::Ended;
                    }
                    return Ok(Some(piece));
                }
                Self::Chunked(Chunk::Data(left)) => {
                    let piece = take(input, left);
                    if *left == 0 {
                        *self = Self::Chunked(Chunk::DataEnd);
                    }
                    return Ok(Some(piece));
                }
                Self::Chunked(chunk) => match chunk.next(input)? {
                    Some(next) => *self = next,
                    None => return Ok(None),
                },
            }
        }
    }

    /// Skips framing at the start of `input`, so that the end of the body is detected without another read.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub(super) fn skip_framing(&mut self, input: &mut BytesMut) -> Result<(), Http1Error> {
        while let Self::Chunked(chunk @ (Chunk::Size | Chunk::DataEnd | Chunk::Trailers)) = self {
            let Some(next) = chunk.next(input)? else { break };
            *self = next;
        }
        Ok(())
    }

    /// Records that the connection was closed.
    ///
    /// # Errors
    /// [`Http1Error::Closed`] if the body has not ended.
    pub(super) fn close(&mut self) -> Result<(), Http1Error> {
        match self {
            Self::Ended => Ok(()),
            Self::UntilClose => {
                *self = Self::Ended;
                Ok(())
            }
            Self::Length(_) | Self::Chunked(_) => Err(Http1Error::Closed),
        }
    }

    /// Returns the remaining length of the body, if known.
    pub(super) fn left(&self) -> Option<u64> {
        match self {
            Self::Ended => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }
}

impl Chunk {
    /// Parses one element of framing. Returns the decoder of the rest; `None` while the element is incomplete.
    fn next(self, input: &mut BytesMut) -> Result<Option<Decoder>, Http1Error> {
        let (length, next) = match self {
            Self::Size => {
                // httparse parses a line without digits as size 0, which would end the body.
                if input.first().is_some_and(|byte| !byte.is_ascii_hexdigit()) {
                    return Err(Http1Error::Framing("a chunk has no size"));
                }
                match httparse::parse_chunk_size(input) {
                    Ok(httparse::Status::Complete((length, 0))) => (length, Decoder::Chunked(Self::Trailers)),
                    Ok(httparse::Status::Complete((length, size))) => (length, Decoder::Chunked(Self::Data(size))),
                    Ok(httparse::Status::Partial) => return incomplete(input),
                    Err(_) => return Err(Http1Error::Framing("a chunk size is not a number")),
                }
            }
            Self::DataEnd => match &**input {
                [b'\r', b'\n', ..] => (2, Decoder::Chunked(Self::Size)),
                [] | [b'\r'] => return Ok(None),
                _ => return Err(Http1Error::Framing("a chunk is longer than its size")),
            },
            Self::Trailers => {
                let mut trailers = [httparse::EMPTY_HEADER; MAX_TRAILERS];
                match httparse::parse_headers(input, &mut trailers) {
                    // httparse accepts a bare line feed as a line end; a proxy before the endpoint may not.
                    Ok(httparse::Status::Complete((length, _))) if has_bare_line_feed(input, length) => {
                        return Err(Http1Error::Framing("a trailer line does not end in CR LF"));
                    }
                    Ok(httparse::Status::Complete((length, _))) => (length, Decoder::Ended),
                    Ok(httparse::Status::Partial) => return incomplete(input),
                    Err(err) => return Err(Http1Error::Syntax(err)),
                }
            }
            Self::Data(_) => return Ok(None),
        };
        input.advance(length);
        Ok(Some(next))
    }
}

/// Returns `None` for an incomplete element of framing, or an error if it is too long.
fn incomplete(input: &BytesMut) -> Result<Option<Decoder>, Http1Error> {
    if input.len() > MAX_LINE {
        Err(Http1Error::Framing("a chunk-size line or trailer section is too long"))
    } else {
        Ok(None)
    }
}

/// Returns whether a line within the first `length` bytes ends with a bare line feed (RFC 9112 section 2.2).
fn has_bare_line_feed(input: &[u8], length: usize) -> bool {
    let lines = input.get(..length).unwrap_or_default().split_inclusive(|byte| *byte == b'\n');
    lines.into_iter().any(|line| !line.ends_with(b"\r\n"))
}

/// Takes at most `left` bytes from the input and subtracts their number.
fn take(input: &mut BytesMut, left: &mut u64) -> Bytes {
    let limit = usize::try_from(*left).unwrap_or(usize::MAX);
    let piece = input.split_to(input.len().min(limit)).freeze();
    *left -= piece.len() as u64;
    piece
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes a body that arrives in pieces of these sizes, repeated. Returns the body and the number of bytes after it.
    fn decoded(mut decoder: Decoder, wire: &[u8], sizes: &[usize]) -> Result<(Vec<u8>, usize), Http1Error> {
        let (mut input, mut body, mut rest) = (BytesMut::new(), Vec::new(), wire);
        let mut sizes = sizes.iter().cycle();
        while decoder != Decoder::Ended {
            while let Some(piece) = decoder.decode(&mut input)? {
                body.extend_from_slice(&piece);
            }
            decoder.skip_framing(&mut input)?;
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
            input.extend_from_slice(now);
            rest = later;
        }
        if rest.is_empty() {
            decoder.close()?;
        }
        Ok((body, input.len() + rest.len()))
    }

    const CHUNKED: Decoder = Decoder::Chunked(Chunk::Size);

    #[test]
    fn framing_determines_where_a_body_ends() {
        for (decoder, wire, body, bytes_after) in [
            (Decoder::of_length(0), "", "", 0),
            (Decoder::of_length(5), "helloHTTP/1.1", "hello", 8),
            (Decoder::UntilClose, "hello", "hello", 0),
            (CHUNKED, "0\r\n\r\n", "", 0),
            (CHUNKED, "5\r\nhello\r\n0\r\n\r\nHTTP", "hello", 4),
            (CHUNKED, "2;a=b\r\nhe\r\n003\r\nllo\r\n0\r\n\r\n", "hello", 0),
            (CHUNKED, "5\r\nhello\r\n0\r\nx-a: b\r\nx-c: d\r\n\r\nH", "hello", 1),
        ] {
            for sizes in [&[1][..], &[2], &[3, 1], &[1000]] {
                let (found, rest) = decoded(decoder, wire.as_bytes(), sizes).unwrap();
                assert_eq!((&*found, rest), (body.as_bytes(), bytes_after), "{wire:?} in pieces of {sizes:?}");
            }
        }
    }

    #[test]
    fn incomplete_or_invalid_framing_is_rejected() {
        for (decoder, wire) in [
            (Decoder::of_length(5), "hell"),
            (CHUNKED, ""),
            (CHUNKED, "\r\n"),
            (CHUNKED, ";a\r\n\r\n"),
            (CHUNKED, "5\r\nhello"),
            (CHUNKED, "5\r\nhello\r\n"),
            (CHUNKED, "5\r\nhello\r\n0\r\n"),
            (CHUNKED, "5\r\nhelloo\r\n0\r\n\r\n"),
            (CHUNKED, "5\nhello\n0\n\n"),
            (CHUNKED, "-5\r\nhello\r\n0\r\n\r\n"),
            (CHUNKED, "0x5\r\nhello\r\n0\r\n\r\n"),
            (CHUNKED, "11111111111111111\r\n"),
            (CHUNKED, "0\r\nno colon\r\n\r\n"),
            (CHUNKED, "0\r\n\n"),
            (CHUNKED, "0\r\nx-a: b\n\r\n"),
            (CHUNKED, "0\r\nx-a: b\r\n\n"),
        ] {
            assert!(decoded(decoder, wire.as_bytes(), &[1000]).is_err(), "{wire:?}");
            assert!(decoded(decoder, wire.as_bytes(), &[1]).is_err(), "{wire:?} byte by byte");
        }
    }

    #[test]
    fn endless_framing_is_rejected() {
        for endless in [format!("1;{}", "x".repeat(20_000)), format!("0\r\na: {}", "x".repeat(20_000))] {
            let ended = decoded(CHUNKED, endless.as_bytes(), &[1000]);
            assert!(matches!(ended, Err(Http1Error::Framing(_))), "{ended:?}");
        }
    }

    proptest! {
        #[test]
        fn decoded_body_has_the_data_of_all_chunks(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8),
            sizes in prop::collection::vec(1..200_usize, 1..6),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\nnext");
            let (body, bytes_after) = decoded(CHUNKED, &wire, &sizes).unwrap();
            prop_assert_eq!((body, bytes_after), (chunks.concat(), 4));
        }
    }
}
