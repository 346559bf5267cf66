//! Connections to a Redis server: TCP, TLS or a Unix socket, then user, password and database.
//!
//! The password is written here and not by the client library, which would keep copies of it.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::error::{StoreError, StoreFailure};
use super::settings::{StoreAddress, StoreSettings};
use crate::files::SecretText;
use crate::redact::in_one_line;
use crate::runbook::{Condition, Section};
use crate::tls::{self, Trust, client_config};

/// The longest line that is read before the client library takes over, in bytes.
const MAX_LINE: usize = 512;

/// A connection to a store.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Sync {}

impl<S: AsyncRead + AsyncWrite + Send + Sync> Stream for S {}

/// The TLS configuration of connections to a store. Its CAs are read for each connection; those that were read before stay in use
/// while the file cannot be used.
#[derive(Debug, Default)]
pub(super) struct StoreTls(Mutex<LastRead>);

#[derive(Debug, Default)]
struct LastRead {
    config: Option<Arc<ClientConfig>>,
    /// Why the file cannot be used, if it cannot.
    problem: Option<String>,
}

impl StoreTls {
    /// Reads the CAs.
    async fn config(&self, ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, StoreError> {
        let trust = Trust::from_ca_file(ca_file);
        let read = tokio::task::spawn_blocking(move || client_config(&trust)).await;
        let read = read.map_err(|_stopping| StoreError::new(StoreFailure::Tls, "the gateway is stopping"))?;
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let err = match read {
            Ok(config) => {
                let config = Arc::new(config);
                *last = LastRead { config: Some(Arc::clone(&config)), problem: None };
                return Ok(config);
            }
            Err(err) => err,
        };
        let Some(config) = last.config.clone() else { return Err(err.into()) };
        let problem = in_one_line(&err);
        if last.problem.as_ref() != Some(&problem) {
            let section = Section::Condition(Condition::CaFile);
            tracing::warn!(
                error = problem,
                side = "configuration",
                remedy = section.remedy(),
                runbook = %section,
                "the CA file of the idempotency store cannot be used; the CAs that were read before stay in force"
            );
        }
        last.problem = Some(problem);
        Ok(config)
    }
}

/// Opens a connection, and authenticates.
pub(super) async fn connect(settings: &StoreSettings, tls: &StoreTls) -> Result<Pin<Box<dyn Stream>>, StoreError> {
    let mut stream = open(settings, tls).await?;
    if let Some(source) = &settings.password {
        let SecretText { secret: password, warnings } = source.read().await?;
        for warning in warnings {
            let section = Section::Condition(Condition::CredentialFile);
            tracing::warn!(side = "configuration", remedy = section.remedy(), runbook = %section, "idempotency.password: {warning}");
        }
        let user = settings.username.as_deref();
        let arguments = user.into_iter().chain([password.expose()]);
        send(&mut stream, "AUTH", arguments, StoreFailure::Auth).await?;
    }
    if settings.database != 0 {
        let database = settings.database.to_string();
        send(&mut stream, "SELECT", [database.as_str()].into_iter(), StoreFailure::Command).await?;
    }
    // Also shows that no password is needed, and that this is a store.
    send(&mut stream, "PING", std::iter::empty(), StoreFailure::Command).await?;
    Ok(stream)
}

async fn open(settings: &StoreSettings, store_tls: &StoreTls) -> Result<Pin<Box<dyn Stream>>, StoreError> {
    let unreachable = |err: std::io::Error| StoreError::new(StoreFailure::Connect, &err.to_string());
    match &settings.address {
        #[cfg(unix)]
        StoreAddress::Unix(path) => Ok(Box::pin(tokio::net::UnixStream::connect(path).await.map_err(unreachable)?)),
        #[cfg(not(unix))]
        StoreAddress::Unix(_) => Err(StoreError::new(StoreFailure::Connect, "this system has no Unix sockets")),
        StoreAddress::Tcp { host, port, tls: uses_tls } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(unreachable)?;
            stream.set_nodelay(true)?;
            if !uses_tls {
                return Ok(Box::pin(stream));
            }
            let config = store_tls.config(settings.ca_file.as_deref()).await?;
            let name = ServerName::try_from(host.clone());
            let name = name.map_err(|err| StoreError::new(StoreFailure::Tls, &err.to_string()))?;
            let stream = tls::connect(&TlsConnector::from(config), name, stream).await;
            Ok(Box::pin(stream.map_err(|err| StoreError::tls(&err))?))
        }
    }
}

/// Sends a command and reads its answer, one line.
async fn send<'a>(
    stream: &mut Pin<Box<dyn Stream>>,
    command: &'a str,
    arguments: impl Iterator<Item = &'a str>,
    failure: StoreFailure,
) -> Result<(), StoreError> {
    let parts: Vec<&str> = [command].into_iter().chain(arguments).collect();
    let size: usize = parts.iter().map(|part| part.len() + 16).sum();
    // Large enough, so that it is not moved and leaves no copy.
    let mut bytes = Zeroizing::new(Vec::with_capacity(size + 16));
    bytes.extend_from_slice(format!("*{}\r\n", parts.len()).as_bytes());
    for part in parts {
        bytes.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        bytes.extend_from_slice(part.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        if line.len() > MAX_LINE {
            return Err(StoreError::new(StoreFailure::Broken, "the answer is not that of a Redis server"));
        }
        line.push(stream.read_u8().await?);
    }
    match line.first() {
        Some(b'+') => Ok(()),
        Some(b'-') => {
            let text = String::from_utf8_lossy(line.get(1..).unwrap_or_default());
            let is_auth = ["NOAUTH", "WRONGPASS", "NOPERM"].iter().any(|code| text.starts_with(code));
            Err(StoreError::new(if is_auth { StoreFailure::Auth } else { failure }, text.trim_end()))
        }
        _ => Err(StoreError::new(StoreFailure::Broken, "the answer is not that of a Redis server")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::WhenStoreIsOut;
    use super::*;

    #[tokio::test]
    async fn cas_that_were_read_before_stay_in_use_while_their_file_cannot_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let tls = StoreTls::default();
        let read = async || tls.config(Some(&path)).await;
        assert!(read().await.is_err(), "nothing was read before");
        let ca = || rcgen::generate_simple_self_signed(["store".to_owned()]).unwrap().cert.pem();
        std::fs::write(&path, ca()).unwrap();
        let first = read().await.unwrap();
        std::fs::write(&path, "half of a file").unwrap();
        assert!(Arc::ptr_eq(&read().await.unwrap(), &first));
        std::fs::write(&path, ca()).unwrap();
        assert!(!Arc::ptr_eq(&read().await.unwrap(), &first));
    }

    #[tokio::test]
    async fn refused_certificate_of_a_store_is_named_with_what_to_do() {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { acceptor.accept(listener.accept().await.unwrap().0).await.map(drop) });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, rcgen::generate_simple_self_signed(["other".to_owned()]).unwrap().cert.pem()).unwrap();
        let settings = StoreSettings {
            address: StoreAddress::Tcp { host: "127.0.0.1".to_owned(), port, tls: true },
            ca_file: Some(path.clone()),
            database: 0,
            username: None,
            password: None,
            timeout: std::time::Duration::from_secs(10),
            when_out: WhenStoreIsOut::Refuse,
        };
        let err = connect(&settings, &StoreTls::default()).await.err().unwrap();
        let expected = format!(
            "the TLS connection to the store failed: its certificate names `CN=rcgen self signed cert` as its issuer, but is not \
             signed with the key that this CA has among the CAs in use (`ca_file` {})",
            path.display()
        );
        assert_eq!(err.to_string(), expected);
        assert!(err.remedy().contains("set `idempotency.ca_file` to the PEM file of its CA"), "{}", err.remedy());
    }
}
