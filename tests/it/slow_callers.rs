//! Callers that do not read their responses: the gateway ends their calls after the write timeout, and they delay neither
//! other calls nor shutdown.

use std::net::SocketAddr;
use std::time::Duration;

use signalr_gateway::sandbox::{Fault, FaultKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::frames::{
    DATA, END_STREAM, Frames, INITIAL_WINDOW_SIZE, Outcome, PING, RST_STREAM, WINDOW_UPDATE, frame, headers, pseudo,
};
use crate::support::{GatewayOptions, Harness, wait_until, with_timeout};

/// A call with a streamed response.
const CHECK: &str = "/api/v1/hubs/chat/users/ann";
/// The listener's limit of concurrent calls.
const MAX_REQUESTS: usize = 3;
/// More than a socket buffers while the peer does not read.
const LARGE: usize = 16 * 1024 * 1024;
/// The error code CANCEL.
const CANCEL: u32 = 8;

/// Starts a gateway whose endpoints answer with a body of `length` bytes.
async fn harness(length: usize, write_timeout: &str) -> Harness {
    let harness = Harness::start(|options: &mut GatewayOptions| {
        options.set("timeouts.write", write_timeout);
        options.set("listeners.default.max_requests", "3").set("limits.queue_time", "50ms");
    })
    .await;
    for endpoint in harness.sandbox.endpoints() {
        let response = FaultKind::body(200, "text/plain", &"x".repeat(length));
        endpoint.server.faults().set(Fault::always(response).on_path("/api/v1/hubs"));
    }
    harness
}

/// Waits until the endpoint has received `calls` calls. It responds at once.
async fn wait_until_calls_arrived(harness: &Harness, calls: usize) {
    wait_until("the calls have arrived", async || (harness.arrivals("east").len() >= calls).then_some(())).await;
}

async fn wait_until_permits_are_free(harness: &Harness) {
    wait_until("no request is in flight", async || {
        (harness.metrics().await.sum("requests_in_flight", &[]) < 0.5).then_some(())
    })
    .await;
    harness.caller().await.call("HEAD", CHECK).await.assert_status(200);
}

/// Connects a caller that sends a call and never reads. Its receive buffer is small.
async fn silent_http1(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let request = format!("GET {CHECK} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    with_timeout("writing", stream.write_all(request.as_bytes())).await.unwrap();
    stream
}

/// Connects a caller that grants no window and sends as many calls as the listener allows. Waits until they are
/// answered.
async fn silent_http2(address: SocketAddr) -> Frames<TcpStream> {
    let mut caller = Frames::connect(address, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    for stream in streams() {
        caller.write(&headers(stream, END_STREAM, &pseudo("GET", CHECK))).await;
        assert_eq!(caller.outcome(stream).await, Some(Outcome::Response));
    }
    caller
}

fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2).take(MAX_REQUESTS)
}

#[tokio::test]
async fn http2_caller_that_grants_no_window_does_not_hold_its_permits() {
    let harness = harness(100, "400ms").await;
    let mut caller = silent_http2(harness.listener("default")).await;
    for stream in streams() {
        let reset = caller.next_of(RST_STREAM, stream).await.unwrap();
        assert_eq!(reset.payload, CANCEL.to_be_bytes());
    }
    wait_until_permits_are_free(&harness).await;
    // The connection still works.
    caller.write(&headers(99, END_STREAM, &pseudo("HEAD", CHECK))).await;
    assert_eq!(caller.outcome(99).await, Some(Outcome::Response));
}

#[tokio::test]
async fn http2_caller_that_reads_single_bytes_is_reset() {
    let harness = harness(1000, "2s").await;
    let mut caller = silent_http2(harness.listener("default")).await;
    let (mut bytes, mut is_reset) = (0, false);
    with_timeout("the stream's reset", async {
        while !is_reset {
            caller.write(&frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes())).await;
            let pause = tokio::time::sleep(Duration::from_millis(20));
            tokio::pin!(pause);
            loop {
                let next = tokio::select! {
                    next = caller.next() => next.unwrap(),
                    () = &mut pause => break,
                };
                is_reset |= (next.kind, next.stream) == (RST_STREAM, 1);
                bytes += if next.kind == DATA { next.payload.len() } else { 0 };
            }
        }
    })
    .await;
    assert!((1..1000).contains(&bytes), "{bytes}");
    wait_until_permits_are_free(&harness).await;
}

#[tokio::test]
async fn http1_caller_that_does_not_read_does_not_hold_its_permit() {
    let harness = harness(LARGE, "400ms").await;
    let mut callers = Vec::new();
    for _ in 0..MAX_REQUESTS {
        callers.push(silent_http1(harness.listener("default")).await);
    }
    wait_until_calls_arrived(&harness, MAX_REQUESTS).await;
    for mut caller in callers {
        // The part that the socket buffered; then the connection was closed.
        let mut received = Vec::new();
        wait_until_permits_are_free(&harness).await;
        let _reset = with_timeout("the end of the connection", caller.read_to_end(&mut received)).await;
        assert!(received.len() < LARGE, "{}", received.len());
    }
}

#[tokio::test]
async fn http2_caller_with_a_full_socket_does_not_hold_its_permits() {
    let harness = harness(LARGE, "400ms").await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    let stream = socket.connect(harness.listener("default")).await.unwrap();
    let most = (1 << 31) - 1;
    let mut caller = Frames::over(stream, &[(INITIAL_WINDOW_SIZE, most)]).await;
    caller.write(&frame(WINDOW_UPDATE, 0, 0, &(most - 65_535).to_be_bytes())).await;
    for stream in streams() {
        caller.write(&headers(stream, END_STREAM, &pseudo("GET", CHECK))).await;
    }
    wait_until_calls_arrived(&harness, MAX_REQUESTS).await;
    wait_until_permits_are_free(&harness).await;
    // The caller never reads, so the socket stays full until the gateway closes it. Only then do writes fail.
    wait_until("the gateway has closed the connection", async || {
        let ping = frame(PING, 0, 0, &[0; 8]);
        caller.try_write(&ping).await.is_err().then_some(())
    })
    .await;
}

#[tokio::test]
async fn slow_reader_receives_the_complete_response() {
    // In total it takes longer than the write timeout.
    let harness = harness(100 * 16 * 1024, "3s").await;
    let mut caller = Frames::connect(harness.listener("default"), &[(INITIAL_WINDOW_SIZE, 0)]).await;
    caller.write(&headers(1, END_STREAM, &pseudo("GET", CHECK))).await;
    let (mut bytes, mut has_ended) = (0, false);
    while !has_ended {
        for stream in [0, 1] {
            caller.write(&frame(WINDOW_UPDATE, 0, stream, &(16_u32 * 1024).to_be_bytes())).await;
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
        let next = caller.next_of(DATA, 1).await.unwrap();
        bytes += next.payload.len();
        has_ended = next.flags & END_STREAM != 0;
    }
    assert_eq!(bytes, 100 * 16 * 1024);
}

#[tokio::test]
async fn callers_that_do_not_read_do_not_delay_shutdown() {
    let harness = harness(LARGE, "400ms").await;
    let address = harness.listener("default");
    let _http2 = silent_http2(address).await;
    wait_until_permits_are_free(&harness).await;
    let (first, second) = (silent_http1(address).await, silent_http1(address).await);
    // Earlier calls, the one that succeeded, and these.
    wait_until_calls_arrived(&harness, MAX_REQUESTS + 3).await;
    let mut third = Frames::connect(address, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    third.write(&headers(1, END_STREAM, &pseudo("GET", CHECK))).await;
    assert_eq!(third.outcome(1).await, Some(Outcome::Response));
    // It fails if a call has to be cut off.
    harness.shutdown().await.unwrap();
    drop((first, second));
}

#[tokio::test]
async fn callers_that_do_not_finish_a_request_do_not_delay_shutdown() {
    let harness = harness(10, "400ms").await;
    let address = harness.listener("default");
    // Half a head, at the start of a connection and after a request.
    let mut first = harness.raw_connection().await;
    first.write("POST /api/hubs/chat/:send HTTP/1.1\r\nhost: local").await;
    let mut second = harness.raw_connection().await;
    second.write(format!("HEAD {CHECK} HTTP/1.1\r\nhost: localhost\r\n\r\nPOST /api")).await;
    second.response_to("HEAD").await.unwrap().assert_status(200);
    // Nothing after a request; the caller does not answer the PING of a graceful shutdown.
    let mut third = Frames::connect(address, &[]).await;
    third.write(&headers(1, END_STREAM, &pseudo("HEAD", CHECK))).await;
    assert_eq!(third.outcome(1).await, Some(Outcome::Response));
    // `Content-Length: 0` and a stream that does not end.
    let mut fourth = Frames::connect(address, &[]).await;
    let fields = [pseudo("PUT", "/api/v1/hubs/chat/groups/g/users/ann"), vec![("content-length", "0")]].concat();
    fourth.write(&headers(1, 0, &fields)).await;
    // It fails if a call has to be cut off.
    harness.shutdown().await.unwrap();
}
