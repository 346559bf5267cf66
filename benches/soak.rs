//! Would catch a sandbox that loses, doubles or reorders messages under load, that grows while it runs, or whose fan-out
//! became slow: many clients of one hub, each connected by a WebSocket of its own, and broadcasts through the gateway.
//!
//! `cargo bench --bench soak`. The sandbox is the real program in a process of its own, so what is said of its memory and
//! CPU is its own. Clients do as little as can be: on a small machine they take CPU from what is measured.
//! `SOAK_CLIENTS`, `SOAK_RATE` (broadcasts a second), `SOAK_SECONDS` and `SOAK_TLS=1` change what is asked for.

#![expect(clippy::print_stdout, reason = "what it measured is for whoever runs it")]

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const BEFORE_NUMBER: &[u8] = b"{\"type\":1,\"target\":\"tick\",\"arguments\":[";
const RECORD_SEPARATOR: u8 = 0x1E;
const HANDSHAKE: &[u8] = b"{\"protocol\":\"json\",\"version\":1}\x1e";

/// What is asked for.
#[derive(Clone, Copy)]
struct Plan {
    clients: u64,
    rate: u64,
    seconds: u64,
    tls: bool,
}

/// What all clients have seen.
#[derive(Default)]
struct Seen {
    connected: AtomicU64,
    delivered: AtomicU64,
    /// Numbers that were passed over.
    lost: AtomicU64,
    /// Numbers that came again, or after a later one.
    doubled: AtomicU64,
    closed: AtomicU64,
}

/// The sandbox's process. It is killed when this is dropped.
struct Sandbox {
    child: Child,
    ready: serde_json::Value,
}

impl Plan {
    fn of_environment() -> Self {
        let number = |name: &str, default| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
        Self {
            clients: number("SOAK_CLIENTS", 2000),
            rate: number("SOAK_RATE", 200),
            seconds: number("SOAK_SECONDS", 60),
            tls: number("SOAK_TLS", 0) == 1,
        }
    }
}

impl Sandbox {
    fn start(folder: &Path, tls: bool) -> Result<Self, Failure> {
        let config = format!(
            "[tenants.t]\nid = \"11111111-aaaa-4aaa-8aaa-111111111111\"\n\
             [endpoints.east]\ntenant = \"t\"\ntls = {tls}\n[clients]\nsilence = \"1h\"\n"
        );
        std::fs::write(folder.join("sandbox.toml"), config)?;
        let child = Command::new(env!("CARGO_BIN_EXE_signalr-gateway"))
            .current_dir(folder)
            .args(["sandbox", "--config", "sandbox.toml", "--files", "files", "--ready-file", "ready.json"])
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // Its log has a line for each broadcast.
            .stderr(Stdio::null())
            .spawn()?;
        let mut sandbox = Self { child, ready: serde_json::Value::Null };
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(30) {
            if let Ok(text) = std::fs::read(folder.join("ready.json")) {
                sandbox.ready = serde_json::from_slice(&text)?;
                return Ok(sandbox);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err("the sandbox is not ready after 30 seconds".into())
    }

    fn address(&self, pointer: &str) -> Result<SocketAddr, Failure> {
        let url =
            self.ready.pointer(pointer).and_then(serde_json::Value::as_str).ok_or("the ready file lacks a URL")?;
        Ok(url.split_once("://").ok_or("a URL has no scheme")?.1.parse()?)
    }

    /// Resident memory, in MiB.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
    }

    /// CPU time, in seconds, of a clock with 100 ticks.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        fields.iter().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _ = self.child.wait();
    }
}

fn main() -> Result<(), Failure> {
    // `cargo test --benches` and the like only want to see that it starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let plan = Plan::of_environment();
    let sandbox = Sandbox::start(folder.path(), plan.tls)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(soak(plan, &sandbox, folder.path()))
}

async fn soak(plan: Plan, sandbox: &Sandbox, folder: &Path) -> Result<(), Failure> {
    let gateway = sandbox.address("/gateway")?;
    let endpoint = sandbox.address("/endpoints/east")?;
    let mut control = Caller::connect(sandbox.address("/control")?).await?;
    let mut caller = Caller::connect(gateway).await?;
    let answer =
        caller.call("POST", "/api/hubs/soak/:generateToken?api-version=2024-12-01&minutesToExpire=600", "").await?;
    let token: serde_json::Value = serde_json::from_str(&answer.1)?;
    let token = token.get("token").and_then(serde_json::Value::as_str).ok_or("there is no token")?.to_owned();
    let tls = if plan.tls { Some(trusting(&folder.join("files/ca.pem"))?) } else { None };
    let seen = Arc::new(Seen::default());
    for _ in 0..plan.clients {
        let stream = TcpStream::connect(endpoint).await?;
        let (seen, token) = (Arc::clone(&seen), token.clone());
        match &tls {
            None => drop(tokio::spawn(client(stream, token, seen))),
            Some(tls) => {
                let stream = tls.connect("127.0.0.1".try_into()?, stream).await?;
                drop(tokio::spawn(client(stream, token, seen)));
            }
        }
    }
    while seen.connected.load(Ordering::Relaxed) < plan.clients {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!(
        "{} clients connected, TLS {}, sandbox and gateway {} MiB",
        plan.clients,
        if plan.tls { "on" } else { "off" },
        sandbox.memory()
    );

    let (start, cpu) = (Instant::now(), sandbox.cpu());
    let mut clock = tokio::time::interval(Duration::from_secs(1) / u32::try_from(plan.rate)?);
    let mut sent = 0;
    let mut report = start;
    while start.elapsed() < Duration::from_secs(plan.seconds) {
        clock.tick().await;
        let (status, _) = caller
            .call(
                "POST",
                "/api/hubs/soak/:send?api-version=2024-12-01",
                &format!("{{\"target\":\"tick\",\"arguments\":[{sent}]}}"),
            )
            .await?;
        if status != 202 {
            return Err(format!("a broadcast was answered {status}").into());
        }
        sent += 1;
        if report.elapsed() >= Duration::from_secs(10) {
            report = Instant::now();
            let delivered = seen.delivered.load(Ordering::Relaxed);
            let behind = sent * plan.clients - delivered;
            let seconds = start.elapsed().as_secs();
            println!(
                "after {seconds} s: sent {sent}, delivered {delivered}, on the way {behind}, {} MiB",
                sandbox.memory()
            );
            // It keeps what it received, up to a bound. Without that, what grows is a leak.
            let (status, _) = control.call("DELETE", "/sandbox/journal?server=east", "").await?;
            if status != 204 {
                return Err(format!("clearing the journal was answered {status}").into());
            }
        }
    }
    let sending = start.elapsed();
    let expected = sent * plan.clients;
    let patience = Instant::now();
    while seen.delivered.load(Ordering::Relaxed) < expected && patience.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = start.elapsed().as_secs_f64();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let delivered = count(&seen.delivered);
    println!(
        "{sent} broadcasts in {:.1} s, {delivered} of {expected} deliveries in {took:.1} s ({:.0} a second); lost {}, doubled or \
         out of order {}, closed {}; sandbox and gateway: {:.1} s of CPU, {} MiB at the end",
        sending.as_secs_f64(),
        f64::from(u32::try_from(delivered)?) / took,
        count(&seen.lost),
        count(&seen.doubled),
        count(&seen.closed),
        sandbox.cpu() - cpu,
        sandbox.memory(),
    );
    let is_whole = delivered == expected && count(&seen.lost) + count(&seen.doubled) + count(&seen.closed) == 0;
    if is_whole { Ok(()) } else { Err("something was lost or doubled".into()) }
}

/// One client: connects, shakes hands, and holds what comes to be 0, 1, 2 and so on.
async fn client(mut stream: impl AsyncRead + AsyncWrite + Unpin, token: String, seen: Arc<Seen>) {
    if listen(&mut stream, &token, &seen).await.is_err() {
        seen.closed.fetch_add(1, Ordering::Relaxed);
    }
}

async fn listen(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), token: &str, seen: &Seen) -> io::Result<()> {
    let upgrade = format!(
        "GET /client/?hub=soak HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(upgrade.as_bytes()).await?;
    let mut buffer = Vec::with_capacity(16 * 1024);
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        read(stream, &mut buffer).await?;
    };
    buffer.drain(..head);
    // A masked text frame whose mask is zero.
    let length = u8::try_from(HANDSHAKE.len()).map_err(io::Error::other)?;
    stream.write_all(&[&[0x81, 0x80 | length, 0, 0, 0, 0], HANDSHAKE].concat()).await?;
    let mut next = 0;
    loop {
        let mut at = 0;
        while let Some((payload, end)) = frame(&buffer, at) {
            // Records that wait for a client come in one frame.
            payload.split(|byte| *byte == RECORD_SEPARATOR).for_each(|record| take(record, &mut next, seen));
            at = end;
        }
        buffer.drain(..at);
        read(stream, &mut buffer).await?;
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<()> {
    if stream.read_buf(buffer).await? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// The payload of the frame at `at`, and where it ends.
fn frame(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (start, length) = match bytes.get(at + 1)? {
        126 => (at + 4, usize::from(u16::from_be_bytes(bytes.get(at + 2..at + 4)?.try_into().ok()?))),
        length => (at + 2, usize::from(*length)),
    };
    Some((bytes.get(start..start + length)?, start + length))
}

fn take(record: &[u8], next: &mut u64, seen: &Seen) {
    let Some(rest) = record.strip_prefix(BEFORE_NUMBER) else {
        if record == b"{}" {
            seen.connected.fetch_add(1, Ordering::Relaxed);
        }
        return;
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
    let number = digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    seen.delivered.fetch_add(1, Ordering::Relaxed);
    if number < *next {
        seen.doubled.fetch_add(1, Ordering::Relaxed);
    } else {
        seen.lost.fetch_add(number - *next, Ordering::Relaxed);
        *next = number + 1;
    }
}

/// A caller, one call after the other.
struct Caller(TcpStream);

impl Caller {
    async fn connect(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    async fn call(&mut self, method: &str, target: &str, body: &str) -> Result<(u16, String), Failure> {
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.write_all(request.as_bytes()).await?;
        let mut buffer = Vec::new();
        loop {
            read(&mut self.0, &mut buffer).await?;
            let text = std::str::from_utf8(&buffer)?;
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                let status = head.split(' ').nth(1).ok_or("an answer has no status")?.parse()?;
                return Ok((status, body.to_owned()));
            }
        }
    }
}

fn trusting(ca: &Path) -> Result<tokio_rustls::TlsConnector, Failure> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(tokio_rustls::TlsConnector::from(Arc::new(config)))
}
