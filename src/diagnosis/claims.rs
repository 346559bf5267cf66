//! Compares a token's claims with the configuration. The claims are not verified. There may be none, since Microsoft may make the
//! tokens of its own services opaque at any time.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::finding::{Check, Verdict};
pub(super) use crate::credential::noteworthy_skew;
pub(super) use crate::credential::token_expiry as expiry;
use crate::credential::{Claims, CredentialSettings};
use crate::redact::{is_guid, one_line};

/// What the configuration expects of the tokens of a credential.
struct Expected<'a> {
    tenant: Option<&'a str>,
    scope: Option<&'a str>,
    client_id: Option<&'a str>,
    object_id: Option<&'a str>,
}

impl<'a> Expected<'a> {
    fn of(settings: &'a CredentialSettings) -> Self {
        let object_id = settings.object_id.as_deref();
        let identity = settings.kind.facts().identity;
        Self {
            // The id of a tenant that is configured by its domain is not known here.
            tenant: identity.and_then(|identity| identity.tenant()).filter(|tenant| is_guid(tenant)),
            scope: identity.map(|identity| identity.scope()),
            client_id: identity.and_then(|identity| identity.client_id()),
            object_id,
        }
    }
}

/// Compares the claims of a token with the credential that obtained it. Returns one check for each claim, under its name.
pub(super) fn check_claims(claims: &Claims, settings: &CredentialSettings, now: SystemTime) -> Vec<Check> {
    let expected = Expected::of(settings);
    let resource = expected.scope.map(|scope| scope.trim_end_matches("/.default").trim_end_matches('/'));
    let app = claims.get("appid").or_else(|| claims.get("azp"));
    let checks = [
        compare("tid", claims.get("tid"), expected.tenant, Verdict::Wrong),
        // Entra writes the audience with or without a slash, or as the id of SignalR's own application.
        compare("aud", claims.get("aud"), resource, Verdict::Warning),
        compare("appid", app, expected.client_id, Verdict::Wrong),
        compare("oid", claims.get("oid"), expected.object_id, Verdict::Wrong),
        compare("iss", claims.get("iss"), None, Verdict::Shown),
    ];
    checks.into_iter().flatten().chain(expiry(claims).map(|expires| remaining_lifetime(expires, now))).collect()
}

/// Compares a claim with its expected value; `differing` is the verdict if they differ. Returns `None` if the claim is missing
/// and nothing is expected.
fn compare(claim: &str, found: Option<&Value>, expected: Option<&str>, differing: Verdict) -> Option<Check> {
    let (result, verdict) = match (found.map(text), expected) {
        (None, None) => return None,
        (None, Some(_)) => ("(none)".to_owned(), Verdict::Warning),
        (Some(value), None) => (value, Verdict::Shown),
        (Some(value), Some(expected)) => {
            let same = expected.eq_ignore_ascii_case(value.trim_end_matches('/'));
            (value, if same { Verdict::Good } else { differing })
        }
    };
    Some(Check { what: claim.to_owned(), result, expected: expected.map(str::to_owned), verdict })
}

/// Formats a claim in one line without control characters, since claims are not verified and are printed to terminals.
pub(super) fn text(value: &Value) -> String {
    let values = value.as_array().map_or_else(|| vec![value], |values| values.iter().collect());
    let values = values.into_iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    one_line(&values.collect::<Vec<_>>().join(", "))
}

fn remaining_lifetime(expires: SystemTime, now: SystemTime) -> Check {
    let at = humantime::format_rfc3339_seconds(expires);
    let (result, verdict) = match expires.duration_since(now) {
        Ok(left) => (format!("{at}, in {}", whole_seconds(left)), Verdict::Good),
        Err(past) => (format!("{at}, {} ago", whole_seconds(past.duration())), Verdict::Wrong),
    };
    Check { what: "exp".to_owned(), result, expected: None, verdict }
}

/// Compares the clock of an identity endpoint, from its `Date` header (RFC 9110 section 6.6.1), with this host's.
pub(super) fn compare_clocks(theirs: SystemTime, ours: SystemTime) -> Check {
    let (result, verdict) = match noteworthy_skew(theirs, ours) {
        Some(skew) => (skew, Verdict::Warning),
        None => ("less than a minute apart".to_owned(), Verdict::Good),
    };
    Check { what: "compare clocks".to_owned(), result, expected: None, verdict }
}

fn whole_seconds(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(duration.as_secs()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::credential::{
        AppSettings, AuthoritySettings, Cloud, CredentialId, CredentialKind, ManagedIdentity, ManagedIdentitySettings,
        Proof, SecretSource,
    };

    const TENANT: &str = "bbbbbbbb-0000-4000-8000-00000000000b";
    const CLIENT: &str = "0a990000-0000-4000-8000-000000000001";
    const OBJECT: &str = "0b1ec700-0000-4000-8000-000000000001";
    const NOW: u64 = 1_800_000_000;

    fn app(tenant: &str) -> CredentialKind {
        let app = AppSettings {
            authority: AuthoritySettings { cloud: Cloud::Public, ca_file: None },
            egress: std::sync::Arc::default(),
            client_id: CLIENT.to_owned(),
            scope: "https://signalr.azure.com/.default".to_owned(),
            proof: Proof::Secret(SecretSource::Env("X".to_owned())),
        };
        CredentialKind::App { app: app.into(), tenant: tenant.into() }
    }

    fn seen(kind: CredentialKind, object_id: Option<&str>, claims: &Value) -> Vec<(String, Verdict)> {
        let object_id = object_id.map(Into::into);
        let settings = CredentialSettings { id: CredentialId::without_tenant("x"), kind, object_id };
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        let checks = check_claims(claims.as_object().unwrap(), &settings, now);
        checks.into_iter().map(|check| (check.what, check.verdict)).collect()
    }

    fn of<'a>(seen: &'a [(String, Verdict)], claim: &str) -> Option<&'a Verdict> {
        seen.iter().find(|(what, _)| what == claim).map(|(_, verdict)| verdict)
    }

    #[test]
    fn compares_a_token_with_the_configuration() {
        let good = json!({ "tid": TENANT, "aud": "https://signalr.azure.com/", "appid": CLIENT, "oid": OBJECT, "exp": NOW + 60 });
        let all = seen(app(TENANT), Some(OBJECT), &good);
        assert!(all.len() == 5 && all.iter().all(|(_, verdict)| *verdict == Verdict::Good), "{all:?}");
        // The id of a tenant that is configured by its domain is not known.
        assert_eq!(of(&seen(app("contoso.onmicrosoft.com"), None, &good), "tid"), Some(&Verdict::Shown));
        for (claim, other, verdict) in [
            ("tid", json!("another"), Verdict::Wrong),
            ("appid", json!("another"), Verdict::Wrong),
            ("oid", json!("another"), Verdict::Wrong),
            ("aud", json!("https://management.azure.com"), Verdict::Warning),
            ("exp", json!(NOW - 1), Verdict::Wrong),
            ("tid", Value::Null, Verdict::Wrong),
        ] {
            let mut claims = good.clone();
            claims[claim] = other;
            assert_eq!(of(&seen(app(TENANT), Some(OBJECT), &claims), claim), Some(&verdict), "{claims}");
        }
        let bare = seen(app(TENANT), Some(OBJECT), &json!({}));
        assert_eq!(
            of(&bare, "tid"),
            Some(&Verdict::Warning),
            "a missing claim is reported if it is expected: {bare:?}"
        );
        let second_version = json!({ "azp": CLIENT, "aud": ["https://signalr.azure.com"] });
        let second_version = seen(app(TENANT), None, &second_version);
        assert_eq!(of(&second_version, "appid"), Some(&Verdict::Good), "{second_version:?}");
        assert_eq!(of(&second_version, "aud"), Some(&Verdict::Good), "{second_version:?}");
    }

    #[test]
    fn token_of_a_managed_identity_must_have_the_configured_client_id() {
        let kind = CredentialKind::ManagedIdentity {
            identity: ManagedIdentitySettings { id: ManagedIdentity::ClientId(CLIENT.to_owned()), imds_endpoint: None },
            scope: "https://signalr.azure.com/.default".to_owned(),
        };
        assert_eq!(of(&seen(kind, None, &json!({ "appid": "another" })), "appid"), Some(&Verdict::Wrong));
    }

    #[test]
    fn invalid_expiry_is_not_shown() {
        for invalid in [json!("soon"), json!(-1), json!(1e300), json!(253_402_300_800_u64)] {
            assert_eq!(of(&seen(app(TENANT), None, &json!({ "exp": invalid })), "exp"), None, "{invalid}");
        }
    }
}
