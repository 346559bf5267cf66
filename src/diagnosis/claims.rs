//! A token's claims beside what the configuration expects. Claims are not verified and may be missing: Microsoft may
//! make tokens of its own services opaque at any time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::credential::{Claims, CredentialKind, one_line};

/// How far clocks may differ before it is said. Chosen: assertions are made five minutes early.
const NOTEWORTHY_SKEW: Duration = Duration::from_secs(60);

/// One claim beside what is expected of it.
#[derive(Clone, Debug)]
pub struct ClaimCheck {
    /// The claim.
    pub claim: &'static str,
    /// What stands in the token.
    pub value: String,
    /// What the configuration expects, if it says.
    pub expected: Option<String>,
    /// What comes of the comparison.
    pub verdict: Verdict,
}

/// What comes of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As expected.
    Good,
    /// Nothing is expected; for reading.
    Shown,
    /// Not as expected, in a way that the service may accept.
    Odd,
    /// Not as expected.
    Wrong,
}

/// Holds the claims of a token against the credential that it was obtained by.
pub fn check_claims(claims: &Claims, kind: &CredentialKind, now: SystemTime) -> Vec<ClaimCheck> {
    let (tenant, client_id, scope) = match kind {
        CredentialKind::App(app) => (Some(&app.tenant), Some(&app.client_id), Some(&app.scope)),
        CredentialKind::ManagedIdentity { scope, .. } => (None, None, Some(scope)),
        CredentialKind::AzureCli { tenant, scope } => (Some(tenant), None, Some(scope)),
        CredentialKind::AccessKey { .. } | CredentialKind::TokenFile { .. } => (None, None, None),
    };
    let mut checks = Vec::new();
    let mut check = |claim: &'static str, value: Option<&Value>, expected: Option<String>, differing: Verdict| {
        let Some(value) = value else { return };
        // Nobody has verified it, and it goes to a terminal.
        let value = one_line(&value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        let verdict = match &expected {
            None => Verdict::Shown,
            Some(expected) if expected.eq_ignore_ascii_case(value.trim_end_matches('/')) => Verdict::Good,
            Some(_) => differing,
        };
        checks.push(ClaimCheck { claim, value, expected, verdict });
    };
    // A domain stands for a tenant id that is not known here.
    check("tid", claims.get("tid"), tenant.filter(|tenant| is_guid(tenant)).cloned(), Verdict::Wrong);
    let resource = scope.map(|scope| scope.trim_end_matches("/.default").trim_end_matches('/').to_owned());
    check("aud", claims.get("aud"), resource, Verdict::Odd);
    let app = claims.get("appid").or_else(|| claims.get("azp"));
    check("appid", app, client_id.cloned(), Verdict::Wrong);
    for claim in ["oid", "iss"] {
        check(claim, claims.get(claim), None, Verdict::Shown);
    }
    if let Some(expires) = claims.get("exp").and_then(Value::as_u64) {
        let left = (UNIX_EPOCH + Duration::from_secs(expires)).duration_since(now);
        let (value, verdict) = match left {
            Ok(left) => (format!("in {}", humantime::format_duration(whole_seconds(left))), Verdict::Good),
            Err(past) => {
                (format!("{} ago", humantime::format_duration(whole_seconds(past.duration()))), Verdict::Wrong)
            }
        };
        checks.push(ClaimCheck { claim: "exp", value, expected: Some("not yet".to_owned()), verdict });
    }
    checks
}

/// Says how far an identity endpoint's clock is from this host's, if that is worth saying.
pub(super) fn noteworthy_skew(theirs: SystemTime, ours: SystemTime) -> Option<String> {
    let (apart, direction) = match ours.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    let apart = whole_seconds(apart);
    (apart > NOTEWORTHY_SKEW)
        .then(|| format!("this host's clock is {} {direction} Entra's", humantime::format_duration(apart)))
}

fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}

/// Whether a text is a GUID.
pub(super) fn is_guid(text: &str) -> bool {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    groups == [8, 4, 4, 4, 12] && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
}
