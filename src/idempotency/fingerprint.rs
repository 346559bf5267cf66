//! The fingerprint of a call: what a repeat of it must have in common with the first.

use std::fmt::Write as _;

use aws_lc_rs::digest::{Context, SHA256};
use http::{HeaderValue, Method, Uri};

/// The hash of a call. Calls with the same fingerprint are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Returns the fingerprint of a call. `destination` is what the configuration adds to it: its route, and the endpoint
    /// that it names in a header. A call to one tenant is no repeat of a call to another.
    pub fn of(
        destination: [&str; 2],
        method: &Method,
        target: &Uri,
        content_type: Option<&HeaderValue>,
        body: &[u8],
    ) -> Self {
        let mut context = Context::new(&SHA256);
        let [route, endpoint] = destination.map(str::as_bytes);
        let (path, query) = (target.path().as_bytes(), target.query().unwrap_or_default().as_bytes());
        let content_type = content_type.map(HeaderValue::as_bytes).unwrap_or_default();
        for part in [route, endpoint, method.as_str().as_bytes(), path, query, content_type] {
            context.update(part);
            // A separator that none of them contains.
            context.update(b"\n");
        }
        context.update(body);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }

    /// Returns the hash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Returns bytes in hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        let _infallible = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_covers_destination_method_target_content_type_and_body() {
        let text = HeaderValue::from_static("text/plain");
        let of = |destination, method, target: &str, content_type, body: &str| {
            Fingerprint::of(destination, &method, &target.parse().unwrap(), content_type, body.as_bytes())
        };
        let route = ["r", ""];
        let all = [
            of(route, Method::POST, "/a?b", None, "c"),
            of(route, Method::PUT, "/a?b", None, "c"),
            of(route, Method::POST, "/a", None, "b\nc"),
            of(route, Method::POST, "/a?c", None, "c"),
            of(route, Method::POST, "/a?b", None, "d"),
            of(route, Method::POST, "/a?b", Some(&text), "c"),
            of(["r", "east"], Method::POST, "/a?b", None, "c"),
            of(["s", ""], Method::POST, "/a?b", None, "c"),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(all.iter().skip(index + 1).all(|other| one != other), "{index}");
        }
        assert!(of(route, Method::POST, "/a?b", None, "c") == all[0]);
    }
}
