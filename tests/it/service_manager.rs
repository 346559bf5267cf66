//! The protocol of systemd, by environment: messages about the state of the process, and sockets that outlive it.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signalr_gateway::sandbox::GatewayConfig;

use crate::support::{
    BROADCAST_BODY, Caller, HarnessBuilder, Process, Program, TEST_TIMEOUT, broadcast_request, request, wait_until,
};

/// The socket of a service manager that receives messages.
struct Manager(UnixDatagram);

impl Manager {
    fn bind(address: &SocketAddr) -> Self {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        socket.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        Self(socket)
    }

    /// Receives the variables of the next message that has one which begins with `wanted`.
    fn next(&self, wanted: &str) -> Vec<String> {
        loop {
            let mut buffer = [0; 4096];
            let length = match self.0.recv(&mut buffer) {
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                received => received.unwrap_or_else(|err| panic!("no {wanted}: {err}")),
            };
            let message: Vec<String> =
                std::str::from_utf8(&buffer[..length]).unwrap().lines().map(str::to_owned).collect();
            if message.iter().any(|line| line.starts_with(wanted)) {
                return message;
            }
        }
    }
}

/// Writes the configuration of a gateway in front of a sandbox. Returns its path.
fn configuration(builder: &HarnessBuilder) -> PathBuf {
    builder.write_files(&GatewayConfig::default()).config
}

async fn broadcast(process: &Process) {
    let mut caller = Caller::connect(process.listener()).await;
    caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
}

#[tokio::test]
async fn reports_ready_reloading_alive_and_stopping() {
    let builder = HarnessBuilder::start().await;
    let (config, folder) = (configuration(&builder), builder.folder.path());
    let path = folder.join("notify.sock");
    let name = format!("signalr-gateway-{}", std::process::id());
    let sockets = [
        (path.to_str().unwrap().to_owned(), SocketAddr::from_pathname(&path).unwrap()),
        (format!("@{name}"), SocketAddr::from_abstract_name(name.as_bytes()).unwrap()),
    ];
    for (variable, address) in sockets {
        let manager = Manager::bind(&address);
        let environment = [("NOTIFY_SOCKET", variable.as_str()), ("WATCHDOG_USEC", "400000")];
        let process = Program::as_service(&[], &config, &[]).environment(&environment).start(folder).await;
        let ready = manager.next("READY=1");
        assert!(ready[1].starts_with(&format!("STATUS=serving default at {}", process.listener())), "{ready:?}");
        for _ in 0..3 {
            assert_eq!(manager.next("WATCHDOG="), ["WATCHDOG=1"]);
        }

        let text = std::fs::read_to_string(&config).unwrap();
        process.hang_up().await;
        let reloading = manager.next("RELOADING=1");
        let micros: u64 = reloading[1].strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!(micros > 0, "{reloading:?}");
        assert!(manager.next("READY=1")[1].starts_with("STATUS=serving"), "the reload has finished");

        std::fs::write(&config, format!("{text}\n[nonsense]\n")).unwrap();
        process.hang_up().await;
        manager.next("RELOADING=1");
        let rejected = manager.next("READY=1");
        assert!(rejected[1].contains("rejected") && rejected[1].contains("nonsense"), "{rejected:?}");
        std::fs::write(&config, text).unwrap();

        process.terminate().await;
        manager.next("STOPPING=1");
        assert_eq!(process.wait().await.0.code(), Some(0));
        let _removed = std::fs::remove_file(&path);
    }
}

#[tokio::test]
async fn watchdog_of_another_process_is_ignored() {
    let builder = HarnessBuilder::start().await;
    let (config, folder) = (configuration(&builder), builder.folder.path());
    let path = folder.join("notify.sock");
    let manager = Manager::bind(&SocketAddr::from_pathname(&path).unwrap());
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "20000"), ("WATCHDOG_PID", "1")];
    let process = Program::as_service(&[], &config, &[]).environment(&environment).start(folder).await;
    manager.next("READY=1");
    process.terminate().await;
    assert_eq!(manager.next("")[0], "STOPPING=1", "a message was sent in between");
    process.wait().await;
}

/// A gateway whose listener has a socket that its processes inherit one after the other.
struct Inherited {
    builder: HarnessBuilder,
    address: std::net::SocketAddr,
    sockets: [(&'static str, OwnedFd); 1],
}

impl Inherited {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        Self { builder: HarnessBuilder::start().await, address, sockets: [("default", OwnedFd::from(listener))] }
    }

    async fn start(&self) -> Process {
        let config = configuration(&self.builder);
        let program = Program::as_service(&self.sockets, &config, &["process.workers=2"]);
        program.start(self.builder.folder.path()).await
    }
}

#[tokio::test]
async fn connection_during_a_restart_with_inherited_sockets_waits_for_the_next_process() {
    let inherited = Inherited::new().await;
    let address = inherited.address;
    let mut process = inherited.start().await;
    assert_eq!(process.listener(), address, "it has the inherited socket instead of its `bind`");
    process.wait_until_credentials_are("ready").await;

    for _ in 0..2 {
        process.terminate().await;
        assert_eq!(process.wait().await.0.code(), Some(0));
        // Nobody accepts now, and the connection waits in the queue of the socket.
        let mut waiting = Caller::connect(address).await;
        process = inherited.start().await;
        process.wait_until_credentials_are("ready").await;
        waiting.send(request("HEAD", "/api/health"), "").await.assert_status(200);
        broadcast(&process).await;
    }
}

/// Connects and asks for the health of the gateway, each time by a new connection, until `is_stopped`. Returns how often.
fn call_until(address: std::net::SocketAddr, is_stopped: &AtomicBool) -> io::Result<usize> {
    let mut calls = 0;
    while !is_stopped.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"HEAD /api/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        stream.set_read_timeout(Some(TEST_TIMEOUT))?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        if !response.starts_with("HTTP/1.1 ") {
            return Err(io::Error::other(format!("call {calls} was answered {response:?}")));
        }
        calls += 1;
    }
    Ok(calls)
}

#[tokio::test]
async fn restarts_with_inherited_sockets_refuse_no_connection_and_cut_none_off() {
    let inherited = Inherited::new().await;
    let address = inherited.address;
    let mut process = inherited.start().await;
    let is_stopped = Arc::new(AtomicBool::new(false));
    let callers = (0..8).map(|_| {
        let is_stopped = Arc::clone(&is_stopped);
        std::thread::spawn(move || call_until(address, &is_stopped))
    });
    let callers: Vec<_> = callers.collect();
    for _ in 0..4 {
        process.terminate().await;
        assert_eq!(process.wait().await.0.code(), Some(0));
        process = inherited.start().await;
    }
    is_stopped.store(true, Ordering::Relaxed);
    for caller in callers {
        let calls = tokio::task::spawn_blocking(|| caller.join().unwrap()).await.unwrap().unwrap();
        assert!(calls > 0);
    }
    process.terminate().await;
    process.wait().await;
}

#[tokio::test]
async fn inherited_sockets_belong_to_listeners_by_name_or_address_and_others_are_reported() {
    let builder = HarnessBuilder::start().await;
    let (config, folder) = (configuration(&builder), builder.folder.path());
    let path = folder.join("gateway.sock");
    let local = UnixListener::bind(&path).unwrap();
    let unused = TcpListener::bind("127.0.0.1:0").unwrap();
    let unused_address = unused.local_addr().unwrap();
    let text = std::fs::read_to_string(&config).unwrap();
    let listener = format!("[listeners.local]\nbind = \"unix:{}\"\n", path.display());
    std::fs::write(&config, format!("{text}\n{listener}")).unwrap();
    let sockets = [("unknown", OwnedFd::from(local)), ("nobody", OwnedFd::from(unused))];
    let process = Program::as_service(&sockets, &config, &[]).start(folder).await;
    process.wait_until_credentials_are("ready").await;
    Caller::connect_unix(&path).await.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    let log = process.log();
    assert!(log.contains("no listener uses this socket"), "{log}");
    assert!(log.contains(&format!("`nobody` at {unused_address}")), "{log}");

    // A listener that is removed and added again gets the socket again, whose path stays.
    std::fs::write(&config, &text).unwrap();
    process.hang_up().await;
    let listeners = async || process.status().await["listeners"].as_array().unwrap().len();
    wait_until("the listener is removed", async || (listeners().await == 1).then_some(())).await;
    assert!(path.exists());
    std::fs::write(&config, format!("{text}\n{listener}")).unwrap();
    process.hang_up().await;
    wait_until("the listener is added", async || (listeners().await == 2).then_some(())).await;
    Caller::connect_unix(&path).await.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    process.terminate().await;
    process.wait().await;
    assert!(path.exists(), "the socket of the service manager was removed");
}

#[tokio::test]
async fn descriptor_that_does_not_listen_is_reported() {
    let builder = HarnessBuilder::start().await;
    let config = configuration(&builder);
    let datagram = UnixDatagram::unbound().unwrap();
    let finished = Program::as_service(&[("default", OwnedFd::from(datagram))], &config, &[]).run().await;
    assert_eq!(finished.code, Some(2), "{finished:?}");
    let expected = "descriptor 3 (`default`) from the service manager is no listening";
    assert!(finished.stderr.contains(expected), "{finished:?}");
}
