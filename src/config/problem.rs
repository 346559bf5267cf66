//! The problems of a configuration. Each names the key, the fact, the origin of the value and what to do.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

/// A problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, such as `endpoints.east.url`; empty for the file as a whole.
    pub key: String,
    /// What is wrong. Never contains a secret.
    pub fact: String,
    /// The origin of the value; `None` if there is no value.
    pub origin: Option<Origin>,
    /// What to do.
    pub fix: String,
}

/// Returns whether the path of a configuration file stands for stdin.
pub(super) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The origin of a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A file, and the line if it is known. `-` is stdin.
    File(PathBuf, Option<usize>),
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag(String),
    /// The default of the key.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, Some(line)) if is_stdin(path) => write!(f, "stdin:{line}"),
            Self::File(path, None) if is_stdin(path) => f.write_str("stdin"),
            Self::File(path, Some(line)) => write!(f, "{}:{line}", path.display()),
            Self::File(path, None) => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => f.write_str(flag),
            Self::Default => f.write_str("default"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", one_line(&self.key))?;
        }
        f.write_str(&one_line(&self.fact))?;
        if let Some(origin) = &self.origin {
            write!(f, " ({origin})")?;
        }
        write!(f, "\n  hint: {}", self.fix)
    }
}

/// Escapes line breaks, so that a name or value cannot look like another problem.
fn one_line(text: &str) -> Cow<'_, str> {
    if text.contains(['\n', '\r']) { text.replace('\n', "\\n").replace('\r', "\\r").into() } else { text.into() }
}

/// Every problem of a configuration, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The problems, ordered by file and line.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    pub(super) fn single(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [only] => write!(f, "{only}"),
            problems => {
                write!(f, "the configuration has {} problems", problems.len())?;
                problems.iter().try_for_each(|problem| write!(f, "\n{problem}"))
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// Returns `did you mean …?` if one of the known words is close to `word`.
pub(super) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    closest(word, known).map(|known| format!("did you mean `{known}`?"))
}

/// Returns the known word that is closest to `word`, if one is close.
pub(super) fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&word.to_ascii_lowercase(), &candidate.to_ascii_lowercase()), candidate))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_line_break_stays_in_the_line_of_its_problem() {
        let problem = Problem {
            key: "endpoints.a\nb".to_owned(),
            fact: "`a\nb` is not a name".to_owned(),
            origin: None,
            fix: "rename it".to_owned(),
        };
        assert_eq!(problem.to_string(), "endpoints.a\\nb: `a\\nb` is not a name\n  hint: rename it");
    }

    #[test]
    fn suggests_close_words_and_no_distant_ones() {
        let known = ["connect_timeout", "credential", "url"];
        assert_eq!(did_you_mean("conect_timeout", known).unwrap(), "did you mean `connect_timeout`?");
        assert_eq!(did_you_mean("URL", known).unwrap(), "did you mean `url`?");
        assert_eq!(did_you_mean("zzz", known), None);
    }
}
