//! Binds the listening sockets. Every worker has its own TCP socket on the same address (`SO_REUSEPORT`), so the kernel
//! distributes connections and workers share no accept queue.

use std::fs::{File, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::settings::{Bind, ListenerSettings, ListenerTlsSettings};
use super::socket::StdListener;
use super::tls_files::TlsFileError;

/// The length of each worker's accept queue.
const BACKLOG: i32 = 1024;

/// Why a listener could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is in use.
    #[error("listener `{listener}`: {address} is in use by another program; stop it or choose another address")]
    InUse {
        /// The configured name.
        listener: String,
        /// The address.
        address: String,
    },
    /// The address cannot be bound for another reason.
    #[error("listener `{listener}`: cannot listen on {address}")]
    Bind {
        /// The configured name.
        listener: String,
        /// The address.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A file that is not a socket exists at the path.
    #[error("listener `{listener}`: {path} exists and is not a socket; remove it or choose another path", path = path.display())]
    NotASocket {
        /// The configured name.
        listener: String,
        /// The path.
        path: PathBuf,
    },
    /// The certificate or its key cannot be used.
    #[error("listener `{listener}`: cannot use the TLS certificate {certificate} with the key {key}",
        certificate = certificate.display(), key = key.display())]
    Tls {
        /// The configured name.
        listener: String,
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
        /// The reason.
        source: TlsFileError,
    },
    /// The CAs or the revocation lists for callers' certificates cannot be used.
    #[error("listener `{listener}`: callers' certificates cannot be verified")]
    ClientAuth {
        /// The configured name.
        listener: String,
        /// The reason.
        source: TlsFileError,
    },
}

impl BindError {
    /// Returns the error of a listener whose TLS cannot be loaded.
    pub(super) fn tls(listener: &str, settings: &ListenerTlsSettings, source: TlsFileError) -> Self {
        let listener = listener.to_owned();
        let is_own = |path: &Path| [&settings.certificate, &settings.key].iter().any(|own| *own == path);
        if source.path().is_some_and(|path| !is_own(path)) {
            return Self::ClientAuth { listener, source };
        }
        let (certificate, key) = (settings.certificate.clone(), settings.key.clone());
        Self::Tls { listener, certificate, key, source }
    }
}

/// The address of a bound listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoundAddress {
    /// A TCP address with its actual port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl BoundAddress {
    /// Returns whether it is the address of `bind`. Port 0 never matches.
    pub(super) fn is_at(&self, bind: &Bind) -> bool {
        match (bind, self) {
            (Bind::Tcp(wanted), Self::Tcp(address)) => wanted == address,
            (Bind::Unix { path, .. }, Self::Unix(address)) => path == address,
            (Bind::Tcp(_), Self::Unix(_)) | (Bind::Unix { .. }, Self::Tcp(_)) => false,
        }
    }
}

impl std::fmt::Display for BoundAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Binds a listener: a socket for each worker. `overlaps_own` says that its address overlaps that of a listener of this process
/// that is about to be closed.
pub(super) fn bind(
    settings: &ListenerSettings,
    workers: usize,
    overlaps_own: bool,
) -> Result<(BoundAddress, Vec<StdListener>), BindError> {
    match &settings.bind {
        Bind::Tcp(address) => {
            bind_tcp(*address, workers, overlaps_own).map_err(|source| bind_error(settings, address, source))
        }
        Bind::Unix { path, mode } => bind_unix(settings, path, *mode, workers),
    }
}

pub(super) fn bind_error(settings: &ListenerSettings, address: &dyn std::fmt::Display, source: io::Error) -> BindError {
    let (listener, address) = (settings.name.clone(), address.to_string());
    if source.kind() == io::ErrorKind::AddrInUse {
        BindError::InUse { listener, address }
    } else {
        BindError::Bind { listener, address, source }
    }
}

fn bind_tcp(address: SocketAddr, workers: usize, overlaps_own: bool) -> io::Result<(BoundAddress, Vec<StdListener>)> {
    // Without SO_REUSEPORT, this fails if a process listens on the address, another gateway included. With it, two gateways
    // would share the port, and each would get some of the callers.
    if !overlaps_own {
        drop(tcp_socket(address, false)?);
    }
    let first = tcp_socket(address, true)?;
    let address = first.local_addr()?;
    let mut sockets = vec![StdListener::Tcp(first)];
    for _ in 1..workers {
        sockets.push(StdListener::Tcp(tcp_socket(address, true)?));
    }
    Ok((BoundAddress::Tcp(address), sockets))
}

fn tcp_socket(address: SocketAddr, reuse_port: bool) -> io::Result<StdTcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // Connections of an earlier run may still be in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Binds one Unix socket that all workers share, since the kernel has no `SO_REUSEPORT` for Unix sockets.
fn bind_unix(
    settings: &ListenerSettings,
    path: &Path,
    mode: u32,
    workers: usize,
) -> Result<(BoundAddress, Vec<StdListener>), BindError> {
    let failed = |source| bind_error(settings, &path.display(), source);
    match std::fs::symlink_metadata(path) {
        // A symbolic link to a socket is not replaced either.
        Ok(file) if !file.file_type().is_socket() => {
            return Err(BindError::NotASocket { listener: settings.name.clone(), path: path.to_owned() });
        }
        Ok(_) if is_in_use(path).map_err(failed)? => return Err(failed(io::ErrorKind::AddrInUse.into())),
        Ok(_) => std::fs::remove_file(path).map_err(failed)?,
        Err(_absent) => {}
    }
    let bind = || -> io::Result<Vec<StdListener>> {
        let socket = StdListener::Unix(unix_socket(path, mode)?.into());
        (0..workers).map(|_| socket.try_clone()).collect()
    };
    let sockets = bind().map_err(failed)?;
    Ok((BoundAddress::Unix(path.to_owned()), sockets))
}

/// Returns whether a program listens on the socket at this path. Does not block.
pub(super) fn is_in_use(path: &Path) -> io::Result<bool> {
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    let Err(err) = probe.connect(&SockAddr::unix(path)?) else { return Ok(true) };
    match Errno::from_io_error(&err) {
        Some(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        // Its accept queue is full, or it is a datagram socket.
        Some(Errno::AGAIN | Errno::PROTOTYPE) => Ok(true),
        _ => Err(err),
    }
}

/// Binds a Unix socket that never has more permissions than `mode`, and listens on it.
fn unix_socket(path: &Path, mode: u32) -> io::Result<Socket> {
    // The file inherits the permissions of the socket at the time of binding, minus the umask.
    let socket = File::from(OwnedFd::from(Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?));
    socket.set_permissions(Permissions::from_mode(mode))?;
    let socket = Socket::from(OwnedFd::from(socket));
    socket.bind(&SockAddr::unix(path)?)?;
    set_mode(path, mode)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Sets the permissions of the Unix socket at a path.
pub(super) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let bound = file.metadata()?;
    if !bound.file_type().is_socket() {
        return Err(io::Error::other("another program replaced the socket"));
    }
    if bound.mode() & 0o7777 != mode {
        // By the descriptor, since the path may meanwhile be a link to another file.
        std::fs::set_permissions(format!("/proc/self/fd/{}", file.as_raw_fd()), Permissions::from_mode(mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(address: &str) -> ListenerSettings {
        ListenerSettings {
            name: "default".into(),
            bind: Bind::Tcp(address.parse().unwrap()),
            tls: None,
            proxy_protocol: None,
        }
    }

    fn address_and_sockets(settings: &ListenerSettings, workers: usize) -> (BoundAddress, Vec<StdListener>) {
        bind(settings, workers, false).unwrap()
    }

    #[test]
    fn workers_share_one_free_port() {
        let (address, sockets) = address_and_sockets(&tcp("127.0.0.1:0"), 3);
        assert_eq!(sockets.len(), 3);
        assert!(matches!(address, BoundAddress::Tcp(address) if address.port() != 0));
    }

    #[test]
    fn port_of_another_gateway_is_in_use() {
        let (address, _sockets) = address_and_sockets(&tcp("127.0.0.1:0"), 2);
        let second = bind(&tcp(&address.to_string()), 2, false);
        assert!(matches!(second, Err(BindError::InUse { .. })));
        assert!(bind(&tcp(&address.to_string()), 2, true).is_ok(), "a listener of this process is about to be closed");
    }

    fn unix(path: &Path) -> ListenerSettings {
        ListenerSettings {
            name: "local".into(),
            bind: Bind::Unix { path: path.to_owned(), mode: 0o666 },
            tls: None,
            proxy_protocol: None,
        }
    }

    fn is_bind_in_use(path: &Path) -> bool {
        matches!(bind(&unix(path), 1, false), Err(BindError::InUse { .. }))
    }

    #[test]
    fn replaces_a_stale_socket_and_keeps_other_files() {
        let dir = tempfile::tempdir().unwrap();
        let (stale, file, link) = (dir.path().join("stale"), dir.path().join("file"), dir.path().join("link"));
        drop(address_and_sockets(&unix(&stale), 1));
        let bound = address_and_sockets(&unix(&stale), 2);
        // The umask does not apply.
        assert_eq!(std::fs::metadata(&stale).unwrap().permissions().mode() & 0o7777, 0o666);
        assert!(is_bind_in_use(&stale));
        drop(bound);

        std::fs::write(&file, "content").unwrap();
        std::os::unix::fs::symlink(&stale, &link).unwrap();
        for path in [&file, &link] {
            assert!(matches!(bind(&unix(path), 1, false), Err(BindError::NotASocket { .. })));
        }
        assert_eq!(std::fs::read(&file).unwrap(), b"content");
        assert!(std::fs::symlink_metadata(&stale).is_ok() && std::fs::symlink_metadata(&link).is_ok());
    }

    #[test]
    fn unix_socket_of_another_program_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("datagrams");
        let datagrams = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        assert!(is_bind_in_use(&path));
        drop(datagrams);
        assert!(bind(&unix(&path), 1, false).is_ok());

        let path = dir.path().join("busy");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        socket.listen(0).unwrap();
        let mut waiting = Vec::new();
        loop {
            let caller = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).unwrap();
            if caller.connect(&SockAddr::unix(&path).unwrap()).is_err() {
                break;
            }
            waiting.push(caller);
        }
        assert!(!waiting.is_empty());
        assert!(is_bind_in_use(&path), "its accept queue is full");
    }

    #[test]
    fn unix_socket_never_has_more_permissions_than_configured() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("private");
        let socket = unix_socket(&path, 0o600).unwrap();
        let file = File::from(OwnedFd::from(socket));
        // The socket's own mode, which the file inherited when it was bound.
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    }
}
