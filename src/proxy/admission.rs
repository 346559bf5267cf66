//! Admission: which requests a listener accepts, by their head alone.
//!
//! The gateway adds its credentials to any request that reaches it, so it must keep browser pages out. A page cannot
//! reach a Unix socket, so `Host` is not checked there.

use std::cell::RefCell;

use http::HeaderMap;

use super::error::ProxyError;
use super::settings::AdmissionSettings;
use crate::delivery::headers::MAX_CONNECTION_NAMES;
use crate::delivery::{CallHead, DeliveryError};
use crate::serve::{CallerAddress, Peer, is_allowed_host, is_valid_host, page_header};
use crate::signalr::{Call, Operation};

/// The admission rules of one listener.
#[derive(Debug)]
pub struct Admission {
    settings: AdmissionSettings,
    max_header_bytes: usize,
    max_body_bytes: u64,
}

/// The host that a worker last allowed at a listener, under one configuration. Nearly all callers of a listener send the
/// same one.
#[derive(Debug, Default)]
pub struct LastHost(RefCell<Option<String>>);

impl LastHost {
    fn is(&self, host: &str) -> bool {
        self.0.borrow().as_deref() == Some(host)
    }

    #[cold]
    fn set(&self, host: &str) {
        self.0.replace(Some(host.to_owned()));
    }
}

impl Admission {
    /// Returns the rules of a listener. The limits are the gateway's, in bytes.
    pub fn new(settings: AdmissionSettings, max_header_bytes: usize, max_body_bytes: u64) -> Self {
        Self { settings, max_header_bytes, max_body_bytes }
    }

    /// Returns the listener's configured name.
    pub(super) fn listener(&self) -> &str {
        &self.settings.listener
    }

    /// Returns the address of the caller of a call that arrived from `peer` with these headers.
    pub fn caller_address(&self, peer: &Peer, headers: &HeaderMap) -> CallerAddress {
        let address = peer.address.map(|address| address.ip());
        match &self.settings.trusted_proxies {
            None => CallerAddress::of_peer(address),
            Some(trusted) => CallerAddress::find(address, headers, trusted),
        }
    }

    /// Checks the head of a request of `client`, before its operation is known.
    ///
    /// # Errors
    /// [`ProxyError`] says which rule it breaks.
    pub fn admit(
        &self,
        peer: &Peer,
        client: &CallerAddress,
        head: &CallHead,
        last_host: &LastHost,
    ) -> Result<(), ProxyError> {
        self.admit_client(client)?;
        let size = head.bytes();
        if size > self.max_header_bytes {
            return Err(DeliveryError::HeadersTooLarge { size, limit: self.max_header_bytes }.into());
        }
        if head.summary().connection_names > MAX_CONNECTION_NAMES {
            return Err(ProxyError::Malformed("the Connection header names too many headers"));
        }
        if head.summary().hosts > 1 {
            return Err(ProxyError::Malformed("there is more than one Host header"));
        }
        self.admit_host(peer, head, last_host).or_else(|err| unless_health(head, err))?;
        admit_origin(head)?;
        self.admit_required_header(head).or_else(|err| unless_health(head, err))?;
        if head.summary().content_length.is_some_and(|length| length > self.max_body_bytes) {
            return Err(DeliveryError::BodyTooLarge { limit: self.max_body_bytes }.into());
        }
        Ok(())
    }

    /// Checks an operation.
    ///
    /// # Errors
    /// [`ProxyError::OperationNotAllowed`].
    pub fn admit_operation(&self, operation: Operation) -> Result<(), ProxyError> {
        // The gateway responds to health probes itself.
        if operation == Operation::Health || self.settings.operations.contains(operation) {
            Ok(())
        } else {
            Err(ProxyError::OperationNotAllowed(operation))
        }
    }

    fn admit_client(&self, client: &CallerAddress) -> Result<(), ProxyError> {
        let Some(networks) = self.settings.clients.allowed() else { return Ok(()) };
        if client.problem().is_some() {
            return Err(ProxyError::ClientNotAllowed);
        }
        // The file mode of a Unix socket restricts its callers.
        let Some(address) = client.address() else { return Ok(()) };
        let is_inside = networks.iter().any(|network| network.contains(&address));
        if is_inside { Ok(()) } else { Err(ProxyError::ClientNotAllowed) }
    }

    fn admit_host(&self, peer: &Peer, head: &CallHead, last_host: &LastHost) -> Result<(), ProxyError> {
        if peer.is_unix {
            return Ok(());
        }
        let host = head.host().ok_or(ProxyError::Malformed("there is no Host header, or it is not ASCII"))?;
        if last_host.is(host) {
            return Ok(());
        }
        if !is_allowed_host(host, &self.settings.allowed_hosts) {
            return Err(unknown_host(host));
        }
        last_host.set(host);
        Ok(())
    }

    fn admit_required_header(&self, head: &CallHead) -> Result<(), ProxyError> {
        let Some((name, value)) = &self.settings.required_header else { return Ok(()) };
        if head.headers().get_all(name).iter().any(|found| found == value) {
            return Ok(());
        }
        Err(ProxyError::HeaderRequired { header: name.clone() })
    }
}

/// Ignores an error if the call is a health probe. Some load balancers cannot set `Host` or other headers,
/// and the response reveals only whether a token is available.
#[cold]
fn unless_health(head: &CallHead, err: ProxyError) -> Result<(), ProxyError> {
    let call = Call::parse(head.method(), head.uri().path(), head.uri().query());
    if call.is_ok_and(|call| call.operation == Operation::Health) { Ok(()) } else { Err(err) }
}

/// Returns the error of a host that is not allowed.
#[cold]
fn unknown_host(host: &str) -> ProxyError {
    // An empty one is valid (RFC 9112 section 3.2).
    if host.is_empty() || is_valid_host(host) {
        ProxyError::HostNotAllowed { host: printable(host) }
    } else {
        ProxyError::Malformed("the Host header is not a host, with or without a port")
    }
}

fn admit_origin(head: &CallHead) -> Result<(), ProxyError> {
    if !head.summary().has_browser_headers {
        return Ok(());
    }
    page_header(head.headers()).map_or(Ok(()), |header| Err(ProxyError::OriginNotAllowed { header }))
}

/// Returns the printable part of what a caller sent, for an error message.
fn printable(text: &str) -> String {
    text.chars().take(100).filter(char::is_ascii_graphic).collect()
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;
    use crate::route::Constraint;
    use crate::serve::ListenerId;
    use crate::signalr::OperationSet;

    fn admission() -> Admission {
        let settings = AdmissionSettings {
            listener: "default".into(),
            max_requests: None,
            client_rate: None,
            allowed_hosts: vec!["gateway.internal".into(), "*.svc.cluster.local".into()],
            operations: OperationSet::MESSAGES,
            clients: Constraint::OneOf(vec!["10.0.0.0/8".parse().unwrap()]),
            trusted_proxies: None,
            required_header: None,
        };
        Admission::new(settings, 16 * 1024, 1024)
    }

    fn admit(lines: &[(&str, &str)]) -> Result<(), ProxyError> {
        let mut request = Request::post("/api/hubs/h/:send");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        admit_from(Some("10.1.1.1:5"), request)
    }

    fn admit_from(address: Option<&str>, request: http::request::Builder) -> Result<(), ProxyError> {
        let peer = peer(address);
        let head = request.body(()).unwrap().into_parts().0;
        let client = admission().caller_address(&peer, &head.headers);
        let head = CallHead::new(head, || HeaderValue::from_static("id"), None);
        admission().admit(&peer, &client, &head, &LastHost::default())
    }

    fn peer(address: Option<&str>) -> Peer {
        let address = address.map(|address| address.parse().unwrap());
        let is_unix = address.is_none();
        Peer { listener: ListenerId::default(), address, is_unix, is_tls: false, identity: None, forwarded_for: None }
    }

    #[test]
    fn addresses_localhost_and_configured_names_are_allowed_hosts() {
        for (host, allowed) in
            [("10.1.2.3:80", true), ("gateway.internal.", true), ("evil.example", false), ("", false)]
        {
            assert_eq!(admit(&[("host", host)]).is_ok(), allowed, "{host}");
        }
    }

    #[test]
    fn allowed_host_is_remembered_and_rejected_ones_are_not() {
        let admission = admission();
        let last_host = LastHost::default();
        for (host, is_allowed) in [("10.1.2.3", true), ("10.1.2.3", true), ("evil.example", false), ("", false)] {
            for _ in 0..2 {
                let peer = peer(Some("10.1.1.1:5"));
                let request = Request::post("/api/hubs/h/:send").header("host", host).body(()).unwrap();
                let head = CallHead::new(request.into_parts().0, || HeaderValue::from_static("id"), None);
                let client = admission.caller_address(&peer, head.headers());
                assert_eq!(admission.admit(&peer, &client, &head, &last_host).is_ok(), is_allowed, "{host}");
            }
        }
    }

    #[test]
    fn requests_need_exactly_one_host() {
        assert!(matches!(admit(&[]), Err(ProxyError::Malformed(_))));
        assert!(matches!(admit(&[("host", "localhost"), ("host", "localhost")]), Err(ProxyError::Malformed(_))));
    }

    #[test]
    fn invalid_hosts_are_malformed() {
        for (host, is_malformed) in
            [("a b", true), ("user@localhost", true), ("evil.example/", true), ("", false), ("evil.example:80", false)]
        {
            let refused = admit(&[("host", host)]).unwrap_err();
            assert_eq!(matches!(refused, ProxyError::Malformed(_)), is_malformed, "{host}: {refused}");
        }
    }

    #[test]
    fn unix_sockets_accept_any_host() {
        for hosts in [&["docker"][..], &[""], &[], &["evil.example"]] {
            let request =
                hosts.iter().fold(Request::post("/api/hubs/h/:send"), |request, host| request.header("host", *host));
            assert!(admit_from(None, request).is_ok(), "{hosts:?}");
        }
        let twice = Request::post("/api/hubs/h/:send").header("host", "a").header("host", "b");
        assert!(matches!(admit_from(None, twice), Err(ProxyError::Malformed(_))));
        let page = Request::post("/api/hubs/h/:send").header("host", "a").header("origin", "https://evil.example");
        assert!(matches!(admit_from(None, page), Err(ProxyError::OriginNotAllowed { .. })));
    }

    #[test]
    fn health_probes_need_no_host() {
        let inside = Some("10.1.1.1:5");
        for path in ["/api/health", "/api/v1/health"] {
            assert!(admit_from(inside, Request::get(path)).is_ok());
            assert!(admit_from(inside, Request::get(path).header("host", "balancer.example")).is_ok());
            let page = Request::get(path).header("host", "evil.example").header("origin", "https://evil.example");
            assert!(admit_from(inside, page).is_err(), "a page is refused");
            assert!(admit_from(Some("192.168.0.1:1"), Request::get(path)).is_err(), "another network is refused");
        }
        assert!(
            admit_from(inside, Request::get("/api/hubs/h/connections/c").header("host", "balancer.example")).is_err()
        );
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
    fn too_large_heads_and_declared_bodies_are_refused() {
        let too_long = "x".repeat(17 * 1024);
        assert!(matches!(
            admit(&[("host", "localhost"), ("x-long", &too_long)]),
            Err(ProxyError::Delivery(DeliveryError::HeadersTooLarge { limit: 16384, .. }))
        ));
        assert!(admit(&[("host", "localhost"), ("content-length", "1024")]).is_ok());
        assert!(matches!(
            admit(&[("host", "localhost"), ("content-length", "1025")]),
            Err(ProxyError::Delivery(DeliveryError::BodyTooLarge { limit: 1024 }))
        ));
    }

    #[test]
    fn callers_of_other_networks_are_refused_even_with_mapped_addresses() {
        let admit = |address: &str| {
            let client = admission().caller_address(&peer(Some(address)), &HeaderMap::new());
            admission().admit_client(&client).is_ok()
        };
        assert!(admit("10.9.9.9:1") && admit("[::ffff:10.9.9.9]:1"));
        assert!(!admit("192.168.0.1:1") && !admit("[fe80::1]:1"));
    }

    #[test]
    fn only_configured_operations_and_health_are_allowed() {
        let admission = admission();
        assert!(admission.admit_operation(Operation::HubSend).is_ok());
        assert!(admission.admit_operation(Operation::Health).is_ok());
        assert!(admission.admit_operation(Operation::GenerateToken).is_err());
    }
}
