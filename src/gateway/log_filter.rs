//! The filter of log lines: a level, and other levels for some targets. A filter with an unknown target or level is an error:
//! it would enable nothing, and so silence the log.

use std::fmt;

use tracing::level_filters::LevelFilter;

/// The name of this program in targets.
const PROGRAM: &str = "signalr_gateway";
/// The parts of this program that log: its modules, and targets of their own.
const PARTS: [&str; 32] = [
    "access",
    "admin",
    "canary",
    "cli",
    "config",
    "credential",
    "delivery",
    "descriptors",
    "diagnosis",
    "egress",
    "endpoint",
    "files",
    "gateway",
    "idempotency",
    "limits",
    "log",
    "metrics",
    "otlp",
    "panics",
    "proxy",
    "redact",
    "route",
    "runbook",
    "sandbox",
    "serve",
    "setup",
    "signalr",
    "steps",
    "tail",
    "tls",
    "trace",
    "write_batch",
];
/// The libraries that log.
const LIBRARIES: [&str; 6] = ["azure_core", "azure_identity", "h2", "hyper_util", "tower_http", "typespec_client_core"];
/// The libraries that log each token acquisition, as the gateway does.
const QUIET_LIBRARIES: [&str; 3] = ["azure_core", "azure_identity", "typespec_client_core"];
/// The levels.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// The part whose lines `logging.access` chooses.
const ACCESS: &str = "signalr_gateway::access";

/// Which log lines are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter {
    /// The level of targets that are not listed.
    level: LevelFilter,
    /// Targets with another level. A target includes those whose names begin with its name.
    targets: Vec<(String, LevelFilter)>,
}

/// Why a text is not a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFilterError {
    /// A part between commas is empty.
    Empty,
    /// A word is not a level, and not a target either.
    UnknownLevel(String),
    /// There is no such target.
    UnknownTarget(String),
}

impl LogFilter {
    /// Parses a filter: levels and `target=level`, separated by commas. Without a level, other targets have `info`.
    ///
    /// # Errors
    /// [`LogFilterError`] for the first part that is not one.
    pub fn parse(text: &str) -> Result<Self, LogFilterError> {
        let mut filter = Self::default();
        for part in text.split(',').map(str::trim) {
            match part.split_once('=') {
                Some((target, level)) => {
                    let (target, level) = (target.trim(), level.trim());
                    if !is_target(target) {
                        return Err(LogFilterError::UnknownTarget(target.to_owned()));
                    }
                    let level = parse_level(level).ok_or_else(|| LogFilterError::UnknownLevel(level.to_owned()))?;
                    filter.targets.push((target.to_owned(), level));
                }
                None if part.is_empty() => return Err(LogFilterError::Empty),
                None => match parse_level(part) {
                    Some(level) => filter.level = level,
                    // As `tracing` does: all levels of the target.
                    None if is_target(part) => filter.targets.push((part.to_owned(), LevelFilter::TRACE)),
                    None if part.contains("::") => return Err(LogFilterError::UnknownTarget(part.to_owned())),
                    None => return Err(LogFilterError::UnknownLevel(part.to_owned())),
                },
            }
        }
        Ok(filter)
    }

    /// Returns the level of targets that are not listed.
    pub fn level(&self) -> LevelFilter {
        self.level
    }

    /// Returns the targets with another level.
    pub fn targets(&self) -> &[(String, LevelFilter)] {
        &self.targets
    }

    /// Returns the same filter with this program's `debug` lines as well. Which requests are logged stays the same.
    #[must_use]
    pub fn with_debug(&self) -> Self {
        let is_raised = |target: &str| target.starts_with(PROGRAM) && target != ACCESS;
        let level =
            |target: &str, level: LevelFilter| if is_raised(target) { level.max(LevelFilter::DEBUG) } else { level };
        let program = (PROGRAM.to_owned(), self.level.max(LevelFilter::DEBUG));
        let listed = self.targets.iter().map(|(target, listed)| (target.clone(), level(target, *listed)));
        // What is listed for the whole program stands after, and wins.
        Self { level: self.level, targets: [program].into_iter().chain(listed).collect() }
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        let targets = QUIET_LIBRARIES.map(|library| (library.to_owned(), LevelFilter::WARN));
        Self { level: LevelFilter::INFO, targets: targets.into() }
    }
}

fn parse_level(word: &str) -> Option<LevelFilter> {
    word.parse().ok().filter(|_| !word.is_empty())
}

/// Returns whether lines may have a target that begins with this name.
fn is_target(name: &str) -> bool {
    let (first, rest) = name.split_once("::").map_or((name, None), |(first, rest)| (first, Some(rest)));
    match rest {
        Some(rest) if first == PROGRAM => PARTS.contains(&rest.split("::").next().unwrap_or_default()),
        Some(_) | None => first == PROGRAM || LIBRARIES.contains(&first),
    }
}

impl LogFilterError {
    /// Returns the unknown word, and what it may have meant.
    pub fn unknown_word(&self) -> Option<(&str, Vec<String>)> {
        let targets = || {
            let parts = PARTS.iter().map(|part| format!("{PROGRAM}::{part}"));
            parts.chain([PROGRAM.to_owned()]).chain(LIBRARIES.map(str::to_owned))
        };
        match self {
            Self::Empty => None,
            Self::UnknownLevel(word) => Some((word, LEVELS.map(str::to_owned).into_iter().chain(targets()).collect())),
            Self::UnknownTarget(word) => Some((word, targets().collect())),
        }
    }
}

impl fmt::Display for LogFilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a part of it is empty"),
            Self::UnknownLevel(word) => write!(f, "`{word}` is not a level"),
            Self::UnknownTarget(word) => write!(f, "nothing logs with the target `{word}`"),
        }
    }
}

impl std::error::Error for LogFilterError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_or_target_that_does_not_exist_is_an_error() {
        for (text, word) in [
            ("warning", "warning"),
            ("inof", "inof"),
            ("info,signalr_gatway=debug", "signalr_gatway"),
            ("info,signalr_gateway::credentials=debug", "signalr_gateway::credentials"),
            ("signalr_gateway::nothing", "signalr_gateway::nothing"),
            ("signalr_gateway=verbose", "verbose"),
            ("signalr_gateway=", ""),
            ("signalr_gateway[request]=debug", "signalr_gateway[request]"),
        ] {
            let err = LogFilter::parse(text).unwrap_err();
            assert_eq!(err.unknown_word().unwrap().0, word, "{text}");
        }
        for text in ["", "info,", "info,,signalr_gateway=debug"] {
            assert_eq!(LogFilter::parse(text), Err(LogFilterError::Empty), "{text:?}");
        }
    }

    #[test]
    fn targets_without_a_level_leave_the_others_at_info() {
        let filter = LogFilter::parse("signalr_gateway::credential=debug").unwrap();
        assert_eq!(filter.level(), LevelFilter::INFO);
        assert!(filter.targets().contains(&("signalr_gateway::credential".to_owned(), LevelFilter::DEBUG)));
        assert_eq!(LogFilter::parse(" WARN , h2=trace ").unwrap().level(), LevelFilter::WARN);
        assert_eq!(LogFilter::parse("off").unwrap().level(), LevelFilter::OFF);
    }

    #[test]
    fn debug_raises_the_lines_of_this_program_alone() {
        let filter = LogFilter::parse(
            "warn,signalr_gateway::proxy=off,signalr_gateway::serve=trace,signalr_gateway::access=off,h2=info",
        );
        let debug = filter.unwrap().with_debug();
        assert_eq!(debug.level(), LevelFilter::WARN);
        let level = |name: &str| debug.targets().iter().rfind(|(target, _)| target == name).unwrap().1;
        assert_eq!(level("signalr_gateway"), LevelFilter::DEBUG);
        assert_eq!(level("signalr_gateway::proxy"), LevelFilter::DEBUG);
        assert_eq!(level("signalr_gateway::serve"), LevelFilter::TRACE);
        assert_eq!(level("signalr_gateway::access"), LevelFilter::OFF);
        assert_eq!(level("h2"), LevelFilter::INFO);
    }

    #[test]
    fn parts_include_every_module() {
        let modules =
            include_str!("../lib.rs").lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
        let missing: Vec<&str> = modules.filter(|module| *module != "fuzzing" && !PARTS.contains(module)).collect();
        assert!(missing.is_empty(), "{missing:?} are not in PARTS");
    }
}
