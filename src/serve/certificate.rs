//! The TLS of a listener, loaded from its files: certificate, key, CAs of callers, revocation lists.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest;
use rustls::server::NoServerSessionStorage;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::client_verifier::{self, ClientAuth, ClientTrust};
use super::settings::ListenerTlsSettings;
use super::tls_files::{self, TlsFileError, read_pem};
use crate::files::Validity;

/// The TLS of a listener. Immutable: changed files make another one, for new connections.
#[derive(Clone)]
pub struct ListenerTls {
    acceptor: TlsAcceptor,
    /// Negotiates HTTP/1.1 only.
    http1_acceptor: TlsAcceptor,
    client_trust: Option<ClientTrust>,
    validity: Validity,
    /// A digest of the certificates and the key.
    digest: [u8; 32],
    expired_lists: Vec<String>,
}

impl ListenerTls {
    /// Reads all files, which may block. Adds warnings about them to `warnings`.
    ///
    /// # Errors
    /// [`TlsFileError`] for the first file that cannot be used.
    pub fn load(settings: &ListenerTlsSettings, warnings: &mut Vec<String>) -> Result<Self, TlsFileError> {
        let chain = read_pem(&settings.certificate, warnings)?.certificates;
        if chain.is_empty() {
            return Err(TlsFileError::NoCertificate { path: settings.certificate.clone() });
        }
        let key = read_pem(&settings.key, warnings)?.keys.drain(..).next();
        let key = key.ok_or_else(|| TlsFileError::NoKey { path: settings.key.clone() })?;
        let mismatch =
            || TlsFileError::Mismatch { certificate: settings.certificate.clone(), key: settings.key.clone() };
        let validity = Validity::of_first(&chain).ok_or_else(mismatch)?;
        let digest = digest_of(&chain, &key);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client_auth = settings.client_auth.as_ref();
        let client_auth =
            client_auth.map(|settings| client_verifier::load(settings, &provider, warnings)).transpose()?;
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|_unshown| TlsFileError::Library)?;
        let (config, client_trust, expired_lists) = match client_auth {
            None => (config.with_no_client_auth(), None, Vec::new()),
            Some(ClientAuth { verifier, trust, expired_lists }) => {
                (config.with_client_cert_verifier(verifier), Some(trust), expired_lists)
            }
        };
        let mut config = config.with_single_cert(chain, key).map_err(|_unshown| mismatch())?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if client_trust.is_some() {
            // A resumed session would skip the verification: the certificate may have expired or been revoked since.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        let mut http1_config = config.clone();
        http1_config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            http1_acceptor: TlsAcceptor::from(Arc::new(http1_config)),
            client_trust,
            validity,
            digest,
            expired_lists,
        })
    }

    /// Reads all files like [`ListenerTls::load`], and checks that the certificate is valid now.
    ///
    /// # Errors
    /// [`TlsFileError`] for the first file that cannot be used.
    pub fn load_valid(settings: &ListenerTlsSettings, warnings: &mut Vec<String>) -> Result<Self, TlsFileError> {
        let tls = Self::load(settings, warnings)?;
        tls.check_validity(&settings.certificate, SystemTime::now()).map_or(Ok(tls), Err)
    }

    /// Returns the error of a certificate that is not valid `now`, if it is not.
    pub fn check_validity(&self, path: &Path, now: SystemTime) -> Option<TlsFileError> {
        tls_files::check_validity(self.validity, path, now)
    }

    /// Returns a warning if the certificate expires soon.
    pub(super) fn expiry_warning(&self, path: &Path, now: SystemTime) -> Option<String> {
        tls_files::expiry_warning(self.validity, path, now)
    }

    /// Returns when the certificate expires.
    pub fn not_after(&self) -> SystemTime {
        self.validity.not_after
    }

    /// Returns whether all files had the same content.
    pub(super) fn has_same_files(&self, other: &Self) -> bool {
        self.digest == other.digest && self.client_trust == other.client_trust
    }

    /// Returns the acceptor for new connections.
    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Returns the acceptor for new connections that negotiate HTTP/1.1 only.
    pub fn http1_acceptor(&self) -> &TlsAcceptor {
        &self.http1_acceptor
    }

    /// Returns what to do about each revocation list that has expired, so that callers are refused.
    pub fn expired_lists(&self) -> &[String] {
        &self.expired_lists
    }

    /// Returns what callers' certificates are verified by; `None` if callers are asked for none.
    pub fn client_trust(&self) -> Option<ClientTrust> {
        self.client_trust
    }
}

fn digest_of(chain: &[CertificateDer<'_>], key: &PrivateKeyDer<'_>) -> [u8; 32] {
    let mut digest = digest::Context::new(&digest::SHA256);
    for part in chain.iter().map(|certificate| &**certificate).chain([key.secret_der()]) {
        digest.update(&part.len().to_be_bytes());
        digest.update(part);
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.finish().as_ref());
    bytes
}

impl std::fmt::Debug for ListenerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenerTls").field("client_trust", &self.client_trust).finish_non_exhaustive()
    }
}
