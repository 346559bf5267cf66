//! Why a TLS handshake ended because of the caller's certificate.

use std::io;

use rustls::{CertificateError, Error, OtherError};

use super::identity::IdentityError;
use crate::metrics::TlsRefusal;

/// Returns why the error of a handshake is the refusal of a caller; `None` if it is another error.
pub fn tls_refusal(err: &io::Error) -> Option<TlsRefusal> {
    let err = err.get_ref()?.downcast_ref::<Error>()?;
    if let Error::InvalidCertificate(err) = err {
        return Some(of_certificate(err));
    }
    matches!(err, Error::NoCertificatesPresented).then_some(TlsRefusal::NoCertificate)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the enum of the TLS library is not exhaustive")]
fn of_certificate(err: &CertificateError) -> TlsRefusal {
    match err {
        CertificateError::UnknownIssuer => TlsRefusal::UnknownCa,
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsRefusal::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => TlsRefusal::NotYetValid,
        CertificateError::Revoked => TlsRefusal::Revoked,
        CertificateError::UnknownRevocationStatus => TlsRefusal::RevocationUnknown,
        CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
            TlsRefusal::CrlExpired
        }
        CertificateError::Other(OtherError(err)) if err.is::<IdentityError>() => TlsRefusal::NoIdentity,
        _ => TlsRefusal::Invalid,
    }
}
