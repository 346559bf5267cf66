//! Writes the distinguished name of a certificate as text (RFC 4514), as `openssl x509 -nameopt RFC2253` does.

use std::fmt::Write as _;

use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// The names of attribute types: those of RFC 4514 section 3, and those that subjects of certificates often have besides.
const ATTRIBUTE_TYPES: [(&str, &str); 14] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "street"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.4", "SN"),
    ("2.5.4.42", "GN"),
    ("2.5.4.12", "title"),
];

/// Returns a name as text, the most specific part first; empty if the name is.
pub fn distinguished_name(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let part = |attributes: &x509_parser::x509::RelativeDistinguishedName<'_>| {
        attributes.iter().map(attribute).collect::<Vec<_>>().join("+")
    };
    parts.into_iter().rev().map(part).collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let id = attribute.attr_type().to_id_string();
    let known = ATTRIBUTE_TYPES.iter().find(|(known, _)| *known == id).map(|(_, name)| *name);
    match (known, string(attribute)) {
        (Some(name), Some(value)) => format!("{name}={}", escape(&value)),
        // The value of an unknown type is its encoding.
        (known, _) => format!("{}={}", known.unwrap_or(&id), encoding(attribute)),
    }
}

/// Returns the value of a string type; `None` for other types.
fn string(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let bytes = attribute.as_slice();
    match attribute.attr_value().tag().0 {
        // UTF8String, NumericString, PrintableString, IA5String.
        12 | 18 | 19 | 22 => std::str::from_utf8(bytes).ok().map(str::to_owned),
        // BMPString.
        30 if bytes.len().is_multiple_of(2) => {
            let units =
                bytes.chunks_exact(2).map(|pair| pair.iter().fold(0, |unit, byte| unit << 8 | u16::from(*byte)));
            String::from_utf16(&units.collect::<Vec<_>>()).ok()
        }
        _ => None,
    }
}

/// Escapes a value (RFC 4514 section 2.4). Control characters are escaped too, so that a name is always one line.
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (index, ch) in value.chars().enumerate() {
        let is_special = matches!(ch, '"' | '+' | ',' | ';' | '<' | '>' | '\\')
            || index == 0 && matches!(ch, ' ' | '#')
            || index == last && ch == ' ';
        if is_special {
            escaped.push('\\');
            escaped.push(ch);
        } else if ch.is_control() {
            let mut bytes = [0; 4];
            for byte in ch.encode_utf8(&mut bytes).bytes() {
                let _infallible = write!(escaped, "\\{byte:02X}");
            }
        } else {
            escaped.push(ch);
        }
    }
    escaped
}

/// Returns `#` and the DER encoding of a value in hexadecimal.
fn encoding(attribute: &AttributeTypeAndValue<'_>) -> String {
    let (value, bytes) = (attribute.attr_value(), attribute.as_slice());
    let header = &value.header;
    let identifier = u32::from(header.class() as u8) << 6 | u32::from(header.is_constructed()) << 5 | header.tag().0;
    let mut text = format!("#{identifier:02X}");
    let length = bytes.len().to_be_bytes();
    let significant = length.iter().skip_while(|byte| **byte == 0);
    if bytes.len() >= 0x80 {
        let _infallible = write!(text, "{:02X}", 0x80 | significant.clone().count());
    }
    if bytes.is_empty() {
        text.push_str("00");
    }
    for byte in significant.chain(bytes) {
        let _infallible = write!(text, "{byte:02X}");
    }
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;

    fn text(parts: Vec<(DnType, DnValue)>) -> String {
        let mut name = DistinguishedName::new();
        for (kind, value) in parts {
            name.push(kind, value);
        }
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = name;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate.der()).unwrap();
        distinguished_name(parsed.subject())
    }

    #[test]
    fn most_specific_part_comes_first() {
        let parts = vec![
            (DnType::CountryName, DnValue::PrintableString("DE".try_into().unwrap())),
            (DnType::OrganizationName, DnValue::Utf8String("Müller, Söhne".to_owned())),
            (DnType::CommonName, DnValue::BmpString("orders".try_into().unwrap())),
        ];
        assert_eq!(text(parts), "CN=orders,O=Müller\\, Söhne,C=DE");
        assert_eq!(text(Vec::new()), "");
    }

    #[test]
    fn values_cannot_imitate_another_name() {
        for (value, escaped) in [
            ("a,O=b", "a\\,O=b"),
            ("a+b", "a\\+b"),
            (" a ", "\\ a\\ "),
            ("#a#", "\\#a#"),
            ("a\nb\0", "a\\0Ab\\00"),
            ("a\\,b", "a\\\\\\,b"),
        ] {
            let name = text(vec![(DnType::CommonName, DnValue::Utf8String(value.to_owned()))]);
            assert_eq!(name, format!("CN={escaped}"));
        }
    }

    #[test]
    fn values_of_unknown_types_are_encoded() {
        let unknown = DnType::CustomDnType(vec![1, 2, 3, 4]);
        assert_eq!(text(vec![(unknown.clone(), DnValue::Utf8String("ab".to_owned()))]), "1.2.3.4=#0C026162");
        let long = text(vec![(unknown, DnValue::Utf8String("a".repeat(200)))]);
        assert!(long.starts_with("1.2.3.4=#0C81C86161"), "{long}");
    }
}
