//! What `check` and `doctor` say about the TLS files of listeners.

use std::time::SystemTime;

use super::bind::BindError;
use super::certificate::ListenerTls;
use super::settings::ListenerTlsSettings;
use super::tls_files;

/// What is wrong with the TLS files of a listener.
#[derive(Debug, Default)]
pub struct CertificateReport {
    /// The configured name of the listener.
    pub listener: String,
    /// Why the files cannot be used, so that the gateway does not start.
    pub error: Option<BindError>,
    /// Why callers reject the certificate, or are refused.
    pub problem: Option<String>,
    /// What needs attention.
    pub warnings: Vec<String>,
}

/// Reads only the certificate of one listener: its key or its CAs are on another host.
pub fn check_certificate_alone(listener: &str, settings: &ListenerTlsSettings) -> CertificateReport {
    let mut report = CertificateReport { listener: listener.to_owned(), ..CertificateReport::default() };
    match tls_files::read_validity(&settings.certificate, &mut report.warnings) {
        Ok(validity) => {
            let now = SystemTime::now();
            report.problem = tls_files::check_validity(validity, &settings.certificate, now).map(|err| err.to_string());
            report.warnings.extend(tls_files::expiry_warning(validity, &settings.certificate, now));
        }
        Err(source) => report.error = Some(BindError::tls(listener, settings, source)),
    }
    report
}

/// Reads only the files of one listener's TLS.
pub fn check_certificate(listener: &str, settings: &ListenerTlsSettings) -> CertificateReport {
    let mut report = CertificateReport { listener: listener.to_owned(), ..CertificateReport::default() };
    match ListenerTls::load(settings, &mut report.warnings) {
        Ok(tls) => {
            let now = SystemTime::now();
            let problem = tls.check_validity(&settings.certificate, now).map(|err| err.to_string());
            report.problem = problem.or_else(|| tls.expired_lists().first().cloned());
            report.warnings.retain(|warning| report.problem.as_ref() != Some(warning));
            report.warnings.extend(tls.expiry_warning(&settings.certificate, now));
        }
        Err(source) => report.error = Some(BindError::tls(listener, settings, source)),
    }
    report
}
