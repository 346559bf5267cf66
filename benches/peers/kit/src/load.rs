//! Closed-loop load: each connection sends the next request after the response to the last one.
//!
//! `load --address A --connections N --body BYTES --warmup SECONDS --seconds SECONDS --processes PID,PID` prints one
//! line of JSON. It reads the CPU time of the processes at the start and end of exactly the window in which responses are
//! counted. `--targets FILE` has one target in each line, which all connections together call in turn.

use std::cell::{Cell, RefCell};
use std::fs;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::{Options, Result, wire};

/// A message without arguments, padded with spaces to the length of the body.
const MESSAGE: &[u8] = br#"{"target":"hello","arguments":[]}"#;

/// The target without `--targets`.
const TARGET: &str = "/api/hubs/chat/:send?api-version=2022-11-01";

/// The requests that all connections together send in turn.
struct Requests {
    all: Vec<Vec<u8>>,
    next: Cell<usize>,
}

impl Requests {
    /// Returns the next request.
    fn next(&self) -> &[u8] {
        let index = self.next.get();
        self.next.set((index + 1) % self.all.len());
        &self.all[index]
    }
}

/// The counts of the measurement window.
#[derive(Default)]
struct Counts {
    is_measuring: Cell<bool>,
    errors: Cell<u64>,
    /// The cause of the first error.
    reason: RefCell<Option<String>>,
    /// In microseconds.
    latencies: RefCell<Vec<u32>>,
}

pub async fn generate(options: &Options) -> Result<()> {
    let (address, body) = (options.text("address")?, options.number::<usize>("body")?);
    let processes: Vec<&str> = options.text("processes")?.split(',').collect();
    let targets = match options.text("targets") {
        Ok(file) => fs::read_to_string(file)?,
        Err(_) => TARGET.to_owned(),
    };
    let all: Vec<_> = targets.lines().map(|target| request(target, address, body)).collect();
    if all.is_empty() {
        return Err("there is no target".into());
    }
    let requests = Rc::new(Requests { all, next: Cell::new(0) });

    let counts = Rc::new(Counts::default());
    for _ in 0..options.number("connections")? {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (requests, counts) = (Rc::clone(&requests), Rc::clone(&counts));
        tokio::task::spawn_local(async move {
            if let Err(err) = send_in_a_loop(&mut stream, &requests, &counts).await {
                counts.record_error(err.to_string());
            }
        });
    }

    tokio::time::sleep(Duration::from_secs_f64(options.number("warmup")?)).await;
    let (began, cpu_before) = (Instant::now(), cpu_nanoseconds(&processes)?);
    counts.is_measuring.set(true);
    tokio::time::sleep(Duration::from_secs_f64(options.number("seconds")?)).await;
    counts.is_measuring.set(false);
    let (cpu_after, seconds) = (cpu_nanoseconds(&processes)?, began.elapsed().as_secs_f64());

    let mut latencies = counts.latencies.take();
    latencies.sort_unstable();
    let percentile = |share: usize| latencies.get(latencies.len() * share / 100).copied().unwrap_or_default();
    println!(
        "{}",
        serde_json::json!({
            "requests": latencies.len(),
            "errors": counts.errors.get(),
            "reason": counts.reason.take(),
            "seconds": seconds,
            "cpu_nanoseconds": cpu_after - cpu_before,
            "p50_microseconds": percentile(50),
            "p99_microseconds": percentile(99),
        })
    );
    Ok(())
}

fn request(target: &str, address: &str, body: usize) -> Vec<u8> {
    let mut request = format!(
        "POST {target} HTTP/1.1\r\nHost: {address}\r\n\
         User-Agent: peers-kit\r\nAccept: application/json\r\nAuthorization: Bearer callers-own\r\n\
         Content-Type: application/json; charset=utf-8\r\nX-Ms-Client-Request-Id: 0b0ad3c1-7c1e-4a5e-9f77-0d6f1c9a5b11\r\n\
         Content-Length: {body}\r\n\r\n"
    )
    .into_bytes();
    let end = request.len() + body;
    request.extend_from_slice(&MESSAGE[..MESSAGE.len().min(body)]);
    request.resize(end, b' ');
    request
}

async fn send_in_a_loop(stream: &mut TcpStream, requests: &Requests, counts: &Counts) -> Result<()> {
    let mut buffer = BytesMut::with_capacity(4 * 1024);
    loop {
        let began = Instant::now();
        stream.write_all(requests.next()).await?;
        let head = wire::head(stream, &mut buffer, |bytes| {
            let mut headers = wire::headers();
            let mut response = httparse::Response::new(&mut headers);
            match response.parse(bytes)? {
                httparse::Status::Complete(length) => {
                    Ok(Some((length, (response.code, wire::body_length(response.headers)?))))
                }
                httparse::Status::Partial => Ok(None),
            }
        });
        let (head, (status, body)) = head.await?.ok_or("closed by the proxy")?;
        wire::fill(stream, &mut buffer, head + body).await?;
        if status != Some(202) {
            let text = String::from_utf8_lossy(&buffer[head..head + body]).into_owned();
            counts.record_error(format!("{}: {text}", status.unwrap_or_default()));
        } else if counts.is_measuring.get() {
            let latency = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
            counts.latencies.borrow_mut().push(latency);
        }
        buffer.advance(head + body);
    }
}

impl Counts {
    fn record_error(&self, reason: String) {
        self.errors.set(self.errors.get() + 1);
        self.reason.borrow_mut().get_or_insert(reason);
    }
}

/// Returns the CPU time that all threads of the processes have used, as the scheduler counts it.
fn cpu_nanoseconds(processes: &[&str]) -> Result<u64> {
    let mut total = 0;
    for process in processes {
        for thread in fs::read_dir(format!("/proc/{process}/task"))? {
            // A thread that ends between the two reads is not counted.
            let Ok(times) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            total += times.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
    }
    Ok(total)
}
