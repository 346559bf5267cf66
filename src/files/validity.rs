//! When a certificate is valid.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::time::ASN1Time;

/// How long before its expiry a certificate needs attention. Chosen: covers an absence of two weeks. The alerts on certificates
/// have the same time.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The time in which a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    /// The first moment.
    pub not_before: SystemTime,
    /// The last moment.
    pub not_after: SystemTime,
}

/// Why a certificate is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotValid {
    /// It has expired.
    Expired,
    /// It is not valid yet.
    NotYet,
}

impl Validity {
    /// Returns the validity of a certificate.
    pub fn of(certificate: &X509Certificate<'_>) -> Self {
        let time = |at: ASN1Time| UNIX_EPOCH + Duration::from_secs(u64::try_from(at.timestamp()).unwrap_or_default());
        let validity = certificate.validity();
        Self { not_before: time(validity.not_before), not_after: time(validity.not_after) }
    }

    /// Returns the validity of the first certificate; `None` if it cannot be parsed.
    pub fn of_first(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let (_, leaf) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
        Some(Self::of(&leaf))
    }

    /// Checks whether it is valid `now`.
    ///
    /// # Errors
    /// [`NotValid`] if it is not.
    pub fn check(self, now: SystemTime) -> Result<(), NotValid> {
        if self.not_after < now {
            Err(NotValid::Expired)
        } else if now < self.not_before {
            Err(NotValid::NotYet)
        } else {
            Ok(())
        }
    }
}

/// Returns whether a certificate has not expired and will do so soon.
pub fn expires_soon(not_after: SystemTime, now: SystemTime) -> bool {
    not_after.duration_since(now).is_ok_and(|left| left < EXPIRES_SOON)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_is_valid_from_its_first_to_its_last_moment_and_expires_soon_before_that() {
        let day = |number: u64| UNIX_EPOCH + Duration::from_secs(number * 24 * 60 * 60);
        let validity = Validity { not_before: day(100), not_after: day(200) };
        let after = day(200) + Duration::from_secs(1);
        for (now, outcome, expires_soon) in [
            (day(99), Err(NotValid::NotYet), false),
            (day(100), Ok(()), false),
            (day(186), Ok(()), false),
            (day(187), Ok(()), true),
            (day(200), Ok(()), true),
            (after, Err(NotValid::Expired), false),
        ] {
            assert_eq!(
                (validity.check(now), super::expires_soon(validity.not_after, now)),
                (outcome, expires_soon),
                "{now:?}"
            );
        }
    }
}
