//! Determines where the body of a response ends. Does no I/O.
//!
//! Source: RFC 9112 sections 6 and 7.

use bytes::{Buf, Bytes, BytesMut};

use super::error::Http1Error;

/// The longest chunk size line, with extensions, and the longest trailer section. Real ones are far shorter.
const LONGEST_LINE: usize = 16 * 1024;
/// The most trailer fields.
const MAX_TRAILERS: usize = 128;

/// Takes the framing off a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoder {
    /// This many bytes are still to come.
    Length(u64),
    /// Chunks are still to come.
    Chunked(Chunk),
    /// Everything up to the end of the connection.
    UntilClose,
    /// The body has ended.
    Ended,
}

/// What comes next of a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// The line with a chunk's size.
    Size,
    /// This many bytes of a chunk's data, and the end of line behind them.
    Data(u64),
    /// The end of line behind a chunk's data.
    DataEnd,
    /// The trailer section. It is about the endpoint's own framing, so it goes no further.
    Trailers,
}

impl Decoder {
    /// The decoder of a body of so many bytes.
    pub(super) fn of_length(length: u64) -> Self {
        if length == 0 { Self::Ended } else { Self::Length(length) }
    }

    /// Returns the next piece of the body; `None` if there is none in `input` any more.
    ///
    /// # Errors
    /// What follows is not a chunk.
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

    /// Goes over what frames the body and is no part of it, as far as it is there: the end is seen with the last byte.
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

    /// Notes that the connection has ended.
    ///
    /// # Errors
    /// The body has not.
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

    /// Returns how many bytes are to come, if that is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self {
            Self::Ended => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }
}

impl Chunk {
    /// Reads what frames chunks. Returns what comes after it, or `None` while it is not all there.
    fn next(self, input: &mut BytesMut) -> Result<Option<Decoder>, Http1Error> {
        let (length, next) = match self {
            Self::Size => {
                // A line without a digit would pass for the end.
                if input.first().is_some_and(|byte| !byte.is_ascii_hexdigit()) {
                    return Err(Http1Error::Framing("a chunk has no size"));
                }
                match httparse::parse_chunk_size(input) {
                    Ok(httparse::Status::Complete((length, 0))) => (length, Decoder::Chunked(Self::Trailers)),
                    Ok(httparse::Status::Complete((length, size))) => (length, Decoder::Chunked(Self::Data(size))),
                    Ok(httparse::Status::Partial) => return unfinished(input),
                    Err(_) => return Err(Http1Error::Framing("the size of a chunk is not a number")),
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
                    // The parser takes a line feed alone for the end of a line; what stands between may read it otherwise.
                    Ok(httparse::Status::Complete((length, _))) if has_bare_line_feed(input, length) => {
                        return Err(Http1Error::Framing("a trailer line ends without a carriage return"));
                    }
                    Ok(httparse::Status::Complete((length, _))) => (length, Decoder::Ended),
                    Ok(httparse::Status::Partial) => return unfinished(input),
                    Err(err) => return Err(Http1Error::NotHttp(err)),
                }
            }
            Self::Data(_) => return Ok(None),
        };
        input.advance(length);
        Ok(Some(next))
    }
}

fn unfinished(input: &BytesMut) -> Result<Option<Decoder>, Http1Error> {
    if input.len() > LONGEST_LINE { Err(Http1Error::Framing("the framing of a chunk has no end")) } else { Ok(None) }
}

/// Whether a line ends with a line feed alone among the first bytes (RFC 9112 section 2.2).
fn has_bare_line_feed(input: &[u8], length: usize) -> bool {
    let lines = input.get(..length).unwrap_or_default().split_inclusive(|byte| *byte == b'\n');
    lines.into_iter().any(|line| !line.ends_with(b"\r\n"))
}

fn take(input: &mut BytesMut, left: &mut u64) -> Bytes {
    let most = usize::try_from(*left).unwrap_or(usize::MAX);
    let piece = input.split_to(input.len().min(most)).freeze();
    *left -= piece.len() as u64;
    piece
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds a body in pieces of these sizes, over and over. Returns what came out and what was left over.
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
    fn bodies_end_where_their_framing_says() {
        for (decoder, wire, body, left_over) in [
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
                assert_eq!((&*found, rest), (body.as_bytes(), left_over), "{wire:?} by {sizes:?}");
            }
        }
    }

    #[test]
    fn framing_that_is_not_whole_is_refused() {
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
            assert!(decoded(decoder, wire.as_bytes(), &[1]).is_err(), "{wire:?} by single bytes");
        }
    }

    #[test]
    fn framing_without_an_end_is_given_up() {
        for endless in [format!("1;{}", "x".repeat(20_000)), format!("0\r\na: {}", "x".repeat(20_000))] {
            let ended = decoded(CHUNKED, endless.as_bytes(), &[1000]);
            assert!(matches!(ended, Err(Http1Error::Framing(_))), "{ended:?}");
        }
    }

    proptest! {
        #[test]
        fn chunked_bodies_come_out_as_they_went_in(
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
            let (body, left_over) = decoded(CHUNKED, &wire, &sizes).unwrap();
            prop_assert_eq!((body, left_over), (chunks.concat(), 4));
        }
    }
}
