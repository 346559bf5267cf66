//! Values that are written as text: sizes, URLs, networks, headers.

use std::net::IpAddr;

use http::{HeaderName, HeaderValue, Uri};
use ipnet::IpNet;

use super::Context;
use crate::config::file::SizeFile;
use crate::endpoint::Origin;

impl Context<'_> {
    /// Reads a number of bytes from 1 to `most`.
    pub(super) fn size(&mut self, key: &[String], size: &SizeFile, most: u64) -> u64 {
        let bytes = match size {
            SizeFile::Bytes(bytes) => Some(*bytes),
            SizeFile::Text(text) => parse_size(text),
        };
        match bytes {
            Some(bytes) if (1..=most).contains(&bytes) => return bytes,
            Some(bytes) => self.problem(key, format!("is {bytes} bytes, must be 1 to {most}"), None),
            None => {
                let fix = "write a number of bytes, or a number with `KiB` or `MiB`".to_owned();
                self.problem(key, "is not a size", Some(fix));
            }
        }
        most
    }

    /// Reads `scheme://host[:port]`. `plain_http` says where `http` may go.
    pub(super) fn origin(&mut self, key: &[String], text: &str, plain_http: PlainHttp) -> Option<Origin> {
        let Some(url) = text.parse::<Uri>().ok().filter(|url| url.host().is_some()) else {
            self.problem(
                key,
                format!("`{text}` is not a URL"),
                Some("write `https://host` or `https://host:port`".to_owned()),
            );
            return None;
        };
        let extra = url.path_and_query().is_some_and(|path| path.as_str() != "/") || text.contains(['@', '#']);
        if extra {
            let fix = "write the scheme, the host and at most a port".to_owned();
            self.problem(key, format!("`{text}` has more than an origin"), Some(fix));
            return None;
        }
        let tls = match url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => {
                self.problem(key, "the scheme must be https", None);
                return None;
            }
        };
        let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if !tls && !plain_http.allows(&host) {
            let fix = match plain_http {
                PlainHttp::Never => "write https://; the identity library refuses anything else".to_owned(),
                PlainHttp::Loopback | PlainHttp::OnHost => {
                    "write https://: a bearer token must not cross a network in the clear".to_owned()
                }
            };
            self.problem(key, format!("the scheme is http and `{host}` is not this host"), Some(fix));
            return None;
        }
        let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
        if port == 0 {
            self.problem(key, "the port is 0", None);
            return None;
        }
        Some(Origin { tls, host, port })
    }

    pub(super) fn networks(&mut self, key: &[String], texts: &[String]) -> Vec<IpNet> {
        let mut networks = Vec::with_capacity(texts.len());
        for text in texts {
            let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
            if network.is_none() {
                let fix = "write an address or a network, such as `10.0.0.0/8`".to_owned();
                self.problem(key, format!("`{text}` is not a network"), Some(fix));
            }
            networks.extend(network);
        }
        networks
    }

    pub(super) fn header_name(&mut self, key: &[String], text: &str) -> Option<HeaderName> {
        let name = text.parse().ok();
        if name.is_none() {
            self.problem(key, format!("`{text}` is not a header name"), None);
        }
        name
    }

    pub(super) fn header_value(&mut self, key: &[String], text: &str) -> Option<HeaderValue> {
        let value = text.parse().ok();
        if value.is_none() {
            self.problem(key, "is not a header value: it has control characters", None);
        }
        value
    }
}

/// Where plain HTTP may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlainHttp {
    /// Nowhere.
    Never,
    /// To this host.
    Loopback,
    /// To this host, or to an address that no router passes on.
    OnHost,
}

impl PlainHttp {
    fn allows(self, host: &str) -> bool {
        let address = host.parse::<IpAddr>();
        let is_loopback = host == "localhost" || address.as_ref().is_ok_and(IpAddr::is_loopback);
        let is_link_local = matches!(address, Ok(IpAddr::V4(address)) if address.is_link_local());
        match self {
            Self::Never => false,
            Self::Loopback => is_loopback,
            Self::OnHost => is_loopback || is_link_local,
        }
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units_or_none() {
        for (text, bytes) in [
            ("1048576", Some(1_048_576)),
            ("1MiB", Some(1_048_576)),
            ("16 KiB", Some(16_384)),
            ("1MB", None),
            ("-1", None),
            ("MiB", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }

    #[test]
    fn plain_http_stays_on_the_host() {
        assert!(PlainHttp::Loopback.allows("127.0.0.9") && PlainHttp::Loopback.allows("::1"));
        assert!(!PlainHttp::Loopback.allows("169.254.169.254") && PlainHttp::OnHost.allows("169.254.169.254"));
        assert!(!PlainHttp::OnHost.allows("10.0.0.1") && !PlainHttp::Never.allows("localhost"));
    }
}
