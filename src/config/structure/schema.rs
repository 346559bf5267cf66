//! What the JSON Schema says about one key: its type, its words, its description, the kinds of its table.

use figment::value::{Dict, Num, Value};
use serde_json::Value as Schema;

use super::value::whole;

/// The named schemas that others refer to.
pub(super) struct Definitions<'a>(Option<&'a Schema>);

impl<'a> Definitions<'a> {
    pub(super) fn of(schema: &'a Schema) -> Self {
        Self(schema.get("$defs"))
    }

    /// Makes a valid value that means nothing.
    pub(super) fn placeholder(&self, schema: &Schema) -> Value {
        let schema = self.resolve(schema);
        if let Some(first) = alternatives(schema).and_then(<[Schema]>::first) {
            return self.placeholder(first);
        }
        let word = words(schema).and_then(|words| words.first().copied());
        match (word, shape(schema)) {
            (Some(word), _) => Value::from(word),
            (None, Some("object")) => {
                let required = schema.get("required").and_then(Schema::as_array).into_iter().flatten();
                let entry = |key: &Schema| {
                    let key = key.as_str()?;
                    Some((key.to_owned(), self.placeholder(schema.get("properties")?.get(key)?)))
                };
                Value::from(required.filter_map(entry).collect::<Dict>())
            }
            (None, Some("array")) => Value::from(Vec::<Value>::new()),
            (None, Some("boolean")) => Value::from(false),
            (None, Some("integer" | "number")) => Value::from(1_u32),
            (None, _) => Value::from(String::new()),
        }
    }

    /// Collects the variables that a configuration could have, without their prefix. Takes the names of tables from `value`.
    pub(super) fn collect_variables(&self, schema: &Schema, value: &Value, name: &str, found: &mut Vec<String>) {
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
                self.collect_variables(names, at(key), &below(key), found);
            }
        } else if let Some(properties) = properties {
            for (key, schema) in properties {
                self.collect_variables(schema, at(key), &below(key), found);
            }
        } else if branches.iter().any(|branch| self.resolve(branch).get("properties").is_some()) {
            for branch in branches {
                self.collect_variables(branch, value, name, found);
            }
        } else {
            found.push(name.to_owned());
        }
    }

    pub(super) fn resolve<'s>(&self, schema: &'s Schema) -> &'s Schema
    where
        'a: 's,
    {
        let name = schema.get("$ref").and_then(Schema::as_str).and_then(|reference| reference.strip_prefix("#/$defs/"));
        name.and_then(|name| self.0?.get(name)).unwrap_or(schema)
    }
}

/// Returns the branches of a schema that has several.
pub(super) fn alternatives(schema: &Schema) -> Option<&[Schema]> {
    let branches = schema.get("anyOf").or_else(|| schema.get("oneOf"))?.as_array()?;
    Some(branches)
}

/// Returns the key that determines the kind of a table, and the kinds.
pub(super) fn tagged<'a>(branches: &[&'a Schema]) -> Option<(&'a str, Vec<(&'a str, &'a Schema)>)> {
    let tag_of = |branch: &'a Schema| {
        let (tag, schema) =
            branch.get("properties")?.as_object()?.iter().find(|(_, key)| key.get("const").is_some())?;
        Some((tag.as_str(), schema.get("const")?.as_str()?, branch))
    };
    let kinds: Vec<_> = branches.iter().map(|branch| tag_of(branch)).collect::<Option<_>>()?;
    let tag = kinds.first()?.0;
    Some((tag, kinds.into_iter().map(|(_, name, branch)| (name, branch)).collect()))
}

/// Returns the type that a schema names, if it is only one.
pub(super) fn shape(schema: &Schema) -> Option<&str> {
    schema.get("type")?.as_str().filter(|shape| *shape != "null")
}

/// Returns a hint that names the other kinds that have a key.
pub(super) fn kinds_with(kinds: &[(&str, &Schema)], key: &str) -> Option<String> {
    let has_key = |schema: &Schema| schema.get("properties").is_some_and(|properties| properties.get(key).is_some());
    let kinds: Vec<&str> = kinds.iter().filter(|(_, schema)| has_key(schema)).map(|(kind, _)| *kind).collect();
    (!kinds.is_empty()).then(|| format!("it is a key of {}", list(&kinds)))
}

pub(super) fn has_shape(schema: &Schema, value: &Value) -> bool {
    matches!(
        (shape(schema), value),
        (Some("string"), Value::String(..))
            | (Some("object"), Value::Dict(..))
            | (Some("array"), Value::Array(..))
            | (Some("boolean"), Value::Bool(..))
            | (Some("integer" | "number"), Value::Num(..))
    ) || alternatives(schema).is_some()
}

/// Returns the words that a schema allows, if it lists them.
pub(super) fn words(schema: &Schema) -> Option<Vec<&str>> {
    match (schema.get("enum"), schema.get("const")) {
        (Some(words), _) => Some(words.as_array()?.iter().filter_map(Schema::as_str).collect()),
        (None, Some(word)) => Some(vec![word.as_str()?]),
        (None, None) => None,
    }
}

/// Returns a number and the maximum that it exceeds.
pub(super) fn maximum_exceeded(schema: &Schema, number: Num) -> Option<(u128, u128)> {
    let number = whole(number)?;
    let limit = |key: &str| schema.get(key).and_then(Schema::as_u64).map(u128::from);
    // `uint32` is the only format in use that has a limit of its own.
    let format_limit =
        (schema.get("format").and_then(Schema::as_str) == Some("uint32")).then_some(u128::from(u32::MAX));
    let most = limit("maximum").or(format_limit)?;
    (number > most).then_some((number, most))
}

/// Returns what to do about a secret that was written where its source belongs. Never shows the value.
pub(super) fn secret_hint(schema: &Schema, found: &Value) -> Option<String> {
    let keys: Vec<&str> = schema.get("properties")?.as_object()?.keys().map(String::as_str).collect();
    (found.as_str().is_some() && keys == ["env", "file"]).then(|| {
        "a secret does not belong in the configuration: put it into a file and write { file = \"/path\" }, or into a \
         variable and write { env = \"NAME\" }"
            .to_owned()
    })
}

/// Returns what a schema says about its key, as a part of a sentence.
pub(super) fn description(schema: &Schema) -> Option<String> {
    let text = schema.get("description")?.as_str()?.replace('\n', " ");
    let text = text.strip_suffix('.').unwrap_or(&text);
    let mut letters = text.chars();
    let first = letters.next()?;
    // An abbreviation, such as `TLS`, stays as it is.
    if letters.clone().next().is_some_and(char::is_uppercase) {
        return Some(text.to_owned());
    }
    Some(first.to_lowercase().chain(letters).collect())
}

pub(super) fn type_name(shape: &str) -> &'static str {
    match shape {
        "string" => "text",
        "object" => "a table",
        "array" => "a list",
        "boolean" => "true or false",
        "integer" => "a whole number",
        _ => "a number",
    }
}

pub(super) fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
