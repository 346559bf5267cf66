//! `tail`: prints live summaries of the requests that pass through a running gateway.

use crate::redact::one_line;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use clap::Args;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::admin_options::AdminOptions;
use super::output::{Outcome, usage};
use super::runtime::block_on;

/// The timeout for connecting, and for the head of the response.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The gateway sends a line at least every 15 seconds.
const MAX_SILENCE: Duration = Duration::from_secs(60);
/// The longest line that is read, and the longest refusal.
const MAX_LINE: usize = 64 * 1024;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    admin: AdminOptions,
    /// Only requests of this route. `*` matches any text. May be repeated.
    #[arg(long = "route", value_name = "ROUTE")]
    routes: Vec<String>,
    /// Only requests to this endpoint. `*` matches any text. May be repeated.
    #[arg(long = "endpoint", value_name = "ENDPOINT")]
    endpoints: Vec<String>,
    /// Only requests that name this hub. `*` matches any text. May be repeated.
    #[arg(long = "hub", value_name = "HUB")]
    hubs: Vec<String>,
    /// Only failed requests.
    #[arg(long)]
    failures: bool,
    /// Stop after this many requests.
    #[arg(short = 'n', long, value_name = "NUMBER")]
    count: Option<u64>,
    /// Print JSON, one object per line.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Outcome> {
    block_on(Box::pin(tail(options)))?
}

async fn tail(options: &Options) -> anyhow::Result<Outcome> {
    let address = options.admin.address();
    let tls = options.admin.tls().map_err(usage)?;
    let no_answer = || format!("no gateway answers at {address}");
    let stream = tokio::time::timeout(TIMEOUT, TcpStream::connect(address)).await.with_context(no_answer)?;
    let stream = stream.with_context(no_answer)?;
    match tls {
        None => read(options, stream).await,
        Some((config, name)) => {
            let secured = TlsConnector::from(Arc::new(config)).connect(name, stream);
            let secured = tokio::time::timeout(TIMEOUT, secured).await.with_context(no_answer)?;
            let secured = secured.map_err(|err| options.admin.unreachable(&err.into()))?;
            read(options, secured).await
        }
    }
}

/// Sends the request, and prints the lines of the response.
async fn read(
    options: &Options,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> anyhow::Result<Outcome> {
    let address = options.admin.address();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get(format!("/tail?{}", options.query()))
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())?;
    let response = tokio::time::timeout(TIMEOUT, sender.send_request(request)).await;
    let response = response.with_context(|| format!("no gateway answers at {address}"))?;
    let response = response.map_err(|err| {
        if err.is_parse() { options.admin.not_http() } else { options.admin.unreachable(&err.into()) }
    })?;
    let (head, mut body) = response.into_parts();
    if head.status != StatusCode::OK {
        return Err(refusal(head.status, body).await);
    }
    let mut pending = Vec::new();
    let mut left = options.count;
    while left != Some(0) {
        let frame = tokio::time::timeout(MAX_SILENCE, body.frame()).await;
        let Some(frame) = frame.context("the gateway is silent")? else {
            return Err(anyhow!("the gateway has closed the connection"));
        };
        let Ok(data) = frame.context("the connection to the gateway was lost")?.into_data() else { continue };
        pending.extend_from_slice(&data);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim();
            if line.is_empty() || left == Some(0) {
                continue;
            }
            let is_request = print(line, options.json)?;
            match is_request {
                None => return Ok(Outcome::Success),
                Some(is_request) => left = left.map(|left| left - u64::from(is_request)),
            }
        }
        anyhow::ensure!(pending.len() <= MAX_LINE, "the gateway sent a line that is too long");
    }
    connection.abort();
    Ok(Outcome::Success)
}

async fn refusal(status: StatusCode, body: Incoming) -> anyhow::Error {
    let body = Limited::new(body, MAX_LINE).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    anyhow!("the gateway answers {status}: {}", one_line(String::from_utf8_lossy(&body).trim()))
}

/// Prints a line. Returns whether it is about a request; `None` if stdout is closed.
fn print(line: &str, as_json: bool) -> anyhow::Result<Option<bool>> {
    let value: Value = serde_json::from_str(line).context("the gateway sent a line that is not JSON")?;
    let text = if as_json { line.to_owned() } else { to_text(&value) };
    match writeln!(std::io::stdout().lock(), "{text}") {
        Ok(()) => Ok(Some(value.get("lost").is_none())),
        Err(err) if err.kind() == std::io::ErrorKind::BrokenPipe => Ok(None),
        Err(err) => Err(err).context("cannot write to stdout"),
    }
}

/// Formats a line: the time, the status, the duration, the call, its way, and the cause of a failure.
fn to_text(line: &Value) -> String {
    if let Some(lost) = line.get("lost") {
        return format!("({lost} requests are not shown: this reader is too slow)");
    }
    let text = |name: &str| line.get(name).and_then(Value::as_str);
    let number = |name: &str| line.get(name).and_then(Value::as_f64).unwrap_or_default();
    let time = text("time").unwrap_or_default();
    let time = time.split_once('T').map_or(time, |(_, time)| time.trim_end_matches('Z'));
    let method = text("method").unwrap_or_default();
    let mut shown = format!("{time} {} {:>9.3} ms  {method}", number("status"), number("duration_ms"));
    for name in ["operation", "hub"] {
        shown.push(' ');
        shown.push_str(text(name).unwrap_or("-"));
    }
    for name in ["caller.name", "route", "endpoint", "legs", "error.kind", "error.cause"] {
        if let Some(value) = text(name) {
            let name = name.split('.').next_back().unwrap_or(name);
            shown.extend(["  ", name, "=", value]);
        }
    }
    if line.get("broke_off").is_some() {
        shown.push_str("  broke off");
    }
    if let Some(id) = text("request_id") {
        shown.extend(["  id=", id]);
    }
    shown.chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}

impl Options {
    fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, values) in [("route", &self.routes), ("endpoint", &self.endpoints), ("hub", &self.hubs)] {
            for value in values {
                query.append_pair(name, value);
            }
        }
        if self.failures {
            query.append_pair("failures", "true");
        }
        query.finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_shows_the_call_its_way_and_why_it_failed() {
        let line = json!({
            "time": "2026-11-26T03:04:05.678Z", "request_id": "r1", "method": "POST", "operation": "hub_send", "hub": "chat",
            "route": "all", "endpoint": "east", "status": 502, "duration_ms": 12.3456, "error.kind": "upstream_broken",
            "error.cause": "reset",
        });
        assert_eq!(
            to_text(&line),
            "03:04:05.678 502    12.346 ms  POST hub_send chat  route=all  endpoint=east  kind=upstream_broken  cause=reset  id=r1"
        );
        assert_eq!(to_text(&json!({ "lost": 3 })), "(3 requests are not shown: this reader is too slow)");
    }

    #[test]
    fn control_characters_are_not_printed() {
        assert!(!to_text(&json!({ "hub": "a\u{1b}[2Jb" })).contains('\u{1b}'));
    }
}
