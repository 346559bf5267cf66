//! Sends broadcasts through the gateway to many WebSocket clients of one hub. Catches a sandbox that loses, duplicates or
//! reorders messages under load, that grows while it runs, or whose fan-out became slow.
//!
//! Run it with `cargo bench --bench soak`. The sandbox is the real program in its own process, so its memory and CPU
//! are reported separately. Clients do as little as possible, because on a small machine they take CPU from the
//! sandbox. Several callers send, one call after the other each, so that the duration of a call does not limit the
//! rate. `SOAK_CLIENTS`, `SOAK_RATE` (broadcasts per second), `SOAK_SECONDS` and `SOAK_TLS=1` change the load.

#![expect(clippy::print_stdout, reason = "prints its measurements")]

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
use tokio::task::JoinSet;
use tokio::time::interval_at;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const RECORD_PREFIX: &[u8] = b"{\"type\":1,\"target\":\"tick\",\"arguments\":[";
const RECORD_SEPARATOR: u8 = 0x1E;
const HANDSHAKE: &[u8] = b"{\"protocol\":\"json\",\"version\":1}\x1e";

/// The interval of reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// The number of callers. At 200 broadcasts a second, a call may take 40 ms.
const CALLERS: usize = 8;

/// The load, from `SOAK_*` variables.
#[derive(Clone, Copy)]
struct Load {
    clients: u64,
    rate: u64,
    seconds: u64,
    tls: bool,
}

/// Counts of what all callers have sent and all clients have received.
#[derive(Default)]
struct Counters {
    sent: AtomicU64,
    connected: AtomicU64,
    delivered: AtomicU64,
    /// Numbers of a caller that were skipped.
    lost: AtomicU64,
    /// Numbers that were repeated, or arrived after a later one of the same caller.
    duplicated: AtomicU64,
    closed: AtomicU64,
}

/// The sandbox's process, killed on drop.
struct Sandbox {
    child: Child,
    ready: serde_json::Value,
}

impl Load {
    fn from_environment() -> Self {
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
            // The log has a line for each broadcast.
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

    /// Returns the resident memory in MiB.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
    }

    fn cpu(&self) -> f64 {
        cpu(self.child.id())
    }
}

/// Returns the CPU time of a process in seconds, from a clock with 100 ticks per second.
fn cpu(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields.iter().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _ = self.child.wait();
    }
}

fn main() -> Result<(), Failure> {
    // `cargo test --benches` only checks that it starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let load = Load::from_environment();
    let sandbox = Sandbox::start(folder.path(), load.tls)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(soak(load, &sandbox, folder.path()))
}

async fn soak(load: Load, sandbox: &Sandbox, folder: &Path) -> Result<(), Failure> {
    let gateway = sandbox.address("/gateway")?;
    let endpoint = sandbox.address("/endpoints/east")?;
    let mut control = Caller::connect(sandbox.address("/control")?).await?;
    let response = Caller::connect(gateway)
        .await?
        .call("POST", "/api/hubs/soak/:generateToken?api-version=2024-12-01&minutesToExpire=600", "")
        .await?;
    let token: serde_json::Value = serde_json::from_str(&response.1)?;
    let token = token.get("token").and_then(serde_json::Value::as_str).ok_or("there is no token")?.to_owned();
    let tls = if load.tls { Some(tls_connector(&folder.join("files/ca.pem"))?) } else { None };
    let counters = Arc::new(Counters::default());
    for _ in 0..load.clients {
        let stream = TcpStream::connect(endpoint).await?;
        let (counters, token) = (Arc::clone(&counters), token.clone());
        match &tls {
            None => drop(tokio::spawn(client(stream, token, counters))),
            Some(tls) => {
                let stream = tls.connect("127.0.0.1".try_into()?, stream).await?;
                drop(tokio::spawn(client(stream, token, counters)));
            }
        }
    }
    while counters.connected.load(Ordering::Relaxed) < load.clients {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!(
        "{} clients connected, TLS {}, sandbox and gateway {} MiB",
        load.clients,
        if load.tls { "on" } else { "off" },
        sandbox.memory()
    );

    let (start, cpu_of_sandbox, cpu_of_clients) = (Instant::now(), sandbox.cpu(), cpu(std::process::id()));
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        callers.spawn(broadcast(Caller::connect(gateway).await?, number, load, Arc::clone(&counters)));
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mut report = interval_at(tokio::time::Instant::now() + REPORT_INTERVAL, REPORT_INTERVAL);
    loop {
        tokio::select! {
            ended = callers.join_next() => match ended {
                Some(ended) => ended??,
                None => break,
            },
            _ = report.tick() => {
                let (sent, delivered) = (count(&counters.sent), count(&counters.delivered));
                println!(
                    "after {:.0} s: sent {sent}, delivered {delivered}, in flight {}, {} MiB",
                    start.elapsed().as_secs_f64(),
                    (sent * load.clients).saturating_sub(delivered),
                    sandbox.memory()
                );
                // The sandbox keeps received requests up to a limit. Clear them, so that any growth is a leak.
                let (status, _) = control.call("DELETE", "/sandbox/journal?server=east", "").await?;
                if status != 204 {
                    return Err(format!("clearing the journal returned {status}").into());
                }
            }
        }
    }
    let sending = start.elapsed().as_secs_f64();
    let sent = count(&counters.sent);
    let expected = sent * load.clients;
    let waiting_since = Instant::now();
    while count(&counters.delivered) < expected && waiting_since.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let elapsed = start.elapsed().as_secs_f64();
    let delivered = count(&counters.delivered);
    let per_second = |count: u64, seconds: f64| Ok::<_, Failure>(f64::from(u32::try_from(count)?) / seconds);
    println!(
        "{sent} broadcasts in {sending:.1} s ({:.0} a second), {delivered} of {expected} deliveries in {elapsed:.1} s ({:.0} a \
         second); lost {}, duplicated or out of order {}, closed {}; CPU: sandbox and gateway {:.1} s, clients {:.1} s; {} MiB at \
         the end",
        per_second(sent, sending)?,
        per_second(delivered, elapsed)?,
        count(&counters.lost),
        count(&counters.duplicated),
        count(&counters.closed),
        sandbox.cpu() - cpu_of_sandbox,
        cpu(std::process::id()) - cpu_of_clients,
        sandbox.memory(),
    );
    let is_complete =
        delivered == expected && count(&counters.lost) + count(&counters.duplicated) + count(&counters.closed) == 0;
    if is_complete {
        Ok(())
    } else {
        Err("messages were lost, duplicated or reordered, or a client was disconnected".into())
    }
}

/// Runs one caller: sends its numbers 0, 1, 2 and so on at its share of the rate, and catches up when it is late.
async fn broadcast(mut caller: Caller, number: usize, load: Load, counters: Arc<Counters>) -> Result<(), Failure> {
    let (start, share) = (Instant::now(), Duration::from_secs(1) / u32::try_from(load.rate)?);
    let mut clock =
        interval_at(tokio::time::Instant::now() + share * u32::try_from(number)?, share * u32::try_from(CALLERS)?);
    for sent in 0_u64.. {
        clock.tick().await;
        if start.elapsed() >= Duration::from_secs(load.seconds) {
            break;
        }
        let body = format!("{{\"target\":\"tick\",\"arguments\":[{number},{sent}]}}");
        let (status, _) = caller.call("POST", "/api/hubs/soak/:send?api-version=2024-12-01", &body).await?;
        if status != 202 {
            return Err(format!("a broadcast returned {status}").into());
        }
        counters.sent.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Runs one client: connects, and checks that the numbers of each caller arrive as 0, 1, 2 and so on.
async fn client(mut stream: impl AsyncRead + AsyncWrite + Unpin, token: String, counters: Arc<Counters>) {
    if listen(&mut stream, &token, &counters).await.is_err() {
        counters.closed.fetch_add(1, Ordering::Relaxed);
    }
}

async fn listen(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    token: &str,
    counters: &Counters,
) -> io::Result<()> {
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
    let mut next = [0; CALLERS];
    loop {
        let mut at = 0;
        while let Some((payload, end)) = frame(&buffer, at) {
            // Queued records arrive in one frame.
            payload
                .split(|byte| *byte == RECORD_SEPARATOR)
                .for_each(|record| count_record(record, &mut next, counters));
            at = end;
        }
        buffer.drain(..at);
        read(stream, &mut buffer).await?;
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<()> {
    if stream.read_buf(buffer).await? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// Returns the payload of the frame at `at`, and where it ends.
fn frame(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (start, length) = match bytes.get(at + 1)? {
        126 => (at + 4, usize::from(u16::from_be_bytes(bytes.get(at + 2..at + 4)?.try_into().ok()?))),
        length => (at + 2, usize::from(*length)),
    };
    Some((bytes.get(start..start + length)?, start + length))
}

fn count_record(record: &[u8], next: &mut [u64; CALLERS], counters: &Counters) {
    let Some(rest) = record.strip_prefix(RECORD_PREFIX) else {
        if record == b"{}" {
            counters.connected.fetch_add(1, Ordering::Relaxed);
        }
        return;
    };
    let mut numbers = rest.split(|byte| matches!(byte, b',' | b']')).map(number);
    let (Some(caller), Some(number)) = (numbers.next(), numbers.next()) else { return };
    let Some(next) = usize::try_from(caller).ok().and_then(|caller| next.get_mut(caller)) else { return };
    counters.delivered.fetch_add(1, Ordering::Relaxed);
    if number < *next {
        counters.duplicated.fetch_add(1, Ordering::Relaxed);
    } else {
        counters.lost.fetch_add(number - *next, Ordering::Relaxed);
        *next = number + 1;
    }
}

fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit.saturating_sub(b'0')))
}

/// A caller that sends one call after the other.
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
                let status = head.split(' ').nth(1).ok_or("a response has no status")?.parse()?;
                return Ok((status, body.to_owned()));
            }
        }
    }
}

fn tls_connector(ca: &Path) -> Result<tokio_rustls::TlsConnector, Failure> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(tokio_rustls::TlsConnector::from(Arc::new(config)))
}
