//! What the log says about a failed request: which side failed, why, and what to do.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::error::ProxyError;
use crate::delivery::{ERROR_CODE, Leg, Side, partly_delivered};
use crate::metrics::{ErrorKind, UpstreamErrorReason};
use crate::runbook::{EndpointRefusal, Section};
use crate::signalr::Operation;

/// The longest `x-ms-error-code` that is logged.
const MAX_CODE: usize = 100;

/// What a caller may do about a partial delivery.
const REPEATED: &str = "a call that is sent again reaches the others twice, unless both have the same Idempotency-Key";

/// Why a request failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// The error's kind, if the gateway itself responded.
    pub(super) kind: Option<ErrorKind>,
    pub(super) side: Side,
    pub(super) cause: String,
    /// The endpoint's `x-ms-error-code`.
    pub(super) code: Option<String>,
    /// What the operator can do; `None` if only the caller can.
    pub(super) remedy: Option<Cow<'static, str>>,
    /// Where the runbook says more.
    pub(super) section: Option<Section>,
    /// Whether the operator should look at it.
    pub(super) needs_operator: bool,
}

impl Failure {
    /// Returns the failure of a request to which the gateway itself responds.
    #[cold]
    pub(super) fn of_error(err: &ProxyError) -> Self {
        let (kind, side) = (err.kind(), err.side());
        let needs_operator = err.status().is_server_error() && side != Side::Caller;
        Self {
            kind: Some(kind),
            side,
            cause: err.log_cause(),
            code: None,
            remedy: if needs_operator { Section::Error(kind).remedy().map(Cow::Borrowed) } else { None },
            section: Some(Section::Error(kind)),
            needs_operator,
        }
    }

    /// Returns the failure that an endpoint's response with a status of 400 or above reports; `None` if it only states that the target
    /// does not exist.
    #[cold]
    pub(super) fn of_response<B>(operation: Option<Operation>, response: &Response<B>) -> Option<Self> {
        let (status, code) = (response.status(), error_code(response.headers()));
        if status == StatusCode::NOT_FOUND && code.is_some() {
            return None;
        }
        let is_about_target = status == StatusCode::FORBIDDEN && code.is_some();
        let waits_for_client = operation.is_some_and(Operation::waits_for_client)
            && [StatusCode::REQUEST_TIMEOUT, StatusCode::GATEWAY_TIMEOUT].contains(&status);
        let refusal = EndpointRefusal::of(status.as_u16()).filter(|_| !is_about_target && !waits_for_client);
        let side = match refusal {
            None if waits_for_client => Side::Client,
            None => Side::Caller,
            Some(EndpointRefusal::Unauthorized) => Side::Credential,
            Some(EndpointRefusal::Forbidden | EndpointRefusal::Throttled | EndpointRefusal::ServerError) => {
                Side::Endpoint
            }
        };
        let section = refusal.map(Section::Refusal);
        let cause = match refusal {
            Some(EndpointRefusal::Unauthorized) => format!("the endpoint responded {status}: it rejects the token"),
            Some(EndpointRefusal::Forbidden) => {
                format!("the endpoint responded {status}: no role allows the call, or its network rules deny it")
            }
            _ => format!("the endpoint responded {status}"),
        };
        let needs_operator = refusal.is_some();
        let remedy = section.and_then(Section::remedy).map(Cow::Borrowed);
        Some(Self { kind: None, side, cause, code, remedy, section, needs_operator })
    }

    /// Adds what is known of the endpoints: for a partial delivery, which of them did not accept the call and why; else the keys of
    /// the one that failed.
    #[cold]
    pub(super) fn add_endpoints(&mut self, endpoint: Option<&str>, legs: &[Leg]) {
        if self.kind == Some(ErrorKind::PartialDelivery) {
            let Some(failed) = legs.iter().find(|leg| !leg.is_accepted()) else { return };
            self.cause = partly_delivered(legs);
            let refusal = failed.status().and_then(EndpointRefusal::of).map(Section::Refusal);
            let section = refusal.unwrap_or(Section::Error(ErrorKind::PartialDelivery));
            let remedy = section.remedy_at(failed.endpoint()).unwrap_or_default();
            self.remedy = Some(format!("repair {}: {remedy}; {REPEATED}", failed.endpoint()).into());
        } else if let (Some(section @ (Section::Endpoint(_) | Section::Refusal(_))), Some(endpoint), true) =
            (self.section, endpoint, self.needs_operator)
        {
            self.remedy = section.remedy_at(endpoint).map(Cow::Owned);
        }
    }

    /// Returns the failure of a response that did not end.
    #[cold]
    pub(super) fn of_body(side: Side, cause: String) -> Self {
        let (is_endpoints, section) = (side == Side::Endpoint, Section::Endpoint(UpstreamErrorReason::Body));
        Self {
            kind: None,
            side,
            cause,
            code: None,
            remedy: if is_endpoints { section.remedy().map(Cow::Borrowed) } else { None },
            section: is_endpoints.then_some(section),
            needs_operator: is_endpoints,
        }
    }
}

/// Returns the code by which an endpoint says why it refused a call, if it is plain text.
fn error_code(headers: &HeaderMap) -> Option<String> {
    let code = headers.get(ERROR_CODE).map(HeaderValue::as_bytes)?;
    let is_plain = |byte: &&u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    Some(code.iter().take_while(is_plain).take(MAX_CODE).copied().map(char::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, code: Option<&'static str>) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if let Some(code) = code {
            response.headers_mut().insert(ERROR_CODE, HeaderValue::from_static(code));
        }
        response
    }

    #[test]
    fn only_failures_that_the_operator_can_repair_ask_for_one() {
        let (send, invoke) = (Operation::HubSend, Operation::ConnectionInvoke);
        for (operation, status, code, expected) in [
            (send, 400, None, Some((Side::Caller, false))),
            (send, 401, None, Some((Side::Credential, true))),
            (send, 403, None, Some((Side::Endpoint, true))),
            (send, 403, Some("Error.Connection.NotOwned"), Some((Side::Caller, false))),
            (send, 404, None, Some((Side::Caller, false))),
            (send, 404, Some("Warning.User.NotExisted"), None),
            (send, 429, None, Some((Side::Endpoint, true))),
            (send, 503, None, Some((Side::Endpoint, true))),
            (send, 504, None, Some((Side::Endpoint, true))),
            (invoke, 504, None, Some((Side::Client, false))),
            (invoke, 503, None, Some((Side::Endpoint, true))),
        ] {
            let found = Failure::of_response(Some(operation), &response(status, code));
            assert_eq!(
                found.as_ref().map(|found| (found.side, found.needs_operator)),
                expected,
                "{operation} {status}"
            );
            assert!(found.is_none_or(|found| found.remedy.is_some() == found.needs_operator), "{status}");
        }
    }

    #[test]
    fn error_codes_are_logged_as_far_as_they_are_plain() {
        assert_eq!(
            error_code(response(404, Some("Warning.User.NotExisted")).headers()).unwrap(),
            "Warning.User.NotExisted"
        );
        assert_eq!(error_code(response(404, Some("a b=\"c\"")).headers()).unwrap(), "a");
        assert_eq!(error_code(response(404, None).headers()), None);
    }
}
