//! The connections of a group, listed page by page over one endpoint or several.
//!
//! A page's `nextLink` is absolute and points to the endpoint. The gateway rewrites it to its own origin, and its
//! continuation token then names the endpoint of the next page. A list stays on the endpoint where it began; over
//! several endpoints it continues with the next endpoint after the last page of the previous one. Pages are requested
//! without a content coding because they are edited. `top` counts down from page to page.

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::body::UpstreamBody;
use super::call::{PageRequest, PlannedCall, Special};
use super::error::DeliveryError;
use super::single::{deliver, deliver_to};
use super::upstream::Upstream;
use super::worker::WorkerDelivery;
use crate::metrics::UpstreamErrorReason;
use crate::route::{Choice, DeliveryMode, WhenUnavailable};
use crate::signalr::query_value;

/// The largest page that is read, in bytes. A page has at most 200 entries of two ids each.
const MAX_PAGE_BYTES: usize = 1024 * 1024;
const ENCODED: &str = "the page of the list has a content coding that was not requested; its link cannot be rewritten";
/// Marks the gateway's own continuation tokens: `~endpoint~token`.
const MARK: char = '~';

/// Returns one page of a list, and its endpoint. `gateway_origin` is the origin by which the caller reached the
/// gateway.
pub(super) async fn list<'a>(
    worker: &'a WorkerDelivery,
    choice: &'a Choice<'a>,
    call: &PlannedCall<'_>,
    gateway_origin: Option<String>,
) -> Result<(&'a Upstream, Response<UpstreamBody>), DeliveryError> {
    let query = call.uri().query().unwrap_or_default();
    let given = query_value(query, "continuationToken").unwrap_or_default();
    let resumed = given.strip_prefix(MARK).and_then(|rest| rest.split_once(MARK));
    let mut upstreams = choice.endpoint_indexes().filter_map(|index| worker.upstream(index));
    let (upstream, upstream_token) = match resumed {
        Some((name, token)) => {
            let unknown = DeliveryError::UnknownContinuation;
            (Some(upstreams.find(|upstream| **upstream.name() == *name).ok_or(unknown)?), token)
        }
        None if matches!(choice.delivery_mode(), DeliveryMode::All(_)) => (upstreams.next(), &*given),
        None => (None, &*given),
    };
    let resumed_at = resumed.map(|_| with_query(call.uri(), &[("continuationToken", upstream_token)])).transpose()?;
    let page = Special::Page(PageRequest { uri: resumed_at });
    let page_request = PlannedCall { special: Some(&page), ..*call };
    let (upstream, outcome) = match upstream {
        Some(upstream) => {
            let send_anyway = choice.route().when_unavailable() == WhenUnavailable::Send;
            (upstream, deliver_to(worker, upstream, send_anyway, &page_request).await)
        }
        None => deliver(worker, choice, &page_request).await?,
    };
    let response = outcome.result?;
    if response.status() != StatusCode::OK {
        return Ok((upstream, response));
    }
    let (mut head, body) = response.into_parts();
    if is_encoded(&head.headers) {
        body.discard();
        return Err(DeliveryError::ResponseUnreadable(ENCODED.into()));
    }
    let bytes = match body.collected(MAX_PAGE_BYTES, call.state.deadline()).await {
        Ok(bytes) => bytes,
        Err(err) => {
            worker.metrics.upstream_failed(upstream.label(), UpstreamErrorReason::Body);
            return Err(err);
        }
    };
    let Ok(mut page) = serde_json::from_slice::<Value>(&bytes) else {
        // Not a page: it is forwarded unchanged.
        return Ok((upstream, Response::from_parts(head, UpstreamBody::Whole(bytes))));
    };
    let next = next_token(worker, choice, upstream, &page);
    let left = left_of_top(query, &page);
    let link = next.filter(|_| left != Some(0)).and_then(|token| {
        let mut query = vec![("continuationToken", token)];
        query.extend(left.map(|left| ("top", left.to_string())));
        let query: Vec<(&str, &str)> = query.iter().map(|(key, value)| (*key, value.as_str())).collect();
        Some(format!("{}{}", gateway_origin.as_deref()?, with_query(call.uri(), &query).ok()?))
    });
    let changed = match (page.as_object_mut(), link) {
        (Some(page), Some(link)) => page.insert("nextLink".to_owned(), Value::String(link)).or(Some(Value::Null)),
        (Some(page), None) => page.remove("nextLink"),
        (None, _) => None,
    };
    // A page without changes keeps its bytes.
    let bytes = if changed.is_some() { page.to_string().into() } else { bytes };
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    Ok((upstream, Response::from_parts(head, UpstreamBody::Whole(bytes))))
}

/// Returns the continuation token of the next page: of the same endpoint, or the first of the next endpoint.
fn next_token(worker: &WorkerDelivery, choice: &Choice<'_>, upstream: &Upstream, page: &Value) -> Option<String> {
    let token = |upstream: &Upstream, token: &str| Some(format!("{MARK}{}{MARK}{token}", upstream.name()));
    if let Some(link) = page.get("nextLink").and_then(Value::as_str) {
        let query = link.split_once('?').map_or("", |(_, query)| query);
        return token(upstream, &query_value(query, "continuationToken").unwrap_or_default());
    }
    if !matches!(choice.delivery_mode(), DeliveryMode::All(_)) {
        return None;
    }
    let mut indexes = choice.endpoint_indexes();
    indexes.find(|index| *index == upstream.index)?;
    token(worker.upstream(indexes.next()?)?, "")
}

/// Returns whether a body has a content coding.
fn is_encoded(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(CONTENT_ENCODING).iter();
    let mut codings = codings.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    codings.any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"))
}

/// Returns how many of the `top` entries are left after this page, if the caller set `top`.
fn left_of_top(query: &str, page: &Value) -> Option<u64> {
    let top: u64 = query_value(query, "top")?.parse().ok()?;
    let count = page.get("value").and_then(Value::as_array).map_or(0, Vec::len);
    Some(top.saturating_sub(count as u64))
}

/// Replaces query parameters, whose names are case-insensitive; an empty value removes the parameter. The others stay
/// unchanged.
fn with_query(uri: &Uri, replaced: &[(&str, &str)]) -> Result<Uri, DeliveryError> {
    let is_kept = |pair: &&str| {
        let key = pair.split_once('=').map_or(*pair, |(key, _)| key);
        !pair.is_empty() && !replaced.iter().any(|(name, _)| name.eq_ignore_ascii_case(key))
    };
    let kept = uri.query().unwrap_or_default().split('&').filter(is_kept).map(str::to_owned);
    let added = replaced.iter().filter(|(_, value)| !value.is_empty());
    let added = added.map(|(key, value)| format!("{key}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
    let query: Vec<String> = kept.chain(added).collect();
    let target = if query.is_empty() { uri.path().to_owned() } else { format!("{}?{}", uri.path(), query.join("&")) };
    target.parse().map_err(|_impossible| DeliveryError::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_names_are_case_insensitive_and_other_parameters_stay_unchanged() {
        for (target, replaced, expected) in [
            ("/p?a=%2F&top=5&TOP=6", &[("top", "3")][..], "/p?a=%2F&top=3"),
            ("/p?continuationtoken=x&b", &[("continuationToken", "")][..], "/p?b"),
            ("/p?continuationToken=x", &[("continuationToken", "")][..], "/p"),
            ("/p", &[("continuationToken", "~east~c 2")][..], "/p?continuationToken=%7Eeast%7Ec%202"),
        ] {
            assert_eq!(with_query(&target.parse().unwrap(), replaced).unwrap().to_string(), expected);
        }
    }
}
