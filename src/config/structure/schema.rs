//! Queries on the JSON Schema of one key: its type, its enum values, its description, the kinds of its table.

use figment::value::{Dict, Num, Value};
use serde_json::Value as Schema;

use super::value::unsigned;

/// The named schemas, which are the targets of `$ref`.
pub(super) struct Definitions<'a>(Option<&'a Schema>);

impl<'a> Definitions<'a> {
    pub(super) fn of(schema: &'a Schema) -> Self {
        Self(schema.get("$defs"))
    }

    /// Returns a minimal valid value of a schema.
    pub(super) fn placeholder(&self, schema: &Schema) -> Value {
        let schema = self.resolve(schema);
        if let Some(first) = alternatives(schema).and_then(<[Schema]>::first) {
            return self.placeholder(first);
        }
        let first_value = enum_values(schema).and_then(|values| values.first().copied());
        match (first_value, json_type(schema)) {
            (Some(first), _) => Value::from(first),
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

    /// Collects the names of all variables that can set a key, without their prefix. Takes the names of tables from `value`.
    pub(super) fn collect_variables(&self, schema: &Schema, value: &Value, name: &str, found: &mut Vec<String>) {
        let schema = self.resolve(schema);
        let below = |key: &str| {
            let key = key.to_ascii_uppercase().replace('-', "_");
            if name.is_empty() { key } else { format!("{name}__{key}") }
        };
        let empty = Value::from(Dict::new());
        let at = |key: &str| value.as_dict().and_then(|dict| dict.get(key)).unwrap_or(&empty);
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

    /// Follows a `$ref`.
    pub(super) fn resolve<'s>(&self, schema: &'s Schema) -> &'s Schema
    where
        'a: 's,
    {
        let name = schema.get("$ref").and_then(Schema::as_str).and_then(|reference| reference.strip_prefix("#/$defs/"));
        name.and_then(|name| self.0?.get(name)).unwrap_or(schema)
    }
}

/// Returns the branches of `anyOf` or `oneOf`.
pub(super) fn alternatives(schema: &Schema) -> Option<&[Schema]> {
    let branches = schema.get("anyOf").or_else(|| schema.get("oneOf"))?.as_array()?;
    Some(branches)
}

/// Returns the key that determines the kind of a table, and the schemas of the kinds.
pub(super) fn tagged_kinds<'a>(branches: &[&'a Schema]) -> Option<(&'a str, Vec<(&'a str, &'a Schema)>)> {
    let tag_of = |branch: &'a Schema| {
        let (tag, schema) =
            branch.get("properties")?.as_object()?.iter().find(|(_, key)| key.get("const").is_some())?;
        Some((tag.as_str(), schema.get("const")?.as_str()?, branch))
    };
    let kinds: Vec<_> = branches.iter().map(|branch| tag_of(branch)).collect::<Option<_>>()?;
    let tag = kinds.first()?.0;
    Some((tag, kinds.into_iter().map(|(_, name, branch)| (name, branch)).collect()))
}

/// Returns the `type` of a schema, if it is a single one.
pub(super) fn json_type(schema: &Schema) -> Option<&str> {
    schema.get("type")?.as_str().filter(|name| *name != "null")
}

/// Returns a hint that names the other kinds that have a key.
pub(super) fn kinds_with(kinds: &[(&str, &Schema)], key: &str) -> Option<String> {
    let has_key = |schema: &Schema| schema.get("properties").is_some_and(|properties| properties.get(key).is_some());
    let kinds: Vec<&str> = kinds.iter().filter(|(_, schema)| has_key(schema)).map(|(kind, _)| *kind).collect();
    (!kinds.is_empty()).then(|| format!("it is a key of {}", quoted_list(&kinds)))
}

pub(super) fn has_type(schema: &Schema, value: &Value) -> bool {
    matches!(
        (json_type(schema), value),
        (Some("string"), Value::String(..))
            | (Some("object"), Value::Dict(..))
            | (Some("array"), Value::Array(..))
            | (Some("boolean"), Value::Bool(..))
            | (Some("integer" | "number"), Value::Num(..))
    ) || alternatives(schema).is_some()
}

/// Returns the values that a schema lists in `enum` or `const`.
pub(super) fn enum_values(schema: &Schema) -> Option<Vec<&str>> {
    match (schema.get("enum"), schema.get("const")) {
        (Some(values), _) => Some(values.as_array()?.iter().filter_map(Schema::as_str).collect()),
        (None, Some(value)) => Some(vec![value.as_str()?]),
        (None, None) => None,
    }
}

/// Returns a number and its maximum, if it exceeds the maximum.
pub(super) fn maximum_exceeded(schema: &Schema, number: Num) -> Option<(u128, u128)> {
    let number = unsigned(number)?;
    let limit = |key: &str| schema.get(key).and_then(Schema::as_u64).map(u128::from);
    // `uint32` is the only format in use that has a limit of its own.
    let format_limit =
        (schema.get("format").and_then(Schema::as_str) == Some("uint32")).then_some(u128::from(u32::MAX));
    let maximum = limit("maximum").or(format_limit)?;
    (number > maximum).then_some((number, maximum))
}

/// Returns a hint about a secret that was written in place of its source. Never contains the value.
pub(super) fn secret_hint(schema: &Schema, found: &Value) -> Option<String> {
    let keys: Vec<&str> = schema.get("properties")?.as_object()?.keys().map(String::as_str).collect();
    (found.as_str().is_some() && keys == ["env", "file"]).then(|| {
        "a secret does not belong in the configuration: put it into a file and write { file = \"/path\" }, or into a \
         variable and write { env = \"NAME\" }"
            .to_owned()
    })
}

/// Returns the description of a schema, as a part of a sentence.
pub(super) fn description(schema: &Schema) -> Option<String> {
    let text = schema.get("description")?.as_str()?.replace('\n', " ");
    let text = text.strip_suffix('.').unwrap_or(&text);
    let mut characters = text.chars();
    let first = characters.next()?;
    // An abbreviation, such as `TLS`, keeps its case.
    if characters.clone().next().is_some_and(char::is_uppercase) {
        return Some(text.to_owned());
    }
    Some(first.to_lowercase().chain(characters).collect())
}

/// Returns the name of a JSON type in messages.
pub(super) fn type_name(json_type: &str) -> &'static str {
    match json_type {
        "string" => "text",
        "object" => "a table",
        "array" => "a list",
        "boolean" => "true or false",
        "integer" => "a whole number",
        _ => "a number",
    }
}

pub(super) fn quoted_list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
