//! The walls of the house, held against the source: who imports whom, and where the sandbox may be named.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Every Rust file below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn source_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The room a file belongs to: the first part of its path under `src`.
fn room(path: &Path) -> String {
    let inside = path.strip_prefix(source_folder()).unwrap();
    Path::new(inside.iter().next().unwrap()).file_stem().unwrap().to_str().unwrap().to_owned()
}

/// A file without comments; what is only written about is not imported.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The code without its unit tests, which may set the scene with more than the room itself needs.
fn product_code(path: &Path) -> String {
    let code = code(path);
    code.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
}

fn is_test_file(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_str().unwrap();
    name == "tests" || name.ends_with("_tests") || path.iter().any(|part| part == "tests")
}

/// The rooms that a text reaches into by `crate::…`, groups (`crate::{a, b}`) included.
fn imports(code: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(is_word) {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut first = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    first.push(c);
                }
            }
            let names =
                first.split(',').map(|name| name.trim().chars().take_while(|c| is_word(*c)).collect::<String>());
            rooms.extend(names.filter(|name| !name.is_empty()));
        } else {
            rooms.insert(rest.chars().take_while(|c| is_word(*c)).collect());
        }
    }
    rooms
}

/// The table in `lib.rs`: each room and what it may import. `None` stands for "anything".
fn table() -> BTreeMap<String, Option<BTreeSet<String>>> {
    let map = std::fs::read_to_string(source_folder().join("lib.rs")).unwrap();
    let rows: Vec<(Vec<&str>, &str)> = map
        .lines()
        .filter_map(|line| line.strip_prefix("//! ")?.split_once('→'))
        .map(|(rooms, may)| (rooms.split(',').map(str::trim).collect(), may.trim()))
        .filter(|(rooms, _): &(Vec<&str>, _)| {
            rooms
                .iter()
                .all(|room| source_folder().join(room).exists() || source_folder().join(format!("{room}.rs")).exists())
        })
        .collect();
    let mut table = BTreeMap::new();
    let mut above = BTreeSet::new();
    for (rooms, may) in rows {
        let allowed = match may {
            may if may.starts_with("anything") => None,
            may if may.starts_with("nothing") => Some(BTreeSet::new()),
            may if may.starts_with("all above") => Some(above.clone()),
            may => {
                let mut names: BTreeSet<String> = may.split(',').map(|name| name.trim().to_owned()).collect();
                // Configuration knows the settings of every part: what a part's own settings are is looked at below.
                if names.remove("the parts' settings") {
                    names.extend(above.iter().cloned());
                }
                Some(names)
            }
        };
        for room in rooms {
            above.insert(room.to_owned());
            table.insert(room.to_owned(), allowed.clone());
        }
    }
    table
}

#[test]
fn rooms_import_what_the_map_allows_and_nothing_else() {
    let table = table();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for path in sources(&source_folder()) {
        let room = room(&path);
        if ["lib", "main"].contains(&room.as_str()) {
            continue;
        }
        let allowed =
            table.get(&room).unwrap_or_else(|| panic!("{} is in a room that lib.rs does not list", path.display()));
        let Some(allowed) = allowed.as_ref().filter(|_| !is_test_file(&path)) else { continue };
        checked += 1;
        for import in imports(&product_code(&path)) {
            if import != room && !allowed.contains(&import) {
                wrong.push(format!("{} imports {import}", path.display()));
            }
        }
    }
    assert!(checked > 50, "{checked} files were looked at");
    assert!(wrong.is_empty(), "the map in lib.rs does not allow:\n{}", wrong.join("\n"));
}

#[test]
fn sandbox_imports_nothing_of_ours_not_even_in_its_tests() {
    for path in sources(&source_folder().join("sandbox")) {
        let imported: Vec<String> = imports(&code(&path)).into_iter().filter(|room| room != "sandbox").collect();
        assert!(imported.is_empty(), "{} imports {imported:?}", path.display());
        assert!(!code(&path).contains("signalr_gateway::"), "{}", path.display());
    }
}

#[test]
fn sandbox_is_named_nowhere_but_at_its_door() {
    let folder = source_folder();
    for path in sources(&folder) {
        let inside = path.strip_prefix(&folder).unwrap();
        if inside.starts_with("sandbox") || inside.starts_with("cli") || inside == Path::new("lib.rs") {
            continue;
        }
        assert!(!code(&path).to_lowercase().contains("sandbox"), "{} names the sandbox", path.display());
    }
    // Only one command opens it.
    for path in sources(&folder.join("cli")) {
        let is_the_command = path.ends_with("sandbox.rs");
        assert!(is_the_command || !code(&path).contains("crate::sandbox"), "{}", path.display());
    }
}

/// Where secrets, keys, tokens and what carried them are read: no error of a library over these bytes may leave.
const READERS_OF_SECRETS: [&str; 4] = ["credential", "files", "serve/listener.rs", "tls.rs"];

/// The errors that may be the cause of another there: the system's, which knows no content, what passed `redact`, our own,
/// and those of the TLS library over settings alone.
const CAUSES: [&str; 14] = [
    "std::io::Error",
    "io::Error",
    "Foreign",
    "FileError",
    "SecretError",
    "CertificateError",
    "CommandError",
    "TlsFileError",
    "NotAToken",
    "NoAnswer",
    "Box<TokenHttpError>",
    "TrustError",
    "rustls::Error",
    "CredentialProblem",
];

#[test]
fn no_foreign_error_leaves_what_reads_secrets() {
    let folder = source_folder();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for path in sources(&folder) {
        let inside = path.strip_prefix(&folder).unwrap();
        if is_test_file(&path) || !READERS_OF_SECRETS.iter().any(|reader| inside.starts_with(reader)) {
            continue;
        }
        let code = product_code(&path);
        let squeezed = code.split_whitespace().collect::<Vec<_>>().join(" ");
        let has_errors = squeezed.contains("thiserror::Error");
        // A field that thiserror takes for the cause: `source: T`, `#[source] T`, `#[from] T`.
        for mark in ["#[source]", "#[from]", " source:"] {
            for (at, _) in squeezed.match_indices(mark) {
                let rest = squeezed[at + mark.len()..].trim_start().trim_start_matches("source:").trim_start();
                let cause = rest.split([',', ')', '}', ' ']).next().unwrap();
                let is_type = cause.starts_with(char::is_uppercase) && cause.contains(char::is_lowercase);
                let is_field = has_errors && (is_type || cause.contains("::"));
                seen += 1;
                if is_field && !CAUSES.contains(&cause) {
                    wrong.push(format!("{}: {mark} {cause}", inside.display()));
                }
            }
        }
        // Parsers of these bytes whose errors repeat them, printed or wrapped as they are.
        for leak in ["pem::Error", "serde_json::Error", "DecodeError", "Box<dyn Error"] {
            if squeezed.contains(leak) {
                wrong.push(format!("{}: {leak}", inside.display()));
            }
        }
    }
    assert!(seen > 10, "{seen} causes were looked at");
    assert!(wrong.is_empty(), "these errors may repeat a secret:\n{}", wrong.join("\n"));
}

#[test]
fn production_build_leaves_out_what_only_the_sandbox_needs() {
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let manifest: toml_edit::ImDocument<String> = toml_edit::ImDocument::parse(manifest).unwrap();
    let dependencies = manifest["dependencies"].as_table().unwrap();
    let feature = manifest["features"]["sandbox"].as_array().unwrap();
    let optional: Vec<&str> =
        feature.iter().filter_map(|dependency| dependency.as_str()?.strip_prefix("dep:")).collect();
    assert!(!optional.is_empty());
    for name in optional {
        assert_eq!(dependencies[name].get("optional").and_then(toml_edit::Item::as_bool), Some(true), "{name}");
    }
    for banned in ["reqwest", "openssl", "native-tls", "ring"] {
        assert!(!dependencies.contains_key(banned), "{banned}");
    }
}

#[test]
fn reader_of_imports_sees_every_form() {
    let code =
        "use crate::a::{b, c}; fn f() { crate::d::e() } use crate::{g, h::{i, j}, k as l}; pub(crate) fn not_crate::x";
    assert_eq!(imports(code).into_iter().collect::<Vec<_>>(), ["a", "d", "g", "h", "k"]);
}
