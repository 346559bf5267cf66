//! One included file: parsed and validated, but not yet compared with the other files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Schema;
use toml_edit::TableLike;

use crate::config::document::Document;
use crate::config::file::{ConfigFile, IncludedFile};
use crate::config::merged::{Merged, Override};
use crate::config::problem::{Origin, Problem};
use crate::config::structure::{self, Checked};

/// The schema of included files.
#[derive(Debug)]
pub(in crate::config) struct IncludedSchema {
    included: Schema,
    main: Schema,
}

impl IncludedSchema {
    pub(in crate::config) fn new() -> Self {
        Self {
            included: schemars::schema_for!(IncludedFile).to_value(),
            main: schemars::schema_for!(ConfigFile).to_value(),
        }
    }

    /// Returns the schema of the main file.
    pub(in crate::config) fn main(&self) -> &Schema {
        &self.main
    }

    /// Validates an included file.
    fn check(&self, merged: &Merged) -> Checked {
        structure::check(merged, &self.included, Some(&self.main))
    }
}

/// An included file that is parsed. What overrides it is known once the names in all files are.
#[derive(Debug)]
pub(in crate::config) struct Draft {
    text: Box<str>,
    names: Names,
    secret_variables: Vec<String>,
    /// `None` if the file cannot be read or is not valid TOML.
    document: Option<Document>,
    problem: Option<Problem>,
}

/// The names that a file defines, including those of invalid entries.
#[derive(Clone, Debug, Default)]
pub(in crate::config) struct Names {
    pub(in crate::config) endpoints: Vec<Arc<str>>,
    pub(in crate::config) credentials: Vec<Arc<str>>,
}

impl Names {
    fn of(document: &Document) -> Self {
        let names = |table: &str| {
            let table = document.table().get(table).and_then(|item| item.as_table_like());
            table.map(|table: &dyn TableLike| table.iter().map(|(name, _)| name.into()).collect()).unwrap_or_default()
        };
        Self { endpoints: names("endpoints"), credentials: names("credentials") }
    }

    /// Returns the names in a table.
    pub(in crate::config) fn of_table(&self, table: &str) -> &[Arc<str>] {
        match table {
            "endpoints" => &self.endpoints,
            "credentials" => &self.credentials,
            _ => &[],
        }
    }
}

impl Draft {
    /// Parses a file, or keeps the reason why it could not be read.
    pub(in crate::config) fn new(path: &Path, text: Result<String, Problem>) -> Self {
        let text_or_empty: Box<str> = text.as_deref().unwrap_or_default().into();
        match text.and_then(|text| Document::parse(path, text)) {
            Ok(document) => Self {
                text: text_or_empty,
                names: Names::of(&document),
                secret_variables: document.secret_variables(),
                document: Some(document),
                problem: None,
            },
            Err(problem) => Self {
                text: text_or_empty,
                names: Names::default(),
                secret_variables: Vec::new(),
                document: None,
                problem: Some(problem),
            },
        }
    }

    pub(in crate::config) fn names(&self) -> &Names {
        &self.names
    }

    pub(in crate::config) fn secret_variables(&self) -> &[String] {
        &self.secret_variables
    }

    /// Validates the file.
    pub(in crate::config) fn check(self, path: &Path, overrides: Vec<Override>, schema: &IncludedSchema) -> Fragment {
        let Self { text, names, secret_variables, document, problem } = self;
        let mut fragment = Fragment {
            path: path.to_owned(),
            text,
            overrides,
            names,
            secret_variables,
            is_parsed: document.is_some(),
            file: IncludedFile::default(),
            invalid: Vec::new(),
            problems: problem.into_iter().collect(),
            warnings: Vec::new(),
        };
        if let Some(document) = document {
            let checked = schema.check(&Merged::included(document, &fragment.overrides));
            fragment.invalid = checked.invalid;
            fragment.problems = checked.problems;
            fragment.warnings = checked.warnings;
            match checked.root.deserialize() {
                Ok(file) => fragment.file = file,
                Err(err) => {
                    let origin = Some(Origin::File(path.to_owned(), None));
                    fragment.problems.push(structure::bug(&err, origin));
                }
            }
        }
        fragment
    }
}

/// An included file that is validated on its own.
#[derive(Debug)]
pub(in crate::config) struct Fragment {
    pub(in crate::config) path: PathBuf,
    text: Box<str>,
    overrides: Vec<Override>,
    pub(in crate::config) names: Names,
    pub(in crate::config) secret_variables: Vec<String>,
    /// Whether it could be read and parsed. If not, its names are unknown.
    pub(in crate::config) is_parsed: bool,
    /// The valid values, and placeholders.
    pub(in crate::config) file: IncludedFile,
    /// The paths of invalid and missing values, with indexes within the file.
    pub(in crate::config) invalid: Vec<Vec<String>>,
    pub(in crate::config) problems: Vec<Problem>,
    pub(in crate::config) warnings: Vec<Problem>,
}

impl Fragment {
    /// Returns whether this is the content of the file, and what overrides it.
    pub(in crate::config) fn has_text(&self, text: &str) -> bool {
        *self.text == *text
    }

    /// Returns whether these values override it.
    pub(in crate::config) fn has_overrides(&self, overrides: &[Override]) -> bool {
        self.overrides == overrides
    }

    /// Parses the file again. What is kept in memory for each file has no origins.
    pub(in crate::config) fn merged(&self) -> Merged {
        match Document::parse(&self.path, self.text.to_string()) {
            Ok(document) => Merged::included(document, &self.overrides),
            Err(_reported) => Merged::main(None, &[]),
        }
    }

    /// Parses and validates the file again, for the values as they are in force.
    pub(in crate::config) fn checked(&self, schema: &IncludedSchema) -> (Merged, Checked) {
        let merged = self.merged();
        let checked = schema.check(&merged);
        (merged, checked)
    }

    /// Parses the file again, to validate it with other overrides.
    pub(in crate::config) fn draft(&self) -> Draft {
        Draft::new(&self.path, Ok(self.text.to_string()))
    }
}
