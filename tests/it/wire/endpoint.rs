//! An endpoint that records requests byte for byte and parses them strictly: a request is complete only if every server
//! would accept it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request, or the part of one that arrived before the connection ended.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    head: String,
    pub(super) target: String,
    pub(super) body: Vec<u8>,
    pub(super) is_complete: bool,
}

impl Arrival {
    pub(super) fn is_for_hub(&self, hub: &str) -> bool {
        self.head.contains(&format!("/hubs/{hub}"))
    }

    /// Returns the value of a header.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

pub(super) struct RecordingEndpoint {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    arrivals: Mutex<Vec<Arrival>>,
    connections: Mutex<usize>,
}

impl RecordingEndpoint {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let served = Arc::clone(&shared);
        // Ends with the test's runtime.
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&served);
                *shared.connections.lock().unwrap() += 1;
                tokio::spawn(async move {
                    serve(stream, &shared).await;
                    *shared.connections.lock().unwrap() -= 1;
                });
            }
        });
        Self { address, shared }
    }

    pub(super) fn has_ended(&self) -> bool {
        *self.shared.connections.lock().unwrap() == 0
    }

    /// Returns what arrived, without health probes.
    pub(super) fn arrivals(&self) -> Vec<Arrival> {
        let arrivals = self.shared.arrivals.lock().unwrap();
        arrivals.iter().filter(|arrival| !arrival.head.contains(" /api/health")).cloned().collect()
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) {
    let mut bytes = Vec::new();
    loop {
        while let Some((arrival, end)) = request(&bytes) {
            bytes.drain(..end);
            shared.arrivals.lock().unwrap().push(arrival);
            if stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").await.is_err() {
                return;
            }
        }
        if !stream.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {
            break;
        }
    }
    if !bytes.is_empty() {
        let head = String::from_utf8_lossy(&bytes).into_owned();
        shared.arrivals.lock().unwrap().push(Arrival {
            head,
            target: String::new(),
            body: Vec::new(),
            is_complete: false,
        });
    }
}

/// Parses the first request. Returns it and its length, or `None` if it is incomplete.
fn request(bytes: &[u8]) -> Option<(Arrival, usize)> {
    let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    assert_eq!(head.matches('\n').count(), head.matches("\r\n").count(), "a bare line end: {head}");
    let values = |name: &str| -> Vec<String> {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).collect()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    assert!(lengths.len() + codings.len() <= 1, "framed twice: {head}");
    assert_eq!(values("host").len(), 1, "{head}");
    let after_head = &bytes[head_end..];
    let (body, length) = match (lengths.first(), codings.first()) {
        (Some(length), _) => {
            let length = length.parse().unwrap();
            (after_head.get(..length)?.to_vec(), length)
        }
        (None, Some(coding)) => {
            assert_eq!(coding, "chunked", "{head}");
            chunks(after_head)?
        }
        (None, None) => (Vec::new(), 0),
    };
    let target = head.split(' ').nth(1).unwrap().to_owned();
    Some((Arrival { head, target, body, is_complete: true }, head_end + length))
}

/// Decodes a chunked body. Returns its data and encoded length, or `None` if it is incomplete.
fn chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut data, mut at) = (Vec::new(), 0);
    loop {
        let line = bytes[at..].windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap_or_else(|err| panic!("{err}: chunk size {size:?}"));
        at += line + 2;
        data.extend_from_slice(bytes.get(at..at + size)?);
        at += size;
        assert_eq!(bytes.get(at..at + 2)?, b"\r\n", "a chunk does not end, or there are trailers");
        at += 2;
        if size == 0 {
            return Some((data, at));
        }
    }
}
