//! Verifies the certificates of servers as the TLS library does, and keeps what a server presented if it is refused.
//!
//! The library's own error stays as it is, since it decides the alert that the server receives. What the server presented takes
//! another way: the verifier runs while the task of the handshake is polled, so it leaves it in a slot of that task.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::refused::{Handshake, RefusedCertificate};
use super::trust::Trust;

tokio::task_local! {
    /// What the server of this task's handshake presented, if it is refused.
    static REFUSED: RefCell<Option<RefusedCertificate>>;
}

/// The verifier of the TLS library, and what it verifies against.
#[derive(Debug)]
pub(super) struct Verifier {
    library: Arc<WebPkiServerVerifier>,
    trust: Arc<Trust>,
}

impl Verifier {
    pub(super) fn new(library: Arc<WebPkiServerVerifier>, trust: &Trust) -> Self {
        Self { library, trust: Arc::new(trust.clone()) }
    }

    /// Keeps what the server presented, if anyone will ask for it.
    #[cold]
    fn keep(&self, explain: impl FnOnce(&Arc<Trust>) -> RefusedCertificate) {
        let _nobody_asks = REFUSED.try_with(|slot| slot.replace(Some(explain(&self.trust))));
    }

    /// Keeps that the server does not prove that it has the key of its certificate.
    #[cold]
    fn keep_without_proof(&self, certificate: &CertificateDer<'_>) {
        let (server_name, now) = (String::new(), SystemTime::now());
        self.keep(|trust| {
            RefusedCertificate::without_proof(&Handshake { chain: (certificate, &[]), server_name, trust, now })
        });
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.library.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        if let Err(err) = &verified {
            self.keep(|trust| {
                let now = UNIX_EPOCH + Duration::from_secs(now.as_secs());
                let server_name = server_name.to_str().into_owned();
                RefusedCertificate::new(err, &Handshake { chain: (end_entity, intermediates), server_name, trust, now })
            });
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = self.library.verify_tls12_signature(message, certificate, signature);
        verified.inspect_err(|_| self.keep_without_proof(certificate))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = self.library.verify_tls13_signature(message, certificate, signature);
        verified.inspect_err(|_| self.keep_without_proof(certificate))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.library.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.library.requires_raw_public_keys()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.library.root_hint_subjects()
    }
}

/// Opens a TLS connection. If the server's certificate is refused, [`RefusedCertificate::find`] finds it in the error.
///
/// # Errors
/// The error of the handshake.
///
/// # Cancel safety
/// Safe: cancellation closes the connection.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    connector: &TlsConnector,
    name: ServerName<'static>,
    stream: S,
) -> io::Result<TlsStream<S>> {
    let (connected, refused) = with_refused_certificate(connector.connect(name, stream)).await;
    match refused {
        None => connected,
        Some(refused) => connected.map_err(|err| io::Error::new(err.kind(), refused)),
    }
}

/// Runs a future that performs one handshake. Returns its output, and the certificate of the server if it is refused.
///
/// # Cancel safety
/// That of the future.
pub async fn with_refused_certificate<T>(handshake: impl Future<Output = T>) -> (T, Option<RefusedCertificate>) {
    let handshake = async {
        let output = handshake.await;
        (output, REFUSED.with(RefCell::take))
    };
    REFUSED.scope(RefCell::default(), handshake).await
}
