//! Errors about secrets, tokens, certificates and keys on this host. None contains any part of the content.

use std::path::PathBuf;
use std::time::SystemTime;

use crate::files::pem::PemError;
use crate::files::{FileError, SecretSourceError};

/// An error about a secret, token or assertion on this host.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read as text.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file or variable is empty.
    #[error("{location} is empty")]
    Empty {
        /// The file or variable.
        location: String,
    },
    /// The content cannot be used.
    #[error("{location} {problem}")]
    Unusable {
        /// The file or variable.
        location: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The content is not a token.
    #[error("{location} does not hold a token: {why}")]
    NotAToken {
        /// The file or variable.
        location: String,
        /// What it is instead, and the fix.
        why: &'static str,
    },
    /// The configured source has no secret.
    #[error(transparent)]
    Source(#[from] SecretSourceError),
}

/// An error about a client certificate or its key.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file is PKCS#12 or DER.
    #[error(
        "{path} is not PEM: convert PKCS#12 (.pfx, .p12) with `openssl pkcs12 -in {path} -nodes -out client.pem` (and \
         `-legacy` if it says `unsupported`), a DER certificate (.cer, .der) with `openssl x509 -inform DER -in {path} -out \
         client.pem`, and name the new file",
        path = path.display()
    )]
    NotPem {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not valid PEM.
    #[error("{} {problem}", path.display())]
    InvalidPem {
        /// The file.
        path: PathBuf,
        /// What is wrong, without any of the content.
        problem: PemError,
    },
    /// The file holds no certificate.
    #[error("{} holds no certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A certificate is not valid X.509.
    #[error(
        "a certificate in {path} is not X.509: it is damaged or incomplete; copy it again, and inspect it with `openssl x509 -in {path} -noout -text`",
        path = path.display()
    )]
    InvalidCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no private key.
    #[error("{} holds no private key: set `key` to the PEM file that does", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The key is encrypted.
    #[error(
        "the private key in {path} is encrypted: decrypt it with `openssl pkey -in {path} -out client-key.pem`, and set `key` \
         to the new file",
        path = path.display()
    )]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The key cannot be used.
    #[error(
        "the private key in {path} is not a key in PKCS#8, PKCS#1 or SEC1 of 2048 to 8192 bits: it is damaged or incomplete; copy it again, and check it with `openssl pkey -in {path} -noout -check`",
        path = path.display()
    )]
    InvalidKey {
        /// The file.
        path: PathBuf,
    },
    /// The key is not RSA.
    #[error(
        "the private key in {} is not an RSA key, the only kind that Entra accepts: make a certificate with \
         `openssl req -x509 -newkey rsa:3072 -nodes -days 365 -subj /CN=signalr-gateway -keyout client-key.pem -out client.pem`",
        path.display()
    )]
    NotRsa {
        /// The file.
        path: PathBuf,
    },
    /// The key belongs to another certificate.
    #[error("the private key in {} belongs to no certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The file with the key.
        key: PathBuf,
        /// The file with the certificate.
        certificate: PathBuf,
    },
    /// The certificate has expired.
    #[error(
        "the certificate in {} expired at {}",
        path.display(),
        humantime::format_rfc3339_seconds(*not_after)
    )]
    Expired {
        /// The file.
        path: PathBuf,
        /// When it expired.
        not_after: SystemTime,
    },
    /// The certificate is not valid yet.
    #[error(
        "the certificate in {} is not valid before {}: wait, or compare the clock of this host",
        path.display(),
        humantime::format_rfc3339_seconds(*not_before)
    )]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// When it becomes valid.
        not_before: SystemTime,
    },
    /// Signing failed.
    #[error("the private key in {path} cannot sign: check it with `openssl pkey -in {path} -noout -check`", path = path.display())]
    Sign {
        /// The file.
        path: PathBuf,
    },
    /// The random number generator failed.
    #[error("the system's random number generator failed")]
    Random,
}
