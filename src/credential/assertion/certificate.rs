//! Assertions signed with the key of a client certificate.
//!
//! The identity library's own certificate credential needs OpenSSL and PKCS#12 and identifies the certificate by SHA-1. The
//! gateway therefore signs its assertions itself, with the TLS library's key provider and from PEM. The files are read for each
//! assertion, so a renewed certificate takes effect at once. An assertion names the token endpoint of one tenant as its audience,
//! so tenants cannot share it.
//!
//! Encrypted keys and PKCS#12 are not supported: their parsers depend on a second cryptography library (measured in November 2026:
//! `pkcs8` with `encryption` 24 crates, `p12-keystore` 40, two of them pre-releases), and the passphrase would be stored next
//! to the key. The errors contain the `openssl` commands that convert them.
//!
//! Format: Microsoft, "Microsoft identity platform application authentication certificate credentials".

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::SigningKey;
use rustls_pki_types::CertificateDer;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use x509_parser::parse_x509_certificate;

use super::clock::CLOCK_TOLERANCE;
use crate::credential::error::CredentialError;
use crate::credential::jwt;
use crate::credential::local_error::CertificateError;
use crate::credential::proof_settings::{AssertionAlgorithm, CertificateSettings};
use crate::credential::record::{AcquisitionRecord, NotAfter};
use crate::credential::secret::warn_about_mode;
use crate::files::pem::{Pem, PemError};
use crate::files::{self, FileError, NotValid, Secret, Validity, expires_soon};
use crate::metrics::TokenStage;

/// A certificate and its key.
struct ClientCertificate {
    leaf: CertificateDer<'static>,
    /// The other certificates of the file, in its order.
    chain: Vec<CertificateDer<'static>>,
    key: Arc<dyn SigningKey>,
    key_path: PathBuf,
    validity: Validity,
}

/// Reads the certificate and signs an assertion with its key.
pub(super) async fn assertion(
    settings: &CertificateSettings,
    client_id: &str,
    token_url: &str,
    record: &AcquisitionRecord,
) -> Result<Secret, CredentialError> {
    let started = Instant::now();
    let outcome = read_and_sign(settings, client_id, token_url, record).await;
    let not_after = match &outcome {
        Ok((_, not_after)) | Err(CertificateError::Expired { not_after, .. }) => {
            Some(NotAfter::Certificate(*not_after))
        }
        Err(_) => None,
    };
    let subject = format!("assertion signed with certificate {}", settings.certificate.display());
    let outcome = outcome.map_err(CredentialError::from);
    let proof = outcome.as_ref().map(|(token, _)| token);
    record.add_local_step(TokenStage::Assertion, subject, started, not_after, proof);
    outcome.map(|(token, _)| token)
}

/// Checks that the certificate and its key belong together and that the certificate is valid now.
pub(super) async fn inspect(settings: &CertificateSettings, record: &AcquisitionRecord) -> Result<(), CredentialError> {
    let certificate = ClientCertificate::read(settings, record).await?;
    let now = SystemTime::now();
    // The assertion is discarded, so its audience does not matter.
    certificate.assertion_if_valid(settings, "", "", now)?;
    let Validity { not_before, not_after } = certificate.validity;
    let path = &settings.certificate;
    // Token requests do not check this: Entra's clock decides, and this host's may be slow.
    if certificate.validity.check(now) == Err(NotValid::NotYet) {
        return Err(CertificateError::NotYetValid { path: path.clone(), not_before }.into());
    }
    if expires_soon(not_after, now) {
        let date = humantime::format_rfc3339_seconds(not_after);
        record.add_warning(format!("the certificate in {} expires on {date}: renew it", path.display()));
    }
    Ok(())
}

async fn read_and_sign(
    settings: &CertificateSettings,
    client_id: &str,
    token_url: &str,
    record: &AcquisitionRecord,
) -> Result<(Secret, SystemTime), CertificateError> {
    let certificate = ClientCertificate::read(settings, record).await?;
    let token = certificate.assertion_if_valid(settings, client_id, token_url, SystemTime::now())?;
    Ok((token, certificate.validity.not_after))
}

impl ClientCertificate {
    async fn read(settings: &CertificateSettings, record: &AcquisitionRecord) -> Result<Self, CertificateError> {
        let certificate_path = &settings.certificate;
        let mut certificate_pem = read_pem(certificate_path, record).await?;
        let (key_path, key) = match &settings.key {
            None => (certificate_path.clone(), load_key(certificate_path, &mut certificate_pem)?),
            Some(path) => (path.clone(), load_key(path, &mut read_pem(path, record).await?)?),
        };
        if certificate_pem.certificates.is_empty() {
            return Err(CertificateError::NoCertificate { path: certificate_path.to_owned() });
        }
        Self::match_key(certificate_pem.certificates, key, key_path, certificate_path)
    }

    /// Finds the certificate of the key. It is usually the first, but tools write chains in any order.
    fn match_key(
        certificates: Vec<CertificateDer<'static>>,
        key: Arc<dyn SigningKey>,
        key_path: PathBuf,
        certificate_path: &Path,
    ) -> Result<Self, CertificateError> {
        let invalid = || CertificateError::InvalidCertificate { path: certificate_path.to_owned() };
        let public_key = key.public_key().map(|key| key.as_ref().to_vec());
        let (mut leaf, mut chain) = (None, Vec::new());
        for certificate in certificates {
            let parsed = parse_x509_certificate(&certificate).map_err(|_err| invalid())?.1;
            let matches = public_key.as_deref() == Some(parsed.public_key().raw);
            let validity = Validity::of(&parsed);
            if matches && leaf.is_none() {
                leaf = Some((certificate, validity));
            } else {
                chain.push(certificate);
            }
        }
        let Some((leaf, validity)) = leaf else {
            return Err(CertificateError::Mismatch { key: key_path, certificate: certificate_path.to_owned() });
        };
        Ok(Self { leaf, chain, key, key_path, validity })
    }

    fn assertion_if_valid(
        &self,
        settings: &CertificateSettings,
        client_id: &str,
        token_url: &str,
        now: SystemTime,
    ) -> Result<Secret, CertificateError> {
        if self.validity.check(now) == Err(NotValid::Expired) {
            let (path, not_after) = (settings.certificate.clone(), self.validity.not_after);
            return Err(CertificateError::Expired { path, not_after });
        }
        self.assertion(settings, client_id, token_url, now)
    }

    fn assertion(
        &self,
        settings: &CertificateSettings,
        client_id: &str,
        token_url: &str,
        now: SystemTime,
    ) -> Result<Secret, CertificateError> {
        let scheme = match settings.algorithm {
            AssertionAlgorithm::Ps256 => SignatureScheme::RSA_PSS_SHA256,
            AssertionAlgorithm::Rs256 => SignatureScheme::RSA_PKCS1_SHA256,
        };
        let not_rsa = || CertificateError::NotRsa { path: self.key_path.clone() };
        let signer = self.key.choose_scheme(&[scheme]).ok_or_else(not_rsa)?;
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).map_err(|_unspecified| CertificateError::Random)?;
        let claims = json!({
            "aud": token_url,
            "iss": client_id,
            "sub": client_id,
            "jti": jwt::encode(&id),
            "iat": jwt::unix_seconds(now),
            // The lifetime is ten minutes, the longest that Microsoft recommends.
            "nbf": jwt::unix_seconds(now - CLOCK_TOLERANCE),
            "exp": jwt::unix_seconds(now + CLOCK_TOLERANCE),
        });
        let segment = |value: &Value| jwt::encode(value.to_string().as_bytes());
        let signed = format!("{}.{}", segment(&self.header(settings)), segment(&claims));
        let signature = signer.sign(signed.as_bytes());
        let signature = signature.map_err(|_may_contain_key| CertificateError::Sign { path: self.key_path.clone() })?;
        Ok(Secret::new(format!("{signed}.{}", jwt::encode(&signature))))
    }

    fn header(&self, settings: &CertificateSettings) -> Value {
        let thumbprint = |algorithm| jwt::encode(digest::digest(algorithm, &self.leaf).as_ref());
        let mut header = Map::new();
        header.insert("typ".into(), "JWT".into());
        header.insert("x5t#S256".into(), thumbprint(&digest::SHA256).into());
        match settings.algorithm {
            AssertionAlgorithm::Ps256 => header.insert("alg".into(), "PS256".into()),
            AssertionAlgorithm::Rs256 => {
                // For authorities that only support the older algorithm and thumbprint.
                header.insert("x5t".into(), thumbprint(&digest::SHA1_FOR_LEGACY_USE_ONLY).into());
                header.insert("alg".into(), "RS256".into())
            }
        };
        if settings.send_chain {
            // Standard base64 of the DER, unlike everything else in a JWT (RFC 7515 section 4.1.6).
            let chain = std::iter::once(&self.leaf).chain(&self.chain);
            header.insert("x5c".into(), chain.map(|certificate| STANDARD.encode(certificate)).collect());
        }
        header.into()
    }
}

async fn read_pem(path: &Path, record: &AcquisitionRecord) -> Result<Pem, CertificateError> {
    let file = match files::read(path).await {
        Ok(file) => file,
        // PKCS#12 and DER are binary.
        Err(FileError::NotText { path }) => return Err(CertificateError::NotPem { path }),
        Err(err) => return Err(err.into()),
    };
    let pem = Pem::parse(&file.text).map_err(|problem| {
        let path = path.to_owned();
        if problem == PemError::NotPem {
            CertificateError::NotPem { path }
        } else {
            CertificateError::InvalidPem { path, problem }
        }
    })?;
    if !pem.keys.is_empty() {
        warn_about_mode(&file, path, record);
    }
    if let Some(warning) = pem.warning() {
        record.add_warning(format!("file {} {warning}", path.display()));
    }
    Ok(pem)
}

/// Loads the private key of a file.
fn load_key(path: &Path, pem: &mut Pem) -> Result<Arc<dyn SigningKey>, CertificateError> {
    let path = path.to_owned();
    if pem.has_encrypted_key {
        return Err(CertificateError::EncryptedKey { path });
    }
    let Some(key) = pem.keys.drain(..).next() else { return Err(CertificateError::NoKey { path }) };
    match default_provider().key_provider.load_private_key(key) {
        Ok(key) if key.algorithm() == rustls::SignatureAlgorithm::RSA => Ok(key),
        Ok(_) => Err(CertificateError::NotRsa { path }),
        Err(_may_contain_key) => Err(CertificateError::InvalidKey { path }),
    }
}

#[cfg(test)]
mod tests;
