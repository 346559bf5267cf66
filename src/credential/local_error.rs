//! Why what lies on this host cannot be used: secrets, tokens, certificates and keys.
//!
//! No error here repeats anything of what was read.

use std::path::PathBuf;
use std::time::SystemTime;

use crate::files::FileError;
use crate::files::pem::PemError;

/// A secret, token, certificate or assertion on this host cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read as text.
    #[error(transparent)]
    File(#[from] FileError),
    /// Nothing is there.
    #[error("{place} is empty")]
    Empty {
        /// The file or variable.
        place: String,
    },
    /// What is there cannot be used.
    #[error("{place} {problem}")]
    Unusable {
        /// The file or variable.
        place: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// What is there is not a token.
    #[error("{place} does not hold a token: {why}")]
    NotAToken {
        /// The file or variable.
        place: String,
        /// What it is instead.
        why: &'static str,
    },
    /// The environment variable is not there.
    #[error("environment variable {name} is not set (or is not UTF-8 text)")]
    Unset {
        /// The variable.
        name: String,
    },
}

/// The certificate or its key cannot be used.
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
    /// The PEM is broken.
    #[error("{} {problem}", path.display())]
    BrokenPem {
        /// The file.
        path: PathBuf,
        /// What is wrong. It repeats nothing of the file.
        problem: PemError,
    },
    /// There is no certificate in the file.
    #[error("{} holds no certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The certificate is not X.509.
    #[error(
        "a certificate in {path} is not X.509: part of it is missing or was changed on its way; copy it whole, and look at it          with `openssl x509 -in {path} -noout -text`",
        path = path.display()
    )]
    BrokenCertificate {
        /// The file.
        path: PathBuf,
    },
    /// There is no key in the file.
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
        "the private key in {path} is not a key in PKCS#8, PKCS#1 or SEC1 of 2048 to 8192 bits: part of it is missing or was          changed on its way; copy it whole, and check it with `openssl pkey -in {path} -noout -check`",
        path = path.display()
    )]
    BrokenKey {
        /// The file.
        path: PathBuf,
    },
    /// The key is not RSA.
    #[error(
        "the private key in {} is not an RSA key, the only kind that Entra takes: make a certificate with \
         `openssl req -x509 -newkey rsa:3072 -nodes -days 365 -subj /CN=signalr-gateway -keyout client-key.pem -out client.pem`",
        path.display()
    )]
    NotRsa {
        /// The file.
        path: PathBuf,
    },
    /// The key is another certificate's.
    #[error("the private key in {} is not the key of a certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The file with the key.
        key: PathBuf,
        /// The file with the certificate.
        certificate: PathBuf,
    },
    /// The certificate has ended.
    #[error(
        "the certificate in {} ended at {}: upload a new one to the app registration",
        path.display(),
        humantime::format_rfc3339_seconds(*not_after)
    )]
    Expired {
        /// The file.
        path: PathBuf,
        /// When it ended.
        not_after: SystemTime,
    },
    /// The key does not sign.
    #[error("the private key in {path} cannot sign: check it with `openssl pkey -in {path} -noout -check`", path = path.display())]
    Sign {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no random numbers.
    #[error("the system has no random numbers to give")]
    Random,
}
