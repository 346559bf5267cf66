//! Properties of header rules and `Retry-After`, for the fuzzer.

use std::time::{Duration, SystemTime};

use http::header::{AUTHORIZATION, CONNECTION, COOKIE, HOST, HeaderMap, HeaderName, RETRY_AFTER};
use http::{HeaderValue, Request};

use super::head::CallHead;
use super::headers::to_downstream;
use super::outcome;
use crate::credential::Bearer;

/// Headers that must not pass in either direction.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Forwards header lines in both directions. Checks that hop-by-hop headers and the caller's credentials do not pass,
/// that there is one host and one bearer, and that everything else passes unchanged.
pub(crate) fn headers(data: &[u8]) {
    let Ok(bearer) = Bearer::new("bearer-of-the-endpoint") else { return };
    let mut parts = Request::new(()).into_parts().0;
    parts.headers = data.split(|byte| *byte == b'\n').filter_map(line).collect();
    let received = parts.headers.clone();
    let own_id = HeaderValue::from_static("made");
    let head = CallHead::new(parts, || own_id.clone(), None);
    let host = HeaderValue::from_static("east.example");
    let mut sent = HeaderMap::new();
    head.write_upstream(&host, &bearer, &mut |name, value| {
        sent.append(name.clone(), value.clone());
    });
    check_hop_by_hop(&sent);
    let one = |name: &HeaderName| sent.get_all(name).iter().collect::<Vec<_>>();
    assert_eq!(one(&HOST), [&host], "another host");
    assert_eq!(one(&AUTHORIZATION), [bearer.header()], "another bearer");
    assert!(!sent.contains_key(COOKIE), "a cookie was forwarded");
    assert_eq!(sent.get_all("x-request-id").iter().count(), 1, "not one request id");
    assert!(!sent.contains_key("content-length") && !sent.contains_key("expect"), "framing headers were forwarded");
    for (name, value) in &sent {
        let is_ours = *name == HOST || *name == AUTHORIZATION || name.as_str() == "x-request-id";
        assert!(
            is_ours || received.get_all(name).iter().any(|sent| sent == value),
            "{name}: {value:?} was not received"
        );
    }

    let mut response_headers = received.clone();
    to_downstream(&mut response_headers, &own_id, "https://east.example", || Some("http://gateway.example".to_owned()));
    check_hop_by_hop(&response_headers);
    assert!(!response_headers.contains_key("signalr-gateway-error"), "an endpoint marks its response as the gateway's");
    assert_eq!(response_headers.get_all("x-request-id").iter().collect::<Vec<_>>(), [&own_id]);
    if let Some(named) = received.get(CONNECTION).and_then(|named| named.to_str().ok()) {
        let relied_on = ["host", "content-length", "content-type", "x-request-id"];
        for name in named.split(',').map(str::trim).filter_map(|name| name.parse::<HeaderName>().ok()) {
            assert!(
                relied_on.contains(&name.as_str()) || !response_headers.contains_key(&name),
                "the hop-by-hop header {name} was forwarded"
            );
        }
    }
}

/// Parses the `Retry-After` of an endpoint. Checks that seconds are returned as written, and dates as the time until
/// then.
pub(crate) fn retry_after(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let pause = outcome::retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value)]));
    // The parser accepts a leading `+`.
    let digits = std::str::from_utf8(data.strip_prefix(b"+").unwrap_or(data))
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    if let Some(seconds) = digits.and_then(|digits| digits.parse().ok()) {
        assert_eq!(pause, Some(Duration::from_secs(seconds)));
    } else if let Some(pause) = pause {
        assert!(digits.is_none(), "{pause:?} of a number that does not fit");
        assert!(SystemTime::now().checked_add(pause).is_some(), "{pause:?} is beyond all dates");
    }
}

fn check_hop_by_hop(headers: &HeaderMap) {
    let found = headers.keys().find(|name| HOP_BY_HOP.contains(&name.as_str()));
    assert!(found.is_none(), "the hop-by-hop header {found:?} was forwarded");
}

fn line(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(line.get(..colon)?).ok()?;
    Some((name, HeaderValue::from_bytes(line.get(colon + 1..)?.trim_ascii()).ok()?))
}
