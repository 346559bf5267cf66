//! Binds the sockets. Every worker gets a TCP socket of its own on the same address (`SO_REUSEPORT`), so the kernel
//! spreads connections and workers never share an accept queue.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio_rustls::TlsAcceptor;

use super::socket::StdListener;
use super::{Bind, ListenerSettings, ListenerTlsSettings};

/// Connections that may wait to be accepted, for each worker.
const BACKLOG: i32 = 1024;

/// Why a listener could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is taken.
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
    /// Something that is not a socket is in the way.
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
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Where a listener ended up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoundAddress {
    /// A TCP address, with the port that was taken.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for BoundAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One listener, bound: a socket for each worker.
pub(super) struct BoundListener {
    pub(super) address: BoundAddress,
    pub(super) sockets: Vec<StdListener>,
    pub(super) tls: Option<TlsAcceptor>,
}

impl BoundListener {
    pub(super) fn bind(settings: &ListenerSettings, workers: usize) -> Result<Self, BindError> {
        let tls = settings.tls.as_ref().map(|tls| acceptor(&settings.name, tls)).transpose()?;
        let (address, sockets) = match &settings.bind {
            Bind::Tcp(address) => {
                bind_tcp(*address, workers).map_err(|source| bind_error(settings, address, source))?
            }
            Bind::Unix { path, mode } => bind_unix(settings, path, *mode, workers)?,
        };
        Ok(Self { address, sockets, tls })
    }
}

fn bind_error(settings: &ListenerSettings, address: &dyn std::fmt::Display, source: io::Error) -> BindError {
    let (listener, address) = (settings.name.clone(), address.to_string());
    if source.kind() == io::ErrorKind::AddrInUse {
        BindError::InUse { listener, address }
    } else {
        BindError::Bind { listener, address, source }
    }
}

fn bind_tcp(address: SocketAddr, workers: usize) -> io::Result<(BoundAddress, Vec<StdListener>)> {
    // Without SO_REUSEPORT this fails if anybody listens there, a second gateway too. With it, two gateways would
    // share the port and each take some of the callers.
    drop(tcp_socket(address, false)?);
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

/// Workers share one Unix socket: the kernel has no `SO_REUSEPORT` for them.
fn bind_unix(
    settings: &ListenerSettings,
    path: &Path,
    mode: u32,
    workers: usize,
) -> Result<(BoundAddress, Vec<StdListener>), BindError> {
    match std::fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => {
            return Err(BindError::NotASocket { listener: settings.name.clone(), path: path.to_owned() });
        }
        // A socket that somebody answers on is in use; one that nobody does was left by a program that died.
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(bind_error(settings, &path.display(), io::ErrorKind::AddrInUse.into()));
        }
        Ok(_) => std::fs::remove_file(path).map_err(|source| bind_error(settings, &path.display(), source))?,
        Err(_absent) => {}
    }
    let bind = || -> io::Result<Vec<StdListener>> {
        let socket = StdUnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        socket.set_nonblocking(true)?;
        let mut sockets = Vec::with_capacity(workers);
        for _ in 1..workers {
            sockets.push(StdListener::Unix(socket.try_clone()?));
        }
        sockets.push(StdListener::Unix(socket));
        Ok(sockets)
    };
    let sockets = bind().map_err(|source| bind_error(settings, &path.display(), source))?;
    Ok((BoundAddress::Unix(path.to_owned()), sockets))
}

fn acceptor(listener: &str, settings: &ListenerTlsSettings) -> Result<TlsAcceptor, BindError> {
    let load = || -> Result<rustls::ServerConfig, Box<dyn std::error::Error + Send + Sync>> {
        let chain = CertificateDer::pem_file_iter(&settings.certificate)?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(&settings.key)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    };
    let config = load().map_err(|source| BindError::Tls {
        listener: listener.to_owned(),
        certificate: settings.certificate.clone(),
        key: settings.key.clone(),
        source,
    })?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(address: &str) -> ListenerSettings {
        ListenerSettings { name: "default".into(), bind: Bind::Tcp(address.parse().unwrap()), tls: None }
    }

    #[test]
    fn workers_share_one_free_port() {
        let bound = BoundListener::bind(&tcp("127.0.0.1:0"), 3).unwrap();
        assert_eq!(bound.sockets.len(), 3);
        assert!(matches!(bound.address, BoundAddress::Tcp(address) if address.port() != 0));
    }

    #[test]
    fn a_port_that_another_gateway_has_is_in_use() {
        let first = BoundListener::bind(&tcp("127.0.0.1:0"), 2).unwrap();
        let second = BoundListener::bind(&tcp(&first.address.to_string()), 2);
        assert!(matches!(second, Err(BindError::InUse { .. })));
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let unix = |name: &str| ListenerSettings {
            name: "local".into(),
            bind: Bind::Unix { path: dir.path().join(name), mode: 0o600 },
            tls: None,
        };
        drop(BoundListener::bind(&unix("stale"), 1).unwrap());
        let bound = BoundListener::bind(&unix("stale"), 2).unwrap();
        let mode = std::fs::metadata(dir.path().join("stale")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(BoundListener::bind(&unix("stale"), 1), Err(BindError::InUse { .. })));
        drop(bound);

        std::fs::write(dir.path().join("file"), "precious").unwrap();
        assert!(matches!(BoundListener::bind(&unix("file"), 1), Err(BindError::NotASocket { .. })));
        assert_eq!(std::fs::read(dir.path().join("file")).unwrap(), b"precious");
    }
}
