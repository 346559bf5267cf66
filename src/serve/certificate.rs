//! The certificate and key of a TLS listener.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;

use super::settings::ListenerTlsSettings;
use crate::files::pem::{Pem, PemError};
use crate::files::{self, FileError};

/// Why a listener's certificate or key cannot be used. Does not contain the files' content.
#[derive(Debug, thiserror::Error)]
pub enum TlsFileError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not valid PEM.
    #[error("{} {problem}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: PemError,
    },
    /// There is no certificate in the file.
    #[error("{} holds no certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// There is no key in the file.
    #[error("{} holds no unencrypted private key: decrypt it with `openssl pkey -in FILE -out key.pem`", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The certificate and the key do not match, or one of them is invalid.
    #[error(
        "one of them is invalid, or the key does not belong to the first certificate: the first lines of `openssl x509 -in \
         CERTIFICATE -noout -pubkey` and `openssl pkey -in KEY -pubout` must be the same"
    )]
    Mismatch,
    /// The TLS library could not be configured.
    #[error("the TLS library cannot be set up")]
    Library,
}

/// Reads the certificate and key, and returns the acceptor that uses them. Adds warnings about the files to `warnings`.
///
/// # Errors
/// [`TlsFileError`] when they cannot be used.
pub(super) fn acceptor(
    settings: &ListenerTlsSettings,
    warnings: &mut Vec<String>,
) -> Result<TlsAcceptor, TlsFileError> {
    Ok(TlsAcceptor::from(Arc::new(server_config(settings, warnings)?)))
}

fn server_config(
    settings: &ListenerTlsSettings,
    warnings: &mut Vec<String>,
) -> Result<rustls::ServerConfig, TlsFileError> {
    let chain = read_pem(&settings.certificate, warnings)?.certificates;
    if chain.is_empty() {
        return Err(TlsFileError::NoCertificate { path: settings.certificate.clone() });
    }
    let key = read_pem(&settings.key, warnings)?.keys.drain(..).next();
    let key = key.ok_or_else(|| TlsFileError::NoKey { path: settings.key.clone() })?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|_unshown| TlsFileError::Library)?.with_no_client_auth().with_single_cert(chain, key);
    let mut config = config.map_err(|_unshown| TlsFileError::Mismatch)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn read_pem(path: &Path, warnings: &mut Vec<String>) -> Result<Pem, TlsFileError> {
    let file = files::read_with_timeout(path)?;
    let pem = Pem::parse(&file.text).map_err(|problem| TlsFileError::Pem { path: path.to_owned(), problem })?;
    let found = [file.exposure_warning(!pem.keys.is_empty()), pem.warning()].into_iter().flatten();
    warnings.extend(found.map(|warning| format!("file {} {warning}", path.display())));
    Ok(pem)
}
