//! Whether a store may lose keys that it has confirmed. A lost key lets a repeat be sent once more.

use super::client::Client;

/// Returns what in the configuration of a store lets it lose keys. Empty if it does not say: hosted stores refuse
/// `CONFIG`.
pub(super) async fn warnings(client: &Client) -> Vec<String> {
    let mut settings = Vec::new();
    for pattern in ["append*", "maxmemory*"] {
        let command = ["CONFIG", "GET", pattern].map(|part| part.as_bytes().to_vec()).into();
        settings.extend(client.run(command).await.unwrap_or_default());
    }
    let settings: Vec<_> = settings.iter().map(|bytes| String::from_utf8_lossy(bytes)).collect();
    of_settings(&settings)
}

/// Returns the warnings about settings: names and values in turn.
fn of_settings(settings: &[impl AsRef<str>]) -> Vec<String> {
    let value = |name: &str| {
        let pair = settings.chunks_exact(2).find(|pair| pair.first().is_some_and(|found| found.as_ref() == name))?;
        pair.get(1).map(AsRef::as_ref)
    };
    let mut warnings = Vec::new();
    match (value("appendonly"), value("appendfsync")) {
        (Some("no"), _) => warnings.push(
            "the store has `appendonly no`: after a restart, repeats of calls that it has confirmed may be sent again; set \
             `appendonly yes` and `appendfsync always`"
                .to_owned(),
        ),
        (Some("yes"), Some(sync)) if sync != "always" => warnings.push(format!(
            "the store has `appendfsync {sync}`: after a crash, repeats of the latest calls may be sent again; set \
             `appendfsync always`"
        )),
        _ => {}
    }
    if let (Some(policy), Some(limit)) = (value("maxmemory-policy"), value("maxmemory"))
        && policy != "noeviction"
        && limit != "0"
    {
        warnings.push(format!(
            "the store has `maxmemory-policy {policy}`: when its memory is full, it forgets keys, and repeats may be sent again; \
             set `noeviction`"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_of_settings_that_lose_keys() {
        for (settings, expected) in [
            (
                vec!["appendonly", "yes", "appendfsync", "always", "maxmemory", "0", "maxmemory-policy", "noeviction"],
                vec![],
            ),
            (vec!["appendonly", "no", "appendfsync", "everysec"], vec!["appendonly no"]),
            (vec!["appendfsync", "everysec", "appendonly", "yes"], vec!["appendfsync everysec"]),
            (vec!["maxmemory", "0", "maxmemory-policy", "allkeys-lru"], vec![]),
            (vec!["maxmemory", "100", "maxmemory-policy", "allkeys-lru"], vec!["maxmemory-policy allkeys-lru"]),
            (vec![], vec![]),
        ] {
            let warnings = of_settings(&settings);
            assert_eq!(warnings.len(), expected.len(), "{settings:?}: {warnings:?}");
            assert!(warnings.iter().zip(expected).all(|(warning, part)| warning.contains(part)), "{warnings:?}");
        }
    }
}
