//! The port of a server.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// The length of the accept queue. Chosen: more than any test opens at once.
const BACKLOG: u32 = 1024;

/// The pause after a failed accept or bind.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// A bound port that stays reserved while the server does not listen.
pub(crate) struct Port {
    pub(super) address: SocketAddr,
    pub(super) listener: TcpListener,
    // Bound, but not listening. It reserves the port while the listener is closed.
    pub(super) _placeholder: Option<TcpSocket>,
}

impl Port {
    /// Binds an address. Port 0 selects a free port.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = bind_reusable(address)?;
        let address = socket.local_addr()?;
        // On systems that do not allow two sockets on one port, the port is not reserved.
        let placeholder = bind_reusable(address).ok();
        Ok(Self { address, listener: socket.listen(BACKLOG)?, _placeholder: placeholder })
    }

    /// Returns the bound address.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts a connection.
    pub(super) async fn accept(&self) -> io::Result<TcpStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

/// Binds a socket with `SO_REUSEADDR`.
fn bind_reusable(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Listens on an address, and retries until the port is free.
pub(super) async fn listen_again(address: SocketAddr) -> TcpListener {
    loop {
        match bind_reusable(address).and_then(|socket| socket.listen(BACKLOG)) {
            Ok(listener) => return listener,
            Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
        }
    }
}
