//! The reference configuration is complete, and every example is valid.

use super::*;

/// Collects the keys of a schema, including those of each kind of a tagged table.
fn keys_of(schema: &serde_json::Value, found: &mut BTreeSet<String>) {
    match schema {
        serde_json::Value::Object(object) => {
            if let Some(properties) = object.get("properties").and_then(|properties| properties.as_object()) {
                found.extend(properties.keys().cloned());
            }
            object.values().for_each(|value| keys_of(value, found));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| keys_of(item, found)),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}

#[test]
fn the_reference_configuration_is_valid_and_names_every_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/gateway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut keys = BTreeSet::new();
    keys_of(&schema(), &mut keys);
    for key in &keys {
        let is_shown = text.lines().any(|line| {
            let line = line.trim_start_matches(['#', ' ']);
            line.starts_with(&format!("{key} ="))
                || line.contains(&format!("[{key}"))
                || line.contains(&format!("{{ {key} ="))
                || line.contains(&format!(", {key} ="))
        });
        assert!(is_shown, "config/gateway.toml does not show `{key}`");
    }
    let environment = BTreeMap::from([("FABRIKAM_SECRET".to_owned(), "x".to_owned())]);
    let loaded = load(&Sources { file: Some(path), environment, overrides: Vec::new() });
    assert!(loaded.is_ok(), "{}", loaded.unwrap_err());
}

#[test]
fn every_example_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut environment: BTreeMap<_, _> = text
            .split("env = \"")
            .skip(1)
            .filter_map(|rest| Some((rest.split('"').next()?.to_owned(), "x".to_owned())))
            .collect();
        environment.extend(PLATFORM.map(|(name, value)| (name.to_owned(), value.to_owned())));
        // Replaces the paths of an operator's files with those of local ones.
        let dir = tempfile::tempdir().unwrap();
        let mut local = text.clone();
        let paths = text.split("= \"/").skip(1).filter_map(|rest| rest.split('"').next());
        for file in paths.filter(|path| !path.starts_with("api/")) {
            let local_file = dir.path().join(file.replace('/', "-"));
            std::fs::write(&local_file, "x").unwrap();
            local = local.replace(&format!("/{file}\""), &format!("{}\"", local_file.display()));
        }
        let config = dir.path().join("gateway.toml");
        std::fs::write(&config, local).unwrap();
        let loaded = load(&Sources { file: Some(config), environment, overrides: Vec::new() });
        assert!(loaded.is_ok(), "{}: {}", path.display(), loaded.unwrap_err());
        count += 1;
    }
    assert!(count >= 14, "only {count} examples");
}

#[test]
fn the_kubernetes_configuration_is_valid() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/kubernetes/gateway.toml");
    let loaded = load(&Sources { file: Some(path), ..Sources::default() }).unwrap_or_else(|err| panic!("{err}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn alerts_dashboard_and_runbook_use_existing_metrics() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = String::new();
    for entry in std::fs::read_dir(root.join("src/metrics")).unwrap() {
        sources.push_str(&std::fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    let is_part = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    for file in [
        "prometheus/alerts.yaml",
        "grafana/dashboard.json",
        "guide/runbook.md",
        "guide/runbook-errors.md",
        "guide/runbook-causes.md",
        "guide/runbook-log.md",
    ] {
        let text = std::fs::read_to_string(root.join("config").join(file)).unwrap();
        for beginning in ["signalr_gateway_", "…_"] {
            for rest in text.split(beginning).skip(1) {
                let name = rest.split(|letter| !is_part(letter)).next().unwrap();
                // The name of a recorded series continues with a colon.
                if rest[name.len()..].starts_with(':') {
                    continue;
                }
                let name = name.trim_end_matches("_bucket").trim_end_matches("_count");
                assert!(sources.contains(&format!("\"{name}\"")), "{file}: no metric is called {name}");
            }
        }
    }
}
