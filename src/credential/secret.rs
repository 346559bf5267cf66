//! Reads secrets and tokens from files and environment variables.
//!
//! No error or warning contains any part of a secret.

use std::path::Path;

use super::bearer::Bearer;
use super::local_error::SecretError;
use super::record::AcquisitionRecord;
use crate::files::{self, Secret, SecretSource, SecretText, TextFile};
use crate::redact::is_guid;

/// Reads a secret from its source. Adds warnings to `record`.
///
/// # Errors
/// [`SecretError`] when it cannot be read or is empty.
pub(crate) async fn read_secret(source: &SecretSource, record: &AcquisitionRecord) -> Result<Secret, SecretError> {
    let SecretText { secret, warnings } = source.read().await?;
    for warning in warnings {
        record.add_warning(warning);
    }
    Ok(secret)
}

/// Reads the secret of an app registration from its source. Adds warnings to `record`.
///
/// # Errors
/// Like [`read_secret`].
pub(crate) async fn read_app_secret(source: &SecretSource, record: &AcquisitionRecord) -> Result<Secret, SecretError> {
    let secret = read_secret(source, record).await?;
    if is_guid(secret.expose().trim()) {
        record.add_warning(format!(
            "{source} has a GUID, as the id of a secret (`Secret ID`, `keyId`) is: put the secret's value in its place, which has \
             40 characters, among them a `~`, and is shown only when the secret is created"
        ));
    }
    Ok(secret)
}

/// Reads a file that holds one bearer token, and trims it.
pub(crate) async fn read_token(path: &Path, record: &AcquisitionRecord) -> Result<Secret, SecretError> {
    let file = files::read(path).await?;
    warn_about_mode(&file, path, record);
    let location = || format!("file {}", path.display());
    let token = file.text.expose().trim();
    if token.is_empty() {
        return Err(SecretError::Empty { location: location() });
    }
    match Bearer::new(token) {
        Ok(_) => Ok(Secret::new(token.to_owned())),
        Err(_not_a_token) => Err(SecretError::NotAToken { location: location(), why: why_not_a_token(token) }),
    }
}

pub(super) fn warn_about_mode(file: &TextFile, path: &Path, record: &AcquisitionRecord) {
    if let Some(warning) = file.exposure_warning(true) {
        record.add_warning(format!("file {} {warning}", path.display()));
    }
}

/// Returns why a text is not a bearer token, without any part of the text.
pub(crate) fn why_not_a_token(text: &str) -> &'static str {
    let starts_with = |with: &str| text.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    match () {
        () if text.starts_with(['"', '\'']) => "it is in quotes; write only the token",
        () if text.starts_with(['{', '[']) => "it is JSON; write only the token, such as with `jq -r .access_token`",
        () if text.starts_with("-----BEGIN") => "it is PEM; name the file that holds the token",
        () if starts_with("Bearer ") => "it begins with `Bearer`; write only the token",
        () if starts_with("Authorization") => "it begins with `Authorization`; write only the token",
        () if text.starts_with('<') => "it is HTML or XML; the program that writes the file received a web page",
        () if text.contains(['\n', '\r']) => "it has several lines; write only the token, in one line",
        () if text.contains(char::is_whitespace) => "it contains white space; write only the token",
        () => "it has characters that no token has; write only the token, in UTF-8",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(source: &SecretSource) -> (Result<String, String>, Vec<String>) {
        let record = AcquisitionRecord::default();
        let secret = read_secret(source, &record).await;
        (secret.map(|secret| secret.expose().to_owned()).map_err(|err| err.to_string()), record.take_warnings())
    }

    #[tokio::test]
    async fn strips_a_byte_order_mark_and_trailing_line_breaks_from_a_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for (content, secret, warning) in [
            ("s3cret", "s3cret", None),
            ("s3cret\n", "s3cret", None),
            ("s3cret\r\n\r\n", "s3cret", None),
            ("\u{feff}s3cret\r\n", "s3cret", None),
            (" s \n", " s ", Some("begins or ends with white space")),
            ("\"s3cret\"\n", "\"s3cret\"", Some("is in quotes")),
            ("one\ntwo\n", "one\ntwo", Some("has several lines")),
        ] {
            std::fs::write(&path, content).unwrap();
            let (read, warnings) = read(&SecretSource::File(path.clone())).await;
            assert_eq!(read.unwrap(), secret, "{content:?}");
            let warnings: Vec<_> = warnings.into_iter().filter(|warning| !warning.contains("has mode")).collect();
            assert_eq!(warnings.len(), usize::from(warning.is_some()), "{warnings:?}");
            assert!(warning.is_none_or(|warning| warnings[0].contains(warning)), "{warnings:?}");
            assert!(warnings.iter().all(|warning| !warning.contains("s3cret")), "{warnings:?}");
        }
    }

    #[tokio::test]
    async fn warns_about_the_id_of_a_secret_in_place_of_its_value() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let source = SecretSource::File(path.clone());
        for (content, is_id) in [
            ("0a1b2c3d-0000-4000-8000-00000000abcd\n", true),
            ("0A1B2C3D-0000-4000-8000-00000000ABCD", true),
            ("abc8Q~0a1b2c3d.4e5f6a7b8c9d0e1f2a3b4c5d6", false),
            ("0a1b2c3d000040008000-00000000abcd-0000", false),
        ] {
            std::fs::write(&path, content).unwrap();
            let record = AcquisitionRecord::default();
            read_app_secret(&source, &record).await.unwrap();
            let warnings = record.take_warnings();
            let about_id = warnings.iter().filter(|warning| warning.contains("put the secret's value in its place"));
            assert_eq!(about_id.count(), usize::from(is_id), "{warnings:?}");
            assert!(warnings.iter().all(|warning| !warning.to_lowercase().contains("0a1b2c3d")), "{warnings:?}");
        }
    }

    #[tokio::test]
    async fn reports_a_missing_or_empty_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let source = SecretSource::File(path.clone());
        let missing = read(&source).await.0.unwrap_err();
        assert!(missing.starts_with("cannot read ") && missing.contains("secret"), "{missing}");
        for empty in ["", "\n", "\u{feff}\n", " \n"] {
            std::fs::write(&path, empty).unwrap();
            assert_eq!(read(&source).await.0.unwrap_err(), format!("file {} is empty", path.display()));
        }
        let unset = read(&SecretSource::Env("SIGNALR_GATEWAY_TEST_IS_NOT_SET".into())).await.0.unwrap_err();
        assert!(unset.contains("SIGNALR_GATEWAY_TEST_IS_NOT_SET is not set"), "{unset}");
    }

    #[tokio::test]
    async fn explains_why_a_file_holds_no_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (content, why) in [
            ("\"a.b.c\"", "it is in quotes"),
            ("{\"access_token\":\"a.b.c\"}", "it is JSON"),
            ("Bearer a.b.c", "it begins with `Bearer`"),
            ("a.b.c\nd.e.f", "it has several lines"),
            ("<html>", "it is HTML"),
            ("a.b\u{200b}.c", "it has characters that no token has"),
        ] {
            std::fs::write(&path, content).unwrap();
            let text = read_token(&path, &AcquisitionRecord::default()).await.unwrap_err().to_string();
            assert!(text.contains(why) && !text.contains("a.b"), "{text}");
        }
        std::fs::write(&path, "\u{feff} a.b.c\r\n").unwrap();
        assert_eq!(read_token(&path, &AcquisitionRecord::default()).await.unwrap().expose(), "a.b.c");
    }
}
