//! RSA keys and the JWTs made and checked with them. Knows nothing of who may sign what.
//!
//! Making an RSA key takes a tenth of a second or more, so each role's key is made once per process and shared by
//! all sandboxes in it. They are throwaway keys of an emulator: nothing outside the process trusts them.

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

static ENTRA: OnceLock<RsaKey> = OnceLock::new();
static EXTERNAL: OnceLock<RsaKey> = OnceLock::new();
static CERTIFICATE: OnceLock<RsaKey> = OnceLock::new();

/// An RSA key pair that signs JWTs.
pub(crate) struct RsaKey {
    pair: rcgen::KeyPair,
    id: String,
    public: PublicKey,
    signing: EncodingKey,
}

/// The public half of an RSA key, as a key set (JWKS) lists it.
#[derive(Clone, Debug)]
pub struct PublicKey {
    id: String,
    modulus: String,
    exponent: String,
    verifying: DecodingKey,
}

impl RsaKey {
    /// The key that Entra signs its tokens with.
    pub(crate) fn entra() -> Result<&'static Self, SandboxError> {
        once(&ENTRA)
    }

    /// The key of the identity provider outside Entra.
    pub(crate) fn external() -> Result<&'static Self, SandboxError> {
        once(&EXTERNAL)
    }

    /// The key of the client certificate.
    pub(crate) fn certificate() -> Result<&'static Self, SandboxError> {
        once(&CERTIFICATE)
    }

    /// Makes a new key of 2048 bits.
    pub(crate) fn generate() -> Result<Self, SandboxError> {
        let pair = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)?;
        let signing = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes())?;
        let jwk = Jwk::from_encoding_key(&signing, Algorithm::RS256)?;
        let AlgorithmParameters::RSA(rsa) = jwk.algorithm else {
            return Err(SandboxError::Jwt(jsonwebtoken::errors::ErrorKind::InvalidKeyFormat.into()));
        };
        let id = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, pair.public_key_raw()));
        let verifying = DecodingKey::from_rsa_components(&rsa.n, &rsa.e)?;
        let public = PublicKey { id: id.clone(), modulus: rsa.n, exponent: rsa.e, verifying };
        Ok(Self { pair, id, public, signing })
    }

    /// The pair, for a certificate of this key.
    pub(crate) const fn pair(&self) -> &rcgen::KeyPair {
        &self.pair
    }

    /// The public half.
    pub(crate) const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs `claims` with RS256 and this key's id in the header, as Entra and most identity providers do.
    pub(crate) fn sign(&self, claims: &Claims) -> jsonwebtoken::errors::Result<String> {
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(self.id.clone());
        self.sign_with(&header, claims)
    }

    /// Signs `claims` under `header`, which names the algorithm.
    pub(crate) fn sign_with(&self, header: &Header, claims: &Claims) -> jsonwebtoken::errors::Result<String> {
        jsonwebtoken::encode(header, claims, &self.signing)
    }
}

impl PublicKey {
    /// Reads a member of a key set. `None` if it is no RSA key, or has no id.
    pub(crate) fn from_jwk(jwk: &Value) -> Option<Self> {
        let field = |name: &str| jwk.get(name)?.as_str().map(str::to_owned);
        let (id, modulus, exponent) = (field("kid")?, field("n")?, field("e")?);
        let verifying = DecodingKey::from_rsa_components(&modulus, &exponent).ok()?;
        Some(Self { id, modulus, exponent, verifying })
    }

    /// The id that the `kid` of a header is compared with.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key as a member of a key set (RFC 7517).
    pub(crate) fn jwk(&self) -> Value {
        json!({ "kty": "RSA", "use": "sig", "kid": self.id, "x5t": self.id, "n": self.modulus, "e": self.exponent })
    }

    /// The key that signatures are checked with.
    pub(crate) const fn verifying(&self) -> &DecodingKey {
        &self.verifying
    }
}

impl std::fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RsaKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Checks the signature of `token` alone, not its claims, and returns them. `None` if the signature is wrong, made
/// with another algorithm, or the text is no JWT.
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

/// Reads a JWT without believing it. `None` if the text is no JWT, or names no signature algorithm that exists.
pub(crate) fn read(token: &str) -> Option<(Header, Claims)> {
    let data = jsonwebtoken::dangerous::insecure_decode::<Claims>(token).ok()?;
    Some((data.header, data.claims))
}

/// A claim that is text.
pub(crate) fn text<'a>(claims: &'a Claims, name: &str) -> Option<&'a str> {
    claims.get(name).and_then(Value::as_str)
}

/// A claim that is a point in time, in seconds since 1970. Fractions are cut off.
pub(crate) fn seconds(claims: &Claims, name: &str) -> Option<i64> {
    let value = claims.get(name)?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a date in seconds is far below the limit, and a cast saturates"
    )]
    value.as_i64().or_else(|| value.as_f64().map(|fractional| fractional as i64))
}

/// Returns a point in time in seconds since 1970: a `NumericDate` (RFC 7519 section 2).
pub(crate) fn unix_seconds(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// Returns the expiry of a token issued now, in seconds since 1970.
pub(crate) fn expiry(now: SystemTime, lifetime: Duration) -> i64 {
    unix_seconds(now).saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX))
}

fn once(cell: &'static OnceLock<RsaKey>) -> Result<&'static RsaKey, SandboxError> {
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
    fn a_signature_is_accepted_under_its_own_key_and_algorithm_only() {
        let claims = json!({ "sub": "a" }).as_object().unwrap().clone();
        let token = RsaKey::entra().unwrap().sign(&claims).unwrap();
        let entra = RsaKey::entra().unwrap().public().verifying();
        assert_eq!(verify(&token, entra, &[Algorithm::RS256]), Some(claims));
        assert_eq!(verify(&token, entra, &[Algorithm::PS256]), None);
        assert_eq!(verify(&token, RsaKey::external().unwrap().public().verifying(), &[Algorithm::RS256]), None);
    }

    #[test]
    fn an_unsigned_token_is_no_token() {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"a"}"#);
        assert!(read(&format!("{header}.{claims}.")).is_none());
    }
}
