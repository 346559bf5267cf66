//! The merged values of one file and of the sources that override it, and the origin of each value.

use figment::providers::Serialized;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::document::Document;
use super::file::ConfigFile;
use super::problem::Origin;

const FILE: &str = "file";
const ENVIRONMENT: &str = "environment";
const FLAG: &str = "flag";

/// A value that an environment variable or a flag sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Override {
    /// The key, such as `limits.max_body`.
    pub(super) key: String,
    /// The value, which is untyped text.
    pub(super) value: String,
    /// The name of the variable; `None` for a flag.
    pub(super) variable: Option<String>,
}

impl Override {
    fn provider(&self) -> ParsedValues {
        let metadata = match &self.variable {
            Some(name) => Metadata::from(ENVIRONMENT, name.as_str()),
            None => Metadata::from(FLAG, self.key.as_str()),
        };
        let nested = figment::util::nest(&self.key, Value::from(self.value.as_str())).into_dict().unwrap_or_default();
        ParsedValues { metadata, nested }
    }
}

/// The merged values, and the origin of each.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) root: Value,
    /// The sources of the values; `None` if all of them are in the file.
    figment: Option<Figment>,
    document: Option<Document>,
}

impl Merged {
    /// Merges defaults, the main file and what overrides it.
    pub(super) fn main(document: Option<Document>, overrides: &[Override]) -> Self {
        let defaults = Figment::from(Serialized::defaults(ConfigFile::default()));
        Self::merge(defaults, document, overrides)
    }

    /// Merges an included file and what overrides it.
    pub(super) fn included(document: Document, overrides: &[Override]) -> Self {
        if overrides.is_empty() {
            return Self { root: Value::from(document.values()), figment: None, document: Some(document) };
        }
        Self::merge(Figment::new(), Some(document), overrides)
    }

    fn merge(mut figment: Figment, document: Option<Document>, overrides: &[Override]) -> Self {
        if let Some(document) = &document {
            let metadata = Metadata::from(FILE, document.path());
            figment = figment.merge(ParsedValues { metadata, nested: document.values() });
        }
        for value in overrides {
            figment = figment.merge(value.provider());
        }
        let root = figment.find_value("").unwrap_or_else(|_empty| Value::from(Dict::new()));
        Self { root, figment: Some(figment), document }
    }

    /// Returns the origin of the value at `path`.
    pub(super) fn origin(&self, path: &[String], value: &Value) -> Option<Origin> {
        let Some(figment) = &self.figment else { return self.origin_in_file(path) };
        let metadata = figment.get_metadata(value.tag())?;
        Some(match &*metadata.name {
            ENVIRONMENT => Origin::Variable(metadata.source.as_ref()?.custom()?.to_owned()),
            FLAG => Origin::Flag(format!("--set {}", metadata.source.as_ref()?.custom()?)),
            FILE => self.origin_in_file(path)?,
            _ => Origin::Default,
        })
    }

    fn origin_in_file(&self, path: &[String]) -> Option<Origin> {
        let document = self.document.as_ref()?;
        Some(Origin::File(document.path().to_owned(), document.line(path)))
    }

    /// Returns the origin of a key, or else of the nearest table that contains it.
    pub(super) fn origin_of(&self, key: &[String]) -> Option<Origin> {
        (0..=key.len()).rev().find_map(|length| {
            let value = find(&self.root, key.get(..length)?)?;
            self.origin(key, value)
        })
    }

    /// Returns whether there is a file.
    pub(super) fn has_file(&self) -> bool {
        self.document.is_some()
    }

    /// Returns whether a value comes from a variable or a flag, whose values are untyped text.
    pub(super) fn is_untyped(&self, value: &Value) -> bool {
        let metadata = self.figment.as_ref().and_then(|figment| figment.get_metadata(value.tag()));
        metadata.is_some_and(|metadata| [ENVIRONMENT, FLAG].contains(&&*metadata.name))
    }
}

/// Returns the value at a path.
pub(super) fn find<'v>(root: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(root, |value, segment| match value {
        Value::Dict(_, dict) => dict.get(segment),
        Value::Array(_, items) => items.get(segment.parse::<usize>().ok()?),
        Value::String(..) | Value::Char(..) | Value::Bool(..) | Value::Num(..) | Value::Empty(..) => None,
    })
}

/// A figment provider of values that were already parsed.
struct ParsedValues {
    metadata: Metadata,
    nested: Dict,
}

impl Provider for ParsedValues {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Map::from([(Profile::Default, self.nested.clone())]))
    }
}
