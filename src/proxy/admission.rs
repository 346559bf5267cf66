//! Who and what may pass a listener. Looks at the head of a request alone.
//!
//! The gateway lends its credentials to whoever reaches it, so what must be kept out is a browser page: one that was
//! opened on a machine inside can reach loopback and internal addresses, directly or by rebinding a name of its own.
//! Such a request shows itself by its `Host`, its `Origin` or its `Sec-Fetch-Site`.

use std::net::IpAddr;

use http::header::{HeaderValue, ORIGIN};

use super::error::ProxyError;
use super::headers::SEC_FETCH_SITE;
use super::{AdmissionSettings, CallHead};
use crate::serve::Peer;
use crate::signalr::Operation;

/// The admission rules of one listener.
#[derive(Debug)]
pub struct Admission {
    settings: AdmissionSettings,
    max_header_bytes: usize,
    max_body_bytes: u64,
}

impl Admission {
    /// Makes the rules. The limits are the gateway's, in bytes.
    pub fn new(settings: AdmissionSettings, max_header_bytes: usize, max_body_bytes: u64) -> Self {
        Self { settings, max_header_bytes, max_body_bytes }
    }

    /// Lets a request pass by its head, before anybody asks which operation it is.
    ///
    /// # Errors
    /// [`ProxyError`] says what stands in the way.
    pub fn admit(&self, peer: &Peer, head: &CallHead) -> Result<(), ProxyError> {
        self.admit_client(peer)?;
        let size = head.bytes();
        if size > self.max_header_bytes {
            return Err(ProxyError::HeadersTooLarge { size, limit: self.max_header_bytes });
        }
        self.admit_host(head)?;
        admit_origin(head)?;
        if let Some((name, value)) = &self.settings.required_header
            && !head.headers.get_all(name).iter().any(|found| found == value)
        {
            return Err(ProxyError::HeaderRequired { header: name.clone() });
        }
        if head.glance.content_length.is_some_and(|length| length > self.max_body_bytes) {
            return Err(ProxyError::BodyTooLarge { limit: self.max_body_bytes });
        }
        Ok(())
    }

    /// Lets an operation pass.
    ///
    /// # Errors
    /// [`ProxyError::OperationNotAllowed`].
    pub fn admit_operation(&self, operation: Operation) -> Result<(), ProxyError> {
        // Health says nothing about the service: the gateway answers it.
        if operation == Operation::Health || self.settings.operations.contains(operation) {
            Ok(())
        } else {
            Err(ProxyError::OperationNotAllowed(operation))
        }
    }

    fn admit_client(&self, peer: &Peer) -> Result<(), ProxyError> {
        let Some(networks) = self.settings.clients.allowed() else { return Ok(()) };
        // Who may open a Unix socket is up to its mode.
        let Some(address) = peer.address.map(|address| address.ip().to_canonical()) else { return Ok(()) };
        let is_inside = networks.iter().any(|network| network.contains(&address));
        if is_inside { Ok(()) } else { Err(ProxyError::ClientNotAllowed) }
    }

    fn admit_host(&self, head: &CallHead) -> Result<(), ProxyError> {
        if head.glance.hosts > 1 {
            return Err(ProxyError::Malformed("there is more than one Host header"));
        }
        let host = head.host().ok_or(ProxyError::Malformed("there is no Host header, or it is not ASCII"))?;
        if self.is_allowed(host) { Ok(()) } else { Err(ProxyError::HostNotAllowed { host: printable(host) }) }
    }

    fn is_allowed(&self, host: &str) -> bool {
        let name = without_port(host);
        self.is_allowed_name(name.strip_suffix('.').unwrap_or(name)) || is_address_or_localhost(name)
    }

    fn is_allowed_name(&self, name: &str) -> bool {
        self.settings.allowed_hosts.iter().any(|allowed| match allowed.strip_prefix('*') {
            Some(suffix) => {
                name.len() > suffix.len()
                    && name.get(name.len() - suffix.len()..).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
            }
            None => name.eq_ignore_ascii_case(allowed),
        })
    }
}

fn is_address_or_localhost(name: &str) -> bool {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// Refuses what a browser says a page sent. `Sec-Fetch-Site: none` is a person who typed the address, and
/// `same-origin` is a page that the gateway itself would have served.
///
/// Source: Fetch Metadata Request Headers (W3C), section 2.3.
fn admit_origin(head: &CallHead) -> Result<(), ProxyError> {
    if !head.glance.is_by_browser {
        return Ok(());
    }
    if head.headers.contains_key(ORIGIN) {
        return Err(ProxyError::OriginNotAllowed { header: "Origin" });
    }
    match head.headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes) {
        None | Some(b"none" | b"same-origin") => Ok(()),
        Some(_) => Err(ProxyError::OriginNotAllowed { header: "Sec-Fetch-Site" }),
    }
}

/// Cuts the port off a `Host` value. A colon inside brackets belongs to an IPv6 address.
pub(super) fn without_port(host: &str) -> &str {
    let name = host.trim_end_matches(|last: char| last.is_ascii_digit());
    name.strip_suffix(':').unwrap_or(host)
}

/// What a caller sent, fit for an error text.
fn printable(text: &str) -> String {
    text.chars().take(100).filter(char::is_ascii_graphic).collect()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::route::Constraint;
    use crate::signalr::OperationSet;

    fn admission() -> Admission {
        let settings = AdmissionSettings {
            listener: "default".into(),
            max_requests: None,
            client_rate: None,
            allowed_hosts: vec!["gateway.internal".into(), "*.svc.cluster.local".into()],
            operations: OperationSet::MESSAGES,
            clients: Constraint::OneOf(vec!["10.0.0.0/8".parse().unwrap()]),
            required_header: None,
        };
        Admission::new(settings, 16 * 1024, 1024)
    }

    fn admit(lines: &[(&str, &str)]) -> Result<(), ProxyError> {
        let mut request = Request::post("/api/hubs/h/:send");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let peer =
            Peer { listener: 0, address: Some("10.1.1.1:5".parse().unwrap()), is_tls: false, forwarded_for: None };
        admission().admit(
            &peer,
            &CallHead::new(request.body(()).unwrap().into_parts().0, || HeaderValue::from_static("id"), None),
        )
    }

    #[test]
    fn hosts_are_addresses_localhost_and_configured_names() {
        for (host, allowed) in [
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("[::1]", true),
            ("10.1.2.3", true),
            ("localhost", true),
            ("LOCALHOST:1", true),
            ("Gateway.Internal:8080", true),
            ("gateway.internal.", true),
            ("a.b.svc.cluster.local", true),
            ("svc.cluster.local", false),
            (".svc.cluster.local", false),
            ("evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("gateway.internal.evil.example", false),
            ("localhost:8080:x", false),
            ("", false),
        ] {
            assert_eq!(admit(&[("host", host)]).is_ok(), allowed, "{host}");
        }
    }

    #[test]
    fn a_request_has_exactly_one_host() {
        assert!(matches!(admit(&[]), Err(ProxyError::Malformed(_))));
        assert!(matches!(admit(&[("host", "localhost"), ("host", "localhost")]), Err(ProxyError::Malformed(_))));
    }

    #[test]
    fn browser_pages_are_refused() {
        for (name, value, allowed) in [
            ("origin", "https://evil.example", false),
            ("origin", "null", false),
            ("sec-fetch-site", "cross-site", false),
            ("sec-fetch-site", "same-site", false),
            ("sec-fetch-site", "same-origin", true),
            ("sec-fetch-site", "none", true),
        ] {
            assert_eq!(admit(&[("host", "localhost"), (name, value)]).is_ok(), allowed, "{name}: {value}");
        }
    }

    #[test]
    fn too_much_is_refused_by_what_is_declared() {
        let too_long = "x".repeat(17 * 1024);
        assert!(matches!(
            admit(&[("host", "localhost"), ("x-long", &too_long)]),
            Err(ProxyError::HeadersTooLarge { limit: 16384, .. })
        ));
        assert!(admit(&[("host", "localhost"), ("content-length", "1024")]).is_ok());
        assert!(matches!(
            admit(&[("host", "localhost"), ("content-length", "1025")]),
            Err(ProxyError::BodyTooLarge { limit: 1024 })
        ));
    }

    #[test]
    fn callers_of_other_networks_are_refused_even_as_mapped_addresses() {
        let admit = |address: &str| {
            let peer =
                Peer { listener: 0, address: Some(address.parse().unwrap()), is_tls: false, forwarded_for: None };
            admission().admit_client(&peer).is_ok()
        };
        assert!(admit("10.9.9.9:1") && admit("[::ffff:10.9.9.9]:1"));
        assert!(!admit("192.168.0.1:1") && !admit("[fe80::1]:1"));
    }

    #[test]
    fn operations_are_opted_into_and_health_always_passes() {
        let admission = admission();
        assert!(admission.admit_operation(Operation::HubSend).is_ok());
        assert!(admission.admit_operation(Operation::Health).is_ok());
        assert!(admission.admit_operation(Operation::GenerateToken).is_err());
    }
}
