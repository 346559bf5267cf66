//! Parses the URL of a proxy, as curl does: `[scheme://][user[:password]@]host[:port][/…]`.

use std::net::Ipv6Addr;

use percent_encoding::percent_decode_str;

use crate::files::Secret;

/// The default ports of proxies. Source: curl (`CURL_DEFAULT_PROXY_PORT`, `CURL_DEFAULT_HTTPS_PROXY_PORT`).
const DEFAULT_PORT: u16 = 1080;
const DEFAULT_TLS_PORT: u16 = 443;

/// The parsed URL of a proxy.
#[derive(Debug)]
pub struct ProxyUrl {
    /// Whether the scheme is https. Without a scheme it is http.
    pub tls: bool,
    /// The host, in lower case and without brackets.
    pub host: String,
    /// The port, if the URL has one.
    pub port: Option<u16>,
    /// The user name and password, decoded.
    pub user: Option<(String, Secret)>,
}

/// Why a text is not the URL of a proxy. Contains no part of the text, which may have a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProxyUrl {
    /// Another scheme, such as `socks5`.
    #[error("has a scheme that is neither http nor https")]
    Scheme,
    /// No valid host.
    #[error("has no valid host")]
    Host,
    /// No valid port.
    #[error("has a port that is not 1 to 65535")]
    Port,
    /// User information that is not UTF-8.
    #[error("has a user name or password that is not UTF-8 text")]
    User,
}

impl ProxyUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// [`InvalidProxyUrl`].
    pub fn parse(text: &str) -> Result<Self, InvalidProxyUrl> {
        let (scheme, rest) = text.trim().split_once("://").unwrap_or(("http", text.trim()));
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(InvalidProxyUrl::Scheme),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(parse_user(user)?), address),
            None => (None, authority),
        };
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (address, None),
        };
        let port = match port {
            Some(port) => Some(port.parse().ok().filter(|port| *port != 0).ok_or(InvalidProxyUrl::Port)?),
            None => None,
        };
        Ok(Self { tls, host: parse_host(host)?, port, user })
    }

    /// Returns the port, or curl's default.
    pub fn port_or_default(&self) -> u16 {
        self.port.unwrap_or(if self.tls { DEFAULT_TLS_PORT } else { DEFAULT_PORT })
    }
}

fn parse_user(text: &str) -> Result<(String, Secret), InvalidProxyUrl> {
    let (name, password) = text.split_once(':').unwrap_or((text, ""));
    let decode = |text: &str| match percent_decode_str(text).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_not_text) => Err(InvalidProxyUrl::User),
    };
    Ok((decode(name)?, Secret::new(decode(password)?)))
}

fn parse_host(text: &str) -> Result<String, InvalidProxyUrl> {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address = address.parse::<Ipv6Addr>();
        return address.map(|address| address.to_string()).map_err(|_invalid| InvalidProxyUrl::Host);
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_host = (1..=253).contains(&text.len()) && text.bytes().all(is_plain) && !text.starts_with('.');
    if is_host { Ok(text.to_ascii_lowercase()) } else { Err(InvalidProxyUrl::Host) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_urls_as_curl_does() {
        for (text, expected) in [
            ("http://proxy.corp:3128", "http proxy.corp 3128"),
            ("HTTPS://Proxy.Corp:8443/", "https proxy.corp 8443"),
            ("proxy.corp:8080", "http proxy.corp 8080"),
            ("proxy.corp", "http proxy.corp 1080"),
            ("https://proxy.corp/path?query", "https proxy.corp 443"),
            ("http://10.0.0.1:1", "http 10.0.0.1 1"),
            ("http://[::1]:3128", "http ::1 3128"),
            ("http://[0:0::1]", "http ::1 1080"),
        ] {
            let url = ProxyUrl::parse(text).unwrap();
            let scheme = if url.tls { "https" } else { "http" };
            assert_eq!(format!("{scheme} {} {}", url.host, url.port_or_default()), expected, "{text}");
            assert!(url.user.is_none(), "{text}");
        }
    }

    #[test]
    fn decodes_the_user_name_and_the_password() {
        for (text, name, password) in [
            ("http://gateway:s3cret@proxy:1", "gateway", "s3cret"),
            ("http://gateway:p%40ss%3Aword@proxy", "gateway", "p@ss:word"),
            ("http://corp%5Cgateway:a:b@proxy", "corp\\gateway", "a:b"),
            ("http://gateway:p@ss@proxy", "gateway", "p@ss"),
            ("gateway@proxy:3128", "gateway", ""),
        ] {
            let (found, secret) = ProxyUrl::parse(text).unwrap().user.unwrap();
            assert_eq!((found.as_str(), secret.expose()), (name, password), "{text}");
        }
    }

    #[test]
    fn rejects_other_schemes_hosts_and_ports() {
        for (text, problem) in [
            ("socks5://proxy:1080", InvalidProxyUrl::Scheme),
            ("", InvalidProxyUrl::Host),
            ("http://", InvalidProxyUrl::Host),
            ("http://pro xy:1", InvalidProxyUrl::Host),
            ("http://::1:3128", InvalidProxyUrl::Host),
            ("http://a:b@", InvalidProxyUrl::Host),
            ("http://proxy:0", InvalidProxyUrl::Port),
            ("http://proxy:65536", InvalidProxyUrl::Port),
            ("http://proxy:", InvalidProxyUrl::Port),
            ("http://%ff:x@proxy", InvalidProxyUrl::User),
        ] {
            assert_eq!(ProxyUrl::parse(text).err(), Some(problem), "{text}");
        }
    }
}
