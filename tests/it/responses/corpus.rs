//! The corpus of responses: their bytes, the section of the RFC that they are about, and what the gateway must do.

/// A response of an endpoint.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// The sections of RFC 9110 ("semantics") and RFC 9112 ("syntax") that define the expected result.
    pub(super) source: &'static str,
    pub(super) method: &'static str,
    pub(super) response: Vec<u8>,
    /// Whether the endpoint closes the connection afterwards.
    pub(super) closes: bool,
    pub(super) expected: Expected,
    /// Whether the gateway reuses the connection.
    pub(super) is_reused: bool,
}

/// What the caller receives.
pub(super) enum Expected {
    /// The endpoint's response, with these headers; `None` for a header that must be absent.
    Readable { status: u16, body: Vec<u8>, headers: &'static [(&'static str, Option<&'static str>)] },
    /// 502, because the response is unreadable.
    Unreadable,
    /// 502, or an incomplete response if the head was forwarded before the fault.
    MalformedBody,
    /// 502, because there was no response.
    NoResponse,
}

use Expected::{MalformedBody, NoResponse, Readable, Unreadable};

fn case(name: &'static str, source: &'static str, response: impl Into<Vec<u8>>, expected: Expected) -> Case {
    let is_reused = matches!(expected, Readable { .. });
    Case { name, source, method: "POST", response: response.into(), closes: false, expected, is_reused }
}

/// Returns a readable response: 200 with this body, unless changed.
fn readable(name: &'static str, source: &'static str, response: impl Into<Vec<u8>>, body: &str) -> Case {
    case(name, source, response, Readable { status: 200, body: body.into(), headers: &[] })
}

fn unreadable(name: &'static str, source: &'static str, response: impl Into<Vec<u8>>) -> Case {
    case(name, source, response, Unreadable)
}

/// Returns a response with a valid head and a malformed body.
fn malformed_body(name: &'static str, source: &'static str, response: impl Into<Vec<u8>>) -> Case {
    case(name, source, response, MalformedBody)
}

impl Case {
    fn for_head(self) -> Self {
        Self { method: "HEAD", ..self }
    }

    fn closed(self) -> Self {
        Self { closes: true, is_reused: false, ..self }
    }

    fn not_reused(self) -> Self {
        Self { is_reused: false, ..self }
    }

    fn status(mut self, found: u16) -> Self {
        if let Readable { status, .. } = &mut self.expected {
            *status = found;
        }
        self
    }

    fn with(mut self, found: &'static [(&'static str, Option<&'static str>)]) -> Self {
        if let Readable { headers, .. } = &mut self.expected {
            *headers = found;
        }
        self
    }
}

/// Returns a 200 head with these lines, followed by `rest`.
fn ok(lines: &str, rest: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n{rest}")
}

fn chunked(rest: &str) -> String {
    ok("transfer-encoding: chunked", rest)
}

/// Returns all responses of the corpus.
pub(super) fn all() -> Vec<Case> {
    [status_lines(), versions(), interim(), header_lines(), hop_by_hop(), lengths(), codings(), chunks(), bodies()]
        .into_iter()
        .flatten()
        .collect()
}

fn status_lines() -> Vec<Case> {
    const SYNTAX: &str = "syntax 4";
    let line = |line: &str| format!("{line}\r\ncontent-length: 2\r\n\r\nok");
    vec![
        readable("ordinary", SYNTAX, line("HTTP/1.1 202 Accepted"), "ok").status(202),
        readable("empty reason", SYNTAX, line("HTTP/1.1 200 "), "ok"),
        readable("no reason and no space before it", SYNTAX, line("HTTP/1.1 200"), "ok"),
        readable("reason of many words", SYNTAX, line("HTTP/1.1 404 Nowhere To\tBe Found"), "ok").status(404),
        readable(
            "reason that is not ASCII",
            SYNTAX,
            [b"HTTP/1.1 200 caf\xe9".as_slice(), line("").as_bytes()].concat(),
            "ok",
        ),
        readable("unknown status", "semantics 15", line("HTTP/1.1 299 Odd"), "ok").status(299),
        readable("status above 599", "semantics 15", line("HTTP/1.1 799 Odd"), "ok").status(799),
        readable("400", "semantics 15.5", line("HTTP/1.1 400 Bad Request"), "ok").status(400),
        readable("empty line before it", "syntax 2.2", line("\r\nHTTP/1.1 200 OK"), "ok"),
        unreadable("NUL in the reason", SYNTAX, line("HTTP/1.1 200 O\0K")),
        unreadable("CR in the reason", SYNTAX, line("HTTP/1.1 200 O\rK")),
        unreadable("version in lower case", "syntax 2.3", line("http/1.1 200 OK")),
        unreadable("another protocol", "syntax 2.3", line("ICY 200 OK")),
        unreadable("two spaces before the status", SYNTAX, line("HTTP/1.1  200 OK")),
        unreadable("status of two digits", SYNTAX, line("HTTP/1.1 20 OK")),
        unreadable("status of four digits", SYNTAX, line("HTTP/1.1 2000 OK")),
        unreadable("status below 100", "semantics 15", line("HTTP/1.1 099 Low")),
        unreadable("negative status", SYNTAX, line("HTTP/1.1 -200 OK")),
        unreadable("status that is a word", SYNTAX, line("HTTP/1.1 OK 200")),
        unreadable("request", SYNTAX, line("GET / HTTP/1.1")),
        unreadable("SSH", SYNTAX, "SSH-2.0-OpenSSH_9.9\r\n"),
        unreadable("page without a head", SYNTAX, "<html>hello</html>\r\n"),
        unreadable("TLS alert", SYNTAX, b"\x15\x03\x03\x00\x02\x02\x28".as_slice()),
        unreadable("HTTP/2 settings", SYNTAX, b"\x00\x00\x00\x04\x00\x00\x00\x00\x00".as_slice()),
        case("nothing", SYNTAX, "", NoResponse).closed(),
        case("incomplete status line", SYNTAX, "HTTP/1.1 20", NoResponse).closed(),
        case("incomplete head", "syntax 8", "HTTP/1.1 200 OK\r\ncontent-le", NoResponse).closed(),
        case("head without its last line", "syntax 8", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n", NoResponse).closed(),
    ]
}

fn versions() -> Vec<Case> {
    let of = |version: &str, lines: &str| format!("HTTP/{version} 200 OK\r\n{lines}\r\n\r\nok");
    vec![
        readable("1.0 of known length", "syntax 9.3", of("1.0", "content-length: 2"), "ok").not_reused(),
        readable(
            "1.0 that keeps the connection",
            "syntax 9.3",
            of("1.0", "connection: Keep-Alive\r\ncontent-length: 2"),
            "ok",
        ),
        readable("1.0 that closes", "syntax 9.3", of("1.0", "connection: close\r\ncontent-length: 2"), "ok").closed(),
        readable("1.0 until close", "syntax 6.3", of("1.0", "content-type: text/plain"), "ok").closed(),
        unreadable("1.0 with chunks", "syntax 6.1", of("1.0", "transfer-encoding: chunked")),
        unreadable("1.2", "syntax 2.3", of("1.2", "content-length: 2")),
        unreadable("2.0", "syntax 2.3", of("2.0", "content-length: 2")),
        unreadable("0.9", "syntax 2.3", of("0.9", "content-length: 2")),
        unreadable("1.10", "syntax 2.3", of("1.10", "content-length: 2")),
    ]
}

fn interim() -> Vec<Case> {
    const INTERIM: &str = "semantics 15.2";
    let after = |before: &str| format!("{before}{}", ok("content-length: 2", "ok"));
    vec![
        readable("100 before", INTERIM, after("HTTP/1.1 100 Continue\r\n\r\n"), "ok"),
        readable("103 before", INTERIM, after("HTTP/1.1 103 Early Hints\r\nvary: early\r\n\r\n"), "ok")
            .with(&[("vary", None)]),
        readable("many before", INTERIM, after(&"HTTP/1.1 102 Processing\r\n\r\n".repeat(20)), "ok"),
        readable("unknown interim response before", INTERIM, after("HTTP/1.1 199 Odd\r\n\r\n"), "ok"),
        readable("100 with a length", "syntax 6.3", after("HTTP/1.1 100 Continue\r\ncontent-length: 9\r\n\r\n"), "ok"),
        readable("100 that closes", "syntax 9.6", after("HTTP/1.1 100 Continue\r\nconnection: close\r\n\r\n"), "ok"),
        unreadable("101", "semantics 15.2.2", "HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n"),
        unreadable("101 after 100", "semantics 15.2.2", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching\r\n\r\n"),
        case("100 alone", INTERIM, "HTTP/1.1 100 Continue\r\n\r\n", NoResponse).closed(),
        unreadable("endless interim responses", INTERIM, "HTTP/1.1 100 Continue\r\n\r\n".repeat(6000)),
    ]
}

fn header_lines() -> Vec<Case> {
    const NAME: &str = "syntax 5.1";
    const VALUE: &str = "semantics 5.5";
    let with = |line: &str| ok(&format!("{line}\r\ncontent-length: 2"), "ok");
    let many = |count: usize| with("vary: a\r\n".repeat(count - 1).trim_end());
    let obs_text = [b"HTTP/1.1 200 OK\r\nvary: caf\xe9\r\ncontent-length: 2\r\n\r\nok".as_slice()].concat();
    vec![
        readable("space before a colon", NAME, with("vary : x"), "ok").with(&[("vary", Some("x"))]),
        readable("tab before a colon", NAME, with("vary\t: x"), "ok").with(&[("vary", Some("x"))]),
        readable("space before the length's colon", NAME, ok("content-length : 2", "ok"), "ok"),
        readable(
            "space before the coding's colon",
            NAME,
            ok("transfer-encoding : chunked", "2\r\nok\r\n0\r\n\r\n"),
            "ok",
        ),
        readable("name in upper case", "semantics 5.1", ok("CONTENT-LENGTH: 2", "ok"), "ok"),
        readable("spaces around a value", VALUE, with("vary:  \t x y \t "), "ok").with(&[("vary", Some("x y"))]),
        readable("no space before a value", VALUE, with("vary:x"), "ok").with(&[("vary", Some("x"))]),
        readable("empty value", VALUE, with("vary:"), "ok").with(&[("vary", Some(""))]),
        readable("value that is not ASCII", VALUE, obs_text, "ok"),
        readable("line ends without CR", "syntax 2.2", ok("content-length: 2", "ok").replace("\r\n", "\n"), "ok"),
        readable("101 lines", VALUE, many(101), "ok"),
        readable("256 lines", VALUE, many(256), "ok"),
        readable("1024 lines", VALUE, many(1024), "ok"),
        unreadable("1025 lines", VALUE, many(1025)),
        readable("line of 60000 bytes", VALUE, with(&format!("vary: {}", "x".repeat(60_000))), "ok"),
        unreadable("endless head", VALUE, format!("HTTP/1.1 200 OK\r\nvary: {}", "x".repeat(200_000))),
        unreadable("space in a name", NAME, with("va ry: x")),
        unreadable("no colon", NAME, with("vary")),
        unreadable("no name", NAME, with(": x")),
        unreadable("NUL in a name", NAME, with("va\0ry: x")),
        unreadable("bracket in a name", NAME, with("va(ry: x")),
        unreadable("space before the first name", NAME, with(" vary: x")),
        unreadable("folded line", "syntax 5.2", with("vary: x\r\n y")),
        unreadable("folded length", "syntax 5.2", ok("content-length:\r\n 2", "ok")),
        unreadable("folded line of spaces", "syntax 5.2", with("vary: x\r\n  ")),
        unreadable("NUL in a value", VALUE, with("vary: x\0y")),
        unreadable("CR in a value", VALUE, with("vary: x\ry")),
        unreadable("control character in a value", VALUE, with("vary: x\x01y")),
        unreadable("DEL in a value", VALUE, with("vary: x\x7fy")),
    ]
}

fn hop_by_hop() -> Vec<Case> {
    const HOP: &str = "semantics 7.6.1";
    let with = |lines: &str| ok(&format!("{lines}\r\ncontent-length: 2"), "ok");
    vec![
        readable("header that connection names", HOP, with("connection: vary\r\nvary: x"), "ok")
            .with(&[("vary", None)]),
        readable("keep-alive", HOP, with("connection: keep-alive\r\nkeep-alive: timeout=5"), "ok"),
        readable("upgrade that is offered", "semantics 7.8", with("connection: upgrade\r\nupgrade: h2c"), "ok"),
        readable("trailer that is announced", "semantics 6.6.2", with("trailer: vary"), "ok"),
        readable("headers for proxies", HOP, with("proxy-authenticate: Basic\r\nproxy-connection: keep-alive"), "ok"),
        readable("cookie of the endpoint's host", "RFC 6265 section 4.1", with("set-cookie: a=b"), "ok"),
        readable("forged mark of the gateway", HOP, with("signalr-gateway-error: overload"), "ok"),
        readable("forged request id", HOP, with("x-request-id: forged"), "ok"),
        readable("content coding", "semantics 8.4", with("content-encoding: gzip"), "ok")
            .with(&[("content-encoding", Some("gzip"))]),
        readable("close", "syntax 9.6", with("connection: close"), "ok").not_reused(),
        readable("close in upper case", "syntax 9.6", with("Connection: CLOSE"), "ok").not_reused(),
        readable("close among others", "syntax 9.6", with("connection: x, close ,y"), "ok").not_reused(),
        readable("close in a second line", "syntax 9.6", with("connection: keep-alive\r\nconnection: close"), "ok")
            .not_reused(),
    ]
}

fn lengths() -> Vec<Case> {
    const LENGTH: &str = "semantics 8.6, syntax 6.3";
    let of = |value: &str| ok(&format!("content-length: {value}"), "ok");
    let two = |first: &str, second: &str| ok(&format!("content-length: {first}\r\ncontent-length: {second}"), "ok");
    vec![
        readable("0", LENGTH, ok("content-length: 0", ""), ""),
        readable("twice in one line", LENGTH, of("2, 2"), "ok").with(&[("content-length", Some("2"))]),
        readable("three times in one line", LENGTH, of("2,2 ,\t2"), "ok").with(&[("content-length", Some("2"))]),
        readable("twice in two lines", LENGTH, two("2", "2"), "ok").with(&[("content-length", Some("2"))]),
        readable("twice in one of two lines", LENGTH, two("2, 2", "2"), "ok"),
        readable("zeros before it", LENGTH, of("002"), "ok"),
        unreadable("two in one line", LENGTH, of("2, 3")),
        unreadable("two in two lines", LENGTH, two("2", "3")),
        unreadable("empty element beside one", LENGTH, of("2,")),
        unreadable("sign", LENGTH, of("+2")),
        unreadable("negative", LENGTH, of("-2")),
        unreadable("letter after it", LENGTH, of("2a")),
        unreadable("hexadecimal", LENGTH, of("0x2")),
        unreadable("fraction", LENGTH, of("2.0")),
        unreadable("two numbers", LENGTH, of("2 2")),
        unreadable("parameter", LENGTH, of("2;a")),
        unreadable("empty", LENGTH, of("")),
        unreadable("more than 64 bits", LENGTH, of("18446744073709551616")),
        malformed_body("more than arrives", "syntax 8", of("3")).closed(),
        malformed_body("far more than arrives", "syntax 8", of("18446744073709551615")).closed(),
        readable("less than arrives", "syntax 6.3", of("1"), "o").not_reused(),
        readable("0 and bytes after it", "syntax 6.3", of("0"), "").not_reused(),
        readable("second response after it", "syntax 9.2", ok("content-length: 2", &format!("ok{}", of("2"))), "ok")
            .not_reused(),
        readable("empty line after it", "syntax 9.2", ok("content-length: 2", "ok\r\n"), "ok").not_reused(),
    ]
}

fn codings() -> Vec<Case> {
    const CODING: &str = "syntax 6.1, 6.3";
    const BODY: &str = "2\r\nok\r\n0\r\n\r\n";
    let of = |value: &str| ok(&format!("transfer-encoding: {value}"), BODY);
    let with = |lines: &str| ok(lines, BODY);
    vec![
        readable("chunked", CODING, of("chunked"), "ok"),
        readable("in upper case", "syntax 7", of("CHUNKED"), "ok"),
        readable("empty element before it", "semantics 5.6.1.2", of(", chunked"), "ok"),
        readable("empty element after it", "semantics 5.6.1.2", of("chunked ,"), "ok"),
        unreadable("gzip, chunked", CODING, of("gzip, chunked")),
        unreadable(
            "gzip and chunked in two lines",
            CODING,
            with("transfer-encoding: gzip\r\ntransfer-encoding: chunked"),
        ),
        unreadable("gzip", CODING, of("gzip")).closed(),
        unreadable("chunked, gzip", CODING, of("chunked, gzip")).closed(),
        unreadable("chunked twice", "syntax 7.1", of("chunked, chunked")),
        unreadable(
            "chunked in two lines",
            "syntax 7.1",
            with("transfer-encoding: chunked\r\ntransfer-encoding: chunked"),
        ),
        unreadable("identity", CODING, of("identity")).closed(),
        unreadable("unknown", CODING, of("xchunked")),
        unreadable("parameter", "syntax 7.1", of("chunked;q=1")),
        unreadable("quoted", "syntax 7", of("\"chunked\"")),
        unreadable("empty", CODING, of("")).closed(),
        unreadable("length before it", CODING, with("content-length: 2\r\ntransfer-encoding: chunked")),
        unreadable("length after it", CODING, with("transfer-encoding: chunked\r\ncontent-length: 2")),
        unreadable("length beside gzip", CODING, with("transfer-encoding: gzip\r\ncontent-length: 2")),
    ]
}

fn chunks() -> Vec<Case> {
    const CHUNK: &str = "syntax 7.1";
    const TRAILERS: &str = "syntax 7.1.2";
    let fields = "vary: x\r\n".repeat(100);
    vec![
        readable("several", CHUNK, chunked("1\r\no\r\n1\r\nk\r\n0\r\n\r\n"), "ok"),
        readable("none", CHUNK, chunked("0\r\n\r\n"), ""),
        readable(
            "size in upper case with leading zeros",
            CHUNK,
            chunked("00A\r\n0123456789\r\n000\r\n\r\n"),
            "0123456789",
        ),
        readable("extension", "syntax 7.1.1", chunked("2;a=b;c=\"d\"\r\nok\r\n0;e\r\n\r\n"), "ok"),
        readable("trailers are removed", TRAILERS, chunked("2\r\nok\r\n0\r\nvary: x\r\n\r\n"), "ok")
            .with(&[("vary", None)]),
        readable("trailer with a length", TRAILERS, chunked("2\r\nok\r\n0\r\ncontent-length: 9\r\n\r\n"), "ok"),
        readable("100 trailers", TRAILERS, chunked(&format!("2\r\nok\r\n0\r\n{fields}\r\n")), "ok"),
        readable("bytes after it", "syntax 9.2", chunked("2\r\nok\r\n0\r\n\r\nmore"), "ok").not_reused(),
        malformed_body("no size", CHUNK, chunked("\r\nok\r\n0\r\n\r\n")),
        malformed_body("extension alone", CHUNK, chunked(";a\r\nok\r\n0\r\n\r\n")),
        malformed_body("size that is not a number", CHUNK, chunked("zz\r\nok\r\n0\r\n\r\n")),
        malformed_body("sign", CHUNK, chunked("+2\r\nok\r\n0\r\n\r\n")),
        malformed_body("negative", CHUNK, chunked("-2\r\nok\r\n0\r\n\r\n")),
        malformed_body("0x", CHUNK, chunked("0x2\r\nok\r\n0\r\n\r\n")),
        malformed_body("space before a size", CHUNK, chunked(" 2\r\nok\r\n0\r\n\r\n")),
        malformed_body("size of more than 64 bits", CHUNK, chunked("10000000000000002\r\nok\r\n0\r\n\r\n")),
        malformed_body("size line without CR", CHUNK, chunked("2\nok\r\n0\r\n\r\n")),
        malformed_body("data without CR after it", CHUNK, chunked("2\r\nok\n0\r\n\r\n")),
        malformed_body("data that is longer than its size", CHUNK, chunked("2\r\noook\r\n0\r\n\r\n")),
        malformed_body("data that is shorter than its size", CHUNK, chunked("4\r\nok\r\n0\r\n\r\n")).closed(),
        malformed_body("no last chunk", "syntax 8", chunked("2\r\nok\r\n")).closed(),
        malformed_body("incomplete last chunk", "syntax 8", chunked("2\r\nok\r\n0\r\n")).closed(),
        malformed_body("trailer without a colon", TRAILERS, chunked("2\r\nok\r\n0\r\nvary\r\n\r\n")),
        malformed_body("endless extension", "syntax 7.1.1", chunked(&format!("2;{}", "a".repeat(40_000)))),
    ]
}

fn bodies() -> Vec<Case> {
    const NONE: &str = "syntax 6.3";
    let large = "0123456789abcdef".repeat(16 * 1024);
    let response = |status: &str, lines: &str, rest: &str| format!("HTTP/1.1 {status}\r\n{lines}\r\n{rest}");
    vec![
        readable("204", NONE, response("204 No Content", "", ""), "").status(204),
        readable("204 with a length", "semantics 8.6", response("204 No Content", "content-length: 2\r\n", ""), "")
            .status(204)
            .with(&[("content-length", None)]),
        readable("204 and bytes after it", NONE, response("204 No Content", "content-length: 2\r\n", "ok"), "")
            .status(204)
            .not_reused(),
        readable(
            "304 with a length",
            "semantics 15.4.5",
            response("304 Not Modified", "content-length: 2\r\n", ""),
            "",
        )
        .status(304),
        readable("304 with chunks", NONE, response("304 Not Modified", "transfer-encoding: chunked\r\n", ""), "")
            .status(304),
        readable("205", NONE, response("205 Reset Content", "content-length: 0\r\n", ""), "").status(205),
        readable("to HEAD, with a length", NONE, ok("content-length: 2", ""), "").for_head(),
        readable("to HEAD, with chunks", NONE, ok("transfer-encoding: chunked", ""), "").for_head(),
        readable("to HEAD, with another coding", NONE, ok("transfer-encoding: gzip, chunked", ""), "").for_head(),
        readable("to HEAD, without a length", NONE, ok("vary: x", ""), "").for_head(),
        readable("to HEAD, with a body", NONE, ok("content-length: 2", "ok"), "").for_head().not_reused(),
        readable("to HEAD, 404", NONE, response("404 Not Found", "x-ms-error-code: a\r\n", ""), "")
            .for_head()
            .status(404),
        readable("until close", NONE, ok("vary: x", "ok"), "ok").closed(),
        readable("nothing until close", NONE, ok("vary: x", ""), "").closed(),
        readable(
            "until close, with a response in it",
            NONE,
            ok("vary: x", &ok("content-length: 0", "")),
            &ok("content-length: 0", ""),
        )
        .closed(),
        readable("large, of known length", NONE, ok(&format!("content-length: {}", large.len()), &large), &large),
        readable("large, in one chunk", NONE, chunked(&format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len())), &large),
        readable("large, until close", NONE, ok("vary: x", &large), &large).closed(),
    ]
}
