//! The TLS configuration of all clients of the gateway: the crypto provider and the trusted CAs.

mod presented;
mod refused;
mod trust;
mod verifier;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::{WantsClientCert, WebPkiServerVerifier};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

pub use refused::{CertificateProblem, RefusedCertificate};
pub use trust::Trust;
use verifier::Verifier;
pub use verifier::{connect, with_refused_certificate};

use crate::files::pem::{Pem, PemError};
use crate::files::{self, FileError};
use crate::runbook::{Condition, Section};

/// Why a TLS configuration cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The CA file cannot be read.
    #[error("`ca_file` cannot be used")]
    CaFile(#[from] FileError),
    /// The CA file is not PEM.
    #[error("`ca_file` {} {problem}", path.display())]
    CaFilePem {
        /// The file.
        path: PathBuf,
        /// What is wrong, without any part of the file.
        problem: PemError,
    },
    /// The CA file has no usable certificate.
    #[error("`ca_file` {} holds no certificate that can be used as a CA", path.display())]
    EmptyCaFile {
        /// The file.
        path: PathBuf,
    },
    /// The client's certificate or key cannot be read.
    #[error("the client certificate cannot be used")]
    ClientFile(#[source] FileError),
    /// The client's certificate or key is not PEM.
    #[error("the client certificate cannot be used: {} {problem}", path.display())]
    ClientPem {
        /// The file.
        path: PathBuf,
        /// What is wrong, without any part of the file.
        problem: PemError,
    },
    /// There is no key.
    #[error("the client certificate cannot be used: {} holds no unencrypted private key", path.display())]
    NoClientKey {
        /// The file.
        path: PathBuf,
    },
    /// The system has no CA certificates.
    #[error(
        "this system has no CA certificates to check servers against; install the ca-certificates package, set \
         SSL_CERT_FILE, or configure `ca_file`"
    )]
    NoSystemRoots,
    /// The TLS library rejects the configuration.
    #[error("TLS cannot be set up")]
    Rustls(#[from] rustls::Error),
}

/// Creates a client configuration without ALPN.
///
/// # Errors
/// [`TrustError`] if the CAs cannot be loaded or there are none.
pub fn client_config(trust: &Trust) -> Result<ClientConfig, TrustError> {
    client_config_with(trust, roots(trust)?)
}

/// Loads the CAs that a client trusts.
///
/// # Errors
/// [`TrustError`] if they cannot be loaded or there are none.
pub fn roots(trust: &Trust) -> Result<Arc<RootCertStore>, TrustError> {
    match trust {
        Trust::System => system_roots(),
        Trust::File(path) => roots_of_file(path).map(Arc::new),
        Trust::None => Ok(Arc::new(RootCertStore::empty())),
    }
}

/// Creates a client configuration without ALPN that trusts these CAs, which are those of `trust`.
///
/// # Errors
/// [`TrustError::Rustls`] if the TLS library rejects the configuration.
pub fn client_config_with(trust: &Trust, roots: Arc<RootCertStore>) -> Result<ClientConfig, TrustError> {
    Ok(verifying(trust, roots)?.with_no_client_auth())
}

/// Creates a client configuration without ALPN that trusts these CAs, which are those of `trust`, and identifies itself by the
/// first certificate of a PEM file and a key.
///
/// # Errors
/// [`TrustError`] if a file cannot be used.
pub fn client_config_with_certificate(
    trust: &Trust,
    roots: Arc<RootCertStore>,
    certificate: &Path,
    key: &Path,
) -> Result<ClientConfig, TrustError> {
    let read = |path: &Path| -> Result<Pem, TrustError> {
        let file = files::read_with_timeout(path).map_err(TrustError::ClientFile)?;
        Pem::parse(&file.text).map_err(|problem| TrustError::ClientPem { path: path.to_owned(), problem })
    };
    let chain = read(certificate)?.certificates;
    let key = read(key)?.keys.drain(..).next().ok_or_else(|| TrustError::NoClientKey { path: key.to_owned() })?;
    Ok(verifying(trust, roots)?.with_client_auth_cert(chain, key)?)
}

/// Returns a configuration that verifies servers and does not identify itself yet.
fn verifying(
    trust: &Trust,
    roots: Arc<RootCertStore>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TrustError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    if roots.is_empty() {
        // It refuses every server. The builder of verifiers rejects it.
        return Ok(builder.with_root_certificates(roots));
    }
    let library = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
    let library = library.map_err(|err| rustls::Error::General(err.to_string()))?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier::new(library, trust))))
}

fn roots_of_file(path: &Path) -> Result<RootCertStore, TrustError> {
    let file = files::read_with_timeout(path)?;
    let pem = Pem::parse(&file.text).map_err(|problem| TrustError::CaFilePem { path: path.to_owned(), problem })?;
    if let Some(warning) = file.exposure_warning(!pem.keys.is_empty()) {
        let section = Section::Condition(Condition::CaFile);
        tracing::warn!(side = "configuration", remedy = section.remedy(), runbook = %section, "`ca_file` {} {warning}", path.display());
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(pem.certificates);
    if roots.is_empty() { Err(TrustError::EmptyCaFile { path: path.to_owned() }) } else { Ok(roots) }
}

/// Returns the system's CAs. They are read once: parsing takes milliseconds, and most clients need them.
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
mod verifier_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_a_ca_file_without_certificates_and_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, "not a certificate").unwrap();
        let err = client_config(&Trust::File(path.clone())).unwrap_err();
        assert!(err.to_string().contains("ca.pem is not PEM"), "{err}");
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nMTIzNDU2Nzg=\n-----END CERTIFICATE-----\n").unwrap();
        let err = client_config(&Trust::File(path)).unwrap_err();
        assert!(err.to_string().contains("ca.pem holds no certificate"), "{err}");
        let err = client_config(&Trust::File(dir.path().join("missing.pem"))).unwrap_err();
        let cause = std::error::Error::source(&err).unwrap().to_string();
        assert!(cause.contains("missing.pem"), "{cause}");
    }
}
