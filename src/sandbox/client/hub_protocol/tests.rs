//! Encoding and decoding of records, byte by byte.

use std::sync::Arc;

use rmpv::Value;

use super::decoder::{Decoder, Handshake, count_numbered};
use super::messagepack;
use super::protocol::Protocol;
use super::record::{MAX_RECORD, ProtocolError, Record};
use crate::sandbox::signalr::delivery::{Close, Delivery};
use crate::sandbox::signalr::message::{Content, Invocation, Message};

fn message(json: &str) -> Delivery {
    let value = serde_json::from_str(json).unwrap();
    Delivery::Message(Arc::new(Message::new(Content::from(Invocation::from_value(value).unwrap()), 0)))
}

fn decode(protocol: Protocol, bytes: &[u8]) -> Result<Option<Record>, ProtocolError> {
    let mut decoder = Decoder::default();
    decoder.push(bytes);
    decoder.next(protocol)
}

#[test]
fn json_preserves_key_order_numbers_and_characters() {
    let sent = r#"{"target":"t","arguments":[{"z":1,"a":1.0},18446744073709551615,"\u001e 💡\u0000"]}"#;
    let record = Protocol::Json.delivery(&message(sent)).unwrap();
    let expected = r#"{"type":1,"target":"t","arguments":[{"z":1,"a":1.0},18446744073709551615,"\u001e 💡\u0000"]}"#;
    assert_eq!(record, format!("{expected}\u{1e}"));
}

#[test]
fn messagepack_preserves_the_kind_and_width_of_numbers() {
    let sent = r#"{"target":"t","arguments":[5,300,-1,1.0,18446744073709551615,-9223372036854775808]}"#;
    let record = Protocol::MessagePack.delivery(&message(sent)).unwrap();
    let expected = [
        &[40, 0x96, 1, 0x80, 0xc0, 0xa1, b't', 0x96, 0x05, 0xcd, 0x01, 0x2c, 0xff][..],
        &[0xcb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0xcf],
        &[0xff; 8],
        &[0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x90],
    ]
    .concat();
    assert_eq!(record, expected);
}

#[test]
fn encodes_the_length_of_a_long_messagepack_record_in_several_bytes() {
    let sent = format!(r#"{{"target":"t","arguments":["{}"]}}"#, "a".repeat(300));
    let record = Protocol::MessagePack.delivery(&message(&sent)).unwrap();
    assert_eq!(messagepack::decode_length(&record).unwrap(), Some((2, record.len() - 2)));
}

#[test]
fn counts_deeply_nested_records_in_both_protocols() {
    let nested = format!("{}\"a\"{}", "[".repeat(120), "]".repeat(120));
    let message = message(&format!("{{\"target\":\"t\",\"arguments\":{nested}}}"));
    for protocol in [Protocol::Json, Protocol::MessagePack] {
        assert_eq!(count_numbered(protocol, &protocol.delivery(&message).unwrap()), 1, "{protocol:?}");
    }
}

#[test]
fn encodes_pings_and_closes() {
    assert_eq!(Protocol::MessagePack.ping(), [2, 0x91, 6].as_slice());
    assert_eq!(Protocol::Json.ping(), "{\"type\":6}\u{1e}");
    let close = Delivery::Close(Close { reason: Some(String::from("x")), allow_reconnect: true });
    assert_eq!(Protocol::MessagePack.delivery(&close).unwrap(), [5, 0x93, 7, 0xa1, b'x', 0xc3].as_slice());
    assert_eq!(Protocol::Json.delivery(&close).unwrap(), "{\"type\":7,\"error\":\"x\",\"allowReconnect\":true}\u{1e}");
}

#[test]
fn decodes_records_that_follow_a_handshake_in_the_same_bytes() {
    let mut decoder = Decoder::default();
    for byte in b"{\"protocol\":\"json\",\"version\":1}" {
        decoder.push(&[*byte]);
        assert_eq!(decoder.handshake(), Ok(None));
    }
    decoder.push(b"\x1e{\"type\":6}\x1e{\"type\":7}\x1e{\"ty");
    assert_eq!(decoder.handshake(), Ok(Some(Handshake { protocol: Protocol::Json, version: 1 })));
    assert_eq!(decoder.next(Protocol::Json), Ok(Some(Record::Other)));
    assert_eq!(decoder.next(Protocol::Json), Ok(Some(Record::Close)));
    assert_eq!(decoder.next(Protocol::Json), Ok(None));
    decoder.push(b"pe\":7}\x1e");
    assert_eq!(decoder.next(Protocol::Json), Ok(Some(Record::Close)));
}

#[test]
fn decodes_records_that_arrive_byte_by_byte() {
    let json = b"{\"type\":6}\x1e{\"type\":3,\"invocationId\":\"a\",\"result\":[1]}\x1e".to_vec();
    let packed = [&[2, 0x91, 6][..], &[8, 0x95, 3, 0x80, 0xa1, b'a', 3, 0x91, 1]].concat();
    for (protocol, bytes) in [(Protocol::Json, json), (Protocol::MessagePack, packed)] {
        let (mut decoder, mut records) = (Decoder::default(), Vec::new());
        for byte in bytes {
            decoder.push(&[byte]);
            records.extend(decoder.next(protocol).unwrap());
        }
        let result = Ok(Value::Array(vec![1.into()]));
        let completion = Record::Completion { id: String::from("a"), result };
        assert_eq!(records, [Record::Other, completion]);
    }
}

#[test]
fn accepts_every_version_up_to_the_highest() {
    let decode_handshake = |text: &str| {
        let mut decoder = Decoder::default();
        decoder.push(text.as_bytes());
        decoder.handshake()
    };
    for version in 0..=2 {
        let handshake = format!("{{\"protocol\":\"messagepack\",\"version\":{version}}}\u{1e}");
        assert_eq!(decode_handshake(&handshake), Ok(Some(Handshake { protocol: Protocol::MessagePack, version })));
    }
    assert_eq!(decode_handshake("{\"protocol\":\"json\",\"version\":3}\u{1e}"), Err(ProtocolError::Version(3)));
    assert_eq!(
        decode_handshake("{\"protocol\":\"xml\",\"version\":1}\u{1e}"),
        Err(ProtocolError::Protocol("xml".into()))
    );
    assert_eq!(decode_handshake("{\"protocol\":\"json\""), Ok(None));
    assert!(matches!(decode_handshake("hello\u{1e}"), Err(ProtocolError::Handshake(_))));
}

#[test]
fn rejects_invalid_records() {
    let large = vec![b' '; MAX_RECORD + 1];
    assert_eq!(decode(Protocol::Json, &large), Err(ProtocolError::TooLarge));
    assert_eq!(decode(Protocol::MessagePack, &[0xff, 0xff, 0xff, 0x01]), Err(ProtocolError::TooLarge));
    let garbage: [(Protocol, &[u8]); 6] = [
        (Protocol::Json, b"{}\x1e"),
        (Protocol::Json, b"\xff\xfe\x1e"),
        (Protocol::Json, b"{\"type\":3}\x1e"),
        (Protocol::MessagePack, &[0xff; 6]),
        (Protocol::MessagePack, &[1, 0x05]),
        (Protocol::MessagePack, &[5, 0xdd, 0xff, 0xff, 0xff, 0xff]),
    ];
    for (protocol, bytes) in garbage {
        assert!(matches!(decode(protocol, bytes), Err(ProtocolError::Malformed(_))), "{bytes:?}");
    }
}
