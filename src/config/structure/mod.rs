//! Validates the merged values against the JSON Schema of the file: unknown keys, missing keys, wrong types.
//!
//! An invalid value is reported and removed, so that the rest can be checked and one run reports every problem. A placeholder
//! replaces a required key, and an item of a list, so that the other items keep their indexes. This module does not interpret
//! keys.

mod schema;
mod value;

use figment::value::{Dict, Value};
use serde_json::Value as Schema;

use super::merged::Merged;
use super::problem::{Origin, Problem, closest, did_you_mean};
use super::sources::PREFIX;
use crate::redact;
use schema::{
    Definitions, alternatives, description, enum_values, has_type, json_type, kinds_with, maximum_exceeded,
    quoted_list, secret_hint, tagged_kinds, type_name,
};
use value::{retype, type_name_of, unsigned, variable_syntax};

/// The result of the validation.
pub(super) struct Checked {
    /// The valid values, and placeholders.
    pub(super) root: Value,
    /// The paths of invalid and missing values. They have placeholders now; report no further problem for them.
    pub(super) invalid: Vec<Vec<String>>,
    /// The problems of invalid and missing values.
    pub(super) problems: Vec<Problem>,
    /// The keys that were ignored.
    pub(super) warnings: Vec<Problem>,
}

/// Checks `merged.root`. `main` is the schema of the main file, if `merged` is a file that it includes.
pub(super) fn check(merged: &Merged, schema: &Schema, main: Option<&Schema>) -> Checked {
    let mut walk = Walk {
        merged,
        schema,
        main,
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

/// A traversal of the values in parallel with the schema.
struct Walk<'a> {
    merged: &'a Merged,
    schema: &'a Schema,
    main: Option<&'a Schema>,
    definitions: Definitions<'a>,
    /// The kinds of the tagged table that is visited next, for hints about keys of another kind.
    kinds: Vec<(&'a str, &'a Schema)>,
    invalid: Vec<Vec<String>>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// Whether a value is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Validity {
    Valid,
    /// A problem was reported; the caller removes the value.
    Invalid,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, schema: &'a Schema, value: &mut Value, path: &mut Vec<String>) -> Validity {
        let schema = self.definitions.resolve(schema);
        if let Some(branches) = alternatives(schema) {
            return self.visit_alternatives(schema, branches, value, path);
        }
        match schema.get("type") {
            Some(Schema::String(json_type)) => self.visit_type(json_type, schema, value, path),
            // `["string", "null"]`: an optional key.
            Some(Schema::Array(types)) => match types.iter().filter_map(Schema::as_str).find(|name| *name != "null") {
                Some(json_type) => self.visit_type(json_type, schema, value, path),
                None => Validity::Valid,
            },
            _ => Validity::Valid,
        }
    }

    fn visit_type(
        &mut self,
        json_type: &str,
        schema: &'a Schema,
        value: &mut Value,
        path: &mut Vec<String>,
    ) -> Validity {
        if self.merged.is_untyped(value) {
            retype(json_type, value);
        }
        match (json_type, &mut *value) {
            ("object", Value::Dict(_, dict)) => {
                let mut taken = std::mem::take(dict);
                let validity = self.visit_object(schema, &mut taken, value, path);
                if let Value::Dict(_, dict) = value {
                    *dict = taken;
                }
                validity
            }
            ("array", Value::Array(_, items)) => {
                let Some(item_schema) = schema.get("items") else { return Validity::Valid };
                for (index, item) in items.iter_mut().enumerate() {
                    path.push(index.to_string());
                    if self.visit(item_schema, item, path) == Validity::Invalid {
                        *item = self.definitions.placeholder(item_schema);
                    }
                    path.pop();
                }
                Validity::Valid
            }
            ("string", Value::String(_, text)) => match enum_values(schema) {
                Some(known) if !known.contains(&text.as_str()) => self.unknown_enum_value(path, value, &known),
                _ => Validity::Valid,
            },
            ("boolean", Value::Bool(..)) | ("number", Value::Num(..)) => Validity::Valid,
            ("integer", Value::Num(_, number)) if unsigned(*number).is_some() => {
                match maximum_exceeded(schema, *number) {
                    None => Validity::Valid,
                    Some((number, maximum)) => {
                        let fact = format!("is {number}, must be {maximum} at most");
                        self.problem(path, value, fact, format!("set it to a number from 0 to {maximum}"))
                    }
                }
            }
            (expected, found) => {
                let expected_name = type_name(expected);
                let fact = format!("is {}, must be {expected_name}", type_name_of(found));
                let syntax = self.merged.is_untyped(found).then(|| variable_syntax(expected)).flatten();
                let fix = secret_hint(schema, found).or(syntax);
                let fix = fix.unwrap_or_else(|| with_description(format!("set it to {expected_name}"), schema));
                self.problem(path, value, fact, fix)
            }
        }
    }

    fn visit_object(&mut self, schema: &'a Schema, dict: &mut Dict, table: &Value, path: &mut Vec<String>) -> Validity {
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
            // Not `known`: its empty default does not live for `'a`.
            let schema_of_key = properties.and_then(|properties| properties.get(key)).or(others);
            let validity = if let Some(schema) = schema_of_key {
                self.visit(schema, value, path)
            } else if self.is_of_main_file(path) {
                let known: Vec<&str> = known.keys().map(String::as_str).collect();
                let fix = format!("move it to the main file; an included file may have {}", quoted_list(&known));
                self.problem(path, value, "is not allowed in an included file".to_owned(), fix)
            } else {
                let fix = self
                    .suggest_variable(path, value)
                    .or_else(|| kinds_with(&kinds, key))
                    .or_else(|| {
                        other_name(key)
                            .filter(|name| known.contains_key(*name))
                            .map(|name| format!("did you mean `{name}`?"))
                    })
                    .or_else(|| did_you_mean(key, known.keys().map(String::as_str)));
                if fix.is_none() && path.len() == 1 && self.ignores_variable(value) {
                    Validity::Invalid
                } else {
                    let known: Vec<&str> = known.keys().map(String::as_str).collect();
                    let fix = fix.unwrap_or_else(|| format!("known keys here: {}", quoted_list(&known)));
                    self.problem(path, value, "unknown key".to_owned(), fix)
                }
            };
            path.pop();
            if validity == Validity::Invalid {
                removed.push(key.clone());
            }
            validity == Validity::Valid
        });
        for key in required {
            let Some(schema) = known.get(key).filter(|_| !dict.contains_key(key)) else { continue };
            path.push(key.to_owned());
            if removed.iter().any(|removed| removed == key) {
                self.invalid.push(path.clone());
            } else {
                self.problem(path, table, "is missing".to_owned(), with_description("add it".to_owned(), schema));
            }
            path.pop();
            dict.insert(key.to_owned(), self.definitions.placeholder(schema));
        }
        Validity::Valid
    }

    fn visit_alternatives(
        &mut self,
        schema: &'a Schema,
        branches: &'a [Schema],
        value: &mut Value,
        path: &mut Vec<String>,
    ) -> Validity {
        let branches: Vec<&'a Schema> = branches.iter().map(|branch| self.definitions.resolve(branch)).collect();
        // An enum with a description for each value.
        if let Some(known) = branches.iter().map(|branch| branch.get("const")?.as_str()).collect::<Option<Vec<_>>>() {
            return match value.as_str() {
                Some(text) if known.contains(&text) => Validity::Valid,
                Some(_) | None => self.unknown_enum_value(path, value, &known),
            };
        }
        if let Some((tag, kinds)) = tagged_kinds(&branches) {
            return self.visit_tagged(tag, &kinds, schema, value, path);
        }
        // Otherwise the first branch of the value's type applies.
        let branch = branches.iter().find(|branch| has_type(branch, value)).or(branches.first());
        match branch {
            Some(branch) if has_type(branch, value) || self.merged.is_untyped(value) => self.visit(branch, value, path),
            _ => {
                let types: Vec<&str> = branches.iter().filter_map(|branch| json_type(branch)).map(type_name).collect();
                let types = types.join(" or ");
                let fact = format!("is {}, must be {types}", type_name_of(value));
                let fix = secret_hint(schema, value)
                    .or_else(|| branches.iter().find_map(|branch| secret_hint(branch, value)))
                    .unwrap_or_else(|| with_description(format!("set it to {types}"), schema));
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
    ) -> Validity {
        let names: Vec<&str> = kinds.iter().map(|(name, _)| *name).collect();
        if self.merged.is_untyped(value) {
            retype("object", value);
        }
        let Value::Dict(_, dict) = &*value else {
            let fact = format!("is {}, must be a table", type_name_of(value));
            return self.problem(path, value, fact, with_description("set it to a table".to_owned(), schema));
        };
        let found = dict.get(tag).cloned();
        path.push(tag.to_owned());
        let validity = match &found {
            None => {
                self.problem(path, value, "is missing".to_owned(), format!("set it to one of {}", quoted_list(&names)))
            }
            Some(found) => {
                if let Some((_, branch)) = kinds.iter().find(|(name, _)| found.as_str() == Some(name)) {
                    path.pop();
                    self.kinds = kinds.to_vec();
                    return self.visit(branch, value, path);
                }
                self.unknown_enum_value(path, found, &names)
            }
        };
        path.pop();
        validity
    }

    /// Reports a value that is not in the enum of its key.
    fn unknown_enum_value(&mut self, path: &[String], value: &Value, known: &[&str]) -> Validity {
        let known_list = quoted_list(known);
        let (fact, suggestion) = match value.as_str() {
            Some(text) => (format!("`{text}` is not one of {known_list}"), did_you_mean(text, known.iter().copied())),
            None => (format!("is {}, must be one of {known_list}", type_name_of(value)), None),
        };
        let fix = suggestion.unwrap_or_else(|| "set it to one of these".to_owned());
        self.problem(path, value, fact, fix)
    }

    fn problem(&mut self, path: &[String], value: &Value, fact: String, fix: String) -> Validity {
        let origin = self.merged.origin(path, value);
        // Operators may paste a secret where its kind or its source belongs.
        let is_of_credential = path.first().is_some_and(|table| table == "credentials");
        let fact = if is_of_credential { redact::message(&fact) } else { fact };
        self.problems.push(Problem { key: path.join("."), fact, origin, fix });
        self.invalid.push(path.to_vec());
        Validity::Invalid
    }

    /// Returns whether a key that is unknown in an included file is one of the main file.
    fn is_of_main_file(&self, path: &[String]) -> bool {
        let properties = self.main.and_then(|main| main.get("properties"));
        matches!((path, properties), ([key], Some(known)) if known.get(key).is_some())
    }

    /// Returns whether a value comes from a variable without `__`, which is ignored with a warning. Images and charts set
    /// variables such as `SIGNALR_GATEWAY_VERSION`, which must not prevent a start.
    fn ignores_variable(&mut self, value: &Value) -> bool {
        let Some(origin) = self.merged.origin(&[], value) else { return false };
        let is_foreign = matches!(&origin, Origin::Variable(name) if !name.contains("__"));
        if is_foreign {
            let fact = "is not a configuration key and is ignored".to_owned();
            let fix = format!(
                "the name of a variable contains the table of its key: {PREFIX}LIMITS__MAX_BODY sets limits.max_body"
            );
            self.warnings.push(Problem { key: origin.to_string(), fact, origin: None, fix });
        }
        is_foreign
    }

    /// Suggests the variable whose name is closest to that of an unknown one, such as one with `_` for `__`.
    fn suggest_variable(&self, path: &[String], value: &Value) -> Option<String> {
        let Some(Origin::Variable(name)) = self.merged.origin(path, value) else { return None };
        let mut known = Vec::new();
        self.definitions.collect_variables(self.schema, &self.merged.root, "", &mut known);
        let name = name.strip_prefix(PREFIX)?;
        // A beginning, such as that of a table, is no misspelling of a whole name.
        let known =
            closest(name, known.iter().map(String::as_str)).filter(|known| strsim::levenshtein(name, known) <= 3);
        known.map(|known| format!("did you mean `{PREFIX}{known}`?"))
    }
}

/// Returns the key that other programs call so.
fn other_name(key: &str) -> Option<&'static str> {
    match key.to_ascii_lowercase().as_str() {
        "client_secret" | "clientsecret" => Some("secret"),
        "tenant_id" | "tenantid" => Some("tenant"),
        "appid" | "app_id" | "application_id" => Some("client_id"),
        _ => None,
    }
}

/// Returns the problem of values that cannot be deserialized although they are valid, which is a bug. Omits the library's message:
/// it quotes values, which may be secrets.
pub(super) fn bug(err: &figment::Error, origin: Option<Origin>) -> Problem {
    let fact = "cannot be deserialized".to_owned();
    let fix =
        "check the value against `signalr-gateway schema`, and report this as a bug of signalr-gateway".to_owned();
    Problem { key: err.path.join("."), fact, origin, fix }
}

/// Returns `fix`, followed by the description of the key.
fn with_description(fix: String, schema: &Schema) -> String {
    match description(schema) {
        Some(description) => format!("{fix}: {description}"),
        None => fix,
    }
}
