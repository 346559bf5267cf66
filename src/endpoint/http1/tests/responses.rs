//! Responses, compared with hyper's client: both clients receive the same bytes in the same pieces, and must return the same response
//! or both fail. This client also rejects ambiguous framing that hyper repairs.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::net::TcpStream;

use super::{HEAD_END, Outcome, Received, Server, empty, run, send};

/// Sends a request with hyper's client and reads the response.
async fn send_with_hyper(stream: TcpStream, method: Method) -> Outcome {
    let mut client = hyper::client::conn::http1::Builder::new();
    client.allow_spaces_after_header_name_in_responses(true);
    let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.unwrap();
    let request = Request::builder().method(method).uri("/api?x=%2F").header("host", "east.example");
    let exchange = async {
        let response = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await?;
        let (mut head, body) = response.into_parts();
        // This client drops a repeated length, and any length of a 204.
        if let Some(length) = head.headers.get("content-length").cloned() {
            head.headers.insert("content-length", length);
        }
        if head.status == StatusCode::NO_CONTENT {
            head.headers.remove("content-length");
        }
        let body = body.collect().await?.to_bytes().to_vec();
        Ok(Received { status: head.status, headers: head.headers, body })
    };
    let (outcome, _connection) = tokio::join!(exchange, connection);
    outcome.map_err(|err: hyper::Error| err.to_string())
}

/// Sends the same response to both clients. Returns the outcome of this client and of hyper's.
async fn compare(method: &Method, pieces: &[Vec<u8>]) -> (Outcome, Outcome) {
    let server = Server::new(HEAD_END).await;
    let (ours, _) =
        tokio::join!(async { send(server.connect().await, method.clone(), empty()).await.0 }, server.respond(pieces));
    let (hypers, _) =
        tokio::join!(async { send_with_hyper(server.connect().await, method.clone()).await }, server.respond(pieces));
    (ours, hypers)
}

/// Splits bytes into pieces of these sizes, repeated.
fn split(mut bytes: &[u8], sizes: &[usize]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut sizes = sizes.iter().cycle();
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at((*sizes.next().unwrap()).clamp(1, bytes.len()));
        pieces.push(piece.to_vec());
        bytes = rest;
    }
    pieces
}

#[test]
fn responses_are_the_same_as_with_hyper() {
    let responses = [
        "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx-ms-error-code: A.B\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: ,Chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 5\r\nblank \t: before\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nuntil the end",
        "HTTP/1.0 200 OK\r\n\r\nuntil the end",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 1\r\n\r\nx",
        "HTTP/1.1 404 Nowhere To Be Found\r\nContent-Length: 0\r\nempty:\r\ntwice: a\r\ntwice: b\r\n\r\n",
        "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 099 Low\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nfolded: a\r\n b\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-",
        "garbage\r\n\r\n",
        "",
    ];
    run(async {
        for method in [Method::POST, Method::GET, Method::HEAD] {
            for response in responses {
                for sizes in [&[1][..], &[7, 3], &[10_000]] {
                    let (ours, hypers) = compare(&method, &split(response.as_bytes(), sizes)).await;
                    match (&ours, &hypers) {
                        (Ok(ours), Ok(hypers)) => assert_eq!(ours, hypers, "{method} {response:?}"),
                        (Err(_), Err(_)) => {}
                        _ => panic!("{method} {response:?} in pieces of {sizes:?}: {ours:?}, hyper {hypers:?}"),
                    }
                }
            }
        }
    });
}

#[test]
fn long_heads_in_pieces_are_the_same_as_with_hyper() {
    let long = "x".repeat(3000);
    run(async {
        for response in [
            format!("HTTP/1.1 200 OK\r\na: {long}\r\nb: {long}\r\ncontent-length: 5\r\n\r\nhello"),
            format!("HTTP/1.1 200 OK\na: {long}\nb: {long}\ncontent-length: 5\n\nhello"),
            format!("HTTP/1.1 103 Hints\r\na: {long}\r\nb: {long}\r\n\r\nHTTP/1.1 204 No Content\r\nc: {long}\r\n\r\n"),
        ] {
            for sizes in [&[1][..], &[2], &[3], &[1460], &[5000]] {
                let (ours, hypers) = compare(&Method::POST, &split(response.as_bytes(), sizes)).await;
                assert_eq!(ours.unwrap(), hypers.unwrap(), "{response:?} in pieces of {sizes:?}");
            }
        }
    });
}

#[test]
fn unwanted_headers_are_skipped_and_invalid_or_different_lengths_are_rejected() {
    run(async {
        let pieces =
            [b"HTTP/1.1 200 OK\r\nunwanted: a\r\nwanted: b\r\ncontent-length: 0\r\nunwanted: c\r\n\r\n".to_vec()];
        let server = Server::new(HEAD_END).await;
        let exchange = async { send(server.connect().await, Method::POST, empty()).await };
        let ((response, _), _) = tokio::join!(exchange, server.respond(&pieces));
        let names: Vec<_> = response.unwrap().headers.keys().map(ToString::to_string).collect();
        assert_eq!(names, ["wanted", "content-length"]);

        for lengths in
            ["content-length: 5\r\ncontent-length: 4", "content-length: +5", "content-length: 5, 4", "content-length:"]
        {
            let response = format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\nhello").into_bytes();
            for method in [Method::POST, Method::HEAD] {
                let server = Server::new(HEAD_END).await;
                let exchange = async { send(server.connect().await, method.clone(), empty()).await };
                let ((response, _), _) = tokio::join!(exchange, server.respond(std::slice::from_ref(&response)));
                assert!(response.is_err(), "{method} {lengths}: {response:?}");
            }
        }
    });
}

/// RFC 9112 section 6.3 allows a client to repair some of these, but ambiguous framing enables response splitting.
#[test]
fn ambiguous_framing_is_rejected() {
    run(async {
        for response in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n;x\r\nhello\r\n0\r\n\r\n",
        ] {
            let (ours, _) = compare(&Method::POST, &[response.as_bytes().to_vec()]).await;
            assert!(ours.is_err(), "{response:?}: {ours:?}");
        }
    });
}

/// Generates responses, most of them valid.
fn response() -> impl Strategy<Value = Vec<u8>> {
    let status = prop_oneof![
        "HTTP/1.1 (20[0-6]|30[1-8]|4[0-2][0-9]|50[0-5]) [A-Za-z ]{0,12}",
        Just(String::from("HTTP/1.0 200 OK"))
    ];
    let line = prop_oneof![
        4 => "[a-zA-Z-]{1,12}: ?[ -~]{0,30}",
        2 => (0..40_usize).prop_map(|length| format!("Content-Length: {length}")),
        1 => Just(String::from("Transfer-Encoding: chunked")),
        1 => "Connection: (close|keep-alive|x)",
        1 => "[ -~]{0,10}",
    ];
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        prop::collection::vec("[a-z]{1,20}", 0..4).prop_map(|chunks| {
            let chunks: Vec<String> = chunks.iter().map(|chunk| format!("{:X}\r\n{chunk}\r\n", chunk.len())).collect();
            (chunks.concat() + "0\r\n\r\n").into_bytes()
        }),
    ];
    (status, prop::collection::vec(line, 0..6), body).prop_map(|(status, lines, body)| {
        let mut wire = status;
        for line in lines {
            wire += "\r\n";
            wire += &line;
        }
        wire += "\r\n\r\n";
        [wire.into_bytes(), body].concat()
    })
}

/// The number of cases. A few thousand, run manually, find more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// hyper returns the same response for all that this client accepts. What only this client rejects is ambiguous.
    #[test]
    fn only_ambiguous_responses_differ_from_hyper(response in response(), sizes in prop::collection::vec(1..80_usize, 1..4)) {
        let (ours, hypers) = run(compare(&Method::POST, &split(&response, &sizes)));
        let text = String::from_utf8_lossy(&response).to_lowercase();
        match (ours, hypers) {
            (Ok(ours), Ok(hypers)) => prop_assert_eq!(ours, hypers),
            (Err(_), Err(_)) => {}
            (Err(err), Ok(_)) => {
                let lengths = text.matches("content-length:").count();
                let codings = text.matches("transfer-encoding:").count();
                let is_ambiguous = lengths > 1 || codings > 1 || (lengths == 1 && codings == 1);
                // hyper parses an empty line as a chunk of size 0.
                let has_empty_chunk = text.contains("\r\n\r\n\r\n");
                prop_assert!(is_ambiguous || has_empty_chunk, "only this client rejects it: {} {:?}", err, text);
            }
            (Ok(ours), Err(err)) => prop_assert!(false, "only hyper rejects it: {} {:?}", err, ours),
        }
    }
}
