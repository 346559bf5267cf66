//! Asks a proxy for a tunnel.
//!
//! Source: RFC 9110 section 9.3.6. A successful answer has no body, whatever its headers say, and the bytes after its head
//! belong to the tunnel. The client speaks first in it (TLS), so such bytes are an error.

use std::fmt;

use http::header::USER_AGENT;
use http::{HeaderValue, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

use super::error::{Refusal, TunnelError};
use crate::redact::{self, SentSecrets};

/// The maximum size of the head of an answer. Chosen: that of the heads that callers may send.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// The maximum number of header lines of an answer.
const MAX_HEADERS: usize = 100;
/// The longest detail of a refusal, in characters.
const MAX_DETAIL: usize = 200;
/// The headers in which proxies say why they refuse. Source: RFC 9209 (`Proxy-Status`); Squid.
const DETAILS: [&str; 3] = ["proxy-authenticate", "proxy-status", "x-squid-error"];

/// The host and port that a tunnel leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target(String);

impl Target {
    /// Creates a target from a name, or an IP address without brackets, and a port.
    pub fn new(host: &str, port: u16) -> Self {
        Self(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Asks the proxy at the other end of `stream` for a tunnel to `target`.
///
/// # Errors
/// [`TunnelError`] if the proxy does not open it. Nothing was sent to the target.
///
/// # Cancel safety
/// Not safe: the stream must be dropped then.
pub(super) async fn open_tunnel<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    target: &Target,
    authorization: Option<&HeaderValue>,
) -> Result<(), TunnelError> {
    let head = format!(
        "CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n{USER_AGENT}: signalr-gateway/{}\r\n",
        env!("CARGO_PKG_VERSION")
    );
    let [name, value, end] = match authorization {
        Some(value) => [b"proxy-authorization: ", value.as_bytes(), b"\r\n"],
        None => [&b""[..]; 3],
    };
    // Allocated once, so that it leaves no copy. Zeroized also if the write fails or is cancelled.
    let request = Zeroizing::new([head.as_bytes(), name, value, end, b"\r\n"].concat());
    stream.write_all(&request).await?;
    stream.flush().await?;
    drop(request);
    read_answer(stream, authorization.is_some()).await
}

async fn read_answer(stream: &mut (impl AsyncRead + Unpin), was_authenticated: bool) -> Result<(), TunnelError> {
    let mut read = Vec::with_capacity(1024);
    loop {
        while let Some((answer, length)) = parse(&read, was_authenticated)? {
            match answer {
                Answer::Interim => drop(read.drain(..length)),
                Answer::Open if read.len() > length => return Err(TunnelError::EarlyData),
                Answer::Open => return Ok(()),
                Answer::Refused(refusal) => return Err(TunnelError::Refused(refusal)),
            }
        }
        if read.len() >= MAX_HEAD_BYTES {
            return Err(TunnelError::HeadTooLarge(MAX_HEAD_BYTES));
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Err(if read.is_empty() { TunnelError::Closed } else { TunnelError::NotHttp });
        }
    }
}

enum Answer {
    /// A status of 1xx, after which another answer follows.
    Interim,
    Open,
    Refused(Refusal),
}

/// Parses the head of an answer. Returns it and the length of the head; `None` if the head is incomplete.
fn parse(read: &[u8], was_authenticated: bool) -> Result<Option<(Answer, usize)>, TunnelError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let length = match head.parse(read) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_invalid) => return Err(TunnelError::NotHttp),
    };
    let status = head.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(TunnelError::NotHttp)?;
    let answer = match status.as_u16() {
        101 => return Err(TunnelError::NotHttp),
        100..200 => Answer::Interim,
        200..300 => Answer::Open,
        _ => Answer::Refused(Refusal { status, was_authenticated, detail: detail(head.headers) }),
    };
    Ok(Some((answer, length)))
}

/// Returns what the headers of a refusal say about it.
fn detail(headers: &[httparse::Header<'_>]) -> Option<String> {
    let is_detail = |header: &&httparse::Header<'_>| DETAILS.iter().any(|name| header.name.eq_ignore_ascii_case(name));
    let shown: Vec<String> = headers
        .iter()
        .filter(is_detail)
        .map(|header| format!("{}: {}", header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value)))
        .collect();
    let shown = redact::prose(&shown.join(", "), &SentSecrets::default());
    (!shown.is_empty()).then(|| shown.chars().take(MAX_DETAIL).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::error::RefusalKind;
    use super::*;

    /// Asks a proxy that answers with these writes for a tunnel. Returns what it received and the outcome.
    async fn ask(writes: &[&[u8]], authorization: Option<&HeaderValue>) -> (String, Result<(), TunnelError>) {
        let (mut ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let proxy = async {
            let mut received = Vec::new();
            while !received.ends_with(b"\r\n\r\n") {
                assert!(theirs.read_buf(&mut received).await.unwrap() > 0);
            }
            for write in writes {
                // The client may have given up.
                let _closed = theirs.write_all(write).await;
                tokio::task::yield_now().await;
            }
            drop(theirs);
            String::from_utf8(received).unwrap()
        };
        let asked = async {
            let outcome = open_tunnel(&mut ours, &Target::new("east.example", 443), authorization).await;
            drop(ours);
            outcome
        };
        tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(proxy, asked) }).await.unwrap()
    }

    #[tokio::test]
    async fn tunnel_is_open_after_a_successful_answer_in_any_pieces() {
        let value = HeaderValue::from_static("Basic eDp5");
        let answers: [&[&[u8]]; 5] = [
            &[b"HTTP/1.1 200 Connection established\r\n\r\n"],
            &[b"HTTP/1.0 200 OK\r\nserver: x\r\ncontent-length: 5\r\n\r\n"],
            &[b"HT", b"TP/1.1 2", b"00 \r\n", b"a: b\r\n\r", b"\n"],
            &[b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 x\r\n\r\n"],
            &[b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 200 x\r\n\r\n"],
        ];
        for answer in answers {
            let (request, outcome) = ask(answer, Some(&value)).await;
            assert!(outcome.is_ok(), "{answer:?}: {outcome:?}");
            assert!(
                request.starts_with("CONNECT east.example:443 HTTP/1.1\r\nhost: east.example:443\r\n"),
                "{request}"
            );
            assert!(request.contains("\r\nproxy-authorization: Basic eDp5\r\n"), "{request}");
        }
        assert!(!ask(&[b"HTTP/1.1 200 x\r\n\r\n"], None).await.0.contains("authorization"));
        assert_eq!(Target::new("::1", 8443).to_string(), "[::1]:8443");
    }

    #[tokio::test]
    async fn refusals_say_what_the_proxy_said() {
        let challenge = b"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=\"corp\"\r\n\r\nbody";
        let value = HeaderValue::from_static("Basic eDp5");
        for (answer, authorization, kind, part) in [
            (&challenge[..], None, RefusalKind::NoCredentials, "proxy-authenticate: Basic realm=\"corp\""),
            (&challenge[..], Some(&value), RefusalKind::WrongCredentials, "does not accept the user name"),
            (b"HTTP/1.1 403 Forbidden\r\n\r\n", None, RefusalKind::Forbidden, "answered 403"),
            (b"HTTP/1.1 502 x\r\n\r\n", None, RefusalKind::Unreachable, "could not connect to the destination"),
            (
                b"HTTP/1.1 503 x\r\nX-Squid-Error: ERR_CONNECT_FAIL 111\r\n\r\n",
                None,
                RefusalKind::Unreachable,
                "x-squid-error: ERR_CONNECT_FAIL 111",
            ),
            (b"HTTP/1.1 405 x\r\n\r\n", None, RefusalKind::Other, "allows CONNECT"),
            (b"HTTP/1.1 302 x\r\nlocation: /\r\n\r\n", None, RefusalKind::Other, "answered 302"),
        ] {
            let (_, outcome) = ask(&[answer], authorization).await;
            let Err(TunnelError::Refused(refusal)) = outcome else { panic!("{outcome:?}") };
            assert_eq!(refusal.kind(), kind, "{refusal}");
            assert!(refusal.to_string().contains(part), "{refusal}");
        }
    }

    #[tokio::test]
    async fn anything_else_is_an_error_of_the_proxy() {
        let huge = [b"HTTP/1.1 200 x\r\na: ".to_vec(), vec![b'b'; 2 * MAX_HEAD_BYTES]].concat();
        let many = [b"HTTP/1.1 200 x\r\n".to_vec(), b"a: b\r\n".repeat(200), b"\r\n".to_vec()].concat();
        let answers: [(&[u8], &str); 8] = [
            (b"", "Closed"),
            (b"HTTP/1.1 200 x\r\n", "NotHttp"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "NotHttp"),
            (b"\x15\x03\x01\x00\x02\x02\x16", "NotHttp"),
            (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "NotHttp"),
            (b"HTTP/1.1 200 x\r\n\r\nearly", "EarlyData"),
            (&huge, "HeadTooLarge(16384)"),
            (&many, "NotHttp"),
        ];
        for (answer, expected) in answers {
            let (_, outcome) = ask(&[answer], None).await;
            let shown = String::from_utf8_lossy(answer.get(..20).unwrap_or(answer));
            assert_eq!(format!("{:?}", outcome.unwrap_err()), expected, "{shown}");
        }
    }
}
