//! The check against hyper, which it stands in front of: what passes hyper reads in the same way, and hyper never answers by
//! itself. Single cases stand in `tests/it/wire`.

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
    /// Repeats a line behind itself.
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

/// What hyper made of a request.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    method: String,
    target: String,
    fields: usize,
    /// `None` if it broke off.
    body: Option<Vec<u8>>,
    ends_connection: bool,
}

async fn seen(request: Request<Incoming>) -> Seen {
    let (head, body) = request.into_parts();
    Seen {
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

/// Has hyper alone read requests.
async fn by_hyper(bytes: &[u8]) -> Vec<Seen> {
    let (mut caller, io) = tokio::io::duplex(1024 * 1024);
    caller.write_all(bytes).await.unwrap();
    caller.shutdown().await.unwrap();
    let all = RefCell::new(Vec::new());
    let service = service_fn(async |request| {
        let seen = seen(request).await;
        all.borrow_mut().push(seen);
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    drop(http1::Builder::new().half_close(true).serve_connection(TokioIo::new(io), service).await);
    all.into_inner()
}

/// What the check makes of whole requests; `None` if it refuses one, or the last is not whole.
fn by_check(mut bytes: &[u8]) -> Option<Vec<(Seen, bool)>> {
    let mut known = KnownHead::default();
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let head = HeadCheck::default().check(bytes, &mut known).ok()??;
        let (text, behind) = bytes.split_at(head.end);
        let text = text.strip_prefix(b"\r\n").unwrap_or(text);
        let mut words = text.split(|byte| *byte == b' ').map(|word| String::from_utf8(word.to_vec()).unwrap());
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let behind_scheme = target.split_once("://").filter(|_| !target.starts_with('/'));
        let target = match behind_scheme {
            None => target,
            Some((_, rest)) => match rest.find(['/', '?']).map_or("/", |path| &rest[path..]) {
                query if query.starts_with('?') => format!("/{query}"),
                path => path.to_owned(),
            },
        };
        let length = match head.body {
            BodyLength::Known(length) => usize::try_from(length).unwrap(),
            BodyLength::Chunked => match chunked::Chunked::new().follow(behind) {
                chunked::Followed::Ended(end) => end,
                chunked::Followed::Whole | chunked::Followed::Malformed(..) => return None,
            },
        };
        let (body, next) = behind.split_at_checked(length)?;
        let fields = text.split(|byte| *byte == b'\n').count() - 3;
        let seen = Seen { method, target, fields, body: Some(body.to_vec()), ends_connection: false };
        all.push((seen, head.body == BodyLength::Chunked));
        bytes = next;
    }
    Some(all)
}

/// Has hyper read requests behind the check, which come in pieces of this size. Returns what hyper answered, and how many of the
/// answers were the service's.
async fn behind_check(bytes: &[u8], piece: usize) -> (String, usize) {
    let (caller, io) = tokio::io::duplex(1024 * 1024);
    let (mut answers, mut caller) = tokio::io::split(caller);
    let connection = OpenConnections::new(Duration::from_secs(60), Duration::from_secs(60)).open(ListenerId::default());
    let served = Cell::new(0);
    let service = service_fn(|request: Request<Incoming>| {
        let counted = connection.request();
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
            // It may have been closed by an answer.
            drop(caller.write_all(piece).await);
            tokio::task::yield_now().await;
        }
        drop(caller.shutdown().await);
    };
    let filter = Http1Check::new(Rc::clone(&connection));
    let inbound = TokioIo::new(CallerStream::new(Source::new(Vec::new(), io), filter, &connection));
    let serve = http1::Builder::new().max_buf_size(80 * 1024).serve_connection(inbound, service);
    let mut text = Vec::new();
    let read = answers.read_to_end(&mut text);
    let (_sent, _served, _read) = tokio::join!(send, serve, read);
    (String::from_utf8(text).unwrap(), served.get())
}

fn without_continue(answers: &str) -> String {
    answers.replace("HTTP/1.1 100 Continue\r\n\r\n", "").lines().filter(|line| !line.starts_with("date")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn what_passes_hyper_reads_in_the_same_way(request in prop::sample::select(VALID.as_slice()), changes in changes()) {
        let bytes = changed(request, &changes);
        let Some(expected) = by_check(&bytes) else { return Ok(()) };
        let seen = on_one_thread(by_hyper(&bytes));
        prop_assert!(seen.len() == expected.len() || seen.last().is_some_and(|last| last.ends_connection), "{seen:?}");
        for (seen, (expected, is_chunked)) in seen.iter().zip(&expected) {
            prop_assert_eq!((&seen.method, &seen.target, seen.fields), (&expected.method, &expected.target, expected.fields));
            prop_assert!(if *is_chunked { seen.body.is_some() } else { seen.body == expected.body }, "{:?}", seen);
        }
    }

    #[test]
    fn every_answer_is_the_services_in_whatever_pieces(
        request in prop::sample::select(VALID.as_slice()),
        changes in changes(),
        piece in 1_usize..40,
    ) {
        let bytes = changed(request, &changes);
        let (whole, served) = on_one_thread(behind_check(&bytes, bytes.len()));
        prop_assert_eq!(whole.matches(" 299 ").count() + whole.matches(" 499 ").count(), served, "{}", whole);
        prop_assert_eq!(without_continue(&whole).matches("HTTP/1.").count(), served, "{}", whole);
        let (pieces, _) = on_one_thread(behind_check(&bytes, piece));
        prop_assert_eq!(without_continue(&whole), without_continue(&pieces));
    }
}

proptest! {
    #[test]
    fn what_is_known_of_the_last_head_changes_nothing(
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
fn header_lines_that_an_older_version_does_not_have_are_not_taken_for_known() {
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
        let (answers, served) = on_one_thread(behind_check(request.as_bytes(), 7));
        assert_eq!(answers.matches(" 299 ").count(), served, "{answers}");
        assert_eq!(served, request.matches("HTTP/1.").count(), "{answers}");
    }
}

#[test]
fn heads_of_any_size_are_answered_by_the_service() {
    for (size, fields) in [(60 * 1024, 1), (64 * 1024, 1), (100 * 1024, 1), (10, 99), (10, 100), (10, 5000)] {
        let line = format!("x: {}\r\n", "y".repeat(size));
        let request = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", line.repeat(fields));
        for piece in [999, request.len()] {
            let (answers, served) = on_one_thread(behind_check(request.as_bytes(), piece));
            assert!(answers.starts_with("HTTP/1.1 299 ") && served == 1, "{size} {fields}: {answers}");
        }
    }
}
