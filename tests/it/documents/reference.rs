//! The configuration reference of the guide, written from the descriptions in the JSON Schema.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::pages::{Page, root};

/// The pages: file, title, and the tables of the configuration on it. The last one has those that no page names, too.
const PAGES: [(&str, &str, &[&str]); 4] = [
    ("reference-listeners", "Listeners and callers", &["listeners", "admin", "callers", "egress", "forwarding"]),
    ("reference-credentials", "Credentials and tokens", &["credentials", "tokens"]),
    (
        "reference-endpoints",
        "Endpoints and routes",
        &["include", "endpoints", "routes", "tests", "health", "retry", "idempotency"],
    ),
    (
        "reference-process",
        "Limits and the process",
        &["limits", "timeouts", "shutdown", "process", "metrics", "logging"],
    ),
];

/// Tables whose keys are listed with those of the table that has them.
const INLINE: [&str; 6] = ["pool", "match", "tls", "rate", "client_rate", "required_header"];

fn definition<'a>(schema: &'a Value, value: &'a Value) -> &'a Value {
    let optional = value["anyOf"].as_array().and_then(|any| any.iter().find(|one| one.get("$ref").is_some()));
    match value.get("$ref").or_else(|| optional?.get("$ref")).and_then(Value::as_str) {
        Some(reference) => &schema["$defs"][reference.rsplit('/').next().unwrap()],
        None => value,
    }
}

fn description(value: &Value) -> String {
    let text = value["description"].as_str().unwrap_or_default().replace('\n', " ");
    let default = &value["default"];
    let known = text.contains("efault") || !(default.is_string() || default.is_number() || default.is_boolean());
    let text = if known {
        text
    } else {
        format!("{text} Default: `{}`.", default.as_str().map_or(default.to_string(), str::to_owned))
    };
    text.replace('|', "\\|")
}

fn rows(schema: &Value, table: &Value, prefix: &str, page: &mut String) {
    let none = Map::new();
    let required = |key: &str| table["required"].as_array().is_some_and(|all| all.iter().any(|one| one == key));
    for (key, value) in table["properties"].as_object().unwrap_or(&none) {
        let name = format!("{prefix}{key}");
        let fixed = value["const"].as_str().map(|fixed| format!(" = \"{fixed}\"")).unwrap_or_default();
        let mark = if required(key) && fixed.is_empty() && prefix.is_empty() { ", required" } else { "" };
        if !fixed.is_empty() {
            continue;
        }
        writeln!(page, "| `{name}`{mark} | {} |", description(value)).unwrap();
        if INLINE.contains(&key.as_str()) {
            rows(schema, definition(schema, value), &format!("{name}."), page);
        }
    }
}

fn keys(schema: &Value, table: &Value, page: &mut String) {
    page.push_str("| Key | Meaning |\n|---|---|\n");
    rows(schema, table, "", page);
    page.push('\n');
}

/// Writes the keys of a table, or those of each of its kinds.
fn table(schema: &Value, value: &Value, page: &mut String) {
    let value = definition(schema, value);
    let Some(kinds) = value["oneOf"].as_array() else { return keys(schema, value, page) };
    for kind in kinds {
        let properties = kind["properties"].as_object().unwrap();
        let (key, name) = properties.iter().find_map(|(key, value)| Some((key, value["const"].as_str()?))).unwrap();
        writeln!(page, "### {key} = \"{name}\"\n\n{}\n", description(kind)).unwrap();
        keys(schema, kind, page);
    }
}

fn page(schema: &Value, title: &str, tables: &[&str]) -> String {
    let mut page = format!(
        "# {title}\n\nWritten from the program's JSON Schema (`signalr-gateway schema`). Durations are a number and a unit \
         (`500ms`, `10s`, `2m`, `1h`), sizes are bytes or have `KiB` or `MiB`.\n\n"
    );
    for name in tables {
        let value = &schema["properties"][name];
        let (heading, table_of) = if value["additionalProperties"].is_object() {
            (format!("[{name}.NAME]"), &value["additionalProperties"])
        } else if value["items"]["$ref"].is_string() {
            (format!("[[{name}]]"), &value["items"])
        } else if definition(schema, value)["type"] == "object" {
            (format!("[{name}]"), value)
        } else {
            writeln!(page, "## {name}\n\n{}\n", description(value)).unwrap();
            continue;
        };
        let text = value["description"].as_str().unwrap().replace('\n', " ");
        writeln!(page, "## {heading}\n\n{text}\n").unwrap();
        table(schema, table_of, &mut page);
        if *name == "credentials" {
            page.push_str(
                "## assertion\n\nOf a credential of kind `federated`: the source of the other identity's token.\n\n",
            );
            table(schema, &schema["$defs"]["AssertionFile"], &mut page);
        }
    }
    format!("{}\n", page.trim_end())
}

#[test]
fn reference_of_the_guide_has_the_keys_of_the_program() {
    let schema = signalr_gateway::config::schema();
    let listed: Vec<_> = PAGES.iter().flat_map(|(_, _, tables)| *tables).collect();
    let properties = schema["properties"].as_object().unwrap();
    let others: Vec<_> = properties.keys().map(String::as_str).filter(|name| !listed.contains(&name)).collect();
    for (file, title, tables) in PAGES {
        let name = format!("config/guide/{file}.md");
        let is_last = file == PAGES[PAGES.len() - 1].0;
        let tables: Vec<_> = tables.iter().copied().chain(others.iter().copied().filter(|_| is_last)).collect();
        let written = page(&schema, title, &tables);
        if std::env::var_os("UPDATE_REFERENCE").is_some() {
            std::fs::write(root().join(&name), &written).unwrap();
        }
        assert!(
            Page::read(&name).text == written,
            "{name} does not have the keys of the program: UPDATE_REFERENCE=1 cargo test --test it reference_of_the_guide"
        );
    }
}
