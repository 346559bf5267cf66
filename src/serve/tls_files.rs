//! Reads the files of a listener's TLS, and says why one of them cannot be used.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::files::pem::{Pem, PemError};
use crate::files::{self, FileError, NotValid, Validity, expires_soon};

/// Why a file of a listener's TLS cannot be used. Does not contain the files' content.
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
        "the certificate {0} or the key {1} is invalid, or the key does not belong to the first certificate: `openssl x509 -in \
         {0} -noout -pubkey` and `openssl pkey -in {1} -pubout` must print the same", certificate.display(), key.display()
    )]
    Mismatch {
        /// The file with the certificate.
        certificate: PathBuf,
        /// The file with the key.
        key: PathBuf,
    },
    /// The certificate has expired.
    #[error(
        "the certificate {} expired on {}: put a renewed one and its key there; they are read without a restart",
        path.display(), humantime::format_rfc3339_seconds(*not_after)
    )]
    Expired {
        /// The file.
        path: PathBuf,
        /// The last moment at which it was valid.
        not_after: SystemTime,
    },
    /// The certificate is not valid yet.
    #[error(
        "the certificate {} is not valid before {}: wait, or compare the clock of this host",
        path.display(), humantime::format_rfc3339_seconds(*not_before)
    )]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// The first moment at which it is valid.
        not_before: SystemTime,
    },
    /// There is no CA in the file.
    #[error(
        "`client_ca` {} holds no certificate that can be used as a CA: write the certificates of the CAs that issue \
         callers' certificates into it, in PEM",
        path.display()
    )]
    NoCa {
        /// The file.
        path: PathBuf,
    },
    /// There is no revocation list in the file.
    #[error(
        "`client_crl` {} holds no revocation list (`-----BEGIN X509 CRL-----`): convert one in DER with `openssl crl \
         -inform DER -in FILE -out crl.pem`",
        path.display()
    )]
    NoRevocationList {
        /// The file.
        path: PathBuf,
    },
    /// A revocation list is invalid or of an unsupported kind.
    #[error(
        "`client_crl` {} holds a revocation list that cannot be used: it must be a complete one of version 2; inspect it \
         with `openssl crl -in FILE -noout -text`",
        path.display()
    )]
    InvalidRevocationList {
        /// The file.
        path: PathBuf,
    },
    /// The TLS library could not be configured.
    #[error("the TLS library cannot be set up")]
    Library,
}

impl TlsFileError {
    /// Returns the file that it is about; `None` if it is about several.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(err) => Some(err.path()),
            Self::Pem { path, .. }
            | Self::NoCertificate { path }
            | Self::NoKey { path }
            | Self::Expired { path, .. }
            | Self::NotYetValid { path, .. }
            | Self::NoCa { path }
            | Self::NoRevocationList { path }
            | Self::InvalidRevocationList { path } => Some(path),
            Self::Mismatch { .. } | Self::Library => None,
        }
    }
}

/// Reads a PEM file. Adds warnings about it to `warnings`.
pub(super) fn read_pem(path: &Path, warnings: &mut Vec<String>) -> Result<Pem, TlsFileError> {
    let file = files::read_with_timeout(path)?;
    parse_pem(path, &file, warnings)
}

/// Reads when the first certificate of a file is valid. May block. Adds warnings about the file to `warnings`.
pub(super) fn read_validity(path: &Path, warnings: &mut Vec<String>) -> Result<Validity, TlsFileError> {
    let chain = read_pem(path, warnings)?.certificates;
    Validity::of_first(&chain).ok_or_else(|| TlsFileError::NoCertificate { path: path.to_owned() })
}

/// Returns the error of a certificate that is not valid `now`, if it is not.
pub(super) fn check_validity(validity: Validity, path: &Path, now: SystemTime) -> Option<TlsFileError> {
    let path = path.to_owned();
    Some(match validity.check(now).err()? {
        NotValid::Expired => TlsFileError::Expired { path, not_after: validity.not_after },
        NotValid::NotYet => TlsFileError::NotYetValid { path, not_before: validity.not_before },
    })
}

/// Returns a warning if a certificate expires soon.
pub(super) fn expiry_warning(validity: Validity, path: &Path, now: SystemTime) -> Option<String> {
    expires_soon(validity.not_after, now).then(|| {
        let date = humantime::format_rfc3339_seconds(validity.not_after);
        format!("the certificate {} expires on {date}: renew it", path.display())
    })
}

/// Reads a PEM file with revocation lists, which may be large.
pub(super) fn read_revocation_lists(path: &Path, warnings: &mut Vec<String>) -> Result<Pem, TlsFileError> {
    let file = files::read_with_timeout_up_to(path, MAX_REVOCATION_LISTS).map_err(|err| {
        // DER, which CAs publish.
        let is_der = matches!(err, FileError::NotText { .. });
        if is_der { TlsFileError::NoRevocationList { path: path.to_owned() } } else { err.into() }
    })?;
    parse_pem(path, &file, warnings)
}

/// Chosen: the largest lists of public CAs have some ten megabytes.
const MAX_REVOCATION_LISTS: usize = 32 * 1024 * 1024;

fn parse_pem(path: &Path, file: &files::TextFile, warnings: &mut Vec<String>) -> Result<Pem, TlsFileError> {
    let pem = Pem::parse(&file.text).map_err(|problem| TlsFileError::Pem { path: path.to_owned(), problem })?;
    let found = [file.exposure_warning(!pem.keys.is_empty()), pem.warning()].into_iter().flatten();
    warnings.extend(found.map(|warning| format!("file {} {warning}", path.display())));
    Ok(pem)
}
