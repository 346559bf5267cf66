//! What a client proved when it connected: its connection token, its claims and their expiry.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::sandbox::crypto::keys;

/// A claim of a client: its type and its value.
pub(crate) type Claim = (String, String);

/// The claims that name the user, in order.
///
/// Source: the order of the official emulator and SDK.
const USER_CLAIMS: [&str; 4] =
    ["asrs.s.uid", "nameid", "sub", "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier"];

/// The claims of a token that concern the token.
const TOKEN_CLAIMS: [&str; 6] = ["aud", "iss", "exp", "nbf", "iat", "jti"];

/// The prefix of claims that concern the service.
const SERVICE_PREFIX: &str = "asrs.s.";

/// The authentication of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Authentication {
    /// The secret by which the client opened the connection; `None` without negotiation or after version 0 of it.
    pub(crate) token: Option<String>,
    /// The claims of the client.
    pub(crate) claims: Vec<Claim>,
    /// When the authentication expires.
    pub(crate) expires: Option<OffsetDateTime>,
}

/// Why an authentication was not refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefreshError {
    /// No connection has the token.
    NotFound,
    /// The new claims name another user.
    UserMismatch,
}

/// Returns the user that a token names.
pub(crate) fn user(claims: &keys::Claims) -> Option<String> {
    USER_CLAIMS.iter().find_map(|name| keys::string_claim(claims, name)).map(str::to_owned)
}

/// Returns the claims of a token that the application sees.
pub(crate) fn of_token(claims: &keys::Claims) -> Vec<Claim> {
    let is_application = |name: &&String| !TOKEN_CLAIMS.contains(&name.as_str()) && !name.starts_with(SERVICE_PREFIX);
    let names = claims.keys().filter(is_application);
    names.filter_map(|name| Some((name.clone(), keys::string_claim(claims, name)?.to_owned()))).collect()
}

/// Returns when a token expires.
pub(crate) fn expiry(claims: &keys::Claims) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(keys::numeric_date_claim(claims, "exp")?).ok()
}

/// Parses a time of a request body.
pub(super) fn parse_time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

impl Authentication {
    /// Replaces the expiry and the claims, each if it is given. `user` is the user of the connection. New claims that name a
    /// user must name that one.
    pub(super) fn refresh(
        &mut self,
        user: Option<&str>,
        expires: Option<OffsetDateTime>,
        claims: Option<Vec<Claim>>,
    ) -> Result<(), RefreshError> {
        if let Some(claims) = claims {
            let named = USER_CLAIMS.iter().find_map(|name| claims.iter().find(|(claim, _)| claim == name));
            if named.is_some_and(|(_, named)| Some(named.as_str()) != user) {
                return Err(RefreshError::UserMismatch);
            }
            self.claims = claims;
        }
        self.expires = expires.or(self.expires);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(pairs: &[(&str, &str)]) -> Vec<Claim> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_refresh_replaces_what_it_names_and_keeps_the_user() {
        let time = parse_time("2030-01-02T03:04:05.123+01:00").unwrap();
        let mut authentication = Authentication { claims: claims(&[("nameid", "ann")]), ..Authentication::default() };
        assert_eq!(authentication.refresh(Some("ann"), Some(time), None), Ok(()));
        assert_eq!((authentication.expires, &authentication.claims), (Some(time), &claims(&[("nameid", "ann")])));
        let admin = claims(&[("role", "admin")]);
        assert_eq!(authentication.refresh(Some("ann"), None, Some(admin.clone())), Ok(()));
        assert_eq!((authentication.expires, &authentication.claims), (Some(time), &admin));
        let ben = claims(&[("role", "x"), ("nameid", "ben")]);
        assert_eq!(authentication.refresh(Some("ann"), None, Some(ben.clone())), Err(RefreshError::UserMismatch));
        assert_eq!(authentication.refresh(None, None, Some(ben)), Err(RefreshError::UserMismatch));
        assert_eq!(authentication.claims, admin);
        assert_eq!((parse_time("tomorrow"), parse_time("2030-01-02")), (None, None));
    }
}
