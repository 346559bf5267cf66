//! The tokens that Entra and the metadata services issue.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::sandbox::crypto::ids::unique;
use crate::sandbox::crypto::keys::{Claims, RsaKey, expiry, unix_seconds};
use crate::sandbox::directory::model::{SIGNALR_PROVIDER, v2_issuer};

/// The time by which `nbf` precedes the issue, in seconds. Measured on Entra's own tokens.
const BACKDATED_SECS: i64 = 300;

/// How a client authenticated: the value of the claim `appidacr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProvedBy {
    /// A client secret.
    Secret,
    /// A certificate, or an assertion of another issuer.
    Assertion,
}

/// The subject and the audience of a token.
#[derive(Clone, Debug)]
pub(crate) struct Subject<'a> {
    /// The id of the issuing tenant.
    pub(crate) tenant: &'a str,
    /// The client id of the app registration or managed identity.
    pub(crate) client_id: &'a str,
    /// The object id of its service principal in that tenant.
    pub(crate) object_id: &'a str,
    /// The audience as requested.
    pub(crate) audience: &'a str,
    /// How the client authenticated.
    pub(crate) proved_by: ProvedBy,
}

/// Whether the resource of a scope or of a metadata request is Azure SignalR.
pub(crate) fn is_signalr(resource: &str) -> bool {
    let resource = resource.trim_end_matches('/');
    // Web PubSub has the same service principal. SignalR rejects tokens whose audience is Web PubSub.
    ["https://signalr.azure.com", "https://webpubsub.azure.com", SIGNALR_PROVIDER]
        .iter()
        .any(|name| name.eq_ignore_ascii_case(resource))
}

/// Returns an access token in the v1 format.
///
/// Source: Microsoft's access token claims reference.
pub(crate) fn access_token(
    subject: &Subject<'_>,
    now: SystemTime,
    lifetime: Duration,
    key: &RsaKey,
) -> jsonwebtoken::errors::Result<String> {
    let issuer = format!("https://sts.windows.net/{}/", subject.tenant);
    let mut claims = common_claims(subject, now, lifetime);
    let acr = match subject.proved_by {
        ProvedBy::Secret => "1",
        ProvedBy::Assertion => "2",
    };
    claims.extend([
        (String::from("appid"), Value::from(subject.client_id)),
        (String::from("appidacr"), Value::from(acr)),
        (String::from("idp"), Value::from(issuer.clone())),
        (String::from("iss"), Value::from(issuer)),
        (String::from("ver"), Value::from("1.0")),
    ]);
    key.sign(&claims)
}

/// Returns a managed identity's token for the exchange audience, in the v2 format: federated identity credentials trust the
/// v2 issuer.
pub(crate) fn exchange_token(
    subject: &Subject<'_>,
    authority: &str,
    now: SystemTime,
    lifetime: Duration,
    key: &RsaKey,
) -> jsonwebtoken::errors::Result<String> {
    let mut claims = common_claims(subject, now, lifetime);
    claims.extend([
        (String::from("azp"), Value::from(subject.client_id)),
        (String::from("azpacr"), Value::from("2")),
        (String::from("iss"), Value::from(v2_issuer(authority, subject.tenant))),
        (String::from("ver"), Value::from("2.0")),
    ]);
    key.sign(&claims)
}

fn common_claims(subject: &Subject<'_>, now: SystemTime, lifetime: Duration) -> Claims {
    let issued = unix_seconds(now);
    let Value::Object(claims) = json!({
        "aud": subject.audience,
        "iat": issued - BACKDATED_SECS,
        "nbf": issued - BACKDATED_SECS,
        "exp": expiry(now, lifetime),
        "idtyp": "app",
        "oid": subject.object_id,
        "sub": subject.object_id,
        "tid": subject.tenant,
        "uti": unique(),
    }) else {
        return Claims::new();
    };
    claims
}
