//! RSA keys, and JWTs signed and verified with them.
//!
//! Generating an RSA key takes a tenth of a second or more. Each key is therefore generated once per process and shared by
//! all its sandboxes. Nothing outside the process trusts these keys.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Map, Value, json};

use crate::sandbox::error::SandboxError;

/// The claims of a JWT.
pub(crate) type Claims = Map<String, Value>;

static ENTRA_KEY: OnceLock<RsaKey> = OnceLock::new();
static EXTERNAL_KEY: OnceLock<RsaKey> = OnceLock::new();
static CERTIFICATE_KEY: OnceLock<RsaKey> = OnceLock::new();

/// An RSA key pair that signs JWTs.
pub(crate) struct RsaKey {
    key_pair: rcgen::KeyPair,
    id: String,
    public: PublicKey,
    encoding_key: EncodingKey,
}

/// The public half of an RSA key, as in a key set (JWKS).
#[derive(Clone, Debug)]
pub struct PublicKey {
    id: String,
    modulus: String,
    exponent: String,
    decoding_key: DecodingKey,
}

impl RsaKey {
    /// Returns the key with which Entra signs tokens.
    pub(crate) fn entra() -> Result<&'static Self, SandboxError> {
        get_or_generate(&ENTRA_KEY)
    }

    /// Returns the key of the identity providers outside Entra.
    pub(crate) fn external() -> Result<&'static Self, SandboxError> {
        get_or_generate(&EXTERNAL_KEY)
    }

    /// Returns the key of the client certificate.
    pub(crate) fn certificate() -> Result<&'static Self, SandboxError> {
        get_or_generate(&CERTIFICATE_KEY)
    }

    /// Generates a key of 2048 bits.
    pub(crate) fn generate() -> Result<Self, SandboxError> {
        let key_pair = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)?;
        let encoding_key = EncodingKey::from_rsa_pem(key_pair.serialize_pem().as_bytes())?;
        let jwk = Jwk::from_encoding_key(&encoding_key, Algorithm::RS256)?;
        let AlgorithmParameters::RSA(rsa) = jwk.algorithm else {
            return Err(SandboxError::Jwt(jsonwebtoken::errors::ErrorKind::InvalidKeyFormat.into()));
        };
        let id = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, key_pair.public_key_raw()));
        let decoding_key = DecodingKey::from_rsa_components(&rsa.n, &rsa.e)?;
        let public = PublicKey { id: id.clone(), modulus: rsa.n, exponent: rsa.e, decoding_key };
        Ok(Self { key_pair, id, public, encoding_key })
    }

    /// Returns the key pair, which signs certificates.
    pub(crate) const fn key_pair(&self) -> &rcgen::KeyPair {
        &self.key_pair
    }

    /// Returns the public half.
    pub(crate) const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs claims with RS256 and sets `kid` in the header, as Entra and most identity providers do.
    pub(crate) fn sign(&self, claims: &Claims) -> jsonwebtoken::errors::Result<String> {
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(self.id.clone());
        self.sign_with(&header, claims)
    }

    /// Signs claims with the algorithm that the header names.
    pub(crate) fn sign_with(&self, header: &Header, claims: &Claims) -> jsonwebtoken::errors::Result<String> {
        jsonwebtoken::encode(header, claims, &self.encoding_key)
    }
}

impl PublicKey {
    /// Parses an element of a key set. Returns `None` if it is not an RSA key or has no id.
    pub(crate) fn from_jwk(jwk: &Value) -> Option<Self> {
        let field = |name: &str| jwk.get(name)?.as_str().map(str::to_owned);
        let (id, modulus, exponent) = (field("kid")?, field("n")?, field("e")?);
        let decoding_key = DecodingKey::from_rsa_components(&modulus, &exponent).ok()?;
        Some(Self { id, modulus, exponent, decoding_key })
    }

    /// Returns the key id, the value of `kid` in a JWT header.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the key as an element of a key set (RFC 7517).
    pub(crate) fn jwk(&self) -> Value {
        json!({ "kty": "RSA", "use": "sig", "kid": self.id, "x5t": self.id, "n": self.modulus, "e": self.exponent })
    }

    /// Returns the key that verifies signatures.
    pub(crate) const fn decoding_key(&self) -> &DecodingKey {
        &self.decoding_key
    }
}

impl std::fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RsaKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Verifies the signature of a JWT and returns its claims. It does not validate the claims.
///
/// Returns `None` if the signature is wrong or uses another algorithm, or if the string is not a JWT.
pub(crate) fn verify(token: &str, key: &DecodingKey, algorithms: &[Algorithm]) -> Option<Claims> {
    let validation = Validation {
        algorithms: algorithms.to_vec(),
        required_spec_claims: std::collections::HashSet::new(),
        validate_exp: false,
        validate_aud: false,
        ..Validation::default()
    };
    jsonwebtoken::decode::<Claims>(token, key, &validation).ok().map(|data| data.claims)
}

/// Decodes a JWT without verifying it. Returns `None` if the string is not a JWT or names an unknown
/// signature algorithm.
pub(crate) fn decode_unverified(token: &str) -> Option<(Header, Claims)> {
    let data = jsonwebtoken::dangerous::insecure_decode::<Claims>(token).ok()?;
    Some((data.header, data.claims))
}

/// Returns a claim that is a string.
pub(crate) fn string_claim<'a>(claims: &'a Claims, name: &str) -> Option<&'a str> {
    claims.get(name).and_then(Value::as_str)
}

/// Returns a claim that is a `NumericDate` (RFC 7519 section 2), in whole seconds.
pub(crate) fn numeric_date_claim(claims: &Claims, name: &str) -> Option<i64> {
    let value = claims.get(name)?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a date in seconds is far below the limit, and a cast saturates"
    )]
    value.as_i64().or_else(|| value.as_f64().map(|fractional| fractional as i64))
}

/// Converts a time to a `NumericDate` (RFC 7519 section 2): seconds since 1970.
pub(crate) fn unix_seconds(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// Returns the expiry of a token issued at `now`, in seconds since 1970.
pub(crate) fn expiry(now: SystemTime, lifetime: Duration) -> i64 {
    unix_seconds(now).saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX))
}

fn get_or_generate(cell: &'static OnceLock<RsaKey>) -> Result<&'static RsaKey, SandboxError> {
    if let Some(key) = cell.get() {
        return Ok(key);
    }
    let key = RsaKey::generate()?;
    Ok(cell.get_or_init(|| key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verifies_a_signature_only_with_its_key_and_algorithm() {
        let claims = json!({ "sub": "a" }).as_object().unwrap().clone();
        let token = RsaKey::entra().unwrap().sign(&claims).unwrap();
        let entra = RsaKey::entra().unwrap().public().decoding_key();
        assert_eq!(verify(&token, entra, &[Algorithm::RS256]), Some(claims));
        assert_eq!(verify(&token, entra, &[Algorithm::PS256]), None);
        assert_eq!(verify(&token, RsaKey::external().unwrap().public().decoding_key(), &[Algorithm::RS256]), None);
    }

    #[test]
    fn rejects_an_unsigned_token() {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"a"}"#);
        assert!(decode_unverified(&format!("{header}.{claims}.")).is_none());
    }
}
