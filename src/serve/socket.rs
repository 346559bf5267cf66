//! TCP and Unix sockets behind one type, so that the accept loop is written once and the connection code compiled once.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, TcpStream as StdTcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

/// A bound socket outside of a runtime.
#[derive(Debug)]
pub(super) enum StdListener {
    Tcp(StdTcpListener),
    Unix(StdUnixListener),
}

impl StdListener {
    /// Returns another descriptor of the same socket.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(socket.try_clone()?),
            Self::Unix(socket) => Self::Unix(socket.try_clone()?),
        })
    }

    /// Makes calls on all descriptors of the socket return at once.
    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.set_nonblocking(true),
            Self::Unix(socket) => socket.set_nonblocking(true),
        }
    }

    /// Returns whether the socket accepts connections, and is not one itself.
    pub(super) fn is_listening(&self) -> io::Result<bool> {
        match self {
            Self::Tcp(socket) => SockRef::from(socket).is_listener(),
            Self::Unix(socket) => SockRef::from(socket).is_listener(),
        }
    }
}

/// A connection outside of a runtime, and its peer's address.
pub(super) enum StdStream {
    Tcp(StdTcpStream, SocketAddr),
    Unix(StdUnixStream),
}

/// A listening socket of this thread's runtime.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The bytes of a connection.
pub(super) type ByteStream = Either<TcpStream, UnixStream>;

/// A connection of this thread's runtime, and its peer's address.
pub(super) enum Stream {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Listener {
    pub(super) fn from_std(socket: StdListener) -> io::Result<Self> {
        Ok(match socket {
            StdListener::Tcp(socket) => Self::Tcp(TcpListener::from_std(socket)?),
            StdListener::Unix(socket) => Self::Unix(UnixListener::from_std(socket)?),
        })
    }

    /// Waits for a connection.
    ///
    /// # Cancel safety
    /// Safe: a connection that is not returned stays in the queue.
    pub(super) async fn accept(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(socket) => socket.accept().await.map(|(stream, peer)| Stream::Tcp(stream, peer))?,
            Self::Unix(socket) => socket.accept().await.map(|(stream, _)| Stream::Unix(stream))?,
        })
    }

    /// Returns the socket outside of the runtime.
    pub(super) fn into_std(self) -> io::Result<StdListener> {
        Ok(match self {
            Self::Tcp(socket) => StdListener::Tcp(socket.into_std()?),
            Self::Unix(socket) => StdListener::Unix(socket.into_std()?),
        })
    }

    /// Accepts every connection in the kernel's queue, also those that the runtime was not notified of. Returns the socket too.
    pub(super) fn accept_queued(self) -> io::Result<(StdListener, Vec<Stream>)> {
        let socket = self.into_std()?;
        let mut queued = Vec::new();
        match &socket {
            StdListener::Tcp(socket) => {
                while let Ok((stream, peer)) = socket.accept() {
                    queued.push(Stream::from_std(StdStream::Tcp(stream, peer))?);
                }
            }
            StdListener::Unix(socket) => {
                while let Ok((stream, _)) = socket.accept() {
                    queued.push(Stream::from_std(StdStream::Unix(stream))?);
                }
            }
        }
        Ok((socket, queued))
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream, _) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Stream {
    pub(super) fn from_std(stream: StdStream) -> io::Result<Self> {
        Ok(match stream {
            StdStream::Tcp(stream, peer) => {
                stream.set_nonblocking(true)?;
                Self::Tcp(TcpStream::from_std(stream)?, peer)
            }
            StdStream::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Self::Unix(UnixStream::from_std(stream)?)
            }
        })
    }

    pub(super) fn into_std(self) -> io::Result<StdStream> {
        Ok(match self {
            Self::Tcp(stream, peer) => StdStream::Tcp(stream.into_std()?, peer),
            Self::Unix(stream) => StdStream::Unix(stream.into_std()?),
        })
    }

    /// Returns the byte stream and the peer's address; `None` on a Unix socket.
    pub(super) fn into_parts(self) -> (ByteStream, Option<SocketAddr>) {
        match self {
            Self::Tcp(stream, peer) => {
                // Responses are small; Nagle's algorithm would delay them.
                let _without = stream.set_nodelay(true);
                (Either::Left(stream), Some(peer))
            }
            Self::Unix(stream) => (Either::Right(stream), None),
        }
    }
}
