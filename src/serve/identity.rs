//! The identity of a caller: what its certificate names it.

use std::fmt;
use std::sync::Arc;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use crate::files::distinguished_name;

/// The longest identity, in bytes. SPIFFE ids are no longer.
const MAX_IDENTITY: usize = 2048;

/// The identity of a caller: the first URI among the certificate's subject alternative names (such as a SPIFFE id), else the
/// first DNS name in lower case, else the subject (RFC 4514).
///
/// The three kinds never have the same text: a URI begins with a scheme and `:`, a subject with an attribute type and `=`, and
/// a DNS name has neither character.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallerIdentity(Arc<str>);

/// Why a certificate identifies no caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It cannot be parsed.
    #[error("the certificate or its subject alternative names cannot be parsed")]
    Malformed,
    /// It has a SPIFFE id and another URI, which SPIFFE forbids.
    #[error("the certificate has a SPIFFE id and another URI, so it is not clear which one identifies the caller")]
    Ambiguous,
    /// The name is not a URI or a DNS name, or too long.
    #[error("the name that would identify the caller is invalid or longer than {MAX_IDENTITY} bytes")]
    InvalidName,
    /// There is no name.
    #[error("the certificate has neither a URI nor a DNS name nor a subject")]
    Missing,
}

impl CallerIdentity {
    /// Returns the identity in a certificate, which must be verified.
    ///
    /// # Errors
    /// [`IdentityError`] if the certificate identifies no caller.
    pub fn of_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|_unshown| IdentityError::Malformed)?;
        let text = identity(&certificate)?;
        if text.len() > MAX_IDENTITY {
            return Err(IdentityError::InvalidName);
        }
        Ok(Self(text.into()))
    }

    /// Wraps the text of an identity, for dry runs.
    pub fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CallerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn identity(certificate: &X509Certificate<'_>) -> Result<String, IdentityError> {
    let names = certificate.subject_alternative_name().map_err(|_unshown| IdentityError::Malformed)?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let (mut uris, mut hosts) = (Vec::new(), Vec::new());
    for name in names {
        if let GeneralName::URI(uri) = name {
            uris.push(*uri);
        } else if let GeneralName::DNSName(host) = name {
            hosts.push(*host);
        } else if let GeneralName::Invalid(..) = name {
            return Err(IdentityError::Malformed);
        }
    }
    let is_spiffe = |uri: &&str| uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:"));
    if uris.len() > 1 && uris.iter().any(is_spiffe) {
        return Err(IdentityError::Ambiguous);
    }
    if let Some(uri) = uris.first() {
        return if is_uri(uri) { Ok((*uri).to_owned()) } else { Err(IdentityError::InvalidName) };
    }
    if let Some(host) = hosts.first() {
        let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte);
        let is_host = !host.is_empty() && host.bytes().all(is_host_byte);
        return if is_host { Ok(host.to_ascii_lowercase()) } else { Err(IdentityError::InvalidName) };
    }
    let subject = distinguished_name(certificate.subject());
    if subject.is_empty() { Err(IdentityError::Missing) } else { Ok(subject) }
}

/// Returns whether a text begins with a URI scheme and is printable ASCII.
fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme && !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn identity(names: Vec<SanType>, common_name: &str) -> Result<String, IdentityError> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names;
        params.distinguished_name = rcgen::DistinguishedName::new();
        if !common_name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, common_name);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        CallerIdentity::of_certificate(certificate.der()).map(|identity| identity.as_str().to_owned())
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    #[test]
    fn uri_takes_precedence_over_dns_names_and_they_over_the_subject() {
        let id = "spiffe://prod/orders";
        assert_eq!(identity(vec![dns("orders.internal"), uri(id)], "orders").as_deref(), Ok(id));
        assert_eq!(identity(vec![dns("Orders.Internal"), dns("other")], "orders").as_deref(), Ok("orders.internal"));
        assert_eq!(identity(vec![], "orders").as_deref(), Ok("CN=orders"));
        assert_eq!(identity(vec![], ""), Err(IdentityError::Missing));
        assert_eq!(identity(vec![uri("https://a/1"), uri("https://a/2")], "x").as_deref(), Ok("https://a/1"));
    }

    #[test]
    fn spiffe_id_must_be_the_only_uri() {
        for names in [[uri("spiffe://prod/a"), uri("spiffe://prod/b")], [uri("https://a/"), uri("SPIFFE://prod/a")]] {
            assert_eq!(identity(names.to_vec(), "x"), Err(IdentityError::Ambiguous));
        }
    }

    #[test]
    fn names_of_one_kind_cannot_imitate_another() {
        for name in [
            uri("CN=orders"),
            uri("orders.internal"),
            uri("a b:c"),
            uri("spiffe://a/b c"),
            uri("spiffe:\nx"),
            uri("x:"),
        ] {
            assert_eq!(identity(vec![name.clone()], "x"), Err(IdentityError::InvalidName), "{name:?}");
        }
        for name in [dns("CN=orders"), dns("spiffe://prod/a"), dns("")] {
            assert_eq!(identity(vec![name.clone()], "x"), Err(IdentityError::InvalidName), "{name:?}");
        }
        assert_eq!(identity(vec![uri(&format!("x:{}", "a".repeat(2048)))], ""), Err(IdentityError::InvalidName));
    }
}
