//! Validates the parameters of operations: names in the path, and values in the query.
//!
//! Source: patterns, lengths and ranges of the data-plane swagger of 2024-12-01.

use std::ops::RangeInclusive;

use super::operation::ParseError;
use super::problem::{PathForm, Problem};
use crate::sandbox::server::exchange::ReceivedRequest;

/// The versions of the REST API. The service's response to other versions is not documented; the sandbox answers 400.
const API_VERSIONS: [&str; 6] = ["2020-10-01", "2022-06-01", "2022-11-01", "2023-07-01", "2024-12-01", CLAIMS_VERSION];

/// The version that has the operations for the claims of a connection.
const CLAIMS_VERSION: &str = "2026-07-01";

/// Validates `api-version`, which is required except in the v1 form.
pub(crate) fn check_version(request: &ReceivedRequest) -> Result<(), Problem> {
    match request.query_value("api-version") {
        Some(version) if API_VERSIONS.contains(&version.as_str()) => Ok(()),
        Some(version) => {
            Err(Problem::InvalidArgument("api-version", format!("The api-version '{version}' is not supported.")))
        }
        None => {
            Err(Problem::InvalidArgument("api-version", String::from("The query parameter 'api-version' is required.")))
        }
    }
}

/// Validates `api-version` of an operation for the claims of a connection. Earlier versions do not have it.
pub(crate) fn check_claims_version(request: &ReceivedRequest) -> Result<(), Problem> {
    match request.query_value("api-version").as_deref() {
        Some(CLAIMS_VERSION) => Ok(()),
        _ => Err(Problem::UnknownOperation(ParseError::NotFound)),
    }
}

/// Returns the full name of a hub. The query parameter `application` becomes its prefix. In v1 it is a part of the name.
pub(crate) fn hub_name(request: &ReceivedRequest, hub: &str, form: PathForm) -> Result<String, Problem> {
    let check = |parameter, name: &str| {
        if is_name(name) {
            return Ok(());
        }
        let message = "The name must begin with a letter and have up to 128 letters, digits or _ ` , . [ ].";
        Err(Problem::InvalidArgument(parameter, String::from(message)))
    };
    // Older SDKs wrote any application into the name, so its part may have a hyphen.
    let plain = match (form, hub.rsplit_once('_')) {
        (PathForm::V1, Some((application, _))) => hub.replacen(application, &application.replace('-', "_"), 1),
        _ => hub.to_owned(),
    };
    check("hub", &plain)?;
    let Some(application) = request.query_value("application") else {
        return Ok(hub.to_owned());
    };
    check("application", &application)?;
    Ok(format!("{application}_{hub}"))
}

/// Validates a connection id.
pub(crate) fn connection(id: &str) -> Result<&str, Problem> {
    if id.is_empty() {
        Err(Problem::InvalidArgument("connectionId", String::from("The connection id is empty.")))
    } else {
        Ok(id)
    }
}

/// Validates the name of a group.
pub(crate) fn group(name: &str) -> Result<&str, Problem> {
    let message = "The group name must have 1 to 1024 characters, no line feed and not only white space.";
    if is_text(name, 1024) { Ok(name) } else { Err(Problem::InvalidArgument("group", String::from(message))) }
}

/// Validates a user id.
pub(crate) fn user(id: &str) -> Result<&str, Problem> {
    let message = "The user id must have 1 to 1024 characters.";
    if (1..=1024).contains(&id.chars().count()) {
        Ok(id)
    } else {
        Err(Problem::InvalidArgument("user", String::from(message)))
    }
}

/// Validates a stream id.
pub(crate) fn stream(id: &str) -> Result<&str, Problem> {
    let message = "The stream id must have 1 to 100 characters and not only white space.";
    if is_text(id, 100) { Ok(id) } else { Err(Problem::InvalidArgument("streamId", String::from(message))) }
}

/// Parses a query parameter that is an integer in a range.
pub(crate) fn number(
    request: &ReceivedRequest,
    name: &'static str,
    range: RangeInclusive<u32>,
) -> Result<Option<u32>, Problem> {
    let Some(text) = request.query_value(name) else {
        return Ok(None);
    };
    let Some(number) = text.parse().ok().filter(|number| range.contains(number)) else {
        let (start, end) = (range.start(), range.end());
        let message = format!("The query parameter '{name}' must be a number from {start} to {end}.");
        return Err(Problem::InvalidArgument(name, message));
    };
    Ok(Some(number))
}

/// Parses a query parameter that is a boolean. The default is `false`.
pub(crate) fn flag(request: &ReceivedRequest, name: &'static str) -> Result<bool, Problem> {
    match request.query_value(name) {
        None => Ok(false),
        Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(Problem::InvalidArgument(name, format!("The query parameter '{name}' must be true or false."))),
    }
}

/// Returns whether a name is valid for a hub or an application.
pub(crate) fn is_name(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && characters.all(|next| next.is_ascii_alphanumeric() || matches!(next, '_' | '`' | ',' | '.' | '[' | ']'))
        && name.len() <= 128
}

fn is_text(text: &str, max: usize) -> bool {
    // The swagger's pattern uses `.`, which excludes line feeds.
    (1..=max).contains(&text.chars().count()) && !text.chars().all(char::is_whitespace) && !text.contains('\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validates_names_as_the_swagger_specifies() {
        for name in ["chat", "C", "a_`,.[]9", &"a".repeat(128)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "1chat", "chat room", "chat/x", "chät", "chat-1", &"a".repeat(129)] {
            assert!(!is_name(name), "{name}");
        }
        assert!(group(&"ä".repeat(1024)).is_ok() && user(" ").is_ok() && stream(" a").is_ok());
        assert!(
            group(&"a".repeat(1025)).is_err() && group(" \t").is_err() && group("a\nb").is_err() && user("").is_err()
        );
        assert!(stream(&"a".repeat(101)).is_err() && connection("").is_err());
    }
}
