//! An HTTP/2 endpoint that writes raw frames, for what no HTTP library would do. It listens without TLS.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::wait_until;

/// The reply to a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reply {
    /// 202 without a body.
    Accept,
    /// 202 and a body of three DATA frames, the second of them empty, and `END_STREAM` in a fourth.
    EmptyFrame,
    /// `RST_STREAM` with this error code.
    Reset(u32),
    /// GOAWAY.
    GoAway {
        /// How many streams the last processed stream is before that of the request.
        streams_before: u32,
        /// Whether the request is answered with 202 afterwards.
        answered: bool,
    },
}

/// An endpoint that answers 202 unless it has other replies.
pub(crate) struct Http2Endpoint {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    replies: Mutex<VecDeque<Reply>>,
    /// The connection number of each request, without health probes.
    requests: Mutex<Vec<usize>>,
    connections: Mutex<usize>,
}

impl Http2Endpoint {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let served = Arc::clone(&shared);
        // Ends with the test's runtime.
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&served);
                tokio::spawn(async move { drop(serve(stream, &shared).await) });
            }
        });
        Self { address, shared, accepting }
    }

    /// Refuses further connections. Open ones continue.
    pub(crate) async fn stop_accepting(&self) {
        self.accepting.abort();
        wait_until("connections are refused", async || TcpStream::connect(self.address).await.is_err().then_some(()))
            .await;
    }

    /// Sets the replies to the next requests.
    pub(crate) fn reply(&self, replies: &[Reply]) {
        self.shared.replies.lock().unwrap().extend(replies);
    }

    /// Takes the connection numbers of the requests so far, in order.
    pub(crate) fn requests(&self) -> Vec<usize> {
        std::mem::take(&mut *self.shared.requests.lock().unwrap())
    }

    /// Returns how many connections carried a request other than a health probe.
    pub(crate) fn connections(&self) -> usize {
        *self.shared.connections.lock().unwrap()
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 202` as a literal without indexing (RFC 7541 section 6.2.2).
const ACCEPTED: &[u8] = b"\x08\x03202";

async fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await?;
    if !preface.starts_with(b"PRI * HTTP/2.0") {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    write(&mut stream, SETTINGS, 0, 0, &[]).await?;
    let mut number = None;
    let mut probes = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags, id) = (head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await?;
        match kind {
            SETTINGS if flags & ACK == 0 => write(&mut stream, SETTINGS, ACK, 0, &[]).await?,
            PING if flags & ACK == 0 => write(&mut stream, PING, ACK, 0, &payload).await?,
            HEADERS | DATA => {
                if kind == HEADERS && is_head(&payload) {
                    probes.push(id);
                }
                if flags & END_STREAM == 0 {
                    continue;
                }
                if probes.contains(&id) {
                    write(&mut stream, HEADERS, END_HEADERS | END_STREAM, id, ACCEPTED).await?;
                    continue;
                }
                let number = *number.get_or_insert_with(|| {
                    let mut connections = shared.connections.lock().unwrap();
                    *connections += 1;
                    *connections - 1
                });
                shared.requests.lock().unwrap().push(number);
                let reply = shared.replies.lock().unwrap().pop_front().unwrap_or(Reply::Accept);
                write_reply(&mut stream, id, reply).await?;
            }
            _ => {}
        }
    }
}

async fn write_reply(stream: &mut TcpStream, id: u32, reply: Reply) -> std::io::Result<()> {
    let answered = match reply {
        Reply::Accept => true,
        Reply::EmptyFrame => {
            write(stream, HEADERS, END_HEADERS, id, ACCEPTED).await?;
            for piece in [b"be" as &[u8], b"", b"fore"] {
                write(stream, DATA, 0, id, piece).await?;
            }
            write(stream, DATA, END_STREAM, id, b"").await?;
            false
        }
        Reply::Reset(code) => {
            write(stream, RST_STREAM, 0, id, &code.to_be_bytes()).await?;
            false
        }
        Reply::GoAway { streams_before, answered } => {
            let last = id.saturating_sub(2 * streams_before).to_be_bytes();
            write(stream, GOAWAY, 0, 0, &[last, [0; 4]].concat()).await?;
            answered
        }
    };
    if answered {
        write(stream, HEADERS, END_HEADERS | END_STREAM, id, ACCEPTED).await?;
    }
    Ok(())
}

/// Whether a header block has the method `HEAD`, as text or Huffman-coded (RFC 7541 appendix B). Only health probes do.
fn is_head(block: &[u8]) -> bool {
    const HUFFMAN: &[u8] = &[0xc7, 0x82, 0x1b, 0xff];
    let holds = |needle: &[u8]| block.windows(needle.len()).any(|window| window == needle);
    holds(b"HEAD") || holds(HUFFMAN)
}

async fn write(stream: &mut TcpStream, kind: u8, flags: u8, id: u32, payload: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&id.to_be_bytes());
    frame.extend_from_slice(payload);
    stream.write_all(&frame).await
}
