//! Tracks the framing of a chunked body byte by byte, strictly by RFC 9112 section 7.1. Stores no data.

use super::scan::first_outside_token;

/// The most bytes of chunk extensions and trailers together. Both are rare and not forwarded.
const MAX_EXTRA: u16 = 4 * 1024;
/// The most trailer lines. hyper accepts 100.
const MAX_TRAILERS: u8 = 64;
/// The most digits of a chunk size.
const MAX_DIGITS: u8 = 16;

/// The position in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunked {
    state: State,
    /// Bytes of extensions and trailers so far.
    extra: u16,
    trailers: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
    },
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// A trailer line or the end begins.
    LineStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
}

/// The result of tracking a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It continues after the given bytes.
    Continues,
    /// It ended here.
    Ended(usize),
    /// It is malformed from here on.
    Malformed(usize, &'static str),
}

impl Chunked {
    pub(super) fn new() -> Self {
        Self { state: State::Size { size: 0, digits: 0 }, extra: 0, trailers: 0 }
    }

    /// Tracks the framing through the next bytes.
    pub(super) fn track(&mut self, bytes: &[u8]) -> Progress {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if let State::Data { left } = self.state {
                let taken = left.min((bytes.len() - at) as u64);
                at += usize::try_from(taken).unwrap_or(bytes.len());
                self.state = if taken == left { State::DataCr } else { State::Data { left: left - taken } };
                continue;
            }
            match self.step(*byte) {
                Ok(Some(next)) => self.state = next,
                Ok(None) => return Progress::Ended(at + 1),
                Err(why) => return Progress::Malformed(at, why),
            }
            at += 1;
        }
        Progress::Continues
    }

    /// Returns the state after a byte that is not data; `None` at the end of the body.
    fn step(&mut self, byte: u8) -> Result<Option<State>, &'static str> {
        Ok(Some(match (self.state, byte) {
            (State::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == MAX_DIGITS {
                    return Err("a chunk size has too many digits");
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (State::Size { digits: 0, .. }, _) => return Err("a chunk has no size in hexadecimal digits"),
            (State::Size { size, .. }, b';') => State::Extension { size },
            (State::Size { size, .. } | State::Extension { size }, b'\r') => State::SizeLf { size },
            (State::Size { .. }, _) => return Err("a chunk size ends in something other than CR LF or an extension"),
            (State::Extension { size }, _) if is_text(byte) => {
                self.count_extra()?;
                State::Extension { size }
            }
            (State::Extension { .. }, _) => return Err("a chunk extension has a control character"),
            (State::SizeLf { size: 0 } | State::TrailerLf, b'\n') => State::LineStart,
            (State::SizeLf { size }, b'\n') => State::Data { left: size },
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { size: 0, digits: 0 },
            (State::DataCr | State::DataLf, _) => {
                return Err("a chunk is longer than its size, or does not end in CR LF");
            }
            (State::LineStart, b'\r') => State::EndLf,
            (State::EndLf, b'\n') => return Ok(None),
            (State::LineStart | State::TrailerName, _) if first_outside_token(&[byte]) == 1 => {
                if self.state == State::LineStart {
                    self.trailers += 1;
                }
                if self.trailers > MAX_TRAILERS {
                    return Err("there are too many trailers");
                }
                self.count_extra()?;
                State::TrailerName
            }
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, _) if is_text(byte) => {
                self.count_extra()?;
                State::TrailerValue
            }
            (State::SizeLf { .. } | State::TrailerLf | State::EndLf, _) => {
                return Err("a CR is not followed by LF");
            }
            (State::LineStart | State::TrailerName | State::TrailerValue, _) => return Err("a trailer is malformed"),
            // `track` skips data.
            (State::Data { left }, _) => State::Data { left },
        }))
    }

    fn count_extra(&mut self) -> Result<(), &'static str> {
        self.extra += 1;
        if self.extra > MAX_EXTRA { Err("the chunk extensions and trailers are too long") } else { Ok(()) }
    }
}

/// Returns whether a byte is allowed in a field value.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}
