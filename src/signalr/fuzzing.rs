//! Fuzz target for the grammar.

use std::ops::Range;

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use super::{Call, Name};

/// Parses a byte that selects the method, then `path[?query]`. Asserts that the names in the path do not affect the operation.
pub(crate) fn grammar(data: &[u8]) {
    let methods = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::PATCH,
        Method::OPTIONS,
        Method::QUERY,
    ];
    let Some((first, rest)) = data.split_first() else { return };
    let Some(method) = methods.get(usize::from(*first) % methods.len()) else { return };
    let Ok(target) = std::str::from_utf8(rest) else { return };
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let Ok(call) = Call::parse(method, path, query) else { return };

    assert!(path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'), "{path:?} is not a path");
    let names: Vec<Name<'_>> = [call.hub, call.group, call.user, call.connection].into_iter().flatten().collect();
    for name in &names {
        assert!(!name.raw().is_empty() && !name.raw().contains('/'), "{name:?} is not one segment");
        let decoded: Vec<u8> = percent_decode_str(name.raw()).collect();
        assert_eq!(name.decoded().as_bytes(), decoded, "{name:?} is not decoded exactly once");
        let decoded = name.decoded();
        assert!(!decoded.split('/').any(|part| matches!(part, "." | "..")), "{name:?} has a dot segment");
    }
    if let Some(hub) = call.hub {
        let hub = hub.decoded();
        assert!(hub.len() <= 128 && hub.starts_with(|first: char| first.is_ascii_alphabetic()), "{hub:?} is not a hub");
    }
    // Other names in the same shape have the same operation, and percent-encoding all of a name does not change it.
    let plain = replaced(path, &names, |_| "n".to_owned());
    assert_eq!(Call::parse(method, &plain, query).map(|call| call.operation), Ok(call.operation), "{plain}");
    let encoded =
        replaced(path, &names, |name| percent_encode(name.decoded().as_bytes(), NON_ALPHANUMERIC).to_string());
    let again = Call::parse(method, &encoded, query);
    let decoded = |call: &Call<'_>| {
        [call.hub, call.group, call.user, call.connection].map(|name| name.map(|name| name.decoded().into_owned()))
    };
    let seen = again.map(|again| (again.operation, decoded(&again)));
    assert_eq!(seen, Ok((call.operation, decoded(&call))), "{encoded}");
    // A server that decodes the path before splitting it sees the same operation or none.
    let early = percent_decode_str(path).decode_utf8_lossy().into_owned();
    if let Ok(seen) = Call::parse(method, &early, query) {
        assert_eq!(seen.operation, call.operation, "{early}");
    }
    // The query does not affect the operation.
    assert_eq!(Call::parse(method, path, None).map(|call| call.operation), Ok(call.operation));
}

/// Returns the path with each of its names replaced.
fn replaced(path: &str, names: &[Name<'_>], by: impl Fn(Name<'_>) -> String) -> String {
    let range = |name: &Name<'_>| -> Range<usize> {
        let start = name.raw().as_ptr().addr() - path.as_ptr().addr();
        start..start + name.raw().len()
    };
    let mut names = names.to_vec();
    names.sort_by_key(|name| range(name).start);
    let (mut text, mut end) = (String::new(), 0);
    for name in names {
        text.push_str(path.get(end..range(&name).start).unwrap_or_default());
        text.push_str(&by(name));
        end = range(&name).end;
    }
    text + path.get(end..).unwrap_or_default()
}
