//! The certificate authority of a sandbox, the certificates of its TLS listeners, and the client certificate of the app
//! registration.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use super::keys::RsaKey;
use crate::sandbox::error::SandboxError;

/// The certificate authority of one sandbox. Only clients that are configured with its certificate trust it.
pub(crate) struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A client certificate of an app registration, with its private key. `Debug` does not show the key.
pub struct ClientCertificate {
    der: Vec<u8>,
    certificate_pem: String,
    key_pem: String,
}

impl CertificateAuthority {
    /// Generates a certificate authority.
    pub(crate) fn generate() -> Result<Self, SandboxError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "signalr-gateway sandbox CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// Returns the authority's certificate in PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Returns a TLS acceptor with a certificate for `localhost`, 127.0.0.1, `::1` and `host`. ALPN offers HTTP/2 and
    /// HTTP/1.1.
    pub(crate) fn tls_acceptor(&self, host: Option<&str>) -> Result<TlsAcceptor, SandboxError> {
        let names = ["localhost", "127.0.0.1", "::1"].into_iter().chain(host);
        let mut params = CertificateParams::new(names.map(String::from).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, "signalr-gateway sandbox");
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl ClientCertificate {
    /// Generates a self-signed certificate for the process's client key, valid from `not_before` to `not_after`.
    pub(crate) fn generate(not_before: SystemTime, not_after: SystemTime) -> Result<Self, SandboxError> {
        Self::self_signed(RsaKey::certificate()?, not_before, not_after)
    }

    /// Generates a self-signed certificate for a new key. Generating the key takes some tenths of a second.
    ///
    /// # Errors
    /// If the key or the certificate cannot be generated.
    pub fn generate_with_new_key(valid_for: Duration) -> Result<Self, SandboxError> {
        let now = SystemTime::now();
        Self::self_signed(&RsaKey::generate()?, now, now + valid_for)
    }

    fn self_signed(key: &RsaKey, not_before: SystemTime, not_after: SystemTime) -> Result<Self, SandboxError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "signalr-gateway");
        params.not_before = not_before.into();
        params.not_after = not_after.into();
        let certificate = params.self_signed(key.key_pair())?;
        Ok(Self {
            der: certificate.der().to_vec(),
            certificate_pem: certificate.pem(),
            key_pem: key.key_pair().serialize_pem(),
        })
    }

    /// Returns the certificate in DER, as registered in the app registration.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Returns the certificate in PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Returns the private key in PEM (PKCS#8, unencrypted).
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }
}

impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientCertificate").field("x5t#S256", &thumbprint_sha256(&self.der)).finish_non_exhaustive()
    }
}

/// Returns the `x5t#S256` of a certificate (RFC 7515 section 4.1.8).
pub(crate) fn thumbprint_sha256(der: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, der))
}

/// Returns the `x5t` of a certificate (RFC 7515 section 4.1.7).
pub(crate) fn thumbprint_sha1(der: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, der))
}
