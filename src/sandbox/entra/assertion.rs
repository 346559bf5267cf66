//! The checks of a client assertion: one that the app signed with its certificate, or a token of another issuer that a
//! federated identity credential trusts. Knows nothing of secrets, scopes and HTTP.

use std::collections::HashMap;
use std::time::SystemTime;

use jsonwebtoken::{Algorithm, DecodingKey, Header};
use serde_json::Value;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::refusal::Refusal;
use crate::sandbox::crypto::certificates::{thumbprint_sha1, thumbprint_sha256};
use crate::sandbox::crypto::keys::{self, Claims, RsaKey, unix_seconds};
use crate::sandbox::directory::model::{Application, Directory, v2_issuer};

/// The tolerated clock skew of a client, in seconds.
const SKEW_SECS: i64 = 300;

/// The number of assertion ids above which expired ones are removed.
const MAX_USED_IDS: usize = 100_000;

/// The ids (`jti`) of used assertions, until those expire.
#[derive(Debug, Default)]
pub(super) struct UsedIds(HashMap<String, i64>);

/// The context of one token request.
pub(super) struct Request<'a> {
    /// The directory.
    pub(super) directory: &'a Directory,
    /// Entra's key.
    pub(super) entra: &'a RsaKey,
    /// The origin of the authority, such as `https://127.0.0.1:8443`.
    pub(super) authority: &'a str,
    /// The tenant in the path of the request.
    pub(super) tenant: &'a str,
    /// Entra's clock.
    pub(super) now: SystemTime,
}

impl UsedIds {
    /// Records an id. Returns `false` if it was used before and its assertion has not expired.
    fn first_use(&mut self, id: &str, expires: i64, now: i64) -> bool {
        if self.0.len() >= MAX_USED_IDS {
            self.0.retain(|_, expires| *expires > now);
        }
        self.0.insert(id.to_owned(), expires).is_none_or(|until| until <= now)
    }
}

/// Checks the assertion of an application.
pub(super) fn check(
    request: &Request<'_>,
    application: &Application,
    assertion: &str,
    used: &mut UsedIds,
) -> Result<(), Refusal> {
    let Some((header, claims)) = keys::decode_unverified(assertion) else {
        return Err(Refusal::assertion_malformed("The assertion is not a signed JWT."));
    };
    let issuer = keys::string_claim(&claims, "iss").unwrap_or_default();
    // The issuer of an app's own assertion is its client id. Every other issuer is a URL.
    if issuer.starts_with("https://") {
        check_federated(request, application, assertion, &claims, issuer)
    } else {
        check_certificate(request, application, assertion, &header, &claims, used)
    }
}

/// Checks an assertion that the app signed with its certificate.
///
/// Source: Microsoft's documentation of certificate credentials (claims, `x5t#S256`, PS256; formerly RS256 with `x5t`).
fn check_certificate(
    request: &Request<'_>,
    application: &Application,
    assertion: &str,
    header: &Header,
    claims: &Claims,
    used: &mut UsedIds,
) -> Result<(), Refusal> {
    let issuer = keys::string_claim(claims, "iss").unwrap_or_default();
    if !issuer.eq_ignore_ascii_case(&application.client_id) {
        return Err(Refusal::assertion_issuer(&application.client_id));
    }
    if keys::string_claim(claims, "sub") != Some(issuer) {
        return Err(Refusal::assertion_subject());
    }
    if header.x5t.is_none() && header.x5t_s256.is_none() {
        return Err(Refusal::certificate_refused("The header has neither 'x5t#S256' nor 'x5t'."));
    }
    let certificate = application.certificates.iter().find(|der| {
        header.x5t_s256.as_ref().is_none_or(|sent| *sent == thumbprint_sha256(der))
            && header.x5t.as_ref().is_none_or(|sent| *sent == thumbprint_sha1(der))
    });
    let Some(certificate) = certificate else {
        let sent = header.x5t_s256.as_ref().or(header.x5t.as_ref()).map_or("", String::as_str);
        return Err(Refusal::certificate_refused(&format!("The key was not found, thumbprint '{sent}'.")));
    };
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Err(Refusal::certificate_refused("The registered certificate is unreadable."));
    };
    if parsed.validity().not_after.timestamp() <= unix_seconds(request.now) {
        return Err(Refusal::certificate_refused("The key used is expired."));
    }
    let key = DecodingKey::from_rsa_der(&parsed.public_key().subject_public_key.data);
    if keys::verify(assertion, &key, &[Algorithm::PS256, Algorithm::RS256]).is_none() {
        return Err(Refusal::certificate_refused("The provided signature value did not match the expected one."));
    }
    let audience = keys::string_claim(claims, "aud").unwrap_or_default();
    if !is_token_url(request, audience) {
        return Err(Refusal::assertion_audience(audience));
    }
    let expires = check_time(request, claims)?;
    match keys::string_claim(claims, "jti") {
        Some(id) if !used.first_use(id, expires, unix_seconds(request.now)) => Err(Refusal::assertion_replayed()),
        _ => Ok(()),
    }
}

fn is_token_url(request: &Request<'_>, audience: &str) -> bool {
    let Some(path) = audience.strip_prefix(request.authority) else {
        return false;
    };
    let tenant = request.directory.tenant(request.tenant);
    let names = [Some(request.tenant), tenant.map(|tenant| tenant.id.as_str()), tenant.map(|t| t.domain.as_str())];
    names.into_iter().flatten().any(|name| {
        [format!("/{name}/oauth2/v2.0/token"), format!("/{name}/v2.0")]
            .iter()
            .any(|accepted| accepted.eq_ignore_ascii_case(path))
    })
}

/// Checks a token of another issuer.
///
/// Source: Microsoft's documentation of workload identity federation: issuer, subject and audience must match exactly.
fn check_federated(
    request: &Request<'_>,
    application: &Application,
    assertion: &str,
    claims: &Claims,
    issuer: &str,
) -> Result<(), Refusal> {
    let subject = keys::string_claim(claims, "sub").unwrap_or_default();
    let audience = keys::string_claim(claims, "aud").unwrap_or_default();
    if issuer.starts_with("https://sts.windows.net/") {
        return Err(Refusal::version_1_issuer(issuer));
    }
    match_credential(application, issuer, subject, audience)?;
    let tenant = request.directory.tenants.iter().find(|t| v2_issuer(request.authority, &t.id) == issuer);
    if let Some(tenant) = tenant {
        verify_signature(assertion, [request.entra.public().decoding_key()])?;
        let client_id = keys::string_claim(claims, "azp").unwrap_or_default();
        if !request.directory.managed_identities.iter().any(|identity| identity.client_id == client_id) {
            return Err(Refusal::not_a_managed_identity());
        }
        if tenant.id != application.home_tenant {
            return Err(Refusal::identity_of_other_tenant(&tenant.id, &application.home_tenant));
        }
    } else {
        let external = request.directory.external_issuers.iter().find(|external| external.issuer == issuer);
        let Some(external) = external else {
            return Err(Refusal::assertion_invalid("The keys of the issuer could not be fetched."));
        };
        verify_signature(assertion, external.keys.iter().map(crate::sandbox::crypto::keys::PublicKey::decoding_key))?;
    }
    check_time(request, claims).map(drop)
}

fn match_credential(application: &Application, issuer: &str, subject: &str, audience: &str) -> Result<(), Refusal> {
    if application.federated.is_empty() {
        return Err(Refusal::no_federated_credential(issuer, subject, audience));
    }
    let of_issuer: Vec<_> = application.federated.iter().filter(|credential| credential.issuer == issuer).collect();
    if of_issuer.is_empty() {
        return Err(Refusal::federated_issuer(issuer));
    }
    let of_subject: Vec<_> = of_issuer.iter().filter(|credential| credential.subject == subject).collect();
    if of_subject.is_empty() {
        let differs_in_case = of_issuer.iter().any(|credential| credential.subject.eq_ignore_ascii_case(subject));
        return Err(if differs_in_case {
            Refusal::federated_subject_case(subject)
        } else {
            Refusal::federated_subject(subject)
        });
    }
    if !of_subject.iter().any(|credential| credential.audience == audience) {
        return Err(Refusal::federated_audience(audience));
    }
    Ok(())
}

fn verify_signature<'a>(assertion: &str, keys: impl IntoIterator<Item = &'a DecodingKey>) -> Result<(), Refusal> {
    // Entra accepts only RS256 from other issuers.
    let verified = keys.into_iter().any(|key| keys::verify(assertion, key, &[Algorithm::RS256]).is_some());
    if verified {
        return Ok(());
    }
    Err(Refusal::assertion_invalid("The provided signature value did not match the expected one."))
}

/// Checks `nbf` and `exp`, and returns `exp`.
fn check_time(request: &Request<'_>, claims: &Claims) -> Result<i64, Refusal> {
    let Some(expires) = keys::numeric_date_claim(claims, "exp") else {
        return Err(Refusal::assertion_malformed("The claim 'exp' is missing."));
    };
    let not_before = claims.get("nbf").and_then(Value::as_i64);
    let now = unix_seconds(request.now);
    if expires + SKEW_SECS <= now || not_before.is_some_and(|from| from > now + SKEW_SECS) {
        return Err(Refusal::assertion_time(request.now, not_before, expires));
    }
    Ok(expires)
}
