//! Validates the merged values against the JSON Schema of the file: unknown keys, missing keys, wrong types.
//!
//! An invalid value is reported and removed, so that the rest can be read and one run reports every problem. A required
//! key gets a placeholder, and so does an item of a list, so that the other items keep their indexes. This module does
//! not know what a key means.

mod schema;
mod value;

use figment::value::{Dict, Value};
use serde_json::Value as Schema;

use super::problem::{Origin, Problem, closest, did_you_mean};
use super::sources::{Merged, PREFIX};
use crate::redact;
use schema::{
    Definitions, alternatives, description, has_shape, kinds_with, list, maximum_exceeded, secret_hint, shape, tagged,
    type_name, words,
};
use value::{form_in_variable, kind_of, retype, whole};

/// A configuration after its structure was checked.
pub(super) struct Checked {
    /// The valid values, and placeholders.
    pub(super) root: Value,
    /// The paths of invalid and missing values. What these paths hold now is a placeholder; report nothing for it.
    pub(super) invalid: Vec<Vec<String>>,
    /// What is invalid.
    pub(super) problems: Vec<Problem>,
    /// What was ignored without being a problem.
    pub(super) warnings: Vec<Problem>,
}

/// Checks `merged.root`.
pub(super) fn check(merged: &Merged, schema: &Schema) -> Checked {
    let mut walk = Walk {
        merged,
        schema,
        definitions: Definitions::of(schema),
        kinds: Vec::new(),
        invalid: Vec::new(),
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    let mut root = merged.root.clone();
    walk.visit(schema, &mut root, &mut Vec::new());
    Checked { root, invalid: walk.invalid, problems: walk.problems, warnings: walk.warnings }
}

/// A walk over the values and the schema side by side.
struct Walk<'a> {
    merged: &'a Merged,
    schema: &'a Schema,
    definitions: Definitions<'a>,
    /// The kinds that the next table could be of, its own included.
    kinds: Vec<(&'a str, &'a Schema)>,
    invalid: Vec<Vec<String>>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// Whether a value can stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Valid,
    /// A problem was reported; the value must go.
    Invalid,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, schema: &'a Schema, value: &mut Value, path: &mut Vec<String>) -> Verdict {
        let schema = self.definitions.resolve(schema);
        if let Some(branches) = alternatives(schema) {
            return self.visit_alternatives(schema, branches, value, path);
        }
        match schema.get("type") {
            Some(Schema::String(kind)) => self.visit_type(kind, schema, value, path),
            // `["string", "null"]`: an optional key.
            Some(Schema::Array(kinds)) => match kinds.iter().filter_map(Schema::as_str).find(|kind| *kind != "null") {
                Some(kind) => self.visit_type(kind, schema, value, path),
                None => Verdict::Valid,
            },
            _ => Verdict::Valid,
        }
    }

    fn visit_type(&mut self, kind: &str, schema: &'a Schema, value: &mut Value, path: &mut Vec<String>) -> Verdict {
        if self.merged.is_untyped(value) {
            retype(kind, value);
        }
        match (kind, &mut *value) {
            ("object", Value::Dict(_, dict)) => {
                let mut taken = std::mem::take(dict);
                let verdict = self.visit_object(schema, &mut taken, value, path);
                if let Value::Dict(_, dict) = value {
                    *dict = taken;
                }
                verdict
            }
            ("array", Value::Array(_, items)) => {
                let Some(item_schema) = schema.get("items") else { return Verdict::Valid };
                for (index, item) in items.iter_mut().enumerate() {
                    path.push(index.to_string());
                    if self.visit(item_schema, item, path) == Verdict::Invalid {
                        *item = self.definitions.placeholder(item_schema);
                    }
                    path.pop();
                }
                Verdict::Valid
            }
            ("string", Value::String(_, text)) => match words(schema) {
                Some(words) if !words.contains(&text.as_str()) => self.unknown_word(path, value, &words),
                _ => Verdict::Valid,
            },
            ("boolean", Value::Bool(..)) | ("number", Value::Num(..)) => Verdict::Valid,
            ("integer", Value::Num(_, number)) if whole(*number).is_some() => match maximum_exceeded(schema, *number) {
                None => Verdict::Valid,
                Some((number, maximum)) => {
                    let fact = format!("is {number}, must be {maximum} at most");
                    self.problem(path, value, fact, format!("set it to a number from 0 to {maximum}"))
                }
            },
            (expected, found) => {
                let expected_name = type_name(expected);
                let fact = format!("is {}, must be {expected_name}", kind_of(found));
                let form = self.merged.is_untyped(found).then(|| form_in_variable(expected)).flatten();
                let fix = secret_hint(schema, found).or(form);
                let fix = fix.unwrap_or_else(|| with_description(format!("set it to {expected_name}"), schema));
                self.problem(path, value, fact, fix)
            }
        }
    }

    fn visit_object(&mut self, schema: &'a Schema, dict: &mut Dict, whole: &Value, path: &mut Vec<String>) -> Verdict {
        let no_properties = serde_json::Map::new();
        let properties = schema.get("properties").and_then(Schema::as_object);
        let known = properties.unwrap_or(&no_properties);
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Schema::as_array)
            .into_iter()
            .flatten()
            .filter_map(Schema::as_str)
            .collect();
        let kinds = std::mem::take(&mut self.kinds);
        let mut removed = Vec::new();
        dict.retain(|key, value| {
            path.push(key.clone());
            // Not `known`: the schema outlives the walk, the empty map does not.
            let schema_of_key = properties.and_then(|properties| properties.get(key)).or(others);
            let verdict = if let Some(schema) = schema_of_key {
                self.visit(schema, value, path)
            } else {
                let fix = self
                    .intended_variable(path, value)
                    .or_else(|| kinds_with(&kinds, key))
                    .or_else(|| did_you_mean(key, known.keys().map(String::as_str)));
                if fix.is_none() && path.len() == 1 && self.ignores_variable(value) {
                    Verdict::Invalid
                } else {
                    let known: Vec<&str> = known.keys().map(String::as_str).collect();
                    let fix = fix.unwrap_or_else(|| format!("known keys here: {}", list(&known)));
                    self.problem(path, value, "unknown key".to_owned(), fix)
                }
            };
            path.pop();
            if verdict == Verdict::Invalid {
                removed.push(key.clone());
            }
            verdict == Verdict::Valid
        });
        for key in required {
            let Some(schema) = known.get(key).filter(|_| !dict.contains_key(key)) else { continue };
            path.push(key.to_owned());
            if removed.iter().any(|removed| removed == key) {
                self.invalid.push(path.clone());
            } else {
                self.problem(path, whole, "is missing".to_owned(), with_description("add it".to_owned(), schema));
            }
            path.pop();
            dict.insert(key.to_owned(), self.definitions.placeholder(schema));
        }
        Verdict::Valid
    }

    fn visit_alternatives(
        &mut self,
        schema: &'a Schema,
        branches: &'a [Schema],
        value: &mut Value,
        path: &mut Vec<String>,
    ) -> Verdict {
        let branches: Vec<&'a Schema> = branches.iter().map(|branch| self.definitions.resolve(branch)).collect();
        // Words with a description each.
        if let Some(words) = branches.iter().map(|branch| branch.get("const")?.as_str()).collect::<Option<Vec<_>>>() {
            return match value.as_str() {
                Some(text) if words.contains(&text) => Verdict::Valid,
                Some(_) | None => self.unknown_word(path, value, &words),
            };
        }
        if let Some((tag, kinds)) = tagged(&branches) {
            return self.visit_tagged(tag, &kinds, schema, value, path);
        }
        // Otherwise the first branch of the value's own shape applies.
        let own_shape = branches.iter().find(|branch| has_shape(branch, value)).or(branches.first());
        match own_shape {
            Some(branch) if has_shape(branch, value) || self.merged.is_untyped(value) => {
                self.visit(branch, value, path)
            }
            _ => {
                let shapes: Vec<&str> = branches.iter().filter_map(|branch| shape(branch)).map(type_name).collect();
                let shapes = shapes.join(" or ");
                let fact = format!("is {}, must be {shapes}", kind_of(value));
                let fix = secret_hint(schema, value)
                    .or_else(|| branches.iter().find_map(|branch| secret_hint(branch, value)))
                    .unwrap_or_else(|| with_description(format!("set it to {shapes}"), schema));
                self.problem(path, value, fact, fix)
            }
        }
    }

    fn visit_tagged(
        &mut self,
        tag: &str,
        kinds: &[(&'a str, &'a Schema)],
        schema: &'a Schema,
        value: &mut Value,
        path: &mut Vec<String>,
    ) -> Verdict {
        let names: Vec<&str> = kinds.iter().map(|(name, _)| *name).collect();
        if self.merged.is_untyped(value) {
            retype("object", value);
        }
        let Value::Dict(_, dict) = &*value else {
            let fact = format!("is {}, must be a table", kind_of(value));
            return self.problem(path, value, fact, with_description("set it to a table".to_owned(), schema));
        };
        let found = dict.get(tag).cloned();
        path.push(tag.to_owned());
        let verdict = match &found {
            None => self.problem(path, value, "is missing".to_owned(), format!("set it to one of {}", list(&names))),
            Some(found) => {
                if let Some((_, branch)) = kinds.iter().find(|(name, _)| found.as_str() == Some(name)) {
                    path.pop();
                    self.kinds = kinds.to_vec();
                    return self.visit(branch, value, path);
                }
                self.unknown_word(path, found, &names)
            }
        };
        path.pop();
        verdict
    }

    /// Reports a value that is not one of a key's words.
    fn unknown_word(&mut self, path: &[String], value: &Value, words: &[&str]) -> Verdict {
        let words_list = list(words);
        let (fact, suggestion) = match value.as_str() {
            Some(text) => (format!("`{text}` is not one of {words_list}"), did_you_mean(text, words.iter().copied())),
            None => (format!("is {}, must be one of {words_list}", kind_of(value)), None),
        };
        let fix = suggestion.unwrap_or_else(|| "set it to one of these".to_owned());
        self.problem(path, value, fact, fix)
    }

    fn problem(&mut self, path: &[String], value: &Value, fact: String, fix: String) -> Verdict {
        let origin = self.merged.origin(path, value);
        // People paste a secret where its kind or its source belongs.
        let is_of_credential = path.first().is_some_and(|table| table == "credentials");
        let fact = if is_of_credential { redact::message(&fact) } else { fact };
        self.problems.push(Problem { key: path.join("."), fact, origin, fix });
        self.invalid.push(path.to_vec());
        Verdict::Invalid
    }

    /// Ignores, with a warning, a variable with the prefix whose name has no level. Images and charts set variables such
    /// as `SIGNALR_GATEWAY_VERSION`, which must not prevent a start.
    fn ignores_variable(&mut self, value: &Value) -> bool {
        let Some(origin) = self.merged.origin(&[], value) else { return false };
        let is_foreign = matches!(&origin, Origin::Variable(name) if !name.contains("__"));
        if is_foreign {
            let fact = "is not a configuration key and is ignored".to_owned();
            let fix = format!("a key has its table before it: {PREFIX}LIMITS__MAX_BODY is limits.max_body");
            self.warnings.push(Problem { key: origin.to_string(), fact, origin: None, fix });
        }
        is_foreign
    }

    /// Suggests the variable whose name is closest to that of an unknown one, such as one with `_` for `__`.
    fn intended_variable(&self, path: &[String], value: &Value) -> Option<String> {
        let Some(Origin::Variable(name)) = self.merged.origin(path, value) else { return None };
        let mut known = Vec::new();
        self.definitions.collect_variables(self.schema, &self.merged.root, "", &mut known);
        let name = name.strip_prefix(PREFIX)?;
        closest(name, known.iter().map(String::as_str)).map(|known| format!("did you mean `{PREFIX}{known}`?"))
    }
}

/// Returns `fix`, followed by what the schema says about the key.
fn with_description(fix: String, schema: &Schema) -> String {
    match description(schema) {
        Some(description) => format!("{fix}: {description}"),
        None => fix,
    }
}
