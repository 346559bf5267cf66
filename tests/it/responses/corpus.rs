//! The corpus of answers: their bytes, the section of the RFC that they are about, and what the gateway must do.

/// An answer of an endpoint.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// The sections of RFC 9110 ("semantics") and RFC 9112 ("syntax") that define the expected outcome.
    pub(super) source: &'static str,
    pub(super) method: &'static str,
    pub(super) answer: Vec<u8>,
    /// Whether the endpoint closes the connection afterwards.
    pub(super) closes: bool,
    pub(super) expected: Expected,
    /// Whether the gateway reuses the connection.
    pub(super) is_kept: bool,
}

/// What the caller receives.
pub(super) enum Expected {
    /// The endpoint's answer, with these headers; `None` for a header that must be absent.
    Read { status: u16, body: Vec<u8>, headers: &'static [(&'static str, Option<&'static str>)] },
    /// 502, because the answer is unreadable.
    Unreadable,
    /// 502, or an incomplete answer if the head was passed on before the fault.
    Cut,
    /// 502, because there was no answer.
    BrokenOff,
}

use Expected::{BrokenOff, Cut, Read, Unreadable};

fn case(name: &'static str, source: &'static str, answer: impl Into<Vec<u8>>, expected: Expected) -> Case {
    let is_kept = matches!(expected, Read { .. });
    Case { name, source, method: "POST", answer: answer.into(), closes: false, expected, is_kept }
}

/// Returns a readable answer: 200 with this body, unless changed.
fn read(name: &'static str, source: &'static str, answer: impl Into<Vec<u8>>, body: &str) -> Case {
    case(name, source, answer, Read { status: 200, body: body.into(), headers: &[] })
}

fn unreadable(name: &'static str, source: &'static str, answer: impl Into<Vec<u8>>) -> Case {
    case(name, source, answer, Unreadable)
}

/// Returns an answer with a valid head and a malformed body.
fn cut(name: &'static str, source: &'static str, answer: impl Into<Vec<u8>>) -> Case {
    case(name, source, answer, Cut)
}

impl Case {
    fn of_head(self) -> Self {
        Self { method: "HEAD", ..self }
    }

    fn closed(self) -> Self {
        Self { closes: true, is_kept: false, ..self }
    }

    fn not_kept(self) -> Self {
        Self { is_kept: false, ..self }
    }

    fn status(mut self, found: u16) -> Self {
        if let Read { status, .. } = &mut self.expected {
            *status = found;
        }
        self
    }

    fn with(mut self, found: &'static [(&'static str, Option<&'static str>)]) -> Self {
        if let Read { headers, .. } = &mut self.expected {
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

/// Returns all answers of the corpus.
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
        read("usual", SYNTAX, line("HTTP/1.1 202 Accepted"), "ok").status(202),
        read("empty reason", SYNTAX, line("HTTP/1.1 200 "), "ok"),
        read("no reason and no blank before it", SYNTAX, line("HTTP/1.1 200"), "ok"),
        read("reason of many words", SYNTAX, line("HTTP/1.1 404 Nowhere To\tBe Found"), "ok").status(404),
        read(
            "reason that is not ASCII",
            SYNTAX,
            [b"HTTP/1.1 200 caf\xe9".as_slice(), line("").as_bytes()].concat(),
            "ok",
        ),
        read("unknown status", "semantics 15", line("HTTP/1.1 299 Odd"), "ok").status(299),
        read("status above 599", "semantics 15", line("HTTP/1.1 799 Odd"), "ok").status(799),
        read("refusal", "semantics 15.5", line("HTTP/1.1 400 Bad Request"), "ok").status(400),
        read("empty line before it", "syntax 2.2", line("\r\nHTTP/1.1 200 OK"), "ok"),
        unreadable("NUL in the reason", SYNTAX, line("HTTP/1.1 200 O\0K")),
        unreadable("CR in the reason", SYNTAX, line("HTTP/1.1 200 O\rK")),
        unreadable("version in lower case", "syntax 2.3", line("http/1.1 200 OK")),
        unreadable("another protocol", "syntax 2.3", line("ICY 200 OK")),
        unreadable("two blanks before the status", SYNTAX, line("HTTP/1.1  200 OK")),
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
        case("nothing", SYNTAX, "", BrokenOff).closed(),
        case("incomplete status line", SYNTAX, "HTTP/1.1 20", BrokenOff).closed(),
        case("incomplete head", "syntax 8", "HTTP/1.1 200 OK\r\ncontent-le", BrokenOff).closed(),
        case("head without its last line", "syntax 8", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n", BrokenOff).closed(),
    ]
}

fn versions() -> Vec<Case> {
    let of = |version: &str, lines: &str| format!("HTTP/{version} 200 OK\r\n{lines}\r\n\r\nok");
    vec![
        read("1.0 of known length", "syntax 9.3", of("1.0", "content-length: 2"), "ok").not_kept(),
        read("1.0 that stays", "syntax 9.3", of("1.0", "connection: Keep-Alive\r\ncontent-length: 2"), "ok"),
        read("1.0 that closes", "syntax 9.3", of("1.0", "connection: close\r\ncontent-length: 2"), "ok").closed(),
        read("1.0 up to the end", "syntax 6.3", of("1.0", "content-type: text/plain"), "ok").closed(),
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
        read("100 before", INTERIM, after("HTTP/1.1 100 Continue\r\n\r\n"), "ok"),
        read("103 before", INTERIM, after("HTTP/1.1 103 Early Hints\r\nvary: early\r\n\r\n"), "ok")
            .with(&[("vary", None)]),
        read("many before", INTERIM, after(&"HTTP/1.1 102 Processing\r\n\r\n".repeat(20)), "ok"),
        read("unknown interim answer before", INTERIM, after("HTTP/1.1 199 Odd\r\n\r\n"), "ok"),
        read("100 with a length", "syntax 6.3", after("HTTP/1.1 100 Continue\r\ncontent-length: 9\r\n\r\n"), "ok"),
        read("100 that closes", "syntax 9.6", after("HTTP/1.1 100 Continue\r\nconnection: close\r\n\r\n"), "ok"),
        unreadable("101", "semantics 15.2.2", "HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n"),
        unreadable("101 after 100", "semantics 15.2.2", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching\r\n\r\n"),
        case("100 alone", INTERIM, "HTTP/1.1 100 Continue\r\n\r\n", BrokenOff).closed(),
        unreadable("endless interim answers", INTERIM, "HTTP/1.1 100 Continue\r\n\r\n".repeat(6000)),
    ]
}

fn header_lines() -> Vec<Case> {
    const NAME: &str = "syntax 5.1";
    const VALUE: &str = "semantics 5.5";
    let with = |line: &str| ok(&format!("{line}\r\ncontent-length: 2"), "ok");
    let many = |count: usize| with("vary: a\r\n".repeat(count - 1).trim_end());
    let obs_text = [b"HTTP/1.1 200 OK\r\nvary: caf\xe9\r\ncontent-length: 2\r\n\r\nok".as_slice()].concat();
    vec![
        read("blank before a colon", NAME, with("vary : x"), "ok").with(&[("vary", Some("x"))]),
        read("tab before a colon", NAME, with("vary\t: x"), "ok").with(&[("vary", Some("x"))]),
        read("blank before the length's colon", NAME, ok("content-length : 2", "ok"), "ok"),
        read("blank before the coding's colon", NAME, ok("transfer-encoding : chunked", "2\r\nok\r\n0\r\n\r\n"), "ok"),
        read("name in upper case", "semantics 5.1", ok("CONTENT-LENGTH: 2", "ok"), "ok"),
        read("blanks around a value", VALUE, with("vary:  \t x y \t "), "ok").with(&[("vary", Some("x y"))]),
        read("no blank before a value", VALUE, with("vary:x"), "ok").with(&[("vary", Some("x"))]),
        read("empty value", VALUE, with("vary:"), "ok").with(&[("vary", Some(""))]),
        read("value that is not ASCII", VALUE, obs_text, "ok"),
        read("line ends without CR", "syntax 2.2", ok("content-length: 2", "ok").replace("\r\n", "\n"), "ok"),
        read("101 lines", VALUE, many(101), "ok"),
        read("256 lines", VALUE, many(256), "ok"),
        read("1024 lines", VALUE, many(1024), "ok"),
        unreadable("1025 lines", VALUE, many(1025)),
        read("line of 60000 bytes", VALUE, with(&format!("vary: {}", "x".repeat(60_000))), "ok"),
        unreadable("endless head", VALUE, format!("HTTP/1.1 200 OK\r\nvary: {}", "x".repeat(200_000))),
        unreadable("blank in a name", NAME, with("va ry: x")),
        unreadable("no colon", NAME, with("vary")),
        unreadable("no name", NAME, with(": x")),
        unreadable("NUL in a name", NAME, with("va\0ry: x")),
        unreadable("bracket in a name", NAME, with("va(ry: x")),
        unreadable("blank before the first name", NAME, with(" vary: x")),
        unreadable("folded line", "syntax 5.2", with("vary: x\r\n y")),
        unreadable("folded length", "syntax 5.2", ok("content-length:\r\n 2", "ok")),
        unreadable("folded line of blanks", "syntax 5.2", with("vary: x\r\n  ")),
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
        read("named by connection", HOP, with("connection: vary\r\nvary: x"), "ok").with(&[("vary", None)]),
        read("keep-alive", HOP, with("connection: keep-alive\r\nkeep-alive: timeout=5"), "ok"),
        read("upgrade that is offered", "semantics 7.8", with("connection: upgrade\r\nupgrade: h2c"), "ok"),
        read("trailer that is announced", "semantics 6.6.2", with("trailer: vary"), "ok"),
        read("proxy's own", HOP, with("proxy-authenticate: Basic\r\nproxy-connection: keep-alive"), "ok"),
        read("cookie of the endpoint's host", "RFC 6265 section 4.1", with("set-cookie: a=b"), "ok"),
        read("forged mark of the gateway", HOP, with("signalr-gateway-error: overload"), "ok"),
        read("forged request id", HOP, with("x-request-id: forged"), "ok"),
        read("content coding", "semantics 8.4", with("content-encoding: gzip"), "ok")
            .with(&[("content-encoding", Some("gzip"))]),
        read("close", "syntax 9.6", with("connection: close"), "ok").not_kept(),
        read("close in upper case", "syntax 9.6", with("Connection: CLOSE"), "ok").not_kept(),
        read("close among others", "syntax 9.6", with("connection: x, close ,y"), "ok").not_kept(),
        read("close in a second line", "syntax 9.6", with("connection: keep-alive\r\nconnection: close"), "ok")
            .not_kept(),
    ]
}

fn lengths() -> Vec<Case> {
    const LENGTH: &str = "semantics 8.6, syntax 6.3";
    let of = |value: &str| ok(&format!("content-length: {value}"), "ok");
    let two = |first: &str, second: &str| ok(&format!("content-length: {first}\r\ncontent-length: {second}"), "ok");
    vec![
        read("0", LENGTH, ok("content-length: 0", ""), ""),
        read("twice in one line", LENGTH, of("2, 2"), "ok").with(&[("content-length", Some("2"))]),
        read("three times in one line", LENGTH, of("2,2 ,\t2"), "ok").with(&[("content-length", Some("2"))]),
        read("twice in two lines", LENGTH, two("2", "2"), "ok").with(&[("content-length", Some("2"))]),
        read("twice in one of two lines", LENGTH, two("2, 2", "2"), "ok"),
        read("zeros before it", LENGTH, of("002"), "ok"),
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
        cut("more than arrives", "syntax 8", of("3")).closed(),
        cut("far more than arrives", "syntax 8", of("18446744073709551615")).closed(),
        read("less than arrives", "syntax 6.3", of("1"), "o").not_kept(),
        read("0 and bytes behind", "syntax 6.3", of("0"), "").not_kept(),
        read("second answer after it", "syntax 9.2", ok("content-length: 2", &format!("ok{}", of("2"))), "ok")
            .not_kept(),
        read("empty line after it", "syntax 9.2", ok("content-length: 2", "ok\r\n"), "ok").not_kept(),
    ]
}

fn codings() -> Vec<Case> {
    const CODING: &str = "syntax 6.1, 6.3";
    const BODY: &str = "2\r\nok\r\n0\r\n\r\n";
    let of = |value: &str| ok(&format!("transfer-encoding: {value}"), BODY);
    let with = |lines: &str| ok(lines, BODY);
    vec![
        read("chunked", CODING, of("chunked"), "ok"),
        read("in capitals", "syntax 7", of("CHUNKED"), "ok"),
        read("empty element before it", "semantics 5.6.1.2", of(", chunked"), "ok"),
        read("empty element after it", "semantics 5.6.1.2", of("chunked ,"), "ok"),
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
        read("several", CHUNK, chunked("1\r\no\r\n1\r\nk\r\n0\r\n\r\n"), "ok"),
        read("none", CHUNK, chunked("0\r\n\r\n"), ""),
        read("size in upper case with leading zeros", CHUNK, chunked("00A\r\n0123456789\r\n000\r\n\r\n"), "0123456789"),
        read("extension", "syntax 7.1.1", chunked("2;a=b;c=\"d\"\r\nok\r\n0;e\r\n\r\n"), "ok"),
        read("trailers are removed", TRAILERS, chunked("2\r\nok\r\n0\r\nvary: x\r\n\r\n"), "ok")
            .with(&[("vary", None)]),
        read("trailer that would frame", TRAILERS, chunked("2\r\nok\r\n0\r\ncontent-length: 9\r\n\r\n"), "ok"),
        read("100 trailers", TRAILERS, chunked(&format!("2\r\nok\r\n0\r\n{fields}\r\n")), "ok"),
        read("bytes behind", "syntax 9.2", chunked("2\r\nok\r\n0\r\n\r\nmore"), "ok").not_kept(),
        cut("no size", CHUNK, chunked("\r\nok\r\n0\r\n\r\n")),
        cut("extension alone", CHUNK, chunked(";a\r\nok\r\n0\r\n\r\n")),
        cut("size that is not a number", CHUNK, chunked("zz\r\nok\r\n0\r\n\r\n")),
        cut("sign", CHUNK, chunked("+2\r\nok\r\n0\r\n\r\n")),
        cut("negative", CHUNK, chunked("-2\r\nok\r\n0\r\n\r\n")),
        cut("0x", CHUNK, chunked("0x2\r\nok\r\n0\r\n\r\n")),
        cut("blank before a size", CHUNK, chunked(" 2\r\nok\r\n0\r\n\r\n")),
        cut("size of more than 64 bits", CHUNK, chunked("10000000000000002\r\nok\r\n0\r\n\r\n")),
        cut("size line without CR", CHUNK, chunked("2\nok\r\n0\r\n\r\n")),
        cut("data without CR after it", CHUNK, chunked("2\r\nok\n0\r\n\r\n")),
        cut("data that is longer than its size", CHUNK, chunked("2\r\noook\r\n0\r\n\r\n")),
        cut("data that is shorter than its size", CHUNK, chunked("4\r\nok\r\n0\r\n\r\n")).closed(),
        cut("no last chunk", "syntax 8", chunked("2\r\nok\r\n")).closed(),
        cut("incomplete last chunk", "syntax 8", chunked("2\r\nok\r\n0\r\n")).closed(),
        cut("trailer without a colon", TRAILERS, chunked("2\r\nok\r\n0\r\nvary\r\n\r\n")),
        cut("endless extension", "syntax 7.1.1", chunked(&format!("2;{}", "a".repeat(40_000)))),
    ]
}

fn bodies() -> Vec<Case> {
    const NONE: &str = "syntax 6.3";
    let large = "0123456789abcdef".repeat(16 * 1024);
    let answer = |status: &str, lines: &str, rest: &str| format!("HTTP/1.1 {status}\r\n{lines}\r\n{rest}");
    vec![
        read("204", NONE, answer("204 No Content", "", ""), "").status(204),
        read("204 with a length", "semantics 8.6", answer("204 No Content", "content-length: 2\r\n", ""), "")
            .status(204)
            .with(&[("content-length", None)]),
        read("204 and bytes behind", NONE, answer("204 No Content", "content-length: 2\r\n", "ok"), "")
            .status(204)
            .not_kept(),
        read("304 with a length", "semantics 15.4.5", answer("304 Not Modified", "content-length: 2\r\n", ""), "")
            .status(304),
        read("304 with chunks", NONE, answer("304 Not Modified", "transfer-encoding: chunked\r\n", ""), "").status(304),
        read("205", NONE, answer("205 Reset Content", "content-length: 0\r\n", ""), "").status(205),
        read("to HEAD, with a length", NONE, ok("content-length: 2", ""), "").of_head(),
        read("to HEAD, with chunks", NONE, ok("transfer-encoding: chunked", ""), "").of_head(),
        read("to HEAD, with another coding", NONE, ok("transfer-encoding: gzip, chunked", ""), "").of_head(),
        read("to HEAD, without a length", NONE, ok("vary: x", ""), "").of_head(),
        read("to HEAD, with a body", NONE, ok("content-length: 2", "ok"), "").of_head().not_kept(),
        read("to HEAD, 404", NONE, answer("404 Not Found", "x-ms-error-code: a\r\n", ""), "").of_head().status(404),
        read("until close", NONE, ok("vary: x", "ok"), "ok").closed(),
        read("nothing until close", NONE, ok("vary: x", ""), "").closed(),
        read(
            "until close, with an answer in it",
            NONE,
            ok("vary: x", &ok("content-length: 0", "")),
            &ok("content-length: 0", ""),
        )
        .closed(),
        read("large, of known length", NONE, ok(&format!("content-length: {}", large.len()), &large), &large),
        read("large, in one chunk", NONE, chunked(&format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len())), &large),
        read("large, until close", NONE, ok("vary: x", &large), &large).closed(),
    ]
}
