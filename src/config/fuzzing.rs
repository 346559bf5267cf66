//! Fuzz properties of configurations and connection strings.

use std::collections::BTreeMap;
use std::path::Path;

use super::{ConfigError, Loaded, Loader, Problem, Sources, from_connection_strings};

/// A secret in the environment. No output may contain it.
const CANARY: &str = "canary-4f1b9c27d0e85a63";

fn load(text: &str, environment: BTreeMap<String, String>) -> Result<Loaded, ConfigError> {
    let file = Some("/nonexistent/gateway.toml".into());
    Loader::new(Sources { file, environment, overrides: Vec::new() }).load_text(Some(text.to_owned()))
}

/// Loads a configuration file. Checks that every problem names its key or origin and a fix, that the same text gives the same
/// settings, and that no output contains the value of a secret's variable.
pub(crate) fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let environment = || BTreeMap::from([("SECRET".to_owned(), CANARY.to_owned())]);
    let loaded = load(text, environment());
    let shown = format!("{loaded:?}");
    assert!(!shown.contains(CANARY), "shows the value of a secret's variable: {shown}");
    match (loaded, load(text, environment())) {
        (Ok(one), Ok(other)) => {
            assert!(
                one.settings == other.settings && one.settings.hash == other.settings.hash,
                "two loads of the same text differ"
            );
            one.warnings.iter().for_each(check_problem);
        }
        (Err(one), Err(other)) => {
            assert_eq!(one, other, "two loads of the same text differ");
            assert!(!one.problems.is_empty(), "rejected without a problem");
            one.problems.iter().for_each(check_problem);
        }
        (Ok(_), Err(err)) | (Err(err), Ok(_)) => panic!("valid once and invalid once: {err}"),
    }
}

/// Checks that a problem names a key or its origin, and says what to do.
fn check_problem(problem: &Problem) {
    assert!(!problem.key.is_empty() || problem.origin.is_some(), "names neither a key nor a file: {problem}");
    assert!(!problem.fact.is_empty() && !problem.fix.is_empty(), "does not say what to do: {problem}");
}

/// Converts connection strings, with `\x01` as a placeholder of secrets. Checks that the output does not depend on the secrets
/// and is a valid configuration.
pub(crate) fn connection_string(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let convert = |secret: &str| {
        from_connection_strings(&with_secret(text, secret), Path::new("/nonexistent/connection-strings"), None)
    };
    match (convert("canaryA1b2C3d4E5f6G7h8"), convert("kanarieI9j0K1l2M3n4O5p")) {
        (Ok(one), Ok(other)) => {
            assert_eq!(one.toml, other.toml, "the configuration depends on a secret");
            let variables = one.toml.split("env = \"").skip(1).filter_map(|rest| rest.split('"').next());
            let environment = variables.map(|name| (name.to_owned(), CANARY.to_owned())).collect();
            let problems = load(&one.toml, environment).map_or_else(|err| err.problems, |_| Vec::new());
            // The certificate file does not exist.
            let unexpected = problems.iter().find(|problem| !problem.key.ends_with(".certificate"));
            assert!(unexpected.is_none(), "{unexpected:?} of\n{}", one.toml);
        }
        (Err(one), Err(other)) => assert_eq!(one, other, "a problem shows a secret"),
        (Ok(_), Err(err)) | (Err(err), Ok(_)) => panic!("the validity depends on a secret: {err}"),
    }
}

/// Replaces each placeholder that follows the key of a secret.
fn with_secret(text: &str, secret: &str) -> String {
    let mut filled = String::new();
    for character in text.chars() {
        let end = filled.to_ascii_lowercase();
        if character != '\x01' {
            filled.push(character);
        } else if ["accesskey=", "clientsecret="].iter().any(|key| end.ends_with(key)) {
            filled.push_str(secret);
        }
    }
    filled
}
