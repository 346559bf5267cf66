//! The values of a configuration: their types, and the text of variables and flags, which have none.

use figment::value::{Num, Value};

/// Parses the text of a variable or a flag as the type of its key: numbers, `true`, `[a, b]`, `{a=b}`.
pub(super) fn retype(kind: &str, value: &mut Value) {
    let Some(text) = value.as_str() else { return };
    if kind == "string" {
        return;
    }
    let tag = value.tag();
    let is_word = |word: &str| kind == "boolean" && text.trim().eq_ignore_ascii_case(word);
    if is_word("true") || is_word("false") {
        *value = Value::Bool(tag, is_word("true"));
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

/// Returns a number if it is whole and not negative.
pub(super) fn whole(number: Num) -> Option<u128> {
    number.to_u128().or_else(|| number.to_i128().and_then(|number| number.try_into().ok()))
}

/// Returns how a variable or a flag writes a value that is not plain text.
pub(super) fn form_in_variable(expected: &str) -> Option<String> {
    match expected {
        "array" => Some("write a list: [\"a\", \"b\"]".to_owned()),
        "boolean" => Some("write true or false".to_owned()),
        "object" => {
            Some("write a table: {key=\"value\"}, or one variable for each of its keys, with `__` before it".to_owned())
        }
        _ => None,
    }
}

pub(super) fn kind_of(value: &Value) -> &'static str {
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
