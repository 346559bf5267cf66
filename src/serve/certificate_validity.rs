//! When a listener's certificate is valid.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;

use super::tls_files::{TlsFileError, read_pem};

/// How long before its expiry a certificate needs attention. The alert for certificates of credentials has the same time.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The time in which a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Validity {
    not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl Validity {
    /// Returns the validity of the first certificate; `None` if it cannot be parsed.
    pub(super) fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let (_, leaf) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
        let time = |at: x509_parser::time::ASN1Time| {
            UNIX_EPOCH + Duration::from_secs(u64::try_from(at.timestamp()).unwrap_or_default())
        };
        Some(Self { not_before: time(leaf.validity().not_before), not_after: time(leaf.validity().not_after) })
    }

    /// Reads a certificate file, which may block. Adds warnings about it to `warnings`.
    ///
    /// # Errors
    /// [`TlsFileError`] if it cannot be used.
    pub(super) fn read(path: &Path, warnings: &mut Vec<String>) -> Result<Self, TlsFileError> {
        let chain = read_pem(path, warnings)?.certificates;
        Self::of(&chain).ok_or_else(|| TlsFileError::NoCertificate { path: path.to_owned() })
    }

    /// Returns the error of a certificate that is not valid `now`, if it is not.
    pub(super) fn check(&self, path: &Path, now: SystemTime) -> Option<TlsFileError> {
        let Self { not_before, not_after } = *self;
        let path = path.to_owned();
        if not_after < now {
            Some(TlsFileError::Expired { path, not_after })
        } else if now < not_before {
            Some(TlsFileError::NotYetValid { path, not_before })
        } else {
            None
        }
    }

    /// Returns a warning if the certificate expires soon.
    pub(super) fn expiry_warning(&self, path: &Path, now: SystemTime) -> Option<String> {
        let is_soon = self.not_after.duration_since(now).is_ok_and(|left| left < EXPIRES_SOON);
        is_soon.then(|| {
            let date = humantime::format_rfc3339_seconds(self.not_after);
            format!("the certificate {} expires on {date}: renew it", path.display())
        })
    }
}
