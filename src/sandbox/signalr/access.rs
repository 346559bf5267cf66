//! Authentication and authorization of calls, by Entra tokens and by JWTs that are signed with an access key.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde_json::{Value, json};

use super::problem::Problem;
use crate::sandbox::crypto::ids::random_string;
use crate::sandbox::crypto::keys::{self, Claims, RsaKey, expiry, unix_seconds};
use crate::sandbox::directory::model::{Directory, SIGNALR_PROVIDER, SecretText};
use crate::sandbox::server::exchange::ReceivedRequest;
use crate::sandbox::server::journal::fingerprint;

/// The lifetime of a temporary access key. Source: description of the data action `auth/accessKey/action`.
const TEMPORARY_KEY_LIFETIME: Duration = Duration::from_secs(90 * 60);

/// The maximum number of temporary keys. Each SDK instance fetches one every 55 minutes.
const MAX_TEMPORARY_KEYS: usize = 1000;

/// The access keys of a resource. `Debug` does not show them.
#[derive(Debug)]
pub(crate) struct AccessKeys {
    primary: SecretText,
    /// The key that signs the tokens of `:generateToken`. It is not disclosed, so it is valid even if local auth is disabled.
    client_token_key: SecretText,
    temporary: Mutex<Vec<TemporaryKey>>,
}

#[derive(Debug)]
struct TemporaryKey {
    id: String,
    key: SecretText,
    expires: SystemTime,
}

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A service principal of the resource's tenant, by its object id.
    Principal(String),
    /// A holder of an access key.
    KeyHolder,
}

/// The called resource.
pub(crate) struct CalledResource<'a> {
    /// The directory.
    pub(crate) directory: &'a Directory,
    /// The resource's name.
    pub(crate) name: &'a str,
    /// The resource's origin, such as `https://127.0.0.1:8443`.
    pub(crate) origin: &'a str,
    /// The key with which Entra signs tokens.
    pub(crate) entra_key: &'static RsaKey,
}

impl AccessKeys {
    /// Creates keys with this primary key, or with a random one.
    pub(crate) fn with_primary(primary: Option<SecretText>) -> Self {
        let key = || SecretText::new(format!("{}{}", random_string(), random_string()));
        Self { primary: primary.unwrap_or_else(key), client_token_key: key(), temporary: Mutex::default() }
    }

    /// Returns the primary key.
    pub(crate) const fn primary(&self) -> &SecretText {
        &self.primary
    }

    /// Creates a temporary key. Returns its id and value.
    pub(crate) fn issue_temporary(&self, now: SystemTime) -> (String, String) {
        let (id, key) = (random_string(), format!("{}{}", random_string(), random_string()));
        let mut temporary = self.temporary.lock().unwrap_or_else(PoisonError::into_inner);
        temporary.retain(|key| key.expires > now);
        if temporary.len() >= MAX_TEMPORARY_KEYS {
            temporary.remove(0);
        }
        let expires = now + TEMPORARY_KEY_LIFETIME;
        temporary.push(TemporaryKey { id: id.clone(), key: SecretText::new(key.clone()), expires });
        (id, key)
    }

    /// Creates a client token for an audience, the result of `:generateToken`.
    ///
    /// Source: the claims of the official SDKs. The service reads the user from `asrs.s.uid`, else from `nameid`.
    pub(crate) fn client_token(
        &self,
        audience: &str,
        user: Option<&str>,
        lifetime: Duration,
        now: SystemTime,
    ) -> jsonwebtoken::errors::Result<String> {
        let issued = unix_seconds(now);
        let expires = expiry(now, lifetime);
        let mut claims = json!({ "aud": audience, "iat": issued, "nbf": issued, "exp": expires });
        if let (Some(user), Some(fields)) = (user, claims.as_object_mut()) {
            fields.insert(String::from("nameid"), Value::from(user));
            fields.insert(String::from("asrs.s.uid"), Value::from(user));
        }
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(fingerprint(self.client_token_key.expose()));
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(self.client_token_key.expose().as_bytes()))
    }

    /// Validates the token of a client that connects to a hub of the resource at `origin`, and returns its claims.
    ///
    /// # Errors
    /// The reason why the token is rejected.
    pub(crate) fn check_client_token(
        &self,
        token: &str,
        origin: &str,
        hub: &str,
        local_auth: bool,
        now: SystemTime,
    ) -> Result<Claims, String> {
        let (header, _) = keys::decode_unverified(token).ok_or("the token is malformed")?;
        let issued = keys::verify(
            token,
            &DecodingKey::from_secret(self.client_token_key.expose().as_bytes()),
            &[Algorithm::HS256],
        );
        let claims = issued.or_else(|| self.verify(token, header.kid.as_deref(), local_auth, now));
        let claims = claims.ok_or("the token's signature is invalid")?;
        let seconds = unix_seconds(now);
        match keys::numeric_date_claim(&claims, "exp") {
            None => return Err(String::from("the token has no expiration")),
            Some(expires) if expires <= seconds => return Err(format!("the token expired at {expires}")),
            Some(_) if keys::numeric_date_claim(&claims, "nbf").is_some_and(|from| from > seconds) => {
                return Err(String::from("the token is not yet valid"));
            }
            Some(_) => {}
        }
        let audience = keys::string_claim(&claims, "aud").unwrap_or_default();
        if is_client_url(audience, origin, hub) {
            Ok(claims)
        } else {
            Err(format!("the token is for '{audience}', not for '{origin}/client/?hub={hub}'"))
        }
    }

    /// Verifies the signature of a token with the primary key, if `local_auth` is enabled, or with the temporary key `key_id`.
    pub(crate) fn verify(
        &self,
        token: &str,
        key_id: Option<&str>,
        local_auth: bool,
        now: SystemTime,
    ) -> Option<Claims> {
        let algorithms = [Algorithm::HS256, Algorithm::HS512];
        let check = |key: &SecretText| {
            algorithms.iter().find_map(|algorithm| {
                keys::verify(token, &DecodingKey::from_secret(key.expose().as_bytes()), &[*algorithm])
            })
        };
        let primary = if local_auth { check(&self.primary) } else { None };
        primary.or_else(|| {
            let temporary = self.temporary.lock().unwrap_or_else(PoisonError::into_inner);
            let key = temporary.iter().find(|key| Some(key.id.as_str()) == key_id && key.expires > now)?;
            check(&key.key)
        })
    }
}

/// Authenticates a request by its bearer token.
pub(crate) fn authenticate(
    request: &ReceivedRequest,
    called: &CalledResource<'_>,
    access_keys: &AccessKeys,
    now: SystemTime,
) -> Result<Caller, Problem> {
    let Some(token) = request.bearer() else {
        return Err(Problem::NoToken);
    };
    let Some((header, _)) = keys::decode_unverified(token) else {
        return Err(invalid_token("The token is malformed"));
    };
    let resource = called.directory.resource(called.name);
    #[expect(clippy::wildcard_enum_match_arm, reason = "the library may add algorithms")]
    match header.alg {
        Algorithm::RS256 => check_entra_token(token, &header, called, resource.map(|r| r.tenant.as_str()), now),
        Algorithm::HS256 | Algorithm::HS512 => {
            let local_auth = resource.is_some_and(|resource| resource.local_auth);
            let claims = access_keys.verify(token, header.kid.as_deref(), local_auth, now);
            let claims = claims.ok_or_else(|| invalid_token("The signature is invalid"))?;
            check_time(&claims, now)?;
            let audience = keys::string_claim(&claims, "aud").unwrap_or_default();
            if is_request_url(audience, request, called.origin) {
                Ok(Caller::KeyHolder)
            } else {
                Err(audience_invalid(audience))
            }
        }
        _ => Err(invalid_token("The signature algorithm is not supported")),
    }
}

/// Validates a token of Entra. The service accepts only tokens of the resource's tenant.
fn check_entra_token(
    token: &str,
    header: &Header,
    called: &CalledResource<'_>,
    tenant: Option<&str>,
    now: SystemTime,
) -> Result<Caller, Problem> {
    let key = called.entra_key.public();
    if header.kid.as_deref() != Some(key.id()) {
        return Err(invalid_token("The signature key was not found"));
    }
    let claims = keys::verify(token, key.decoding_key(), &[Algorithm::RS256]);
    let claims = claims.ok_or_else(|| invalid_token("The signature is invalid"))?;
    check_time(&claims, now)?;
    let audience = keys::string_claim(&claims, "aud").unwrap_or_default();
    // The resource, with or without a trailing slash, or the application id of its provider.
    let audiences = ["https://signalr.azure.com", SIGNALR_PROVIDER];
    if !audiences.contains(&audience.trim_end_matches('/')) {
        return Err(audience_invalid(audience));
    }
    if tenant.is_none() || keys::string_claim(&claims, "tid") != tenant {
        let issuer = keys::string_claim(&claims, "iss").unwrap_or_default();
        return Err(invalid_token(&format!("The issuer '{issuer}' is invalid")));
    }
    Ok(Caller::Principal(keys::string_claim(&claims, "oid").unwrap_or_default().to_owned()))
}

/// Returns whether a caller may perform a data action.
pub(crate) fn is_allowed(caller: &Caller, action: &str, called: &CalledResource<'_>) -> bool {
    let Caller::Principal(object_id) = caller else {
        return true;
    };
    let tenant = called.directory.resource(called.name).and_then(|r| called.directory.tenant(&r.tenant));
    tenant.is_some_and(|tenant| {
        let principal = tenant.service_principals.iter().find(|principal| principal.object_id == *object_id);
        principal.is_some_and(|principal| principal.is_allowed(called.name, action))
    })
}

/// Validates `exp` and `nbf` without tolerance, so that tests detect a token that is sent after its expiry.
fn check_time(claims: &Claims, now: SystemTime) -> Result<(), Problem> {
    let now = unix_seconds(now);
    match keys::numeric_date_claim(claims, "exp") {
        None => Err(invalid_token("The token has no expiration")),
        Some(expires) if expires <= now => Err(invalid_token(&format!("The token expired at '{expires}'"))),
        Some(_) if keys::numeric_date_claim(claims, "nbf").is_some_and(|from| from > now) => {
            Err(invalid_token("The token is not valid yet"))
        }
        Some(_) => Ok(()),
    }
}

/// Returns whether an audience is the URL of the request, ignoring case and a trailing slash.
///
/// The query and the port are optional, because SDKs differ in whether they include them.
fn is_request_url(audience: &str, request: &ReceivedRequest, origin: &str) -> bool {
    let (audience, query) = audience.split_once('?').map_or((audience, None), |(url, query)| (url, Some(query)));
    let path_matches = [origin, without_port(origin)].iter().any(|origin| {
        let url = format!("{origin}{}", request.path);
        url.trim_end_matches('/').eq_ignore_ascii_case(audience.trim_end_matches('/'))
    });
    let query_matches = query.is_none_or(|query| {
        let sent: Vec<_> = request.query_pairs().collect();
        form_urlencoded::parse(query.as_bytes()).all(|pair| sent.contains(&pair))
    });
    path_matches && query_matches
}

/// Returns whether an audience is the client URL of a hub.
fn is_client_url(audience: &str, origin: &str, hub: &str) -> bool {
    let Some((url, query)) = audience.split_once('?') else {
        return false;
    };
    let mut hubs = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key.eq_ignore_ascii_case("hub"));
    let is_hub = hubs.next().is_some_and(|(_, value)| value.eq_ignore_ascii_case(hub));
    let is_url = [origin, without_port(origin)]
        .iter()
        .any(|origin| format!("{origin}/client").eq_ignore_ascii_case(url.trim_end_matches('/')));
    is_hub && is_url
}

/// Returns an origin without its port.
fn without_port(origin: &str) -> &str {
    let host = origin.find("://").map_or(0, |index| index + 3);
    let colon = origin.get(host..).and_then(|rest| rest.rfind(':')).map(|index| host + index);
    colon.and_then(|colon| origin.get(..colon)).unwrap_or(origin)
}

fn audience_invalid(audience: &str) -> Problem {
    // The challenge contains the audience in a quoted string, which the audience must not end.
    let audience: String = audience.chars().filter(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\')).collect();
    invalid_token(&format!("The audience '{audience}' is invalid"))
}

fn invalid_token(description: &str) -> Problem {
    Problem::InvalidToken(description.to_owned())
}
