//! The TLS of a listener, loaded from its files: certificate, key, CAs of callers, revocation lists.

use std::sync::Arc;

use rustls::server::NoServerSessionStorage;
use tokio_rustls::TlsAcceptor;

use super::client_verifier::{self, ClientTrust};
use super::settings::ListenerTlsSettings;
use super::tls_files::{TlsFileError, read_pem};

/// The TLS of a listener. Immutable: changed files make another one, for new connections.
#[derive(Clone)]
pub struct ListenerTls {
    acceptor: TlsAcceptor,
    client_trust: Option<ClientTrust>,
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
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client_auth = settings.client_auth.as_ref();
        let client_auth =
            client_auth.map(|settings| client_verifier::load(settings, &provider, warnings)).transpose()?;
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|_unshown| TlsFileError::Library)?;
        let (config, client_trust) = match client_auth {
            None => (config.with_no_client_auth(), None),
            Some((verifier, trust)) => (config.with_client_cert_verifier(verifier), Some(trust)),
        };
        let mut config = config.with_single_cert(chain, key).map_err(|_unshown| TlsFileError::Mismatch)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if client_trust.is_some() {
            // A resumed session would skip the verification: the certificate may have expired or been revoked since.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), client_trust })
    }

    /// Returns the acceptor for new connections.
    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Returns what callers' certificates are verified by; `None` if callers are asked for none.
    pub fn client_trust(&self) -> Option<ClientTrust> {
        self.client_trust
    }
}

impl std::fmt::Debug for ListenerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenerTls").field("client_trust", &self.client_trust).finish_non_exhaustive()
    }
}
