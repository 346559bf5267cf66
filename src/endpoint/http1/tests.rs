//! Held against hyper's client: both get the same bytes from a server, in the same pieces, and must read the same answer, or
//! both refuse it. Where this one refuses what hyper repairs, that is said here.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::socket::Socket;
use super::error::Cause;
use super::*;
use crate::write_batch::{Batched, WriteBatch};

/// A server for one connection: it reads until it has seen `until`, writes the pieces of an answer, and closes.
struct Server {
    listener: TcpListener,
    until: &'static [u8],
}

impl Server {
    async fn new(until: &'static [u8]) -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), until }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap()
    }

    /// Returns what was read.
    async fn answer(&self, pieces: &[Vec<u8>]) -> Vec<u8> {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut read = Vec::new();
        while !read.ends_with(self.until) && stream.read_buf(&mut read).await.unwrap() > 0 {}
        for piece in pieces {
            // Who has heard enough closes.
            if stream.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        read
    }
}

/// An answer, as far as it matters to callers.
#[derive(Debug, PartialEq)]
struct Read {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

type Reading = Result<Read, String>;

fn connection<B: Body<Data = Bytes, Error: Into<Cause>> + Unpin>(stream: TcpStream) -> Connection<B> {
    Connection::new(Socket::Left(Batched::new(stream, &WriteBatch::start())), Rc::default())
}

/// Sends a request and reads its answer. Returns whether the connection could be used again, too.
async fn ours<B>(stream: TcpStream, method: Method, body: B) -> (Reading, bool)
where
    B: Body<Data = Bytes, Error: Into<Cause>> + Unpin,
{
    let mut connection = connection(stream);
    assert!(connection.is_usable());
    let host = HeaderValue::from_static("east.example");
    let lines = |line: &mut HeaderVisitor<'_>| line(&http::header::HOST, &host);
    let head =
        RequestHead { method: &method, target: "/api?x=%2F", lines: &lines, unwanted: |name| *name == "unwanted" };
    connection.begin(&head, body);
    let answer = async {
        let answer = poll_fn(|cx| connection.poll_answer(cx)).await?;
        let mut body = Vec::new();
        while let Some(piece) = poll_fn(|cx| connection.poll_body(cx)).await {
            body.extend_from_slice(&piece?);
        }
        Ok(Read { status: answer.status(), headers: answer.headers().clone(), body })
    };
    let answer: Result<Read, Http1Error> = answer.await;
    (answer.map_err(|err| err.to_string()), connection.is_free())
}

async fn hypers(stream: TcpStream, method: Method) -> Reading {
    let mut client = hyper::client::conn::http1::Builder::new();
    client.allow_spaces_after_header_name_in_responses(true);
    let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.unwrap();
    let request = Request::builder().method(method).uri("/api?x=%2F").header("host", "east.example");
    let answer = async {
        let answer = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await?;
        let (mut head, body) = answer.into_parts();
        // A length that is said twice goes on once.
        if let Some(length) = head.headers.get("content-length").cloned() {
            head.headers.insert("content-length", length);
        }
        if head.status == StatusCode::NO_CONTENT {
            head.headers.remove("content-length");
        }
        let body = body.collect().await?.to_bytes().to_vec();
        Ok(Read { status: head.status, headers: head.headers, body })
    };
    let (answer, _connection) = tokio::join!(answer, connection);
    answer.map_err(|err: hyper::Error| err.to_string())
}

/// Lets both read the same answer.
async fn both(method: &Method, pieces: &[Vec<u8>]) -> (Reading, Reading) {
    let server = Server::new(b"\r\n\r\n").await;
    let (ours, _) =
        tokio::join!(async { ours(server.connect().await, method.clone(), none()).await.0 }, server.answer(pieces));
    let (hypers, _) =
        tokio::join!(async { hypers(server.connect().await, method.clone()).await }, server.answer(pieces));
    (ours, hypers)
}

fn none() -> Full<Bytes> {
    Full::default()
}

/// Cuts bytes into pieces of these sizes, over and over.
fn cut(mut bytes: &[u8], sizes: &[usize]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut sizes = sizes.iter().cycle();
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at((*sizes.next().unwrap()).clamp(1, bytes.len()));
        pieces.push(piece.to_vec());
        bytes = rest;
    }
    pieces
}

pub(in crate::endpoint) fn in_time<T>(test: impl Future<Output = T>) -> T {
    let options = tokio::runtime::LocalOptions::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(options).unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), test).await.expect("it hangs") })
}

#[test]
fn answers_are_read_as_hyper_reads_them() {
    let answers = [
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
    in_time(async {
        for method in [Method::POST, Method::GET, Method::HEAD] {
            for answer in answers {
                for sizes in [&[1][..], &[7, 3], &[10_000]] {
                    let (ours, hypers) = both(&method, &cut(answer.as_bytes(), sizes)).await;
                    match (&ours, &hypers) {
                        (Ok(ours), Ok(hypers)) => assert_eq!(ours, hypers, "{method} {answer:?}"),
                        (Err(_), Err(_)) => {}
                        _ => panic!("{method} {answer:?} in pieces of {sizes:?}: {ours:?}, hyper {hypers:?}"),
                    }
                }
            }
        }
    });
}

#[test]
fn long_heads_that_come_in_pieces_are_read_as_hyper_reads_them() {
    let long = "x".repeat(3000);
    in_time(async {
        for answer in [
            format!("HTTP/1.1 200 OK\r\na: {long}\r\nb: {long}\r\ncontent-length: 5\r\n\r\nhello"),
            format!("HTTP/1.1 200 OK\na: {long}\nb: {long}\ncontent-length: 5\n\nhello"),
            format!("HTTP/1.1 103 Hints\r\na: {long}\r\nb: {long}\r\n\r\nHTTP/1.1 204 No Content\r\nc: {long}\r\n\r\n"),
        ] {
            for sizes in [&[1][..], &[2], &[3], &[1460], &[5000]] {
                let (ours, hypers) = both(&Method::POST, &cut(answer.as_bytes(), sizes)).await;
                assert_eq!(ours.unwrap(), hypers.unwrap(), "{answer:?} in pieces of {sizes:?}");
            }
        }
    });
}

#[test]
fn unwanted_headers_are_left_out_and_lengths_that_contradict_are_refused() {
    in_time(async {
        let pieces =
            [b"HTTP/1.1 200 OK\r\nunwanted: a\r\nwanted: b\r\ncontent-length: 0\r\nunwanted: c\r\n\r\n".to_vec()];
        let server = Server::new(b"\r\n\r\n").await;
        let asked = async { ours(server.connect().await, Method::POST, none()).await };
        let ((answer, _), _) = tokio::join!(asked, server.answer(&pieces));
        let names: Vec<_> = answer.unwrap().headers.keys().map(ToString::to_string).collect();
        assert_eq!(names, ["wanted", "content-length"]);

        for lengths in
            ["content-length: 5\r\ncontent-length: 4", "content-length: +5", "content-length: 5, 4", "content-length:"]
        {
            let answer = format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\nhello").into_bytes();
            for method in [Method::POST, Method::HEAD] {
                let server = Server::new(b"\r\n\r\n").await;
                let asked = async { ours(server.connect().await, method.clone(), none()).await };
                let ((answer, _), _) = tokio::join!(asked, server.answer(std::slice::from_ref(&answer)));
                assert!(answer.is_err(), "{method} {lengths}: {answer:?}");
            }
        }
    });
}

/// RFC 9112 section 6.3 lets a client repair these. Where messages end is what an attacker would like to blur.
#[test]
fn framing_that_could_be_read_in_two_ways_is_refused() {
    in_time(async {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n;x\r\nhello\r\n0\r\n\r\n",
        ] {
            let (ours, _) = both(&Method::POST, &[answer.as_bytes().to_vec()]).await;
            assert!(ours.is_err(), "{answer:?}: {ours:?}");
        }
    });
}

#[test]
fn connection_is_used_again_only_when_both_sides_have_ended_and_nothing_is_left_over() {
    in_time(async {
        for (answer, is_free) in [
            ("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", true),
            ("HTTP/1.1 204 No Content\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", true),
            ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", true),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 0\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\n\r\n", false),
            ("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n", false),
        ] {
            let server = Server::new(b"\r\n\r\n").await;
            let pieces = [answer.as_bytes().to_vec()];
            let asked = async { ours(server.connect().await, Method::POST, none()).await };
            let ((_, free), _) = tokio::join!(asked, server.answer(&pieces));
            assert_eq!(free, is_free, "{answer:?}");
        }
    });
}

#[test]
fn idle_connection_that_was_closed_or_spoken_to_is_not_usable() {
    in_time(async {
        for unasked in [&b""[..], b"HTTP/1.1 408 Request Timeout\r\n\r\n"] {
            let server = Server::new(b"").await;
            let mut connection = connection::<Full<Bytes>>(server.connect().await);
            assert!(connection.is_usable());
            server.answer(&[unasked.to_vec()]).await;
            while connection.is_usable() {
                tokio::task::yield_now().await;
            }
        }
    });
}

#[test]
fn request_counts_as_unsent_only_while_nothing_of_it_is_written_or_on_its_way() {
    in_time(async {
        let server = Server::new(b"").await;
        let mut connection = connection::<Full<Bytes>>(server.connect().await);
        let host = HeaderValue::from_static("east.example");
        let lines = |line: &mut HeaderVisitor<'_>| line(&http::header::HOST, &host);
        let head = RequestHead { method: &Method::POST, target: "/", lines: &lines, unwanted: |_| false };
        connection.begin(&head, none());
        assert!(connection.is_unsent());
        let answer = [b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".to_vec()];
        let asked = poll_fn(|cx| {
            let answer = connection.poll_answer(cx);
            assert!(!connection.is_unsent(), "it was given to the socket");
            answer
        });
        let (answered, _) = tokio::join!(asked, server.answer(&answer));
        assert!(answered.is_ok());

        // The next one finds the connection closed, and nothing of it goes out.
        connection.begin(&head, none());
        let ended = poll_fn(|cx| connection.poll_head(cx)).await;
        assert!(ended.is_err() && connection.is_unsent());
    });
}

#[test]
fn requests_say_where_their_body_ends() {
    in_time(async {
        let (known, nothing) = (|| Full::new(Bytes::from_static(b"hello")), none);
        for (method, body, until, written) in [
            (
                Method::POST,
                known(),
                &b"hello"[..],
                "POST /api?x=%2F HTTP/1.1\r\nhost: east.example\r\ncontent-length: 5\r\n\r\nhello",
            ),
            (
                Method::PUT,
                nothing(),
                b"\r\n\r\n",
                "PUT /api?x=%2F HTTP/1.1\r\nhost: east.example\r\ncontent-length: 0\r\n\r\n",
            ),
            (Method::HEAD, nothing(), b"\r\n\r\n", "HEAD /api?x=%2F HTTP/1.1\r\nhost: east.example\r\n\r\n"),
        ] {
            let server = Server::new(until).await;
            let pieces = [b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".to_vec()];
            let asked = async { ours(server.connect().await, method, body).await };
            let ((answer, free), read) = tokio::join!(asked, server.answer(&pieces));
            assert!(answer.is_ok() && free, "{answer:?}");
            assert_eq!(String::from_utf8(read).unwrap(), written);
        }

        let pieces = ["a", "", "bcd"].map(|piece| Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(piece))));
        let body = StreamBody::new(futures_util::stream::iter(pieces));
        let server = Server::new(b"0\r\n\r\n").await;
        let answer = [b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".to_vec()];
        let asked = async { ours(server.connect().await, Method::POST, body).await };
        let ((_, free), read) = tokio::join!(asked, server.answer(&answer));
        assert!(free);
        let expected = "POST /api?x=%2F HTTP/1.1\r\nhost: east.example\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n3\r\nbcd\r\n0\r\n\r\n";
        assert_eq!(String::from_utf8(read).unwrap(), expected);
    });
}

#[test]
fn answer_that_comes_before_the_whole_request_is_read_and_the_connection_is_not_kept() {
    in_time(async {
        // More than any socket holds.
        let body = Full::new(Bytes::from(vec![b'x'; 32 * 1024 * 1024]));
        let server = Server::new(b"\r\n\r\n").await;
        let pieces = [b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nhello".to_vec()];
        let asked = async { ours(server.connect().await, Method::POST, body).await };
        let refuse = async {
            let (mut stream, _) = server.listener.accept().await.unwrap();
            let mut some = [0; 1024];
            assert!(stream.read(&mut some).await.unwrap() > 0);
            stream.write_all(&pieces.concat()).await.unwrap();
            // It stays until its answer has been read.
            stream
        };
        let ((answer, free), _stream) = tokio::join!(asked, refuse);
        let answer = answer.unwrap();
        assert_eq!((answer.status, &*answer.body), (StatusCode::PAYLOAD_TOO_LARGE, &b"hello"[..]));
        assert!(!free);
    });
}

#[test]
fn body_that_is_not_as_long_as_it_said_is_not_sent_as_if_it_were() {
    #[derive(Clone)]
    struct Liar(u64, Option<&'static str>);
    impl Body for Liar {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.1.take().map(|piece| Ok(http_body::Frame::data(Bytes::from(piece)))))
        }
        fn size_hint(&self) -> http_body::SizeHint {
            http_body::SizeHint::with_exact(self.0)
        }
    }
    in_time(async {
        for length in [4, 6] {
            let server = Server::new(b"never").await;
            let asked = async { ours(server.connect().await, Method::POST, Liar(length, Some("hello"))).await };
            let ((answer, free), _) = tokio::join!(asked, server.answer(&[]));
            assert_eq!(answer.unwrap_err(), Http1Error::UploadLength.to_string());
            assert!(!free);
        }
    });
}

/// Mostly what servers send, with a wrong turn here and there.
fn answer() -> impl Strategy<Value = Vec<u8>> {
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

/// Some thousand find more, by hand.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever this one reads, hyper reads the same; what it refuses beyond hyper is ambiguous.
    #[test]
    fn whatever_is_read_hyper_reads_too(answer in answer(), sizes in prop::collection::vec(1..80_usize, 1..4)) {
        let (ours, hypers) = in_time(both(&Method::POST, &cut(&answer, &sizes)));
        let text = String::from_utf8_lossy(&answer).to_lowercase();
        match (ours, hypers) {
            (Ok(ours), Ok(hypers)) => prop_assert_eq!(ours, hypers),
            (Err(_), Err(_)) => {}
            (Err(err), Ok(_)) => {
                let lengths = text.matches("content-length:").count();
                let codings = text.matches("transfer-encoding:").count();
                let is_ambiguous = lengths > 1 || codings > 1 || (lengths == 1 && codings == 1);
                // hyper takes an empty line for a chunk of no size.
                let has_empty_chunk = text.contains("\r\n\r\n\r\n");
                prop_assert!(is_ambiguous || has_empty_chunk, "only we refuse: {} {:?}", err, text);
            }
            (Ok(ours), Err(err)) => prop_assert!(false, "only hyper refuses: {} {:?}", err, ours),
        }
    }
}
