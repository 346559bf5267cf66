//! Fuzz targets for the parser of responses.

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, header};

use super::framing::{Chunk, Decoder};
use super::head;
use crate::endpoint::recycler::Recycler;

/// A parsed response: its body, and its length on the wire.
#[derive(Debug, PartialEq, Eq)]
struct Decoded {
    body: Vec<u8>,
    length: usize,
}

/// Parses a byte that selects the method, a byte with the size of pieces, then a response. Asserts that the response is framed as
/// in RFC 9112 section 6.3, that the result does not depend on the size of pieces, and that no byte after the response is read.
pub(crate) fn response(data: &[u8]) {
    let Some((&[first, size], wire)) = data.split_first_chunk() else { return };
    let method = if first & 1 == 0 { Method::POST } else { Method::HEAD };
    let recycler = Recycler::default();
    let input = Bytes::copy_from_slice(wire);
    // A prefix parses to the same head, to none, or to an error.
    let parsed = head::parse(&input, &method, |_| false, &recycler);
    let cut = input.slice(..input.len().min(usize::from(size)));
    if let Ok(Some((length, _))) = head::parse(&cut, &method, |_| false, &recycler) {
        assert!(matches!(&parsed, Ok(Some((whole, _))) if *whole == length), "a longer input has another head");
    }
    let Ok(Some((length, head))) = parsed else { return };
    assert!(length <= wire.len(), "the head is longer than the input");
    let headers = head.response.headers();
    let status = head.response.status();
    assert!(!status.is_informational(), "{status} is not a final response");
    let (lengths, encodings) = (headers.get_all(header::CONTENT_LENGTH), headers.get_all(header::TRANSFER_ENCODING));
    let lengths: Vec<&[u8]> = lengths.iter().map(http::HeaderValue::as_bytes).collect();
    let encodings: Vec<&[u8]> = encodings.iter().map(http::HeaderValue::as_bytes).collect();
    let has_body = method != Method::HEAD && ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
    match head.body {
        Decoder::Chunked(_) => {
            assert!(has_body && lengths.is_empty() && !encodings.is_empty(), "{head:?}");
            // A list may have empty elements.
            let mut codings =
                encodings.iter().flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
            assert!(codings.all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case(b"chunked")), "{head:?}");
        }
        Decoder::Length(length) => {
            assert!(has_body && encodings.is_empty(), "{head:?}");
            assert!(lengths.iter().all(|line| trimmed(line) == length.to_string().as_bytes()), "{head:?}");
        }
        Decoder::UntilClose => assert!(has_body && lengths.is_empty() && encodings.is_empty() && !head.keeps_alive),
        Decoder::Ended => {
            let is_empty = lengths.iter().all(|line| trimmed(line).is_empty());
            assert!(!has_body || (encodings.is_empty() && is_empty), "{head:?}");
        }
    }
    let rest = input.get(length..).unwrap_or_default();
    check_body(head.body, rest, usize::from(size));
}

/// Removes leading zeros.
fn trimmed(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|digit| **digit == b'0').count();
    number.get(zeros..).unwrap_or_default()
}

/// Parses a byte with the size of pieces, then a chunked body.
pub(crate) fn chunks(data: &[u8]) {
    let Some((size, wire)) = data.split_first() else { return };
    check_body(Decoder::Chunked(Chunk::Size), wire, usize::from(*size));
}

fn check_body(decoder: Decoder, wire: &[u8], size: usize) {
    let whole = decode(decoder, wire, wire.len());
    for size in [1, size.max(1)] {
        assert_eq!(decode(decoder, wire, size), whole, "in pieces of {size}");
    }
    let expected = match decoder {
        Decoder::Chunked(_) => reference(wire),
        Decoder::Length(length) => {
            let length = usize::try_from(length).ok();
            length.and_then(|length| Some(Decoded { body: wire.get(..length)?.to_vec(), length }))
        }
        Decoder::UntilClose => Some(Decoded { body: wire.to_vec(), length: wire.len() }),
        Decoder::Ended => Some(Decoded { body: Vec::new(), length: 0 }),
    };
    match (whole, expected) {
        (Some(decoded), Some(expected)) => assert_eq!(decoded, expected),
        (Some(decoded), None) => panic!("parsed {decoded:?} from an invalid body"),
        // Extensions and trailers may be rejected for their content or length.
        (None, Some(_)) => assert!(wire.contains(&b';') || wire.contains(&b':'), "rejected a valid body"),
        (None, None) => {}
    }
}

/// Parses a body that arrives in pieces of one size, until the connection closes; `None` if it is incomplete or invalid.
fn decode(mut decoder: Decoder, wire: &[u8], size: usize) -> Option<Decoded> {
    let (mut input, mut body, mut taken) = (BytesMut::new(), Vec::new(), 0);
    loop {
        while let Some(piece) = decoder.decode(&mut input).ok()? {
            assert!(!piece.is_empty(), "an empty piece");
            body.extend_from_slice(&piece);
        }
        decoder.skip_framing(&mut input).ok()?;
        if decoder == Decoder::Ended {
            return Some(Decoded { body, length: taken - input.len() });
        }
        let Some(piece) =
            wire.get(taken..).filter(|rest| !rest.is_empty()).and_then(|rest| rest.chunks(size.max(1)).next())
        else {
            decoder.close().ok()?;
            return Some(Decoded { body, length: taken - input.len() });
        };
        input.extend_from_slice(piece);
        taken += piece.len();
    }
}

/// Parses a chunked body by the grammar of RFC 9112 section 7.1, line by line; any line with a colon is a trailer.
fn reference(wire: &[u8]) -> Option<Decoded> {
    let (mut body, mut at) = (Vec::new(), 0);
    let line = |at: usize| -> Option<&[u8]> {
        let rest = wire.get(at..)?;
        let end = rest.windows(2).position(|end| end == b"\r\n")?;
        rest.get(..end)
    };
    loop {
        let size = line(at)?;
        at += size.len() + 2;
        let digits = size.split(|byte| *byte == b';').next()?;
        let blanks = digits.iter().rev().take_while(|byte| b" \t".contains(byte)).count();
        let digits = digits.get(..digits.len() - blanks)?;
        // More than 16 digits are rejected, including leading zeros.
        if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        let end = at.checked_add(size)?;
        body.extend_from_slice(wire.get(at..end)?);
        if wire.get(end..end.checked_add(2)?)? != b"\r\n" {
            return None;
        }
        at = end + 2;
    }
    loop {
        let trailer = line(at)?;
        at += trailer.len() + 2;
        if trailer.is_empty() {
            return Some(Decoded { body, length: at });
        }
        if !trailer.contains(&b':') {
            return None;
        }
    }
}
