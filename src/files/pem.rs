//! Parses certificates and keys in PEM (RFC 7468). Accepts the variants that tools produce: in one line, with `\n` instead of
//! line breaks, or indented.
//!
//! The decoder is that of the TLS library. Its errors contain the invalid text, which may be a key, so they are replaced here.

use rustls_pki_types::pem::{PemObject as _, SectionKind};
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer,
    PrivateSec1KeyDer,
};
use zeroize::Zeroizing;

use super::secret::Secret;
use super::warning::FileWarning;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// Why a text is not valid PEM, without any part of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// It has no `-----BEGIN`.
    #[error("is not PEM: it has no line `-----BEGIN …-----`")]
    NotPem,
    /// It is PEM that is encoded in base64 again.
    #[error("is base64-encoded PEM, as in the `data` of a Kubernetes secret: decode it with `base64 -d`")]
    EncodedPem,
    /// It is base64 without the marker lines.
    #[error(
        "is base64 without the lines `-----BEGIN …-----` and `-----END …-----` around it: copy the file with these lines, or, \
         for a certificate in base64, decode it with `base64 -d` and convert it with `openssl x509 -inform DER`"
    )]
    NoMarkers,
    /// A line `-----BEGIN` is incomplete.
    #[error(
        "is not valid PEM: a line `-----BEGIN …` does not end with `-----`; copy the file whole, with its line breaks"
    )]
    IncompleteMarker,
    /// The end is missing.
    #[error(
        "is not valid PEM: it is incomplete, since a `-----BEGIN …-----` has no matching `-----END …-----`; copy the whole file"
    )]
    Truncated,
    /// The text between the lines is not base64.
    #[error(
        "is not valid PEM: the text between `-----BEGIN …-----` and `-----END …-----` is not base64; copy the file again, and \
         inspect it with `openssl pkey -in FILE -noout -text` or \
         `openssl x509 -in FILE -noout -text`"
    )]
    NotBase64,
}

/// The content of a PEM file.
#[derive(Debug, Default)]
pub struct Pem {
    /// Its certificates, in the order of the file.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Its certificate revocation lists, in the order of the file.
    pub revocation_lists: Vec<CertificateRevocationListDer<'static>>,
    /// Its unencrypted private keys, in the order of the file.
    pub keys: Vec<PrivateKeyDer<'static>>,
    /// Whether a key is encrypted.
    pub has_encrypted_key: bool,
    /// Whether it lacks the required line breaks.
    pub in_one_line: bool,
}

impl Pem {
    /// Parses a text.
    ///
    /// # Errors
    /// [`PemError`] if it is not PEM.
    pub fn parse(text: &Secret) -> Result<Self, PemError> {
        let (text, was_escaped) = unescape(text.expose());
        if !text.contains(BEGIN) {
            return Err(explain_missing_markers(&text));
        }
        let mut pem = Self { in_one_line: was_escaped, ..Self::default() };
        let mut rest = text.as_str();
        while let Some((_, from_label)) = rest.split_once(BEGIN) {
            let (label, from_body) = label(from_label).ok_or(PemError::IncompleteMarker)?;
            let end = Zeroizing::new(format!("{END}{label}{DASHES}"));
            let (body, after) = from_body.split_once(end.as_str()).ok_or(PemError::Truncated)?;
            pem.in_one_line |= !from_body.trim_start_matches(['\r', ' ', '\t']).starts_with('\n');
            pem.section(label, body)?;
            rest = after;
        }
        Ok(pem)
    }

    /// Returns the warning about the format of the text.
    pub fn warning(&self) -> Option<FileWarning> {
        self.in_one_line.then_some(FileWarning::PemInOneLine)
    }

    fn section(&mut self, label: &str, body: &str) -> Result<(), PemError> {
        // "BEGIN ENCRYPTED PRIVATE KEY" (PKCS#8) and "Proc-Type: 4,ENCRYPTED" (the older form of OpenSSL).
        if label.starts_with("ENCRYPTED") || label.ends_with("PRIVATE KEY") && body.contains("ENCRYPTED") {
            self.has_encrypted_key = true;
            return Ok(());
        }
        let body: Zeroizing<String> = Zeroizing::new(body.chars().filter(|ch| !ch.is_whitespace()).collect());
        let section = Zeroizing::new(format!("{BEGIN}{label}{DASHES}\n{}\n{END}{label}{DASHES}\n", body.as_str()));
        let mut read = <(SectionKind, Vec<u8>)>::pem_slice_iter(section.as_bytes());
        match read.next() {
            // The error may contain a key.
            Some(Err(_unshown)) => return Err(PemError::NotBase64),
            Some(Ok((SectionKind::Certificate, der))) => self.certificates.push(der.into()),
            Some(Ok((SectionKind::Crl, der))) => self.revocation_lists.push(der.into()),
            Some(Ok((SectionKind::PrivateKey, der))) => self.keys.push(PrivatePkcs8KeyDer::from(der).into()),
            Some(Ok((SectionKind::RsaPrivateKey, der))) => self.keys.push(PrivatePkcs1KeyDer::from(der).into()),
            Some(Ok((SectionKind::EcPrivateKey, der))) => self.keys.push(PrivateSec1KeyDer::from(der).into()),
            // A section of another kind, such as parameters.
            Some(Ok(_)) | None => {}
        }
        Ok(())
    }
}

/// Replaces `\n` and `\r`, each written as two characters, by line breaks. PEM has no backslashes.
fn unescape(text: &str) -> (Zeroizing<String>, bool) {
    let is_escaped = text.contains("\\n") || text.contains("\\r");
    (
        Zeroizing::new(if is_escaped { text.replace("\\n", "\n").replace("\\r", "\r") } else { text.to_owned() }),
        is_escaped,
    )
}

fn label(text: &str) -> Option<(&str, &str)> {
    let (label, rest) = text.split_once(DASHES)?;
    let is_label = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b' ';
    (label.len() <= 40 && label.bytes().all(is_label)).then_some((label, rest))
}

/// Returns why a text without `-----BEGIN` is not PEM.
fn explain_missing_markers(text: &str) -> PemError {
    let text = text.trim_start();
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=\r\n ".contains(&byte);
    // `-----BEGIN` and the first bytes of DER, in base64.
    match () {
        () if text.starts_with("LS0tLS1CRUdJTi") => PemError::EncodedPem,
        () if text.starts_with("MI") && text.len() > 100 && text.bytes().all(is_base64) => PemError::NoMarkers,
        () => PemError::NotPem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nQUJDREVGR0hJSktMTU5PUA==\n-----END PRIVATE KEY-----\n";
    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMTIzNDU2Nzg=\n-----END CERTIFICATE-----\n";

    fn parse(text: &str) -> Result<Pem, PemError> {
        Pem::parse(&Secret::new(text.to_owned()))
    }

    #[test]
    fn reads_every_form_of_line_breaks() {
        let both = format!("{CERTIFICATE}{KEY}");
        let indented = both.replace('\n', "\n    ");
        for (text, in_one_line) in [
            (both.clone(), false),
            (both.replace('\n', "\r\n"), false),
            (indented, false),
            (format!("Bag Attributes\n  friendlyName: x\n{both}"), false),
            (both.replace('\n', "\\n"), true),
            (both.replace('\n', "\\r\\n"), true),
            (both.replace('\n', " "), true),
            (both.replace('\n', ""), true),
            (format!("\"{}\"", both.replace('\n', "\\n")), true),
        ] {
            let pem = parse(&text).unwrap_or_else(|err| panic!("{err}: {text}"));
            assert_eq!(pem.certificates, [CertificateDer::from(b"12345678".as_slice())], "{text}");
            assert_eq!(pem.keys.len(), 1, "{text}");
            assert_eq!(pem.keys[0].secret_der(), b"ABCDEFGHIJKLMNOP", "{text}");
            assert_eq!((pem.in_one_line, pem.has_encrypted_key), (in_one_line, false), "{text}");
        }
    }

    #[test]
    fn explains_why_a_text_is_not_pem() {
        for (text, expected) in [
            ("s3cret".to_owned(), PemError::NotPem),
            ("LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t".to_owned(), PemError::EncodedPem),
            (format!("MIIE{}", "QUJD".repeat(40)), PemError::NoMarkers),
            (KEY.replace("KEY-----\nQ", "KEY----\nQ"), PemError::IncompleteMarker),
            (KEY.split("-----END").next().unwrap().to_owned(), PemError::Truncated),
            (KEY.replace("END PRIVATE", "END RSA PRIVATE"), PemError::Truncated),
            (KEY.replace("QUJD", "Q*JD"), PemError::NotBase64),
            (KEY.replace("QUJD", "QUJ"), PemError::NotBase64),
        ] {
            assert_eq!(parse(&text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn detects_both_forms_of_encrypted_keys() {
        let pkcs8 = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nQUJD\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let older = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nQUJD\n-----END RSA PRIVATE KEY-----\n";
        for text in [pkcs8, older] {
            let pem = parse(text).unwrap();
            assert!(pem.has_encrypted_key && pem.keys.is_empty());
        }
    }
}
