//! The types of values, and the parsing of variables and flags, whose values are untyped text.

use figment::value::{Num, Value};

/// Parses the text of a variable or a flag as the type of its key: numbers, `true`, `[a, b]`, `{a=b}`.
pub(super) fn retype(json_type: &str, value: &mut Value) {
    let Some(text) = value.as_str() else { return };
    if json_type == "string" {
        return;
    }
    let tag = value.tag();
    let is_word = |word: &str| json_type == "boolean" && text.trim().eq_ignore_ascii_case(word);
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
        Value::Char(_, character) => Value::Char(tag, character),
        Value::Bool(_, flag) => Value::Bool(tag, flag),
        Value::Num(_, number) => Value::Num(tag, number),
        Value::Empty(_, empty) => Value::Empty(tag, empty),
        Value::Dict(_, dict) => {
            Value::Dict(tag, dict.into_iter().map(|(key, value)| (key, retagged(value, tag))).collect())
        }
        Value::Array(_, items) => Value::Array(tag, items.into_iter().map(|item| retagged(item, tag)).collect()),
    }
}

/// Returns a number if it is an integer and not negative.
pub(super) fn unsigned(number: Num) -> Option<u128> {
    number.to_u128().or_else(|| number.to_i128().and_then(|number| number.try_into().ok()))
}

/// Returns a hint about the syntax of a value in a variable or a flag, unless it is plain text.
pub(super) fn variable_syntax(expected: &str) -> Option<String> {
    match expected {
        "array" => Some("write a list: [\"a\", \"b\"]".to_owned()),
        "boolean" => Some("write true or false".to_owned()),
        "object" => {
            Some("write a table: {key=\"value\"}, or one variable for each of its keys, with `__` before it".to_owned())
        }
        _ => None,
    }
}

/// Returns the name of a value's type in messages.
pub(super) fn type_name_of(value: &Value) -> &'static str {
    match value {
        Value::String(..) | Value::Char(..) => "text",
        Value::Bool(..) => "true or false",
        Value::Num(_, number) if number.to_f64().is_some() => "a fraction",
        Value::Num(_, number) if unsigned(*number).is_none() => "a negative number",
        Value::Num(..) => "a number",
        Value::Empty(..) => "nothing",
        Value::Dict(..) => "a table",
        Value::Array(..) => "a list",
    }
}
