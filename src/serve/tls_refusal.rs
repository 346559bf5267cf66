//! Failed TLS handshakes, and why they ended if it was because of the caller's certificate.

use std::io;
use std::net::SocketAddr;

use rustls::{CertificateError, Error, OtherError};

use super::identity::IdentityError;
use crate::metrics::{CallerMetrics, TlsRefusal};
use crate::runbook::{Condition, Section};

/// Logs a failed handshake with a listener. Counts it too if the caller's certificate ended it.
#[cold]
pub fn report_failed_handshake(listener: &str, peer: Option<SocketAddr>, err: &io::Error, metrics: &CallerMetrics) {
    let Some(reason) = tls_refusal(err) else {
        return tracing::debug!(listener, error = %err, ?peer, "a caller's TLS handshake failed");
    };
    metrics.tls_refused(listener, reason);
    let peer = peer.map(tracing::field::display);
    let section = Section::Condition(Condition::CallerCertificate);
    tracing::warn!(
        listener,
        peer,
        error.kind = reason.label(),
        error.cause = %err,
        side = "caller",
        remedy = section.remedy(),
        runbook = %section,
        "a caller was refused in the TLS handshake because of its certificate"
    );
}

/// Returns why the error of a handshake is the refusal of a caller; `None` if it is another error.
fn tls_refusal(err: &io::Error) -> Option<TlsRefusal> {
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
