//! What the log says about an endpoint that fails calls or refuses the token: where it is, why, what callers get and what to do.

use http::StatusCode;

use crate::credential::Claims;
use crate::endpoint::failure::{ErrorResponse, FailureCause, FailureKind, GatewayAnswer};
use crate::endpoint::settings::EndpointSettings;
use crate::redact::is_guid;
use crate::runbook::{Condition, Section};

/// What to do if network rules deny this host.
const NETWORK_RULES: &str =
    "allow this host in the network rules of the resource (in the portal: Networking), for the REST API";

/// The section of the runbook about an open circuit.
const CIRCUIT_OPEN: Section = Section::Condition(Condition::CircuitOpen);

/// The parts of a line.
pub(super) struct EndpointLine {
    /// `host:port`.
    pub(super) address: String,
    pub(super) cause: Option<String>,
    pub(super) callers_get: Option<String>,
    pub(super) remedy: Option<String>,
    pub(super) section: Section,
    /// The object id in the token, if the endpoint refused it.
    pub(super) object_id: Option<String>,
    /// The tenant that issued the token, if the endpoint refused it.
    pub(super) tenant: Option<String>,
}

impl EndpointLine {
    pub(super) fn of(settings: &EndpointSettings, failure: Option<&FailureCause>) -> Self {
        let section = failure.and_then(FailureCause::section).unwrap_or(CIRCUIT_OPEN);
        let remedy = match failure {
            Some(FailureCause::Response(response)) if is_network_rule(response) => Some(NETWORK_RULES.to_owned()),
            Some(FailureCause::Transport { certificate: Some(refused), proxy, .. }) => {
                let own = format!("`endpoints.{}.ca_file`", settings.name);
                let is_own = proxy.is_none();
                Some(if is_own { refused.remedy().replace("`ca_file`", &own) } else { refused.remedy().to_owned() })
            }
            Some(_) | None => section.remedy_at(settings.name.as_str()),
        };
        Self {
            address: settings.origin.host_and_port(),
            cause: failure.map(cause),
            callers_get: failure.map(|failure| callers_get(failure.kind())),
            remedy,
            section,
            object_id: None,
            tenant: None,
        }
    }

    /// Adds the identity in the token that the endpoint refused.
    pub(super) fn with_token(mut self, claims: Option<&Claims>) -> Self {
        // The claims are not verified, and people copy the ids into commands, so only GUIDs are shown.
        let id = |claim: &str| claims?.get(claim)?.as_str().filter(|id| is_guid(id)).map(str::to_owned);
        (self.object_id, self.tenant) = (id("oid"), id("tid"));
        if let (Some(object_id), Some(remedy)) = (&self.object_id, &mut self.remedy) {
            *remedy = remedy.replace("the object id in the token", &format!("object id {object_id}"));
        }
        self
    }
}

/// Returns whether a front end denied the call, as it does for network rules.
fn is_network_rule(response: &ErrorResponse) -> bool {
    response.status == StatusCode::FORBIDDEN && response.is_from_front_end
}

fn cause(failure: &FailureCause) -> String {
    let summary = failure.summary();
    match failure {
        FailureCause::Response(response) if is_network_rule(response) => {
            format!("{summary}: its network rules do not allow this host")
        }
        FailureCause::Response(response) if response.was_authorized && response.status == StatusCode::FORBIDDEN => {
            format!("{summary}: the token is valid, but no role assignment on the resource allows the call")
        }
        FailureCause::Response(response) if response.status == StatusCode::UNAUTHORIZED => {
            format!("{summary}: it does not accept tokens of this tenant, or `url` is that of another resource")
        }
        FailureCause::Response(_) | FailureCause::Transport { .. } => summary,
    }
}

/// Returns what a call gets that no other endpoint of its route takes.
fn callers_get(kind: FailureKind) -> String {
    let answer = match kind {
        FailureKind::Response(status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)) => {
            return format!("{} of the endpoint", status.as_u16());
        }
        FailureKind::Response(status) => format!("{} of the endpoint", status.as_u16()),
        FailureKind::Transport(reason) => {
            let GatewayAnswer { status, kind, .. } = GatewayAnswer::of(reason);
            format!("{status} {}", kind.label())
        }
    };
    format!("{answer}, if no other endpoint of their route takes them")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::tests::settings;
    use crate::metrics::UpstreamErrorReason;

    #[test]
    fn remedies_name_the_keys_of_the_endpoint() {
        let settings = settings(8443);
        let name = &settings.name;
        for (reason, key, status) in [
            (UpstreamErrorReason::Dns, "url", "503 endpoint_unavailable"),
            (UpstreamErrorReason::Connect, "url", "503 endpoint_unavailable"),
            (UpstreamErrorReason::Tls, "ca_file", "503 endpoint_unavailable"),
            (UpstreamErrorReason::Protocol, "url", "502 upstream_broken"),
        ] {
            let cause = FailureCause::Transport { reason, error: "refused".to_owned(), proxy: None, certificate: None };
            let line = EndpointLine::of(&settings, Some(&cause));
            let remedy = line.remedy.unwrap();
            assert!(remedy.contains(&format!("`endpoints.{name}.{key}`")), "{reason:?}: {remedy}");
            assert!(line.callers_get.unwrap().starts_with(status), "{reason:?}");
            assert_eq!(line.address, format!("{}:8443", settings.origin.host));
        }
        let own = callers_get(FailureKind::Transport(UpstreamErrorReason::Local));
        assert!(own.starts_with("503 overload"), "a shortage of this host is not the endpoint's: {own}");
    }

    #[test]
    fn denial_by_network_rules_is_distinguished_from_a_missing_role() {
        let refused = |is_from_front_end| {
            let response = ErrorResponse {
                status: StatusCode::FORBIDDEN,
                challenge: None,
                is_from_front_end,
                was_authorized: true,
            };
            EndpointLine::of(&settings(443), Some(&FailureCause::Response(response)))
        };
        let claims = serde_json::json!({ "oid": "0b1ec700-0000-4000-8000-000000000001", "tid": "x; rm" });
        let (role, rules) = (refused(false).with_token(claims.as_object()), refused(true));
        assert!(role.remedy.as_ref().unwrap().contains("to object id 0b1ec700-0000-4000-8000-000000000001;"));
        assert_eq!(role.tenant, None, "what is no GUID is not shown");
        assert!(role.cause.unwrap().contains("no role assignment") && role.remedy.unwrap().contains("role"));
        assert!(rules.cause.unwrap().contains("network rules") && rules.remedy.unwrap().contains("Networking"));
        assert_eq!(role.callers_get.as_deref(), Some("403 of the endpoint"));
    }
}
