//! The tokens that Entra and the metadata services issue.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::sandbox::crypto::ids::random_string;
use crate::sandbox::crypto::keys::{Claims, RsaKey, expiry, unix_seconds};
use crate::sandbox::directory::model::{SIGNALR_PROVIDER, v2_issuer};

/// How far `iat` and `nbf` precede the time of issue, in seconds. Measured on tokens of Entra.
const BACKDATED_SECS: i64 = 300;

/// How a client authenticated: the value of the claim `appidacr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientAuthentication {
    /// A client secret.
    Secret,
    /// A certificate, or an assertion of another issuer.
    Assertion,
}

/// The claims of a token that depend on the request.
#[derive(Clone, Debug)]
pub(crate) struct TokenParameters<'a> {
    /// The id of the issuing tenant.
    pub(crate) tenant: &'a str,
    /// The client id of the app registration or managed identity.
    pub(crate) client_id: &'a str,
    /// The object id of its service principal in that tenant.
    pub(crate) object_id: &'a str,
    /// The requested audience.
    pub(crate) audience: &'a str,
    /// How the client authenticated.
    pub(crate) authentication: ClientAuthentication,
}

/// Returns whether a requested resource is Azure SignalR.
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
    parameters: &TokenParameters<'_>,
    now: SystemTime,
    lifetime: Duration,
    key: &RsaKey,
) -> jsonwebtoken::errors::Result<String> {
    let issuer = format!("https://sts.windows.net/{}/", parameters.tenant);
    let mut claims = common_claims(parameters, now, lifetime);
    let acr = match parameters.authentication {
        ClientAuthentication::Secret => "1",
        ClientAuthentication::Assertion => "2",
    };
    claims.extend([
        (String::from("appid"), Value::from(parameters.client_id)),
        (String::from("appidacr"), Value::from(acr)),
        (String::from("idp"), Value::from(issuer.clone())),
        (String::from("iss"), Value::from(issuer)),
        (String::from("ver"), Value::from("1.0")),
    ]);
    key.sign(&claims)
}

/// Returns a managed identity's token for the exchange audience, in the v2 format.
///
/// Federated identity credentials trust the v2 issuer.
pub(crate) fn exchange_token(
    parameters: &TokenParameters<'_>,
    authority: &str,
    now: SystemTime,
    lifetime: Duration,
    key: &RsaKey,
) -> jsonwebtoken::errors::Result<String> {
    let mut claims = common_claims(parameters, now, lifetime);
    claims.extend([
        (String::from("azp"), Value::from(parameters.client_id)),
        (String::from("azpacr"), Value::from("2")),
        (String::from("iss"), Value::from(v2_issuer(authority, parameters.tenant))),
        (String::from("ver"), Value::from("2.0")),
    ]);
    key.sign(&claims)
}

fn common_claims(parameters: &TokenParameters<'_>, now: SystemTime, lifetime: Duration) -> Claims {
    let issued = unix_seconds(now);
    let Value::Object(claims) = json!({
        "aud": parameters.audience,
        "iat": issued - BACKDATED_SECS,
        "nbf": issued - BACKDATED_SECS,
        "exp": expiry(now, lifetime),
        "idtyp": "app",
        "oid": parameters.object_id,
        "sub": parameters.object_id,
        "tid": parameters.tenant,
        "uti": random_string(),
    }) else {
        return Claims::new();
    };
    claims
}
