//! Validates client assertions. An assertion is a JWT that the app signed with its certificate, or a token of another issuer
//! that a federated identity credential trusts.

use std::collections::HashMap;
use std::time::SystemTime;

use jsonwebtoken::{Algorithm, DecodingKey, Header};
use serde_json::Value;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::error_response::ErrorResponse;
use crate::sandbox::crypto::certificates::{thumbprint_sha1, thumbprint_sha256};
use crate::sandbox::crypto::keys::{self, Claims, RsaKey, unix_seconds};
use crate::sandbox::directory::model::{Application, Directory};

/// The clock skew of a client that is tolerated, in seconds.
const MAX_CLOCK_SKEW_SECS: i64 = 300;

/// The number of assertion ids at which expired ones are removed.
const MAX_USED_IDS: usize = 100_000;

/// The ids (`jti`) of used assertions, each with the expiry of its assertion.
#[derive(Debug, Default)]
pub(super) struct UsedIds(HashMap<String, i64>);

/// The context of a token request.
pub(super) struct RequestContext<'a> {
    /// The directory.
    pub(super) directory: &'a Directory,
    /// The key with which Entra signs tokens.
    pub(super) entra_key: &'a RsaKey,
    /// The origin of the authority, such as `https://127.0.0.1:8443`.
    pub(super) authority: &'a str,
    /// The tenant in the path of the request.
    pub(super) tenant: &'a str,
    /// The time of Entra's clock.
    pub(super) now: SystemTime,
}

impl UsedIds {
    /// Records an id. Returns `false` if an assertion with this id was used before and has not expired.
    fn insert(&mut self, id: &str, expires: i64, now: i64) -> bool {
        if self.0.len() >= MAX_USED_IDS {
            self.0.retain(|_, expires| *expires > now);
        }
        self.0.insert(id.to_owned(), expires).is_none_or(|until| until <= now)
    }
}

/// Validates the assertion of an application.
pub(super) fn check(
    context: &RequestContext<'_>,
    application: &Application,
    assertion: &str,
    used_ids: &mut UsedIds,
) -> Result<(), ErrorResponse> {
    let Some((header, claims)) = keys::decode_unverified(assertion) else {
        return Err(ErrorResponse::assertion_malformed("The assertion is not a signed JWT."));
    };
    let issuer = keys::string_claim(&claims, "iss").unwrap_or_default();
    // The issuer of an app's own assertion is its client id. Every other issuer is a URL.
    if issuer.starts_with("https://") {
        check_federated(context, application, assertion, &claims, issuer)
    } else {
        check_certificate(context, application, assertion, &header, &claims, used_ids)
    }
}

/// Validates an assertion that the app signed with its certificate.
///
/// Source: Microsoft's documentation of certificate credentials (claims, `x5t#S256` and PS256; before, `x5t` and RS256).
fn check_certificate(
    context: &RequestContext<'_>,
    application: &Application,
    assertion: &str,
    header: &Header,
    claims: &Claims,
    used_ids: &mut UsedIds,
) -> Result<(), ErrorResponse> {
    let issuer = keys::string_claim(claims, "iss").unwrap_or_default();
    if !issuer.eq_ignore_ascii_case(&application.client_id) {
        return Err(ErrorResponse::assertion_issuer(&application.client_id));
    }
    if keys::string_claim(claims, "sub") != Some(issuer) {
        return Err(ErrorResponse::assertion_subject());
    }
    if header.x5t.is_none() && header.x5t_s256.is_none() {
        return Err(ErrorResponse::certificate_rejected("The header has neither 'x5t#S256' nor 'x5t'."));
    }
    // MSAL for Python pads thumbprints, which RFC 7515 forbids and Entra accepts.
    let is_same = |sent: &str, thumbprint: String| sent.trim_end_matches('=') == thumbprint;
    let certificate = application.certificates.iter().find(|der| {
        header.x5t_s256.as_ref().is_none_or(|sent| is_same(sent, thumbprint_sha256(der)))
            && header.x5t.as_ref().is_none_or(|sent| is_same(sent, thumbprint_sha1(der)))
    });
    let Some(certificate) = certificate else {
        let sent = header.x5t_s256.as_ref().or(header.x5t.as_ref()).map_or("", String::as_str);
        return Err(ErrorResponse::certificate_rejected(&format!("The key was not found, thumbprint '{sent}'.")));
    };
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Err(ErrorResponse::certificate_rejected("The registered certificate is unreadable."));
    };
    if parsed.validity().not_after.timestamp() <= unix_seconds(context.now) {
        return Err(ErrorResponse::certificate_rejected("The key used is expired."));
    }
    let key = DecodingKey::from_rsa_der(&parsed.public_key().subject_public_key.data);
    if keys::verify(assertion, &key, &[Algorithm::PS256, Algorithm::RS256]).is_none() {
        return Err(ErrorResponse::certificate_rejected(
            "The provided signature value did not match the expected one.",
        ));
    }
    let audience = keys::string_claim(claims, "aud").unwrap_or_default();
    if !is_token_url(context, audience) {
        return Err(ErrorResponse::assertion_audience(audience));
    }
    let expires = check_time(context, claims)?;
    match keys::string_claim(claims, "jti") {
        Some(id) if !used_ids.insert(id, expires, unix_seconds(context.now)) => {
            Err(ErrorResponse::assertion_replayed())
        }
        _ => Ok(()),
    }
}

/// Returns whether an audience is the token URL or the issuer of the requested tenant.
fn is_token_url(context: &RequestContext<'_>, audience: &str) -> bool {
    let Some(path) = audience.strip_prefix(context.authority) else {
        return false;
    };
    let tenant = context.directory.tenant(context.tenant);
    let names = [Some(context.tenant), tenant.map(|tenant| tenant.id.as_str()), tenant.map(|t| t.domain.as_str())];
    names.into_iter().flatten().any(|name| {
        [format!("/{name}/oauth2/v2.0/token"), format!("/{name}/v2.0")]
            .iter()
            .any(|accepted| accepted.eq_ignore_ascii_case(path))
    })
}

/// Validates a token of another issuer.
///
/// Source: Microsoft's documentation of workload identity federation: issuer, subject and audience must match exactly.
fn check_federated(
    context: &RequestContext<'_>,
    application: &Application,
    assertion: &str,
    claims: &Claims,
    issuer: &str,
) -> Result<(), ErrorResponse> {
    let subject = keys::string_claim(claims, "sub").unwrap_or_default();
    let audience = keys::string_claim(claims, "aud").unwrap_or_default();
    if issuer.starts_with("https://sts.windows.net/") {
        return Err(ErrorResponse::version_1_issuer(issuer));
    }
    match_credential(application, issuer, subject, audience)?;
    let of_entra =
        issuer.strip_prefix(context.authority).and_then(|path| path.strip_prefix('/')?.strip_suffix("/v2.0"));
    let tenant = of_entra.and_then(|id| context.directory.tenant(id).filter(|tenant| tenant.id == id));
    if let Some(tenant) = tenant {
        verify_signature(assertion, [context.entra_key.public().decoding_key()])?;
        let client_id = keys::string_claim(claims, "azp").unwrap_or_default();
        if !context.directory.managed_identities.iter().any(|identity| identity.client_id == client_id) {
            return Err(ErrorResponse::not_a_managed_identity());
        }
        if tenant.id != application.home_tenant {
            return Err(ErrorResponse::identity_of_other_tenant(&tenant.id, &application.home_tenant));
        }
    } else {
        let external = context.directory.external_issuers.iter().find(|external| external.issuer == issuer);
        let Some(external) = external else {
            return Err(ErrorResponse::assertion_invalid("The keys of the issuer could not be fetched."));
        };
        verify_signature(assertion, external.keys.iter().map(crate::sandbox::crypto::keys::PublicKey::decoding_key))?;
    }
    check_time(context, claims).map(drop)
}

/// Matches an assertion with the federated identity credentials of an application. The error names the first property that
/// has no match.
fn match_credential(
    application: &Application,
    issuer: &str,
    subject: &str,
    audience: &str,
) -> Result<(), ErrorResponse> {
    if application.federated.is_empty() {
        return Err(ErrorResponse::no_federated_credential(issuer, subject, audience));
    }
    let with_issuer: Vec<_> = application.federated.iter().filter(|credential| credential.issuer == issuer).collect();
    if with_issuer.is_empty() {
        return Err(ErrorResponse::federated_issuer(issuer));
    }
    let with_subject: Vec<_> = with_issuer.iter().filter(|credential| credential.subject == subject).collect();
    if with_subject.is_empty() {
        let differs_in_case = with_issuer.iter().any(|credential| credential.subject.eq_ignore_ascii_case(subject));
        return Err(if differs_in_case {
            ErrorResponse::federated_subject_case(subject)
        } else {
            ErrorResponse::federated_subject(subject)
        });
    }
    if !with_subject.iter().any(|credential| credential.audience == audience) {
        return Err(ErrorResponse::federated_audience(audience));
    }
    Ok(())
}

fn verify_signature<'a>(assertion: &str, keys: impl IntoIterator<Item = &'a DecodingKey>) -> Result<(), ErrorResponse> {
    // Entra accepts only RS256 from other issuers.
    let verified = keys.into_iter().any(|key| keys::verify(assertion, key, &[Algorithm::RS256]).is_some());
    if verified {
        return Ok(());
    }
    Err(ErrorResponse::assertion_invalid("The provided signature value did not match the expected one."))
}

/// Validates `nbf` and `exp`, and returns `exp`.
fn check_time(context: &RequestContext<'_>, claims: &Claims) -> Result<i64, ErrorResponse> {
    let Some(expires) = keys::numeric_date_claim(claims, "exp") else {
        return Err(ErrorResponse::assertion_malformed("The claim 'exp' is missing."));
    };
    let not_before = claims.get("nbf").and_then(Value::as_i64);
    let now = unix_seconds(context.now);
    if expires + MAX_CLOCK_SKEW_SECS <= now || not_before.is_some_and(|from| from > now + MAX_CLOCK_SKEW_SECS) {
        return Err(ErrorResponse::assertion_time(context.now, not_before, expires));
    }
    Ok(expires)
}
