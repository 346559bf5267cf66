//! Listening sockets that the service manager has opened (socket activation). It keeps them open while the process restarts,
//! so a restart refuses no connection.
//!
//! A socket is for the listener that has its name (`FileDescriptorName=` in systemd), else for the one whose `bind` is its
//! address. It is one socket, of which each worker has a duplicate: connections wait in one queue, and any worker accepts them.
//! Of sockets that the gateway binds itself, each worker has its own.
//!
//! Source: `sd_listen_fds(3)`.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use listenfd::ListenFd;

use super::bind::BoundAddress;
use super::settings::{Bind, ListenerSettings};
use super::socket::StdListener;

/// The listening sockets that the process has inherited. They stay open, so that a listener that is removed and added again gets
/// its socket again.
#[derive(Clone, Debug, Default)]
pub struct InheritedSockets(Arc<[Inherited]>);

#[derive(Debug)]
struct Inherited {
    /// `None` if the service manager gave it none.
    name: Option<String>,
    address: BoundAddress,
    socket: StdListener,
}

/// Why an inherited descriptor cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritedError {
    /// It is no listening socket of a stream.
    #[error(
        "descriptor {number}{name} from the service manager is no listening TCP or Unix stream socket; a systemd socket unit needs `ListenStream=`, and no `Accept=yes`"
    )]
    NotListening {
        /// The descriptor.
        number: usize,
        /// Its name.
        name: String,
    },
    /// Its address or its mode cannot be read.
    #[error("descriptor {number} from the service manager cannot be used")]
    Unusable {
        /// The descriptor.
        number: usize,
        /// The system's reason.
        source: io::Error,
    },
}

/// The number of the first inherited descriptor (`SD_LISTEN_FDS_START`).
const FIRST: usize = 3;

impl InheritedSockets {
    /// Takes the sockets that the environment describes, if they are for this process. Must be called once, before other threads
    /// start: it removes the variables.
    ///
    /// # Errors
    /// [`InheritedError`] for the first descriptor that is no listening stream socket.
    pub fn from_environment() -> Result<Self, InheritedError> {
        // Without this variable, `ListenFd` takes descriptors that may belong to something else.
        let is_for_this = std::env::var("LISTEN_PID").is_ok_and(|id| id == std::process::id().to_string());
        if !is_for_this {
            return Ok(Self::default());
        }
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut descriptors = ListenFd::from_env();
        let sockets = (0..descriptors.len()).map(|index| {
            // `unknown` is systemd's placeholder.
            let name = names.next().filter(|name| !name.is_empty() && *name != "unknown").map(str::to_owned);
            Inherited::take(&mut descriptors, index, name)
        });
        Ok(Self(sockets.collect::<Result<Vec<_>, _>>()?.into()))
    }

    /// Assigns sockets to listeners. Returns the index of the socket of each.
    pub(super) fn assign<'a>(
        &self,
        listeners: impl Iterator<Item = &'a ListenerSettings> + Clone,
    ) -> Vec<Option<usize>> {
        let by_name = |listener: &ListenerSettings| self.by_name(&listener.name);
        let taken: Vec<usize> = listeners.clone().filter_map(by_name).collect();
        let by_address = |bind: &Bind| self.by_address(bind).filter(|index| !taken.contains(index));
        listeners.map(|listener| by_name(listener).or_else(|| by_address(&listener.bind))).collect()
    }

    fn by_name(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|socket| socket.name.as_deref() == Some(name))
    }

    fn by_address(&self, bind: &Bind) -> Option<usize> {
        self.0.iter().position(|socket| socket.address.is_at(bind))
    }

    /// Returns the address of a socket, and a duplicate of it for each worker.
    pub(super) fn duplicate(&self, index: usize, workers: usize) -> io::Result<(BoundAddress, Vec<StdListener>)> {
        let found = self.0.get(index).ok_or(io::ErrorKind::NotFound)?;
        let sockets = (0..workers).map(|_| found.socket.try_clone()).collect::<io::Result<_>>()?;
        Ok((found.address.clone(), sockets))
    }

    /// Returns a duplicate of the TCP socket of the admin listener, if there is one: with the name `admin`, or at its address.
    pub fn admin(&self, bind: SocketAddr) -> Option<io::Result<TcpListener>> {
        let index = self.by_name("admin").or_else(|| self.by_address(&Bind::Tcp(bind)))?;
        match &self.0.get(index)?.socket {
            StdListener::Tcp(socket) => Some(socket.try_clone()),
            StdListener::Unix(_) => None,
        }
    }

    /// Describes the sockets whose address is none of these. Nobody accepts their connections.
    pub fn unused(&self, used: &[BoundAddress]) -> Vec<String> {
        let describe = |socket: &Inherited| match &socket.name {
            Some(name) => format!("`{name}` at {}", socket.address),
            None => socket.address.to_string(),
        };
        self.0.iter().filter(|socket| !used.contains(&socket.address)).map(describe).collect()
    }
}

impl Inherited {
    fn take(descriptors: &mut ListenFd, index: usize, name: Option<String>) -> Result<Self, InheritedError> {
        let number = FIRST + index;
        let not_listening = || {
            let name = name.as_ref().map(|name| format!(" (`{name}`)")).unwrap_or_default();
            InheritedError::NotListening { number, name }
        };
        let socket = match descriptors.take_tcp_listener(index) {
            Ok(Some(socket)) => StdListener::Tcp(socket),
            Ok(None) | Err(_) => match descriptors.take_unix_listener(index) {
                Ok(Some(socket)) => StdListener::Unix(socket),
                Ok(None) | Err(_) => return Err(not_listening()),
            },
        };
        let prepare = || -> io::Result<_> {
            socket.set_nonblocking()?;
            let address = match &socket {
                StdListener::Tcp(socket) => BoundAddress::Tcp(socket.local_addr()?),
                StdListener::Unix(socket) => {
                    BoundAddress::Unix(socket.local_addr()?.as_pathname().map(PathBuf::from).unwrap_or_default())
                }
            };
            Ok((socket.is_listening()?, address))
        };
        let (is_listening, address) = prepare().map_err(|source| InheritedError::Unusable { number, source })?;
        if is_listening { Ok(Self { name, address, socket }) } else { Err(not_listening()) }
    }
}
