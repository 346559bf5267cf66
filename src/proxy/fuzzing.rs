//! Properties of the header rules, for the fuzzer.

use http::header::{AUTHORIZATION, CONNECTION, COOKIE, HOST, HeaderMap, HeaderName};
use http::{HeaderValue, Request};

use super::CallHead;
use super::headers::{to_downstream, to_upstream};
use crate::credential::Bearer;

/// What no header line may carry from one side to the other.
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

/// Carries header lines both ways. Checks that what belongs to a connection stays on it, that callers' credentials stay here, that
/// there is one host and one bearer, and that all else passes as it came.
pub(crate) fn headers(data: &[u8]) {
    let Ok(bearer) = Bearer::new("bearer-of-the-endpoint") else { return };
    let mut parts = Request::new(()).into_parts().0;
    parts.headers = data.split(|byte| *byte == b'\n').filter_map(line).collect();
    let came = parts.headers.clone();
    let own_id = HeaderValue::from_static("made");
    let head = CallHead::new(parts, || own_id.clone(), None);
    let host = HeaderValue::from_static("east.example");
    let mut sent = HeaderMap::new();
    to_upstream(&head, &host, &bearer, &mut |name, value| {
        sent.append(name.clone(), value.clone());
    });
    check_hop_by_hop(&sent);
    let one = |name: &HeaderName| sent.get_all(name).iter().collect::<Vec<_>>();
    assert_eq!(one(&HOST), [&host], "another host");
    assert_eq!(one(&AUTHORIZATION), [bearer.header()], "another bearer");
    assert!(!sent.contains_key(COOKIE), "a cookie leaves");
    assert_eq!(sent.get_all("x-request-id").iter().count(), 1, "not one request id");
    assert!(!sent.contains_key("content-length") && !sent.contains_key("expect"), "framing of the caller's leaves");
    for (name, value) in &sent {
        let is_ours = *name == HOST || *name == AUTHORIZATION || name.as_str() == "x-request-id";
        assert!(is_ours || came.get_all(name).iter().any(|sent| sent == value), "{name}: {value:?} comes from nowhere");
    }

    let mut answered = came.clone();
    to_downstream(&mut answered, &own_id, "https://east.example", || Some("http://gateway.example".to_owned()));
    check_hop_by_hop(&answered);
    assert!(!answered.contains_key("signalr-gateway-error"), "an endpoint speaks as the gateway");
    assert_eq!(answered.get_all("x-request-id").iter().collect::<Vec<_>>(), [&own_id]);
    if let Some(named) = came.get(CONNECTION).and_then(|named| named.to_str().ok()) {
        let relied_on = ["host", "content-length", "content-type", "x-request-id"];
        for name in named.split(',').map(str::trim).filter_map(|name| name.parse::<HeaderName>().ok()) {
            assert!(
                relied_on.contains(&name.as_str()) || !answered.contains_key(&name),
                "{name} belongs to a connection"
            );
        }
    }
}

fn check_hop_by_hop(headers: &HeaderMap) {
    let found = headers.keys().find(|name| HOP_BY_HOP.contains(&name.as_str()));
    assert!(found.is_none(), "{found:?} belongs to a connection");
}

fn line(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(line.get(..colon)?).ok()?;
    Some((name, HeaderValue::from_bytes(line.get(colon + 1..)?.trim_ascii()).ok()?))
}
