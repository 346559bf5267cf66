//! What the certificate of a server says, as text that is safe to show: anyone can write into a certificate what they like.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::files::{Validity, distinguished_name};

/// The longest subject or issuer, in characters. Chosen: those of public CAs have up to 100.
const MAX_NAME: usize = 120;
/// The longest host name, in characters. Chosen: those of SignalR resources have up to 80.
const MAX_HOST: usize = 80;
/// How many of the names in a certificate are shown.
const MAX_HOSTS: usize = 4;

/// What a certificate says.
#[derive(Debug)]
pub(super) struct Presented {
    /// The subject (RFC 4514); empty if it has none.
    pub(super) subject: String,
    /// The issuer.
    pub(super) issuer: String,
    /// Whether subject and issuer are the same.
    pub(super) is_self_issued: bool,
    /// The first DNS names and IP addresses that it is for.
    pub(super) hosts: Vec<String>,
    /// How many more there are.
    pub(super) more_hosts: usize,
    /// When it is valid.
    pub(super) validity: Validity,
}

impl Presented {
    /// Parses a certificate; `None` if that is not possible.
    pub(super) fn parse(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let (hosts, more_hosts) = hosts(&certificate);
        Some(Self {
            subject: harmless(&distinguished_name(certificate.subject()), MAX_NAME),
            issuer: harmless(&distinguished_name(certificate.issuer()), MAX_NAME),
            is_self_issued: certificate.subject().as_raw() == certificate.issuer().as_raw(),
            hosts,
            more_hosts,
            validity: Validity::of(&certificate),
        })
    }

    /// Returns the names that it is for, for a sentence; `None` if there are none.
    pub(super) fn hosts(&self) -> Option<String> {
        if self.hosts.is_empty() {
            return None;
        }
        let shown = self.hosts.iter().map(|host| format!("`{host}`")).collect::<Vec<_>>().join(", ");
        Some(if self.more_hosts == 0 { shown } else { format!("{shown} and {} more", self.more_hosts) })
    }
}

/// Returns the first names of a certificate, and how many more there are.
fn hosts(certificate: &X509Certificate<'_>) -> (Vec<String>, usize) {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return (Vec::new(), 0) };
    let mut hosts = names.value.general_names.iter().filter_map(host);
    (hosts.by_ref().take(MAX_HOSTS).collect(), hosts.count())
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(harmless(name, MAX_HOST)),
        GeneralName::IPAddress(bytes) => {
            let ip = <[u8; 4]>::try_from(*bytes)
                .map(IpAddr::from)
                .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            Some(ip.map_or_else(|_| "an invalid address".to_owned(), |ip| ip.to_string()))
        }
        GeneralName::OtherName(..)
        | GeneralName::RFC822Name(_)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::URI(_)
        | GeneralName::RegisteredID(_)
        | GeneralName::Invalid(..) => None,
    }
}

/// Returns a text in one line, of at most `max` characters, that cannot control a terminal or change the direction of the text
/// around it, and that can be quoted with backticks.
pub(super) fn harmless(text: &str, max: usize) -> String {
    let (mut shown, mut length) = (String::new(), 0);
    for character in text.chars() {
        if length >= max {
            shown.push('…');
            break;
        }
        let escaped = character.escape_debug();
        match character {
            '`' => shown.push('\''),
            '"' | '\'' | '\\' => shown.push(character),
            // Control and format characters, and others that are not printable.
            _ => {
                length += escaped.len() - 1;
                shown.extend(escaped);
            }
        }
        length += 1;
    }
    shown
}

/// Returns a time in RFC 3339.
pub(super) fn time(at: SystemTime) -> String {
    let mut text = String::new();
    match write!(text, "{}", humantime::format_rfc3339_seconds(at)) {
        Ok(()) => text,
        Err(_beyond_the_year_9999) => "a time after the year 9999".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(common_name: &str, names: Vec<SanType>) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names = names;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    #[test]
    fn what_a_certificate_says_is_one_short_line_without_control_characters() {
        let hostile = "a\r\n\u{1b}[31mERROR\0`\u{202e}\u{200b}";
        let presented = Presented::parse(&certificate(hostile, vec![dns("\u{1b}[2J`x")])).unwrap();
        assert_eq!(presented.subject, r"CN=a\0D\0A\1B[31mERROR\00'\u{202e}\u{200b}");
        assert_eq!(presented.hosts, [r"\u{1b}[2J'x"]);
        let presented = Presented::parse(&certificate(&"ü".repeat(30_000), Vec::new())).unwrap();
        assert_eq!(presented.subject, format!("CN={}…", "ü".repeat(MAX_NAME - 3)));
        assert_eq!(presented.hosts(), None);
    }

    #[test]
    fn the_first_names_of_a_certificate_are_shown() {
        let mut names = vec![SanType::URI("spiffe://x".try_into().unwrap()), SanType::IpAddress([127, 0, 0, 1].into())];
        names.extend((0..2000).map(|index| dns(&format!("host-{index}.example"))));
        let presented = Presented::parse(&certificate("x", names)).unwrap();
        let expected = "`127.0.0.1`, `host-0.example`, `host-1.example`, `host-2.example` and 1997 more";
        assert_eq!(presented.hosts().unwrap(), expected);
        assert!(presented.is_self_issued);
    }

    proptest! {
        #[test]
        fn no_bytes_that_a_server_sends_as_certificate_break_anything(
            at in prop::collection::vec((0..500_usize, any::<u8>()), 0..4),
            length in 0..500_usize,
        ) {
            static VALID: std::sync::OnceLock<CertificateDer<'static>> = std::sync::OnceLock::new();
            let mut der = VALID.get_or_init(|| certificate("a", vec![dns("b"), dns("c")])).to_vec();
            for (at, byte) in at {
                if let Some(changed) = der.get_mut(at) {
                    *changed = byte;
                }
            }
            der.truncate(der.len().min(length + 200));
            if let Some(presented) = Presented::parse(&der.into()) {
                let text = format!("{}{}{:?}", presented.subject, presented.issuer, presented.hosts());
                prop_assert!(text.chars().all(|character| !character.is_control()), "{text}");
                prop_assert!(text.chars().count() < 2 * 130 + MAX_HOSTS * 110, "{text}");
                time(presented.validity.not_after);
            }
        }
    }
}
