//! Holds the merged values against the JSON Schema of the file: unknown keys, missing keys, wrong types. What does not
//! fit is reported and taken out, so that the rest can be read and everything wrong is told in one run.

use figment::value::{Dict, Num, Value};
use serde_json::Value as Schema;

use super::problem::{Problem, did_you_mean};
use super::sources::Merged;

/// Checks `merged.root`, collects problems and takes out what does not fit.
pub(super) fn check(merged: &Merged, schema: &Schema) -> (Value, Vec<Problem>) {
    let mut walk = Walk { merged, definitions: schema.get("$defs"), problems: Vec::new() };
    let mut root = merged.root.clone();
    walk.visit(schema, &mut root, &mut Vec::new());
    (root, walk.problems)
}

struct Walk<'a> {
    merged: &'a Merged,
    definitions: Option<&'a Schema>,
    problems: Vec<Problem>,
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
                let mut kept = Vec::with_capacity(items.len());
                let mut fit = Fit::Fits;
                for (index, mut item) in std::mem::take(items).into_iter().enumerate() {
                    path.push(index.to_string());
                    match self.visit(item_schema, &mut item, path) {
                        Fit::Fits => kept.push(item),
                        Fit::Not => fit = Fit::Not,
                    }
                    path.pop();
                }
                *items = kept;
                // A list without its bad items still says something; a list that is left empty does not.
                if fit == Fit::Not && items.is_empty() { Fit::Not } else { Fit::Fits }
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
                let fix = secret_hint(schema, found).or_else(|| description(schema));
                self.problem(path, value, fact, fix)
            }
        }
    }

    fn visit_object(&mut self, schema: &'a Schema, dict: &mut Dict, whole: &Value, path: &mut Vec<String>) -> Fit {
        let no_properties = serde_json::Map::new();
        let properties = schema.get("properties").and_then(Schema::as_object);
        let known = properties.unwrap_or(&no_properties);
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        let mut gone = Vec::new();
        for (key, value) in dict.iter_mut() {
            path.push(key.clone());
            // The schema outlives the walk, the empty map does not.
            let schema_of_key = properties.and_then(|properties| properties.get(key)).or(others);
            let fit = if let Some(schema) = schema_of_key {
                self.visit(schema, value, path)
            } else {
                let fix = did_you_mean(key, known.keys().map(String::as_str));
                let fix = fix.or_else(|| Some(format!("known keys here: {}", list(&keys(known)))));
                self.problem(path, value, "unknown key".to_owned(), fix)
            };
            if fit == Fit::Not {
                gone.push(key.clone());
            }
            path.pop();
        }
        let mut fit = Fit::Fits;
        for key in schema.get("required").and_then(Schema::as_array).into_iter().flatten().filter_map(Schema::as_str) {
            // What was there and did not fit has been reported.
            if gone.iter().any(|gone| gone == key) {
                fit = Fit::Not;
            } else if !dict.contains_key(key) {
                path.push(key.to_owned());
                let fix = known.get(key).and_then(description);
                fit = self.problem(path, whole, "is missing".to_owned(), fix);
                path.pop();
            }
        }
        dict.retain(|key, _| !gone.contains(key));
        fit
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
        kinds: &[(&str, &'a Schema)],
        schema: &'a Schema,
        value: &mut Value,
        path: &mut Vec<String>,
    ) -> Fit {
        let names: Vec<&str> = kinds.iter().map(|(name, _)| *name).collect();
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
        self.problems.push(Problem { key: path.join("."), fact, origin, fix });
        Fit::Not
    }

    fn resolve(&self, schema: &'a Schema) -> &'a Schema {
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
