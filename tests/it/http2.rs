//! HTTP/2 from callers, frame by frame: malformed requests are reset, and a flood ends only its own connection.

use signalr_gateway::sandbox::{Fault, FaultKind};
use tokio::net::TcpStream;

use crate::support::frames::{
    DATA, END_STREAM, Frames, Outcome, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, headers, pseudo,
};
use crate::support::{BROADCAST_BODY, BROADCAST_PATH, Harness, broadcast_request, wait_until};

/// Error codes (RFC 9113 section 7).
const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

async fn connect(harness: &Harness) -> Frames<TcpStream> {
    Frames::connect(harness.listener("default"), &[]).await
}

/// Returns the fields of a broadcast, with `more` at the end.
fn send<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&pseudo("POST", BROADCAST_PATH), &[("content-type", "application/json")][..], more].concat()
}

/// Encodes a broadcast in two frames, with `more` fields.
fn message(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    [headers(stream, 0, &send(more)), frame(DATA, END_STREAM, stream, BROADCAST_BODY.as_bytes())].concat()
}

async fn wait_until_nothing_is_in_flight(harness: &Harness) {
    wait_until("no request is in flight", async || {
        (harness.metrics().await.sum("requests_in_flight", &[]) < 0.5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn resets_malformed_requests_and_forwards_no_part_of_them() {
    let harness = Harness::start(|_| {}).await;
    let mut caller = connect(&harness).await;
    let length = BROADCAST_BODY.len().to_string();
    let with = |authority: &'static str| {
        vec![(":method", "POST"), (":scheme", "http"), (":authority", authority), (":path", BROADCAST_PATH)]
    };
    // Each name starts with the section of RFC 9113 that forbids the request.
    let malformed: &[(&str, Vec<(&str, &str)>)] = &[
        ("8.1.1: content-length is zero", send(&[("content-length", "0")])),
        ("8.1.1: content-length is too small", send(&[("content-length", "2")])),
        ("8.1.1: content-length is too large", send(&[("content-length", "1000")])),
        ("8.1.1: content-length is a list", send(&[("content-length", "41, 41")])),
        ("8.1.1: content-length is signed", send(&[("content-length", "+41")])),
        ("8.1.1: content-length twice", send(&[("content-length", &length), ("content-length", &length)])),
        ("8.2.2: connection", send(&[("connection", "close")])),
        ("8.2.2: keep-alive", send(&[("keep-alive", "timeout=5")])),
        ("8.2.2: proxy-connection", send(&[("proxy-connection", "close")])),
        ("8.2.2: transfer-encoding", send(&[("transfer-encoding", "chunked")])),
        ("8.2.2: upgrade", send(&[("upgrade", "websocket")])),
        ("8.2.2: te", send(&[("te", "gzip")])),
        ("8.3: a pseudo-header after another field", send(&[(":path", BROADCAST_PATH)])),
        ("8.3.1: host is another", send(&[("host", "127.0.0.1")])),
        ("8.3.1: host has another port", send(&[("host", "localhost:1")])),
        ("8.3.1: host twice", send(&[("host", "localhost"), ("host", "localhost")])),
        ("8.3.1: user information", with("ann@localhost")),
        ("8.3.1: no path", pseudo("POST", BROADCAST_PATH)[..3].to_vec()),
        ("8.3.1: no scheme", vec![(":method", "POST"), (":path", BROADCAST_PATH)]),
    ];
    let mut streams = (1..).step_by(2);
    for ((what, fields), stream) in malformed.iter().zip(&mut streams) {
        let body = frame(DATA, END_STREAM, stream, BROADCAST_BODY.as_bytes());
        caller.write(&[headers(stream, 0, fields), body].concat()).await;
        assert_eq!(caller.outcome(stream).await, Some(Outcome::Reset(PROTOCOL_ERROR)), "{what}");
    }
    wait_until_nothing_is_in_flight(&harness).await;
    assert!(
        harness.arrivals("east").is_empty() && harness.arrivals("west").is_empty(),
        "{:#?}",
        harness.arrivals("east")
    );

    // A well-formed request on the same connection.
    let well_formed: &[&[(&str, &str)]] =
        &[&[], &[("content-length", &length)], &[("host", "LOCALHOST:80")], &[("te", "trailers")]];
    for (more, stream) in well_formed.iter().zip(&mut streams) {
        caller.write(&message(stream, more)).await;
        assert_eq!(caller.outcome(stream).await, Some(Outcome::Response), "{more:?}");
    }
    assert_eq!(harness.arrivals("east").len(), well_formed.len());
}

#[tokio::test]
async fn accepts_an_empty_body_that_ends_in_its_own_frame() {
    let harness = Harness::start(|_| {}).await;
    let mut caller = connect(&harness).await;
    let fields = [pseudo("PUT", "/api/v1/hubs/chat/groups/g/users/ann"), vec![("content-length", "0")]].concat();
    caller.write(&[headers(1, 0, &fields), frame(DATA, END_STREAM, 1, b"")].concat()).await;
    assert_eq!(caller.outcome(1).await, Some(Outcome::Response));
    assert!(harness.arrival("east").body.unwrap_or_default().is_empty());
}

#[tokio::test]
async fn reset_never_completes_a_message() {
    let harness = Harness::start(|_| {}).await;
    let mut caller = connect(&harness).await;
    for (stream, code) in (1..).step_by(2).zip([NO_ERROR, CANCEL, NO_ERROR, CANCEL, NO_ERROR, NO_ERROR]) {
        let head = headers(stream, 0, &send(&[]));
        let part = frame(DATA, 0, stream, &BROADCAST_BODY.as_bytes()[..10]);
        caller.write(&[head, part].concat()).await;
        wait_until("the request is in flight", async || {
            (harness.metrics().await.sum("requests_in_flight", &[]) > 0.5).then_some(())
        })
        .await;
        caller.write(&frame(RST_STREAM, 0, stream, &code.to_be_bytes())).await;
        wait_until_nothing_is_in_flight(&harness).await;
    }
    // The reset message is not among the complete requests.
    caller.write(&message(99, &[])).await;
    assert_eq!(caller.outcome(99).await, Some(Outcome::Response));
    let complete: Vec<_> = harness.arrivals("east").into_iter().filter(|entry| entry.complete).collect();
    assert_eq!(complete.len(), 1, "{complete:#?}");
    assert_eq!(complete[0].body.as_ref().unwrap(), BROADCAST_BODY.as_bytes());
}

#[tokio::test]
async fn disconnects_a_caller_that_keeps_resetting_streams() {
    let harness = Harness::start(|_| {}).await;
    for endpoint in harness.sandbox.endpoints() {
        endpoint.server.faults().set(Fault::always(FaultKind::Hang).on_path("/api/hubs"));
    }
    let mut caller = connect(&harness).await;
    let mut streams = (1..).step_by(2);
    let mut code = None;
    for _ in 0..100 {
        let batch: Vec<u32> = streams.by_ref().take(20).collect();
        let requests: Vec<u8> = batch.iter().flat_map(|stream| headers(*stream, END_STREAM, &send(&[]))).collect();
        // The response to PING shows that the streams were accepted.
        caller.write(&[requests, frame(PING, 0, 0, &[7; 8])].concat()).await;
        if caller.next_of(PING, 0).await.is_none() {
            break;
        }
        let resets = batch.iter().flat_map(|stream| frame(RST_STREAM, 0, *stream, &CANCEL.to_be_bytes()));
        caller.write(&resets.collect::<Vec<u8>>()).await;
        caller.write(&frame(PING, 0, 0, &[8; 8])).await;
        loop {
            let next = caller.next().await;
            match next.as_ref().map(|next| next.kind) {
                Some(crate::support::frames::GOAWAY) => {
                    let payload = next.unwrap().payload;
                    code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
                    break;
                }
                Some(PING) | None => break,
                Some(_) => {}
            }
        }
        if code.is_some() {
            break;
        }
    }
    assert_eq!(code, Some(ENHANCE_YOUR_CALM));
    wait_until_nothing_is_in_flight(&harness).await;
    for endpoint in harness.sandbox.endpoints() {
        endpoint.server.faults().clear().await;
    }
    harness.broadcast().await.assert_status(202);
}

#[tokio::test]
async fn disconnects_only_the_caller_that_floods() {
    let harness = Harness::start(|_| {}).await;
    let mut other = harness.caller().await;
    let open = headers(1, 0, &send(&[]));
    let floods: [(&str, Vec<u8>); 6] = [
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())),
        ("PRIORITY", frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 1])),
        ("unknown frames", frame(200, 0, 0, b"x")),
        ("empty DATA", frame(DATA, 0, 1, &[])),
    ];
    for (what, flood) in floods {
        let mut caller = connect(&harness).await;
        caller.write(&[open.clone(), flood.repeat(3000)].concat()).await;
        assert_eq!(caller.goaway().await, Some(ENHANCE_YOUR_CALM), "{what}");
        other.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    }
    wait_until_nothing_is_in_flight(&harness).await;
}
