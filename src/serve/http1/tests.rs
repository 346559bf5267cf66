//! Compares the check with hyper, which reads the bytes that pass: both must find the same requests, and hyper must never respond
//! on its own. Single cases are in `tests/it/wire`.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::caller_stream::CallerStream;
use super::super::listeners::ListenerId;
use super::super::open_connections::OpenConnections;
use super::*;
use crate::serve::http1::head::BodyLength;

const VALID: [&str; 6] = [
    "POST /api/hubs/chat/:send?api-version=2022-11-01 HTTP/1.1\r\nHost: localhost:8080\r\nContent-Type: application/json\r\n\
     Content-Length: 5\r\nAccept-Encoding: gzip\t, br\r\n\r\nhello",
    "POST /api/hubs/chat/groups/a%23b/:send HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n",
    "PUT /api/v1/hubs/chat/users/ann/groups/g HTTP/1.1\r\nHost: x\r\n\r\nGET /api/health HTTP/1.0\r\n\r\n",
    "DELETE http://localhost/api/hubs/chat/connections/1?reason=%20 HTTP/1.1\r\nHost: x\r\nx!#$%&'*+-.^_`|~: \r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "\r\nPOST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\nTrailer: t\r\n\r\n1\r\na\r\n0\r\nt: 1\r\n\r\nHEAD /a HTTP/1.1\r\nHost: y\r\n\r\n",
];

/// One change to the bytes of requests.
#[derive(Clone, Debug)]
enum Change {
    Replace(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    /// Repeats a line directly after itself.
    Repeat(prop::sample::Index),
    Line(prop::sample::Index, &'static str),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let byte = || {
        prop_oneof![
            any::<u8>(),
            prop::sample::select(b"\r\n \t:;,#%/?*\0\x0b\x7f\"<>`+-0123456789abcdefHTPQ".as_slice()),
        ]
    };
    let line = prop::sample::select(&[
        "Content-Length: 5\r\n",
        "Content-Length: 7\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Host: z\r\n",
        "Content-Length: +5\r\n",
        " folded\r\n",
        "Expect: 100-continue\r\n",
        "Upgrade: h2c\r\n",
        "\r\n",
    ]);
    let change = prop_oneof![
        (any::<prop::sample::Index>(), byte()).prop_map(|(at, byte)| Change::Replace(at, byte)),
        (any::<prop::sample::Index>(), byte()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        any::<prop::sample::Index>().prop_map(Change::Remove),
        any::<prop::sample::Index>().prop_map(Change::Repeat),
        (any::<prop::sample::Index>(), line).prop_map(|(at, line)| Change::Line(at, line)),
    ];
    prop::collection::vec(change, 0..4)
}

fn changed(request: &str, changes: &[Change]) -> Vec<u8> {
    let mut bytes = request.as_bytes().to_vec();
    for change in changes {
        let line_start = |at: usize| bytes[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        match change {
            Change::Replace(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Change::Insert(at, byte) => bytes.insert(at.index(bytes.len()), *byte),
            Change::Remove(at) => {
                bytes.remove(at.index(bytes.len()));
            }
            Change::Repeat(at) => {
                let start = line_start(at.index(bytes.len()));
                let end =
                    bytes[start..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| start + end + 1);
                let line = bytes[start..end].to_vec();
                bytes.splice(end..end, line);
            }
            Change::Line(at, line) => {
                let start = line_start(at.index(bytes.len()));
                bytes.splice(start..start, line.bytes());
            }
        }
    }
    bytes
}

/// A request as it was parsed.
#[derive(Debug, PartialEq, Eq)]
struct Parsed {
    method: String,
    target: String,
    fields: usize,
    /// `None` if it is incomplete.
    body: Option<Vec<u8>>,
    ends_connection: bool,
}

async fn parse(request: Request<Incoming>) -> Parsed {
    let (head, body) = request.into_parts();
    Parsed {
        method: head.method.to_string(),
        target: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        fields: head.headers.len(),
        ends_connection: head.version == http::Version::HTTP_10 || head.headers.contains_key("connection"),
        body: body.collect().await.ok().map(|body| body.to_bytes().to_vec()),
    }
}

fn on_one_thread<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

/// Parses requests with hyper alone.
async fn by_hyper(bytes: &[u8]) -> Vec<Parsed> {
    let (mut caller, io) = tokio::io::duplex(1024 * 1024);
    caller.write_all(bytes).await.unwrap();
    caller.shutdown().await.unwrap();
    let all = RefCell::new(Vec::new());
    let service = service_fn(async |request| {
        let parsed = parse(request).await;
        all.borrow_mut().push(parsed);
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    drop(http1::Builder::new().half_close(true).serve_connection(TokioIo::new(io), service).await);
    all.into_inner()
}

/// Parses requests with the check, and returns whether each is chunked. Returns `None` if the check rejects a request or the last
/// is incomplete.
fn by_check(mut bytes: &[u8]) -> Option<Vec<(Parsed, bool)>> {
    let mut known = KnownHead::default();
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let head = HeadCheck::default().check(bytes, &mut known).ok()??;
        let (text, after) = bytes.split_at(head.end);
        let text = text.strip_prefix(b"\r\n").unwrap_or(text);
        let mut words = text.split(|byte| *byte == b' ').map(|word| String::from_utf8(word.to_vec()).unwrap());
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let after_scheme = target.split_once("://").filter(|_| !target.starts_with('/'));
        let target = match after_scheme {
            None => target,
            Some((_, rest)) => match rest.find(['/', '?']).map_or("/", |path| &rest[path..]) {
                query if query.starts_with('?') => format!("/{query}"),
                path => path.to_owned(),
            },
        };
        let length = match head.body {
            BodyLength::Known(length) => usize::try_from(length).unwrap(),
            BodyLength::Chunked => match chunked::Chunked::new().track(after) {
                chunked::Progress::Ended(end) => end,
                chunked::Progress::Continues | chunked::Progress::Malformed(..) => return None,
            },
        };
        let (body, next) = after.split_at_checked(length)?;
        let fields = text.split(|byte| *byte == b'\n').count() - 3;
        let parsed = Parsed { method, target, fields, body: Some(body.to_vec()), ends_connection: false };
        all.push((parsed, head.body == BodyLength::Chunked));
        bytes = next;
    }
    Some(all)
}

/// Serves requests that arrive in pieces of this size, with the check and hyper. Returns the bytes of all responses, and how many
/// responses the service made.
async fn serve_checked(bytes: &[u8], piece: usize) -> (String, usize) {
    let (caller, io) = tokio::io::duplex(1024 * 1024);
    let (mut responses, mut caller) = tokio::io::split(caller);
    let connection = OpenConnections::for_tests(Duration::from_secs(60)).add(ListenerId::default());
    let served = Cell::new(0);
    let service = service_fn(|request: Request<Incoming>| {
        let counted = connection.count_request();
        let _error = connection.take_head_error();
        served.set(served.get() + 1);
        async {
            let is_whole = request.into_body().collect().await.is_ok();
            let response = Response::builder().status(if is_whole { 299 } else { 499 });
            Ok::<_, Infallible>(response.body(counted.until_end_of(Full::<Bytes>::default())).unwrap())
        }
    });
    let send = async {
        for piece in bytes.chunks(piece) {
            // A response may have closed the connection.
            drop(caller.write_all(piece).await);
            tokio::task::yield_now().await;
        }
        drop(caller.shutdown().await);
    };
    let filter = Http1Check::new(Rc::clone(&connection));
    let io = TokioIo::new(CallerStream::new(Source::new(Vec::new(), io), filter, &connection));
    let serve = http1::Builder::new().max_buf_size(80 * 1024).serve_connection(io, service);
    let mut text = Vec::new();
    let read = responses.read_to_end(&mut text);
    let (_sent, _served, _read) = tokio::join!(send, serve, read);
    (String::from_utf8(text).unwrap(), served.get())
}

fn without_continue(responses: &str) -> String {
    responses.replace("HTTP/1.1 100 Continue\r\n\r\n", "").lines().filter(|line| !line.starts_with("date")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn hyper_reads_passed_requests_in_the_same_way(request in prop::sample::select(VALID.as_slice()), changes in changes()) {
        let bytes = changed(request, &changes);
        let Some(expected) = by_check(&bytes) else { return Ok(()) };
        let parsed = on_one_thread(by_hyper(&bytes));
        let ends_early = parsed.last().is_some_and(|last| last.ends_connection);
        prop_assert!(parsed.len() == expected.len() || ends_early, "{parsed:?}");
        for (parsed, (expected, is_chunked)) in parsed.iter().zip(&expected) {
            prop_assert_eq!((&parsed.method, &parsed.target, parsed.fields), (&expected.method, &expected.target, expected.fields));
            prop_assert!(if *is_chunked { parsed.body.is_some() } else { parsed.body == expected.body }, "{:?}", parsed);
        }
    }

    #[test]
    fn hyper_never_responds_on_its_own_however_the_bytes_are_split(
        request in prop::sample::select(VALID.as_slice()),
        changes in changes(),
        piece in 1_usize..40,
    ) {
        let bytes = changed(request, &changes);
        let (whole, served) = on_one_thread(serve_checked(&bytes, bytes.len()));
        prop_assert_eq!(whole.matches(" 299 ").count() + whole.matches(" 499 ").count(), served, "{}", whole);
        prop_assert_eq!(without_continue(&whole).matches("HTTP/1.").count(), served, "{}", whole);
        let (pieces, _) = on_one_thread(serve_checked(&bytes, piece));
        prop_assert_eq!(without_continue(&whole), without_continue(&pieces));
    }
}

proptest! {
    #[test]
    fn known_head_does_not_change_the_result(
        last in prop::sample::select(VALID.as_slice()),
        request in prop::sample::select(VALID.as_slice()),
        changes in changes(),
        is_same in any::<bool>(),
    ) {
        let bytes = changed(if is_same { last } else { request }, &changes);
        let mut known = KnownHead::default();
        HeadCheck::default().check(last.as_bytes(), &mut known).unwrap().unwrap();
        let recognised = known.recognise(&bytes).map(|head| Ok(Some(head)));
        let found = recognised.unwrap_or_else(|| HeadCheck::default().check(&bytes, &mut known));
        prop_assert_eq!(found, HeadCheck::default().check(&bytes, &mut KnownHead::default()));
    }
}

#[test]
fn known_lines_are_checked_again_for_another_http_version() {
    let chunked = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut known = KnownHead::default();
    assert!(HeadCheck::default().check(chunked.as_bytes(), &mut known).is_ok_and(|head| head.is_some()));
    let older = chunked.replace("HTTP/1.1", "HTTP/1.0");
    assert!(known.recognise(older.as_bytes()).is_none());
    assert!(HeadCheck::default().check(older.as_bytes(), &mut known).is_err());
}

#[test]
fn valid_requests_pass() {
    for request in VALID {
        assert!(by_check(request.as_bytes()).is_some(), "{request}");
        let (responses, served) = on_one_thread(serve_checked(request.as_bytes(), 7));
        assert_eq!(responses.matches(" 299 ").count(), served, "{responses}");
        assert_eq!(served, request.matches("HTTP/1.").count(), "{responses}");
    }
}

#[test]
fn service_answers_heads_of_any_size() {
    for (size, fields) in [(60 * 1024, 1), (64 * 1024, 1), (100 * 1024, 1), (10, 99), (10, 100), (10, 5000)] {
        let line = format!("x: {}\r\n", "y".repeat(size));
        let request = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", line.repeat(fields));
        for piece in [999, request.len()] {
            let (responses, served) = on_one_thread(serve_checked(request.as_bytes(), piece));
            assert!(responses.starts_with("HTTP/1.1 299 ") && served == 1, "{size} {fields}: {responses}");
        }
    }
}
