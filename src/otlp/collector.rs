//! The collector: one request per export.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Request};
use http_body_util::Full;
use serde::Deserialize;

use super::error::ExportError;
use super::json;
use super::settings::OtlpSettings;
use crate::credential::IdentityClient;
use crate::tls::Trust;
use crate::trace::Batch;

/// The longest message of a collector that is logged, in characters.
const MAX_MESSAGE: usize = 200;

/// A collector.
pub(super) struct Collector {
    settings: OtlpSettings,
    /// Identifies this process among those of the service.
    instance: String,
    /// `None` before the first export, and after a failure: the CA files are then read again.
    client: Option<IdentityClient>,
}

/// The spans that a collector did not accept, although it accepted the request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rejected {
    pub(super) spans: usize,
    pub(super) message: String,
}

impl Collector {
    pub(super) fn new(settings: OtlpSettings) -> Self {
        Self { settings, instance: format!("{:032x}", fastrand::u128(..)), client: None }
    }

    /// Returns the collector's URL.
    pub(super) fn url(&self) -> &http::Uri {
        &self.settings.url
    }

    /// Sends spans. Returns those that the collector rejected.
    ///
    /// # Cancel safety
    /// Safe; the spans may have been received.
    pub(super) async fn export(&mut self, batch: &Batch) -> Result<Rejected, ExportError> {
        let exported = self.send(batch).await;
        if exported.is_err() {
            self.client = None;
        }
        exported
    }

    async fn send(&mut self, batch: &Batch) -> Result<Rejected, ExportError> {
        let OtlpSettings { url, headers, service_name, .. } = &self.settings;
        let body = json::body(batch.spans(), service_name, &self.instance);
        let mut request = Request::post(url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from(body)))?;
        for (name, source) in headers {
            let text = source.read().await.map_err(|source| ExportError::Header { name: name.clone(), source })?;
            let value = HeaderValue::from_str(text.secret.expose());
            let mut value = value.map_err(|_invalid| ExportError::InvalidHeader(name.clone()))?;
            value.set_sensitive(true);
            request.headers_mut().insert(name.clone(), value);
        }
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.client.insert(build_client(&self.settings).await?).clone(),
        };
        let response = client.send(request, None).await?;
        if response.status.is_success() {
            return Ok(Rejected::parse(&response.body));
        }
        let retry_after = response.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = retry_after.map(Duration::from_secs);
        Err(ExportError::Refused { status: response.status, retry_after })
    }
}

/// Builds the client. Reads the CA files.
async fn build_client(settings: &OtlpSettings) -> Result<IdentityClient, ExportError> {
    let trust = match settings.url.scheme_str() {
        Some("https") => Trust::from_ca_file(settings.ca_file.as_deref()),
        _ => Trust::None,
    };
    let egress = Arc::clone(&settings.egress);
    let built = tokio::task::spawn_blocking(move || IdentityClient::with_idle_connections(&trust, &egress, 1)).await;
    built.map_err(|_stopping| ExportError::Stopping)?.map_err(ExportError::from)
}

impl Rejected {
    /// Parses the body of a successful response.
    fn parse(body: &[u8]) -> Self {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer {
            partial_success: Option<PartialSuccess>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        #[derive(Default)]
        struct PartialSuccess {
            rejected_spans: Number,
            error_message: String,
        }
        // As JSON of Protobuf, a string; some collectors write a number.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Number {
            Text(String),
            Number(u64),
        }
        impl Default for Number {
            fn default() -> Self {
                Self::Number(0)
            }
        }
        let partial = serde_json::from_slice::<Answer>(body).ok().and_then(|answer| answer.partial_success);
        let PartialSuccess { rejected_spans, error_message } = partial.unwrap_or_default();
        let spans = match rejected_spans {
            Number::Text(text) => text.parse().unwrap_or(0),
            Number::Number(number) => number,
        };
        let plain = |character: &char| !character.is_control();
        let message = error_message.chars().filter(plain).take(MAX_MESSAGE).collect();
        Self { spans: usize::try_from(spans).unwrap_or(usize::MAX), message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_spans_are_read_from_the_answer() {
        let rejected = |spans, message: &str| Rejected { spans, message: message.to_owned() };
        for (body, expected) in [
            ("{}", rejected(0, "")),
            ("", rejected(0, "")),
            ("<html>", rejected(0, "")),
            (r#"{"partialSuccess":{}}"#, rejected(0, "")),
            (r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too\nold"}}"#, rejected(3, "tooold")),
            (r#"{"partialSuccess":{"rejectedSpans":4}}"#, rejected(4, "")),
        ] {
            assert_eq!(Rejected::parse(body.as_bytes()), expected, "{body}");
        }
    }
}
