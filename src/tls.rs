//! Client TLS for everything the gateway connects to: one provider, one way of choosing whom to trust.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Why a TLS configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The CA file cannot be read as PEM.
    #[error("`ca_file` {} cannot be read as PEM certificates", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: rustls_pki_types::pem::Error,
    },
    /// The CA file has no usable certificate.
    #[error("`ca_file` {} holds no certificate that can be used as a CA", path.display())]
    EmptyCaFile {
        /// The file.
        path: PathBuf,
    },
    /// The system has no CA certificates.
    #[error(
        "this system has no CA certificates to check servers against; install the ca-certificates package, set \
         SSL_CERT_FILE, or configure `ca_file`"
    )]
    NoSystemRoots,
    /// rustls does not accept the configuration.
    #[error("TLS cannot be set up")]
    Rustls(#[from] rustls::Error),
}

/// Which CAs a server's certificate is checked against.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// The system's, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name. Read once.
    System,
    /// Those in a PEM file, and no others. Read when the configuration is made.
    File(PathBuf),
    /// None: for clients that speak to this host alone, over http.
    Nobody,
}

impl Trust {
    /// The CAs in `ca_file`, or the system's if there is none.
    pub fn of(ca_file: Option<&Path>) -> Self {
        ca_file.map_or(Self::System, |path| Self::File(path.to_owned()))
    }
}

/// Makes a client configuration. It offers no protocol by ALPN.
///
/// # Errors
/// [`TrustError`] when there should be somebody to trust and is nobody.
pub fn client_config(trust: &Trust) -> Result<ClientConfig, TrustError> {
    let roots = match trust {
        Trust::System => system_roots()?,
        Trust::File(path) => Arc::new(roots_of_file(path)?),
        Trust::Nobody => Arc::new(RootCertStore::empty()),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn roots_of_file(path: &Path) -> Result<RootCertStore, TrustError> {
    let read_error = |source| TrustError::CaFile { path: path.to_owned(), source };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(read_error)?.collect::<Result<Vec<_>, _>>();
    roots.add_parsable_certificates(certificates.map_err(read_error)?);
    if roots.is_empty() { Err(TrustError::EmptyCaFile { path: path.to_owned() }) } else { Ok(roots) }
}

/// The system's CAs, read once: parsing them takes milliseconds, and every endpoint and authority needs them.
fn system_roots() -> Result<Arc<RootCertStore>, TrustError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    });
    if roots.is_empty() { Err(TrustError::NoSystemRoots) } else { Ok(Arc::clone(roots)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_without_certificates_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, "not a certificate").unwrap();
        let err = client_config(&Trust::File(path)).unwrap_err();
        assert!(err.to_string().contains("ca.pem holds no certificate"), "{err}");
        let err = client_config(&Trust::File(dir.path().join("missing.pem"))).unwrap_err();
        assert!(err.to_string().contains("missing.pem"), "{err}");
    }
}
