//! Remediation for a server whose certificate is refused.

use crate::diagnosis::finding::Remediation;
use crate::egress::{EgressProxy, Target};
use crate::files::NotValid;
use crate::tls::{CertificateProblem, RefusedCertificate};

/// The server, as the configuration names it.
pub(super) struct Server<'a> {
    /// What it is: `the endpoint`.
    pub(super) what: &'static str,
    /// The key with its CAs, in backticks.
    pub(super) ca_file: &'a str,
    /// The full path of the key with its host.
    pub(super) url: &'a str,
}

/// Returns what to do about a refused certificate.
pub(super) fn refused(refused: &RefusedCertificate, server: &Server<'_>) -> Remediation {
    let Server { what, ca_file, url } = server;
    Remediation::note(match refused.problem() {
        CertificateProblem::UnknownIssuer => {
            let chain = if refused.lacks_chain() {
                format!("; if it is an intermediate CA: have {what} send its whole chain")
            } else {
                String::new()
            };
            format!(
                "if you know this issuer, such as a proxy of your organisation that inspects TLS: set {ca_file} to the PEM file of \
                 its CA{chain}; if you do not know it, do not trust it: correct `{url}`, or have the network's operator find what answers \
                 in place of {what}"
            )
        }
        CertificateProblem::BadSignature => format!(
            "if the operator of {what} has renewed its CA: set {ca_file} to the PEM file of its CA, as it is now; if not, do not \
             trust it: something between this host and {what} answers in its place"
        ),
        CertificateProblem::NotValid { how: NotValid::Expired, .. } => {
            format!(
                "correct the clock of this host if it is wrong (NTP); else have the operator of {what} renew the certificate"
            )
        }
        CertificateProblem::NotValid { how: NotValid::NotYet, .. } => {
            format!(
                "correct the clock of this host if it is wrong (NTP); else have the operator of {what} replace the certificate"
            )
        }
        CertificateProblem::WrongName { .. } => format!(
            "correct the host in `{url}`, or the DNS of this host: another server answers at this address; if that is what \
             you want, have its operator add the name to its certificate"
        ),
        CertificateProblem::Revoked
        | CertificateProblem::Unreadable
        | CertificateProblem::NoProof
        | CertificateProblem::Other(_) => {
            format!(
                "do not trust it: have the operator of {what} replace the certificate, or find what answers in its place"
            )
        }
    })
}

/// Returns the command that shows what a server presents.
pub(super) fn show(host: &str, port: u16, proxy: Option<&EgressProxy>) -> Remediation {
    let target = Target::new(host, port);
    let proxy = proxy.map(|proxy| format!(" -proxy {}", Target::new(&proxy.host, proxy.port))).unwrap_or_default();
    let name = if host.parse::<std::net::IpAddr>().is_ok() { String::new() } else { format!(" -servername {host}") };
    Remediation::command(
        "show the certificates that it presents",
        format!("openssl s_client -connect {target}{name}{proxy} -showcerts </dev/null"),
    )
}
