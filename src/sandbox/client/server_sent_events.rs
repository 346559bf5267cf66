//! The server-sent events transport: a GET whose response does not end.
//!
//! Source: the format that ASP.NET Core's server writes; the HTML standard, "Server-sent events".

use std::io;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{self, StreamExt};
use http::header::CACHE_CONTROL;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::registry::{AuthenticatedClient, Clients, Registration, Rejection, State, find};
use crate::sandbox::server::exchange::{ReceivedRequest, Reply};

/// Handles a GET for an event stream.
pub(super) fn open(
    clients: &Arc<Clients>,
    request: &ReceivedRequest,
    client: &AuthenticatedClient,
) -> Result<Reply, Rejection> {
    let id = request.query_value("id").ok_or(Rejection::NO_ID)?;
    let mut negotiated = clients.negotiated();
    let found = find(&mut negotiated, &id, client)?;
    if !matches!(found.state, State::Waiting { .. }) {
        return Err(Rejection::ALREADY_OPEN);
    }
    let identity = found.identity.clone();
    let verdict = format!("event stream {}", identity.id);
    let (inbound, outbound) = clients.start_session(&client.hub, identity, true);
    found.state = State::Posting { inbound, polling: None };
    drop(negotiated);

    // The stream owns the registration: when the client disconnects, the connection is removed and its session ends.
    let registration = Registration::new(clients, Some(id));
    let events = stream::unfold((outbound, registration), |(mut outbound, registration)| async move {
        let frame = outbound.recv().await?;
        Some((event(&frame.bytes), (outbound, registration)))
    });
    // An immediate comment shows the client that it is connected.
    let events = stream::once(async { Bytes::from_static(b":\r\n") }).chain(events);
    let body = StreamBody::new(events.map(|event| Ok::<_, io::Error>(Frame::data(event))));
    let reply = Reply::stream("text/event-stream", body.boxed_unsync());
    Ok(reply.header(CACHE_CONTROL, "no-cache, no-store").verdict(verdict))
}

/// Encodes a record as an event. A pre-encoded record may contain line breaks (line feed, carriage return or both). Each line
/// becomes a field of its own. The client joins the fields with line feeds, which JSON treats as equal to other line breaks.
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
        for line_break in ["\n", "\r"] {
            let record = format!("{{\"a\":{line_break}1}}\u{1e}");
            assert_eq!(event(record.as_bytes()), "data: {\"a\":\r\ndata: 1}\u{1e}\r\n\r\n");
        }
    }
}
