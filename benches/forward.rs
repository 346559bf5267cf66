//! Measures one call end to end: a caller on a persistent connection, the gateway with one worker, an upstream.
//!
//! Catches anything that lengthens the request path, such as another system call, a task that must be woken, a timer,
//! or a copy of the body. A call is a round trip over loopback, so most of its time is spent in the kernel. Compare it
//! with a direct call to the upstream.

#![expect(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread::JoinHandle;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Collected, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use signalr_gateway::config::{self, Sources};
use signalr_gateway::gateway::Gateway;
use signalr_gateway::serve::BoundAddress;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// A server on its own thread, stopped on drop.
struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a thread with a runtime and waits for the server's address.
    fn start(serve: impl AsyncFnOnce(oneshot::Sender<SocketAddr>, oneshot::Receiver<()>) + Send + 'static) -> Self {
        let (serving, address) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || runtime().block_on(serve(serving, stopped)));
        let address = address.blocking_recv().expect("the server starts");
        Self { address, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server thread does not panic");
        }
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Answers 202 to a call that carries a bearer, as SignalR does.
async fn accept(request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let is_authorized = request.headers().contains_key("authorization");
    let body = request.into_body().collect().await.map(Collected::to_bytes).unwrap_or_default();
    let is_complete = is_authorized && body.len() == 200;
    let status = if is_complete { StatusCode::ACCEPTED } else { StatusCode::BAD_REQUEST };
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    Ok(response)
}

async fn upstream(serving: oneshot::Sender<SocketAddr>, stopped: oneshot::Receiver<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("the listener is bound");
    serving.send(address).expect("the receiver waits");
    let accept = async {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("TCP_NODELAY is set");
            let service = hyper::service::service_fn(accept);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    };
    tokio::select! {
        () = accept => {}
        _ = stopped => {}
    }
}

/// Writes a configuration file and starts a gateway with it.
fn gateway(folder: &Path, upstream: SocketAddr) -> Server {
    std::fs::write(folder.join("token"), "x".repeat(1500)).expect("the token is written");
    let text = format!(
        "listeners.default.bind = '127.0.0.1:0'\nadmin.bind = 'off'\nprocess.workers = 1\nlogging.access = 'off'\n\
         credentials.bearer = {{ kind = 'token_file', path = 'token' }}\n\
         endpoints.upstream = {{ url = 'http://{upstream}', credential = 'bearer' }}\n"
    );
    let file = folder.join("gateway.toml");
    std::fs::write(&file, text).expect("the configuration is written");
    let sources = Sources { file: Some(file), ..Sources::default() };
    let settings = config::load(&sources).expect("the configuration is valid").settings;
    Server::start(async move |serving, stopped| {
        let control = tokio::runtime::Handle::current();
        let gateway = Gateway::build(settings, &control).await.expect("the gateway is built");
        let announce = |addresses: &signalr_gateway::gateway::Addresses| match addresses.listeners.first() {
            Some((_, BoundAddress::Tcp(address))) => serving.send(*address).expect("the receiver waits"),
            other => panic!("a TCP listener was configured, not {other:?}"),
        };
        gateway.serve(async { drop(stopped.await) }, announce).await.expect("the gateway stops without an error");
    })
}

/// A caller with one persistent connection.
struct Caller {
    stream: TcpStream,
    request: Vec<u8>,
    response: Vec<u8>,
}

impl Caller {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server accepts");
        stream.set_nodelay(true).expect("TCP_NODELAY is set");
        let mut request = format!(
            "POST /api/hubs/chat/:send?api-version=2024-12-01 HTTP/1.1\r\nHost: {address}\r\n\
             User-Agent: azsdk-net-SignalR/1.30\r\nAccept: application/json\r\nAuthorization: Bearer caller\r\n\
             Content-Type: application/json; charset=utf-8\r\nContent-Length: 200\r\n\r\n"
        )
        .into_bytes();
        request.resize(request.len() + 200, b' ');
        Self { stream, request, response: vec![0; 4096] }
    }

    /// Sends a call and reads its response, which arrives in one read.
    fn call(&mut self) {
        self.stream.write_all(&self.request).expect("the request is sent");
        let length = self.stream.read(&mut self.response).expect("a response");
        let response = self.response.get(..length).unwrap_or_default();
        assert!(response.starts_with(b"HTTP/1.1 202") && response.ends_with(b"\r\n\r\n"), "a response without a body");
    }
}

fn forward(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder for the files");
    let upstream = Server::start(upstream);
    let gateway = gateway(folder.path(), upstream.address);
    let mut group = criterion.benchmark_group("forward");
    for (name, address) in [("direct", upstream.address), ("through_the_gateway", gateway.address)] {
        let mut caller = Caller::connect(address);
        group.bench_function(name, |bencher| bencher.iter(|| caller.call()));
    }
    group.finish();
    // Drop the gateway before the upstream.
    drop(gateway);
}

criterion_group!(benches, forward);
criterion_main!(benches);
