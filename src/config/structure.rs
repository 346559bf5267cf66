//! Holds the merged values against the JSON Schema of the file: unknown keys, missing keys, wrong types. What does not
//! fit is reported and taken out, so that the rest can be read and everything wrong is told in one run. A key that must
//! be there gets a stand-in, and so does an item of a list, whose neighbours keep their places. Knows no meanings.

use figment::value::{Dict, Num, Value};
use serde_json::Value as Schema;

use super::problem::{Origin, Problem, closest, did_you_mean};
use super::sources::{Merged, PREFIX};
use crate::redact;

/// What is left of a configuration once its structure was checked.
pub(super) struct Checked {
    /// The values that fit, and stand-ins.
    pub(super) root: Value,
    /// Where something did not fit: what stands there now is nobody's wish, so nothing is to be said about it.
    pub(super) invalid: Vec<Vec<String>>,
    /// What did not fit.
    pub(super) problems: Vec<Problem>,
    /// What was left out without being a problem.
    pub(super) warnings: Vec<Problem>,
}

/// Checks `merged.root`.
pub(super) fn check(merged: &Merged, schema: &Schema) -> Checked {
    let mut walk = Walk {
        merged,
        schema,
        definitions: schema.get("$defs"),
        kinds: Vec::new(),
        invalid: Vec::new(),
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    let mut root = merged.root.clone();
    walk.visit(schema, &mut root, &mut Vec::new());
    Checked { root, invalid: walk.invalid, problems: walk.problems, warnings: walk.warnings }
}

struct Walk<'a> {
    merged: &'a Merged,
    schema: &'a Schema,
    definitions: Option<&'a Schema>,
    /// The kinds that the next table could have been of, its own among them.
    kinds: Vec<(&'a str, &'a Schema)>,
    invalid: Vec<Vec<String>>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// Whether a value can stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Fits,
    /// A problem was reported; the value must go.
    Not,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, schema: &'a Schema, value: &mut Value, path: &mut Vec<String>) -> Fit {
        let schema = self.resolve(schema);
        if let Some(branches) = alternatives(schema) {
            return self.visit_alternatives(schema, branches, value, path);
        }
        match schema.get("type") {
            Some(Schema::String(kind)) => self.visit_type(kind, schema, value, path),
            // `["string", "null"]`: an optional key.
            Some(Schema::Array(kinds)) => match kinds.iter().filter_map(Schema::as_str).find(|kind| *kind != "null") {
                Some(kind) => self.visit_type(kind, schema, value, path),
                None => Fit::Fits,
            },
            _ => Fit::Fits,
        }
    }

    fn visit_type(&mut self, kind: &str, schema: &'a Schema, value: &mut Value, path: &mut Vec<String>) -> Fit {
        if self.merged.is_untyped(value) {
            retype(kind, value);
        }
        match (kind, &mut *value) {
            ("object", Value::Dict(_, dict)) => {
                let mut taken = std::mem::take(dict);
                let fit = self.visit_object(schema, &mut taken, value, path);
                if let Value::Dict(_, dict) = value {
                    *dict = taken;
                }
                fit
            }
            ("array", Value::Array(_, items)) => {
                let Some(item_schema) = schema.get("items") else { return Fit::Fits };
                for (index, item) in items.iter_mut().enumerate() {
                    path.push(index.to_string());
                    if self.visit(item_schema, item, path) == Fit::Not {
                        *item = self.stand_in(item_schema);
                    }
                    path.pop();
                }
                Fit::Fits
            }
            ("string", Value::String(_, text)) => match words(schema) {
                Some(words) if !words.contains(&text.as_str()) => {
                    let fix = did_you_mean(text, words.iter().copied());
                    let fact = format!("`{text}` is not one of {}", list(&words));
                    self.problem(path, value, fact, fix)
                }
                _ => Fit::Fits,
            },
            ("boolean", Value::Bool(..)) | ("number", Value::Num(..)) => Fit::Fits,
            ("integer", Value::Num(_, number)) if whole(*number).is_some() => match limits(schema, *number) {
                None => Fit::Fits,
                Some(fact) => self.problem(path, value, fact, None),
            },
            (expected, found) => {
                let fact = format!("is {}, must be {}", kind_of(found), article(expected));
                let form = self.merged.is_untyped(found).then(|| form_in_variable(expected)).flatten();
                let fix = secret_hint(schema, found).or(form).or_else(|| description(schema));
                self.problem(path, value, fact, fix)
            }
        }
    }

    fn visit_object(&mut self, schema: &'a Schema, dict: &mut Dict, whole: &Value, path: &mut Vec<String>) -> Fit {
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
        let mut gone = Vec::new();
        dict.retain(|key, value| {
            path.push(key.clone());
            // The schema outlives the walk, the empty map does not.
            let schema_of_key = properties.and_then(|properties| properties.get(key)).or(others);
            let fit = if let Some(schema) = schema_of_key {
                self.visit(schema, value, path)
            } else {
                let fix = self
                    .variable_meant(path, value)
                    .or_else(|| kind_with(&kinds, key))
                    .or_else(|| did_you_mean(key, known.keys().map(String::as_str)));
                if fix.is_none() && path.len() == 1 && self.ignores_variable(value) {
                    Fit::Not
                } else {
                    let fix = fix.unwrap_or_else(|| format!("known keys here: {}", list(&keys(known))));
                    self.problem(path, value, "unknown key".to_owned(), Some(fix))
                }
            };
            path.pop();
            if fit == Fit::Not {
                gone.push(key.clone());
            }
            fit == Fit::Fits
        });
        for key in required {
            let Some(schema) = known.get(key).filter(|_| !dict.contains_key(key)) else { continue };
            path.push(key.to_owned());
            if gone.iter().any(|gone| gone == key) {
                self.invalid.push(path.clone());
            } else {
                self.problem(path, whole, "is missing".to_owned(), description(schema));
            }
            path.pop();
            dict.insert(key.to_owned(), self.stand_in(schema));
        }
        Fit::Fits
    }

    fn visit_alternatives(
        &mut self,
        schema: &'a Schema,
        branches: &'a [Schema],
        value: &mut Value,
        path: &mut Vec<String>,
    ) -> Fit {
        let branches: Vec<&'a Schema> = branches.iter().map(|branch| self.resolve(branch)).collect();
        // Words with a description each.
        if let Some(words) = branches.iter().map(|branch| branch.get("const")?.as_str()).collect::<Option<Vec<_>>>() {
            return match value.as_str() {
                Some(text) if words.contains(&text) => Fit::Fits,
                Some(text) => {
                    let fact = format!("`{text}` is not one of {}", list(&words));
                    let fix = did_you_mean(text, words.iter().copied());
                    self.problem(path, value, fact, fix)
                }
                None => {
                    let fact = format!("is {}, must be one of {}", kind_of(value), list(&words));
                    self.problem(path, value, fact, None)
                }
            };
        }
        if let Some((tag, kinds)) = tagged(&branches) {
            return self.visit_tagged(tag, &kinds, schema, value, path);
        }
        // Otherwise the first branch of the value's own shape is meant.
        let own_shape = branches.iter().find(|branch| has_shape(branch, value)).or(branches.first());
        match own_shape {
            Some(branch) if has_shape(branch, value) || self.merged.is_untyped(value) => {
                self.visit(branch, value, path)
            }
            _ => {
                let shapes: Vec<&str> = branches.iter().filter_map(|branch| shape(branch)).map(article).collect();
                let fact = format!("is {}, must be {}", kind_of(value), shapes.join(" or "));
                let fix = secret_hint(schema, value)
                    .or_else(|| branches.iter().find_map(|branch| secret_hint(branch, value)))
                    .or_else(|| description(schema));
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
    ) -> Fit {
        let names: Vec<&str> = kinds.iter().map(|(name, _)| *name).collect();
        if self.merged.is_untyped(value) {
            retype("object", value);
        }
        let Value::Dict(_, dict) = &*value else {
            let fact = format!("is {}, must be a table", kind_of(value));
            let fix = description(schema);
            return self.problem(path, value, fact, fix);
        };
        let found = dict.get(tag).cloned();
        path.push(tag.to_owned());
        let fit = match &found {
            None => {
                self.problem(path, value, "is missing".to_owned(), Some(format!("set it to one of {}", list(&names))))
            }
            Some(found) => {
                if let Some((_, branch)) = kinds.iter().find(|(name, _)| found.as_str() == Some(name)) {
                    path.pop();
                    self.kinds = kinds.to_vec();
                    return self.visit(branch, value, path);
                }
                let fact = match found.as_str() {
                    Some(text) => format!("`{text}` is not one of {}", list(&names)),
                    None => format!("is {}, must be one of {}", kind_of(found), list(&names)),
                };
                let fix = found.as_str().and_then(|text| did_you_mean(text, names.iter().copied()));
                self.problem(path, found, fact, fix)
            }
        };
        path.pop();
        fit
    }

    fn problem(&mut self, path: &[String], value: &Value, fact: String, fix: Option<String>) -> Fit {
        let origin = self.merged.origin(path, value);
        // People put a secret where its kind or its place belongs.
        let is_of_credential = path.first().is_some_and(|table| table == "credentials");
        let fact = if is_of_credential { redact::message(&fact) } else { fact };
        self.problems.push(Problem { key: path.join("."), fact, origin, fix });
        self.invalid.push(path.to_vec());
        Fit::Not
    }

    /// Makes a value that fits `schema` and means nothing.
    fn stand_in(&self, schema: &Schema) -> Value {
        let schema = self.resolve(schema);
        if let Some(first) = alternatives(schema).and_then(<[Schema]>::first) {
            return self.stand_in(first);
        }
        let word = words(schema).and_then(|words| words.first().copied());
        match (word, shape(schema)) {
            (Some(word), _) => Value::from(word),
            (None, Some("object")) => {
                let required = schema.get("required").and_then(Schema::as_array).into_iter().flatten();
                let entry = |key: &Schema| {
                    let key = key.as_str()?;
                    Some((key.to_owned(), self.stand_in(schema.get("properties")?.get(key)?)))
                };
                Value::from(required.filter_map(entry).collect::<Dict>())
            }
            (None, Some("array")) => Value::from(Vec::<Value>::new()),
            (None, Some("boolean")) => Value::from(false),
            (None, Some("integer" | "number")) => Value::from(1_u32),
            (None, _) => Value::from(String::new()),
        }
    }

    /// Leaves out a variable that looks like no key: images and charts set variables such as `SIGNALR_GATEWAY_VERSION`, which
    /// must not stop the start. Warns of it.
    fn ignores_variable(&mut self, value: &Value) -> bool {
        let Some(origin) = self.merged.origin(&[], value) else { return false };
        let is_foreign = matches!(&origin, Origin::Variable(name) if !name.contains("__"));
        if is_foreign {
            let fact = "is no key of the configuration and is ignored".to_owned();
            let fix = format!("a key has its table before it: {PREFIX}LIMITS__MAX_BODY is limits.max_body");
            self.warnings.push(Problem { key: origin.to_string(), fact, origin: None, fix: Some(fix) });
        }
        is_foreign
    }

    /// Returns the variable that was meant by one whose name is nearly that of a key, such as one with `_` for `__`.
    fn variable_meant(&self, path: &[String], value: &Value) -> Option<String> {
        let Some(Origin::Variable(name)) = self.merged.origin(path, value) else { return None };
        let mut known = Vec::new();
        self.variables(self.schema, &self.merged.root, "", &mut known);
        let name = name.strip_prefix(PREFIX)?;
        closest(name, known.iter().map(String::as_str)).map(|known| format!("did you mean `{PREFIX}{known}`?"))
    }

    /// Collects the variables that there could be, without their prefix: those of the names that are in use.
    fn variables(&self, schema: &Schema, value: &Value, name: &str, found: &mut Vec<String>) {
        let schema = self.resolve(schema);
        let below = |key: &str| {
            let key = key.to_ascii_uppercase().replace('-', "_");
            if name.is_empty() { key } else { format!("{name}__{key}") }
        };
        let nothing = Value::from(Dict::new());
        let at = |key: &str| value.as_dict().and_then(|dict| dict.get(key)).unwrap_or(&nothing);
        let branches = alternatives(schema).unwrap_or_default();
        let properties = schema.get("properties").and_then(Schema::as_object);
        if let Some(names) = schema.get("additionalProperties").filter(|others| others.is_object()) {
            for key in value.as_dict().into_iter().flatten().map(|(key, _)| key) {
                self.variables(names, at(key), &below(key), found);
            }
        } else if let Some(properties) = properties {
            for (key, schema) in properties {
                self.variables(schema, at(key), &below(key), found);
            }
        } else if branches.iter().any(|branch| self.resolve(branch).get("properties").is_some()) {
            for branch in branches {
                self.variables(branch, value, name, found);
            }
        } else {
            found.push(name.to_owned());
        }
    }

    fn resolve<'s>(&self, schema: &'s Schema) -> &'s Schema
    where
        'a: 's,
    {
        let name = schema.get("$ref").and_then(Schema::as_str).and_then(|reference| reference.strip_prefix("#/$defs/"));
        name.and_then(|name| self.definitions?.get(name)).unwrap_or(schema)
    }
}

fn alternatives(schema: &Schema) -> Option<&[Schema]> {
    let branches = schema.get("anyOf").or_else(|| schema.get("oneOf"))?.as_array()?;
    Some(branches)
}

/// Recognises a table whose kind is told by one key.
fn tagged<'a>(branches: &[&'a Schema]) -> Option<(&'a str, Vec<(&'a str, &'a Schema)>)> {
    let tag_of = |branch: &'a Schema| {
        let (tag, schema) =
            branch.get("properties")?.as_object()?.iter().find(|(_, key)| key.get("const").is_some())?;
        Some((tag.as_str(), schema.get("const")?.as_str()?, branch))
    };
    let kinds: Vec<_> = branches.iter().map(|branch| tag_of(branch)).collect::<Option<_>>()?;
    let tag = kinds.first()?.0;
    Some((tag, kinds.into_iter().map(|(_, name, branch)| (name, branch)).collect()))
}

fn shape(schema: &Schema) -> Option<&str> {
    schema.get("type")?.as_str().filter(|shape| *shape != "null")
}

/// Says which kinds have a key that this one has not.
fn kind_with(kinds: &[(&str, &Schema)], key: &str) -> Option<String> {
    let has_key = |schema: &Schema| schema.get("properties").is_some_and(|properties| properties.get(key).is_some());
    let kinds: Vec<&str> = kinds.iter().filter(|(_, schema)| has_key(schema)).map(|(kind, _)| *kind).collect();
    (!kinds.is_empty()).then(|| format!("it is a key of {}", list(&kinds)))
}

fn has_shape(schema: &Schema, value: &Value) -> bool {
    matches!(
        (shape(schema), value),
        (Some("string"), Value::String(..))
            | (Some("object"), Value::Dict(..))
            | (Some("array"), Value::Array(..))
            | (Some("boolean"), Value::Bool(..))
            | (Some("integer" | "number"), Value::Num(..))
    ) || alternatives(schema).is_some()
}

fn words(schema: &Schema) -> Option<Vec<&str>> {
    match (schema.get("enum"), schema.get("const")) {
        (Some(words), _) => Some(words.as_array()?.iter().filter_map(Schema::as_str).collect()),
        (None, Some(word)) => Some(vec![word.as_str()?]),
        (None, None) => None,
    }
}

/// Reads what a variable or a flag says in the way its key wants it: numbers, `true`, `[a, b]`, `{a=b}`.
fn retype(kind: &str, value: &mut Value) {
    let Some(text) = value.as_str() else { return };
    if kind == "string" {
        return;
    }
    let tag = value.tag();
    let is_truth = |word: &str| kind == "boolean" && text.trim().eq_ignore_ascii_case(word);
    if is_truth("true") || is_truth("false") {
        *value = Value::Bool(tag, is_truth("true"));
        return;
    }
    let Ok(parsed) = text.parse::<Value>();
    *value = retagged(parsed, tag);
}

fn retagged(value: Value, tag: figment::value::Tag) -> Value {
    match value {
        Value::String(_, text) => Value::String(tag, text),
        Value::Char(_, letter) => Value::Char(tag, letter),
        Value::Bool(_, flag) => Value::Bool(tag, flag),
        Value::Num(_, number) => Value::Num(tag, number),
        Value::Empty(_, empty) => Value::Empty(tag, empty),
        Value::Dict(_, dict) => {
            Value::Dict(tag, dict.into_iter().map(|(key, value)| (key, retagged(value, tag))).collect())
        }
        Value::Array(_, items) => Value::Array(tag, items.into_iter().map(|item| retagged(item, tag)).collect()),
    }
}

/// Returns a number that is whole and not negative.
fn whole(number: Num) -> Option<u128> {
    number.to_u128().or_else(|| number.to_i128().and_then(|number| number.try_into().ok()))
}

fn limits(schema: &Schema, number: Num) -> Option<String> {
    let number = whole(number)?;
    let limit = |key: &str| schema.get(key).and_then(Schema::as_u64).map(u128::from);
    // `uint32` is the only format in use that has a limit of its own.
    let format_limit =
        (schema.get("format").and_then(Schema::as_str) == Some("uint32")).then_some(u128::from(u32::MAX));
    let most = limit("maximum").or(format_limit)?;
    (number > most).then(|| format!("is {number}, must be {most} at most"))
}

/// Returns how a variable or a flag says what is no plain text.
fn form_in_variable(expected: &str) -> Option<String> {
    match expected {
        "array" => Some("write a list: [\"a\", \"b\"]".to_owned()),
        "boolean" => Some("write true or false".to_owned()),
        "object" => {
            Some("write a table: {key=\"value\"}, or one variable for each of its keys, with `__` before it".to_owned())
        }
        _ => None,
    }
}

/// A secret that was written down where its place should be. The value itself is never shown.
fn secret_hint(schema: &Schema, found: &Value) -> Option<String> {
    let keys: Vec<&str> = schema.get("properties")?.as_object()?.keys().map(String::as_str).collect();
    (found.as_str().is_some() && keys == ["env", "file"]).then(|| {
        "a secret does not stand in the configuration: put it into a file and write { file = \"/path\" }, or into a \
         variable and write { env = \"NAME\" }"
            .to_owned()
    })
}

fn description(schema: &Schema) -> Option<String> {
    schema.get("description").and_then(Schema::as_str).map(|text| text.replace('\n', " "))
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::String(..) | Value::Char(..) => "text",
        Value::Bool(..) => "true or false",
        Value::Num(_, number) if number.to_f64().is_some() => "a fraction",
        Value::Num(_, number) if whole(*number).is_none() => "a negative number",
        Value::Num(..) => "a number",
        Value::Empty(..) => "nothing",
        Value::Dict(..) => "a table",
        Value::Array(..) => "a list",
    }
}

fn article(shape: &str) -> &'static str {
    match shape {
        "string" => "text",
        "object" => "a table",
        "array" => "a list",
        "boolean" => "true or false",
        "integer" => "a whole number",
        _ => "a number",
    }
}

fn keys(properties: &serde_json::Map<String, Schema>) -> Vec<&str> {
    properties.keys().map(String::as_str).collect()
}

fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
