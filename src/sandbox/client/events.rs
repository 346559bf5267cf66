//! A session over server-sent events: a GET whose answer does not end. Moves records and knows nothing of what they
//! say.
//!
//! Source: the format as ASP.NET Core's server writes it; the lines of an event stream, the HTML standard.

use std::io;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{self, StreamExt};
use http::header::CACHE_CONTROL;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::{Clients, Refusal, State, Visitor};
use crate::sandbox::server::exchange::{Received, Reply};

/// Forgets the connection when the client stops reading, which ends its session.
struct Open {
    clients: Arc<Clients>,
    id: String,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.clients.forget(&self.id);
    }
}

impl Clients {
    /// A GET that asks for an event stream.
    pub(super) fn open_events(self: &Arc<Self>, request: &Received, visitor: &Visitor) -> Result<Reply, Refusal> {
        let id = request.query_value("id").ok_or(Refusal::NO_ID)?;
        let mut negotiated = self.negotiated();
        let found = Self::find(&mut negotiated, &id, visitor)?;
        if !matches!(found.state, State::Waiting { .. }) {
            return Err(Refusal::OPEN);
        }
        let who = found.who.clone();
        let verdict = format!("event stream {}", who.id);
        let (inbound, outbound) = self.start(&visitor.hub, who, true);
        found.state = State::Posting { inbound, polling: None };
        drop(negotiated);

        let open = Open { clients: Arc::clone(self), id };
        let events = stream::unfold((outbound, open), |(mut outbound, open)| async move {
            let frame = outbound.recv().await?;
            Some((event(&frame.bytes), (outbound, open)))
        });
        // Something at once, so that the client sees that it is connected.
        let events = stream::once(async { Bytes::from_static(b":\r\n") }).chain(events);
        let body = StreamBody::new(events.map(|event| Ok::<_, io::Error>(Frame::data(event))));
        let reply = Reply::stream("text/event-stream", body.boxed_unsync());
        Ok(reply.header(CACHE_CONTROL, "no-cache, no-store").verdict(verdict))
    }
}

/// A record as an event. A record may have lines, if its caller made it, and each is a field of its own: a line ends with
/// a line feed, a carriage return or both, and in JSON they are all the same.
fn event(record: &[u8]) -> Bytes {
    let mut event = BytesMut::with_capacity(record.len() + 16);
    for line in record.split(|byte| matches!(*byte, b'\n' | b'\r')) {
        event.put_slice(b"data: ");
        event.put_slice(line);
        event.put_slice(b"\r\n");
    }
    event.put_slice(b"\r\n");
    event.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_a_record_is_a_field() {
        for ends in ["\n", "\r"] {
            let record = format!("{{\"a\":{ends}1}}\u{1e}");
            assert_eq!(event(record.as_bytes()), "data: {\"a\":\r\ndata: 1}\u{1e}\r\n\r\n");
        }
    }
}
