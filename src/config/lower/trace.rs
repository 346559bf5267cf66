//! Lowers the export of traces.

use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderName, Uri};

use super::context::{Context, Key, below, key};
use super::identity;
use super::values::{self, PlainHttp};
use crate::config::file::TracingFile;
use crate::egress::Egress;
use crate::otlp::OtlpSettings;

/// The path of a collector's receiver. Source: OTLP/HTTP.
const PATH: &str = "/v1/traces";
/// The headers that the exporter sets itself.
const OWN_HEADERS: [HeaderName; 5] = [CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING];

pub(super) fn lower(file: &TracingFile, egress: &Arc<Egress>, context: &mut Context<'_>) -> Option<OtlpSettings> {
    let at = |name| key(&["tracing", name]);
    let TracingFile { endpoint, sample, headers, service_name, ca_file } = file;
    if !(0.0..=1.0).contains(sample) {
        context.problem(&at("sample"), format!("is {sample}, must be 0 to 1"), "write 0.01 for one call in a hundred");
    }
    if service_name.trim().is_empty() {
        context.problem(&at("service_name"), "is empty", "write a name, or remove it");
    }
    let default = TracingFile::default();
    let Some(text) = endpoint else {
        let unused = [
            ("sample", (*sample - default.sample).abs() > f64::EPSILON),
            ("headers", !headers.is_empty()),
            ("service_name", *service_name != default.service_name),
            ("ca_file", ca_file.is_some()),
        ];
        for (name, _) in unused.into_iter().filter(|(_, is_set)| *is_set) {
            let fix = "set the collector, or remove this key";
            context.problem(&at(name), "is set without `tracing.endpoint`, so nothing is traced", fix);
        }
        return None;
    };
    let headers: Vec<_> = headers
        .iter()
        .filter_map(|(name, source)| {
            let at = below(&at("headers"), name);
            let source = identity::secret_source(&at, source, context);
            let name = values::header_name(&at, name, context)?;
            if OWN_HEADERS.contains(&name) {
                context.problem(&at, "is set by the exporter itself", "remove it");
            }
            Some((name, source?))
        })
        .collect();
    let has_ca_file = ca_file.is_some();
    let ca_file = values::ca_file(&at("ca_file"), ca_file.as_deref(), context);
    let url = url(&at("endpoint"), text, context)?;
    let is_https = url.scheme_str() == Some("https");
    if has_ca_file && !is_https {
        context.problem(&at("ca_file"), "is set for a collector without TLS", "write https://, or remove this key");
    }
    if !headers.is_empty() && !is_https && !is_this_host(&url) {
        let fact = "go over the network in the clear: the scheme of `tracing.endpoint` is http";
        context.warning(&at("headers"), fact, "write https://, or remove headers that are secrets");
    }
    let (egress, service_name) = (Arc::clone(egress), service_name.clone());
    Some(OtlpSettings { url, ca_file, egress, headers, service_name, sample: *sample })
}

/// Parses the URL. Problems contain no part of it, which may have a password.
fn url(at: &Key, text: &str, context: &mut Context<'_>) -> Option<Uri> {
    let fix = "write the URL of the collector's OTLP/HTTP receiver, such as http://collector:4318";
    let mut parts = match text.parse::<Uri>() {
        Ok(url) => url.into_parts(),
        Err(_invalid) => {
            context.problem(at, "is not a URL", fix);
            return None;
        }
    };
    let scheme = parts.scheme.as_ref().map(http::uri::Scheme::as_str);
    if !matches!(scheme, Some("http" | "https")) {
        context.problem(at, "is not an http:// or https:// URL", fix);
        return None;
    }
    let Some(authority) = parts.authority.as_ref().filter(|authority| !authority.host().is_empty()) else {
        context.problem(at, "has no host", fix);
        return None;
    };
    if authority.as_str().contains('@') {
        let fix = "remove the user and the password, and set `tracing.headers`";
        context.problem(at, "has a user or a password, which logs would show", fix);
        return None;
    }
    if parts.path_and_query.as_ref().is_some_and(|path| path.query().is_some()) {
        context.problem(at, "has a query, which logs would show", "remove it, and set `tracing.headers`");
        return None;
    }
    let has_path = parts.path_and_query.as_ref().is_some_and(|path| path.as_str() != "/");
    if !has_path {
        parts.path_and_query = Some(PathAndQuery::from_static(PATH));
    }
    Uri::from_parts(parts).ok()
}

fn is_this_host(url: &Uri) -> bool {
    PlainHttp::Loopback.allows(url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']'))
}
