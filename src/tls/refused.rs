//! Why the certificate of a server is refused, and what it says.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::CertificateError;
use rustls_pki_types::CertificateDer;

use super::presented::{Presented, harmless, time};
use super::trust::Trust;
use crate::files::NotValid;

/// The longest text of another error, in characters.
const MAX_ERROR: usize = 200;
/// How many certificates of a chain are searched for one that is not valid. Chosen: chains have up to four.
const MAX_CHAIN: usize = 8;

/// The error of a handshake that ended because of the server's certificate: what is wrong with it, and what it says. Cloning
/// increments a reference count.
#[derive(Clone, Debug)]
pub struct RefusedCertificate(Arc<Refused>);

#[derive(Debug)]
struct Refused {
    problem: CertificateProblem,
    /// `None` if it cannot be parsed.
    certificate: Option<Presented>,
    /// The issuer of the last certificate that was sent, if that is not the certificate's own issuer.
    chain_end: Option<String>,
    /// Whether the server sent more than its own certificate.
    has_chain: bool,
    trust: Arc<Trust>,
}

/// What is wrong with the certificate of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateProblem {
    /// None of the CAs in use has issued it.
    UnknownIssuer,
    /// A CA of the issuer's name is in use, but the certificate is not signed with its key.
    BadSignature,
    /// It, or another one of the chain, is not valid now.
    NotValid {
        /// How.
        how: NotValid,
        /// The first or last moment of its validity.
        bound: Option<SystemTime>,
        /// The subject of the certificate, if it is not the server's own.
        of_chain: Option<String>,
        /// The clock of this host.
        now: SystemTime,
    },
    /// It is for other servers.
    WrongName {
        /// The name that it should be for.
        expected: String,
    },
    /// Its CA has revoked it.
    Revoked,
    /// It cannot be parsed.
    Unreadable,
    /// The server does not prove that it has its key.
    NoProof,
    /// Another problem.
    Other(String),
}

/// What a server sent, and what it was verified against.
pub(super) struct Handshake<'a> {
    /// Its certificate, then those that it sent besides.
    pub(super) chain: (&'a CertificateDer<'a>, &'a [CertificateDer<'a>]),
    /// The name that the certificate should be for.
    pub(super) server_name: String,
    /// The CAs in use.
    pub(super) trust: &'a Arc<Trust>,
    /// The clock of this host.
    pub(super) now: SystemTime,
}

impl RefusedCertificate {
    /// Explains the error of verifying a certificate.
    pub(super) fn new(err: &rustls::Error, handshake: &Handshake<'_>) -> Self {
        Self::of(problem(err, handshake), handshake)
    }

    /// Explains that the server does not prove that it has the key of its certificate.
    pub(super) fn without_proof(handshake: &Handshake<'_>) -> Self {
        Self::of(CertificateProblem::NoProof, handshake)
    }

    fn of(problem: CertificateProblem, handshake: &Handshake<'_>) -> Self {
        let (leaf, others) = handshake.chain;
        let certificate = Presented::parse(leaf);
        let last = others.last().and_then(Presented::parse).map(|last| last.issuer);
        let chain_end = last.filter(|last| certificate.as_ref().is_none_or(|leaf| leaf.issuer != *last));
        let trust = Arc::clone(handshake.trust);
        Self(Arc::new(Refused { problem, certificate, chain_end, has_chain: !others.is_empty(), trust }))
    }

    /// Returns the one among an error and its sources.
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            // The source of an `io::Error` is that of the error in it.
            let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            let found = error.downcast_ref().or_else(|| wrapped?.downcast_ref());
            if found.is_some() {
                return found;
            }
            next = error.source();
        }
        None
    }

    /// Returns what is wrong.
    pub fn problem(&self) -> &CertificateProblem {
        &self.0.problem
    }

    /// Returns whether the server sent its own certificate alone, and that is not self-signed: an intermediate one may be missing.
    pub fn lacks_chain(&self) -> bool {
        !self.0.has_chain && self.0.certificate.as_ref().is_some_and(|certificate| !certificate.is_self_issued)
    }

    /// Returns what to do, in one sentence for the log.
    pub fn remedy(&self) -> &'static str {
        match &self.0.problem {
            CertificateProblem::UnknownIssuer | CertificateProblem::BadSignature => {
                "if you know the issuer, such as a proxy of your organisation that inspects TLS: set `ca_file` to its CA; if not, \
                 do not trust it: correct the configured host, or have the network's operator find what answers in its place"
            }
            CertificateProblem::NotValid { .. } => {
                "correct the clock of this host if it is wrong (NTP); else have the server's certificate replaced"
            }
            CertificateProblem::WrongName { .. } => {
                "correct the configured host, or the DNS of this host: another server answers at its address"
            }
            CertificateProblem::Revoked
            | CertificateProblem::Unreadable
            | CertificateProblem::NoProof
            | CertificateProblem::Other(_) => "do not trust it: find what answers in the server's place",
        }
    }

    /// Returns what is known, as names and values: `certificate`, `issuer`, `valid` and `CAs in use`.
    pub fn details(&self) -> Vec<(&'static str, String)> {
        let Refused { certificate, chain_end, trust, .. } = &*self.0;
        let mut details = Vec::with_capacity(4);
        match certificate {
            None => details.push(("certificate", "cannot be read".to_owned())),
            Some(certificate) => {
                let hosts = certificate.hosts().map(|hosts| format!("for {}", hosts.replace('`', "")));
                let subject = Some(certificate.subject.clone()).filter(|subject| !subject.is_empty());
                let parts: Vec<String> = subject.into_iter().chain(hosts).collect();
                details.push(("certificate", parts.join(", ")));
                let end = chain_end.as_ref().map(|end| format!("; its chain ends at {end}"));
                details.push(("issuer", format!("{}{}", certificate.issuer, end.unwrap_or_default())));
                let validity = certificate.validity;
                details.push(("valid", format!("{} to {}", time(validity.not_before), time(validity.not_after))));
            }
        }
        details.push(("CAs in use", trust.to_string().replace('`', "")));
        details
    }
}

impl fmt::Display for RefusedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refused { problem, certificate, trust, .. } = &*self.0;
        let Some(certificate) = certificate else { return f.write_str("its certificate cannot be read") };
        let issuer = quoted(&certificate.issuer);
        match problem {
            CertificateProblem::UnknownIssuer => return self.0.write_unknown_issuer(f, certificate),
            CertificateProblem::BadSignature => {
                return write!(
                    f,
                    "its certificate names {issuer} as its issuer, but is not signed with the key that this CA has among the CAs \
                     in use ({trust})"
                );
            }
            CertificateProblem::NotValid { how, bound, of_chain, now } => {
                match of_chain {
                    None => f.write_str("its certificate")?,
                    Some(subject) => write!(f, "the certificate {} in its chain", quoted(subject))?,
                }
                f.write_str(match how {
                    NotValid::Expired => " has expired",
                    NotValid::NotYet => " is not valid yet",
                })?;
                if let Some(bound) = bound {
                    let word = if *how == NotValid::Expired { " on" } else { ", but from" };
                    write!(f, "{word} {}", time(*bound))?;
                }
                write!(f, "; this host's clock says {}", time(*now))?;
            }
            CertificateProblem::WrongName { expected } => match certificate.hosts() {
                Some(hosts) => write!(f, "its certificate is for {hosts}, and not for `{expected}`")?,
                None => write!(f, "its certificate {} is for no host", quoted(&certificate.subject))?,
            },
            CertificateProblem::Revoked => f.write_str("its certificate has been revoked")?,
            CertificateProblem::Unreadable => f.write_str("a certificate in its chain cannot be read")?,
            CertificateProblem::NoProof => f.write_str("it does not prove that it has the key of its certificate")?,
            CertificateProblem::Other(error) => write!(f, "its certificate cannot be used ({error})")?,
        }
        write!(f, " (issued by {issuer})")
    }
}

impl Refused {
    fn write_unknown_issuer(&self, f: &mut fmt::Formatter<'_>, certificate: &Presented) -> fmt::Result {
        let trust = &self.trust;
        if certificate.is_self_issued {
            let subject = quoted(&certificate.subject);
            return write!(f, "its certificate {subject} is self-signed, and not among the CAs in use ({trust})");
        }
        write!(f, "its certificate is issued by {}", quoted(&certificate.issuer))?;
        if let Some(end) = &self.chain_end {
            write!(f, ", whose chain ends at {}", quoted(end))?;
        }
        write!(f, ", which is not among the CAs in use ({trust})")?;
        if self.has_chain { Ok(()) } else { f.write_str("; it sent no intermediate certificate") }
    }
}

impl Error for RefusedCertificate {}

/// Returns what an error of the TLS library means.
#[expect(clippy::wildcard_enum_match_arm, reason = "the enum of the TLS library is not exhaustive")]
fn problem(err: &rustls::Error, handshake: &Handshake<'_>) -> CertificateProblem {
    let other = || CertificateProblem::Other(harmless(&err.to_string(), MAX_ERROR));
    let rustls::Error::InvalidCertificate(err) = err else { return other() };
    match err {
        CertificateError::UnknownIssuer => CertificateProblem::UnknownIssuer,
        CertificateError::BadSignature | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            CertificateProblem::BadSignature
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => not_valid(NotValid::Expired, handshake),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            not_valid(NotValid::NotYet, handshake)
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            CertificateProblem::WrongName { expected: harmless(&handshake.server_name, MAX_ERROR) }
        }
        CertificateError::Revoked => CertificateProblem::Revoked,
        CertificateError::BadEncoding => CertificateProblem::Unreadable,
        _ => other(),
    }
}

/// Finds the certificate of the chain that is not valid.
fn not_valid(how: NotValid, handshake: &Handshake<'_>) -> CertificateProblem {
    let (leaf, others) = handshake.chain;
    let now = handshake.now;
    let certificates = std::iter::once(leaf).chain(others).take(MAX_CHAIN).enumerate();
    let found = certificates
        .filter_map(|(index, der)| Some((index, Presented::parse(der)?)))
        .find(|(_, certificate)| certificate.validity.check(now) == Err(how));
    let bound = found.as_ref().map(|(_, Presented { validity, .. })| match how {
        NotValid::Expired => validity.not_after,
        NotValid::NotYet => validity.not_before,
    });
    let of_chain = found.filter(|(index, _)| *index > 0).map(|(_, certificate)| certificate.subject);
    CertificateProblem::NotValid { how, bound, of_chain, now }
}

fn quoted(name: &str) -> String {
    if name.is_empty() { "an empty name".to_owned() } else { format!("`{name}`") }
}
