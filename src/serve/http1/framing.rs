//! Tracks where each request of an HTTP/1.x connection begins and ends, as its bytes are read.

use super::chunked::{Chunked, Progress};
use super::head::{BodyLength, HeadCheck, KnownHead};
use super::head_error::HeadError;

/// The position of a connection within a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// At the start of a head.
    Head,
    /// In a body with this many bytes left.
    Body(u64),
    /// In a chunked body.
    Chunked(Chunked),
}

/// What follows the bytes that may be passed on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rest {
    /// Nothing.
    Nothing,
    /// A partial head, and its check so far.
    PartialHead(HeadCheck),
    /// A rejected head.
    RejectedHead(HeadError),
    /// The malformed rest of a body.
    MalformedBody(&'static str),
}

impl Framing {
    /// Tracks the requests through the next bytes. Returns how many of them may be passed on, and what follows those.
    #[inline]
    pub(super) fn track(&mut self, bytes: &[u8], known: &mut KnownHead) -> (usize, Rest) {
        if *self == Self::Head
            && let Some(head) = known.recognise(bytes)
        {
            self.enter(head.body);
            return match *self {
                // The usual case: one request, complete.
                Self::Body(length) if usize::try_from(length).is_ok_and(|length| head.end + length == bytes.len()) => {
                    *self = Self::Head;
                    (bytes.len(), Rest::Nothing)
                }
                Self::Head | Self::Body(_) | Self::Chunked(_) => {
                    self.track_from(head.end, bytes, HeadCheck::default(), known)
                }
            };
        }
        self.track_from(0, bytes, HeadCheck::default(), known)
    }

    /// Does the same as [`Framing::track`] from position `at`; `check` is the progress of the head there.
    pub(super) fn track_from(
        &mut self,
        mut at: usize,
        bytes: &[u8],
        mut check: HeadCheck,
        known: &mut KnownHead,
    ) -> (usize, Rest) {
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            if rest.is_empty() {
                return (at, Rest::Nothing);
            }
            match self {
                Self::Head => match check.check(rest, known) {
                    Ok(Some(head)) => {
                        at += head.end;
                        check = HeadCheck::default();
                        self.enter(head.body);
                    }
                    Ok(None) => return (at, Rest::PartialHead(check)),
                    Err(why) => return (at, Rest::RejectedHead(why)),
                },
                Self::Body(left) => {
                    let taken = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    at += taken;
                    *left -= taken as u64;
                    if *left == 0 {
                        *self = Self::Head;
                    }
                }
                Self::Chunked(chunked) => match chunked.track(rest) {
                    Progress::Continues => return (bytes.len(), Rest::Nothing),
                    Progress::Ended(end) => {
                        at += end;
                        *self = Self::Head;
                    }
                    Progress::Malformed(end, why) => return (at + end, Rest::MalformedBody(why)),
                },
            }
        }
    }

    fn enter(&mut self, body: BodyLength) {
        *self = match body {
            BodyLength::Known(0) => Self::Head,
            BodyLength::Known(length) => Self::Body(length),
            BodyLength::Chunked => Self::Chunked(Chunked::new()),
        };
    }
}
