//! Fuzz targets, one for each parser of untrusted bytes. A target panics if a property of the parser does not hold.
//!
//! Built only for tests and with `--cfg fuzzing`. `tests/fuzz/parsers` has the programs that call the targets, and a corpus of
//! inputs that the unit tests run.

use crate::{config, credential, delivery, diagnosis, endpoint, proxy, serve, signalr};

/// A fuzz target. It takes arbitrary bytes.
pub type Target = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Target); 15] = [
    ("response", endpoint::fuzzing::response),
    ("chunks", endpoint::fuzzing::chunks),
    ("grammar", signalr::fuzzing::grammar),
    ("headers", delivery::fuzzing::headers),
    ("idempotency_key", proxy::fuzzing::idempotency_key),
    ("retry_after", delivery::fuzzing::retry_after),
    ("requests", serve::fuzzing::requests),
    ("proxy_protocol", serve::fuzzing::proxy_protocol),
    ("forwarded", serve::fuzzing::forwarded),
    ("configuration", config::fuzzing::configuration),
    ("connection_string", config::fuzzing::connection_string),
    ("secret_file", credential::fuzzing::secret_file),
    ("token_response", credential::fuzzing::token_response),
    ("token", credential::fuzzing::token),
    ("claims", diagnosis::fuzzing::claims),
];

/// Runs a target.
///
/// # Panics
/// A property does not hold, or there is no such target.
pub fn run(name: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    let Some((_, target)) = found else { panic!("there is no target {name}") };
    target(data);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn folder() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/parsers"))
    }

    #[test]
    fn properties_hold_for_every_input_of_the_corpus() {
        let mut failed = Vec::new();
        for (name, target) in TARGETS {
            let inputs = std::fs::read_dir(folder().join("corpus").join(name)).expect(name);
            let paths: Vec<_> = inputs.map(|input| input.unwrap().path()).collect();
            assert!(!paths.is_empty(), "{name} has no inputs");
            failed.extend(paths.into_iter().filter(|path| {
                let data = std::fs::read(path).unwrap();
                std::panic::catch_unwind(|| target(&data)).is_err()
            }));
        }
        assert!(failed.is_empty(), "{failed:#?}");
    }

    #[test]
    fn every_target_has_a_program() {
        let manifest = std::fs::read_to_string(folder().join("Cargo.toml")).unwrap();
        for (name, _) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            let program = std::fs::read_to_string(folder().join(format!("fuzz_targets/{name}.rs"))).expect(name);
            assert!(program.contains(&format!("\"{name}\"")), "{name}");
        }
    }
}
