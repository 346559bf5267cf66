//! Explains why a file is not valid TOML: the place, the line without its values, and what the file is instead.

use std::path::Path;

use toml_edit::Table;

use super::problem::{Origin, Problem};
use crate::redact;

/// The maximum number of characters of a line that a message shows. Chosen: fits a terminal.
const MAX_SHOWN: usize = 80;

/// Returns the problem of a file with a syntax error.
pub(super) fn problem(path: &Path, text: &str, err: &toml_edit::TomlError) -> Problem {
    let offset = err.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..offset).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let origin = Some(Origin::File(path.to_owned(), Some(line)));
    if let Some((fact, fix)) = other_format(text) {
        return Problem { key: String::new(), fact: fact.to_owned(), origin, fix: fix.to_owned() };
    }
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    // The library's full message quotes the line, which may contain a secret.
    let message = redact::prose(&err.message().replace('\n', "; "), &redact::SentSecrets::default());
    let shown = without_values(text.lines().nth(line - 1).unwrap_or_default());
    let fact = format!("the file is not valid TOML: {message}, at column {column} of `{shown}`");
    Problem { key: String::new(), fact, origin, fix: fix(&shown).to_owned() }
}

fn fix(shown: &str) -> &'static str {
    if shown.starts_with('[') {
        "correct the line: a table begins with [name] or [[name]]"
    } else {
        "correct the line: write key = value, with text in double quotes"
    }
}

/// Replaces everything that may be a secret: values keep their punctuation, so that a missing quote can be seen.
fn without_values(line: &str) -> String {
    let line = line.trim_end();
    let is_table = line.trim_start().starts_with('[') && !line.contains('=') && is_key(line);
    let key = line.split('=').next().filter(|key| key.len() < line.len() && is_key(key));
    let shown_up_to = if is_table { line.len() } else { key.map_or(0, str::len) };
    let (key, value) = line.split_at(shown_up_to);
    let mut shown = key.to_owned();
    let mut is_hidden = false;
    for character in value.chars() {
        let is_punctuation = " =\"'[]{},#".contains(character);
        if is_punctuation {
            shown.push(character);
        } else if !is_hidden {
            shown.push('…');
        }
        is_hidden = !is_punctuation;
    }
    if shown.chars().count() > MAX_SHOWN {
        shown = shown.chars().take(MAX_SHOWN).chain(['…']).collect();
    }
    shown
}

/// Returns whether what stands before a `=` can only be a key. In an array, or in a text of several lines, it may be the beginning
/// of a secret in Base64.
fn is_key(text: &str) -> bool {
    !text.contains(['"', '\''])
        && text.split(['.', ' ', '\t', '{', ',', '[', ']']).all(|word| redact::value(word) == word)
}

/// Returns the problem of a file that describes a sandbox instead of a gateway.
pub(super) fn not_a_gateway(path: &Path, table: &Table) -> Option<Problem> {
    let found: Vec<&str> = SANDBOX_KEYS.into_iter().filter(|key| table.contains_key(key)).collect();
    if found.len() < 2 && (found.is_empty() || table.contains_key("credentials")) {
        return None;
    }
    let fact = format!(
        "the file describes a sandbox (it has `{}`), must be the configuration of a gateway",
        found.join("`, `")
    );
    let fix =
        "start it with `signalr-gateway sandbox --config FILE`, which writes the configuration of a gateway for it";
    Some(Problem { key: String::new(), fact, origin: Some(Origin::File(path.to_owned(), None)), fix: fix.to_owned() })
}

/// The keys that only the description of a sandbox has.
const SANDBOX_KEYS: [&str; 6] =
    ["public_host", "tenants", "applications", "managed_identities", "service_principals", "tenant_groups"];

/// Returns what a file is that is not TOML, and what to do.
fn other_format(text: &str) -> Option<(&'static str, &'static str)> {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let mut lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let first = lines.next()?;
    if text.starts_with('{') {
        return Some(if text.contains("Endpoint=") {
            ("the file is JSON with connection strings, must be TOML", CONVERT)
        } else {
            (
                "the file is JSON, must be TOML",
                "write key = value, and [table] for an object; config/gateway.toml shows all keys",
            )
        });
    }
    if text.starts_with("-----BEGIN") {
        return Some(("the file is a certificate or a key, must be TOML", "name the configuration file with --config"));
    }
    let is_pair = |line: &str| {
        let key = line.split(": ").next().unwrap_or_default().trim_end_matches(':');
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
        (line.contains(": ") || line.ends_with(':')) && !key.is_empty() && key.bytes().all(is_name)
    };
    if first.starts_with("apiVersion:")
        || first.starts_with("kind:")
        || lines.any(|line| line.starts_with("apiVersion:"))
    {
        let fix = "name the TOML file: in a ConfigMap, it is the text below its name in `data`";
        return Some(("the file is a Kubernetes manifest in YAML, must be TOML", fix));
    }
    if first.trim_end() == "---" || is_pair(first.trim_end()) {
        let fix = "write key = value, and [table] in place of indentation; config/gateway.toml shows all keys";
        return Some(("the file is YAML, must be TOML", fix));
    }
    first.contains("Endpoint=").then_some(("the file has connection strings, must be TOML", CONVERT))
}

const CONVERT: &str = "convert them with `signalr-gateway check --connection-strings FILE`";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document::Document;

    fn report(text: &str) -> String {
        Document::parse(Path::new("gateway.toml"), text.to_owned()).unwrap_err().to_string()
    }

    #[test]
    fn a_syntax_error_shows_the_line_and_the_column() {
        let text = report("[limits]\n\n[endpoints.east\nurl = \"https://east\"\n");
        assert!(text.contains("at column 16 of `[endpoints.east` (gateway.toml:3)"), "{text}");
        assert!(text.contains("hint: correct the line: a table begins with"), "{text}");
        let text = report("[admin]\nbind = 127.0.0.1:9090\n");
        assert!(text.contains("of `bind = …`") && text.contains("(gateway.toml:2)"), "{text}");
        assert!(text.contains("text in double quotes"), "{text}");
        // Columns count characters.
        let text = report("a = \"äöü\" x\n");
        assert!(text.contains("at column 11 of"), "{text}");
    }

    #[test]
    fn a_syntax_error_shows_no_value() {
        for line in [
            "secret = hunter2",
            "secret = \"hunter2",
            "secret = { env = \"hunter2\"",
            "secret \"hunter2\"",
            "hunter2",
            "[credentials.\"hunter2]",
            "password = '''\nhunter2\n''",
            "secrets = [\n\"hunter2==\" \"",
            "password = '''\nhunter2Xk9vQ2mZr7TbLw==",
        ] {
            let text = report(line);
            assert!(!text.contains("hunter"), "{line}: {text}");
            assert!(text.contains("is not valid TOML: ") && text.contains("at column "), "{line}: {text}");
        }
    }

    #[test]
    fn the_description_of_a_sandbox_is_named() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/config/sandbox.toml"));
        let shipped = Document::parse(path, std::fs::read_to_string(path).unwrap()).unwrap();
        let problem = not_a_gateway(path, shipped.table()).unwrap();
        assert!(problem.fix.contains("sandbox --config"), "{problem}");
        let unknown = Document::parse(path, "[tenants]\n[credentials]\n".to_owned()).unwrap();
        assert_eq!(not_a_gateway(path, unknown.table()), None);
    }

    #[test]
    fn a_file_of_another_format_is_named() {
        for (text, expected) in [
            ("{\n  \"endpoints\": {}\n}\n", "the file is JSON, must be TOML"),
            ("{\"Azure\": {\"SignalR\": \"Endpoint=https://x\"}}", "JSON with connection strings"),
            ("# gateway\nendpoints:\n  east:\n    url: https://east\n", "the file is YAML, must be TOML"),
            ("---\nadmin:\n", "the file is YAML, must be TOML"),
            ("apiVersion: v1\nkind: ConfigMap\n", "a Kubernetes manifest in YAML"),
            ("-----BEGIN CERTIFICATE-----\nMII\n", "a certificate or a key"),
        ] {
            let report = report(text);
            assert!(report.contains(expected), "{text}: {report}");
        }
    }
}
