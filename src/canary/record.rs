//! Records of SignalR's JSON hub protocol, as far as a canary needs them.
//!
//! Source: HubProtocol.md of ASP.NET Core.

use serde::Deserialize;
use serde_json::Value;

/// Ends each record.
pub(super) const SEPARATOR: char = '\u{1e}';
/// The first record of a client.
pub(super) const HANDSHAKE: &str = "{\"protocol\":\"json\",\"version\":1}\u{1e}";
/// Keeps the connection alive.
pub(super) const PING: &str = "{\"type\":6}\u{1e}";

const INVOCATION: u8 = 1;
const CLOSE: u8 = 7;

/// A record from the service.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// A message: its target, and its first argument if that is a text.
    Message { target: String, argument: Option<String> },
    /// The service closes the connection, for this reason.
    Close(Option<String>),
    /// Any other record, such as a ping.
    Other,
}

#[derive(Deserialize)]
struct Fields {
    #[serde(rename = "type")]
    kind: Option<u8>,
    target: Option<String>,
    #[serde(default)]
    arguments: Vec<Value>,
    error: Option<String>,
}

/// Parses the answer to the handshake.
///
/// # Errors
/// The error in the answer, or the answer if it cannot be read.
pub(super) fn parse_handshake(text: &str) -> Result<(), String> {
    match serde_json::from_str::<Fields>(text) {
        // A record with a type may only follow the answer.
        Ok(Fields { kind: None, error: None, .. }) => Ok(()),
        Ok(Fields { error: Some(error), .. }) => Err(error),
        Ok(Fields { .. }) | Err(_) => Err(text.chars().take(80).collect()),
    }
}

/// Parses a record after the handshake; `None` if it is not valid.
pub(super) fn parse(text: &str) -> Option<Record> {
    let Fields { kind, target, arguments, error } = serde_json::from_str(text).ok()?;
    Some(match (kind?, target) {
        (INVOCATION, Some(target)) => {
            let argument = arguments.first().and_then(Value::as_str).map(str::to_owned);
            Record::Message { target, argument }
        }
        (CLOSE, _) => Record::Close(error),
        _ => Record::Other,
    })
}

/// Splits what arrives into records. A message of the WebSocket may have several records, or a part of one.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    pending: String,
}

impl Splitter {
    /// Adds text that arrived. Returns the size of what is pending.
    pub(super) fn add(&mut self, text: &str) -> usize {
        self.pending.push_str(text);
        self.pending.len()
    }

    /// Removes the first whole record.
    pub(super) fn next(&mut self) -> Option<String> {
        let (record, rest) = self.pending.split_once(SEPARATOR)?;
        let (record, rest) = (record.to_owned(), rest.to_owned());
        self.pending = rest;
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_split_wherever_the_frames_are() {
        let mut splitter = Splitter::default();
        let mut records = Vec::new();
        for part in ["{}\u{1e}{\"ty", "pe\":6}", "\u{1e}", "{\"type\":7}\u{1e}{"] {
            splitter.add(part);
            records.extend(std::iter::from_fn(|| splitter.next()));
        }
        assert_eq!(records, ["{}", "{\"type\":6}", "{\"type\":7}"]);
    }

    #[test]
    fn reads_the_answer_to_the_handshake() {
        assert_eq!(parse_handshake("{}"), Ok(()));
        assert_eq!(parse_handshake(r#"{"error":"no servers"}"#), Err("no servers".to_owned()));
        assert_eq!(parse_handshake(r#"{"type":7,"error":"closed"}"#), Err("closed".to_owned()));
        assert_eq!(parse_handshake("<html>"), Err("<html>".to_owned()));
    }

    #[test]
    fn reads_messages_closes_and_passes_over_the_rest() {
        let message = |argument: Option<&str>| {
            Some(Record::Message { target: "t".to_owned(), argument: argument.map(str::to_owned) })
        };
        assert_eq!(parse(r#"{"type":1,"target":"t","arguments":["x",2]}"#), message(Some("x")));
        assert_eq!(parse(r#"{"type":1,"target":"t","arguments":[{}]}"#), message(None));
        assert_eq!(parse(r#"{"type":1,"target":"t"}"#), message(None));
        assert_eq!(parse(r#"{"type":7,"error":"e","allowReconnect":true}"#), Some(Record::Close(Some("e".to_owned()))));
        assert_eq!(parse(r#"{"type":6}"#), Some(Record::Other));
        assert_eq!(parse(r#"{"type":99,"x":[]}"#), Some(Record::Other));
        assert_eq!(parse("no"), None);
    }
}
