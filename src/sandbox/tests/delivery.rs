//! Delivery of messages from the REST API to connections, once and in order.

use serde_json::json;

use super::*;
use crate::sandbox::Close;

async fn post(sandbox: &Sandbox, path: &str, body: &Value) -> TestResponse {
    let separator = if path.contains('?') { '&' } else { '?' };
    let target = format!("/api/hubs/chat/{path}{separator}api-version=2024-12-01");
    rest(sandbox, "POST", &target).await.json(body).send().await
}

fn hello(number: u32) -> Value {
    json!({ "Target": "hello", "Arguments": [number] })
}

fn numbers(connection: &mut Connection) -> Vec<u64> {
    received(connection).iter().map(|(_, arguments)| arguments[0].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn each_audience_receives_its_messages_once_and_in_order() {
    let sandbox = start().await;
    let hubs = &east(&sandbox).hubs;
    let (mut ann, mut ann_too) = (hubs.connect("chat", Some("ann")), hubs.connect("Chat", Some("ann")));
    let (mut ben, mut other_hub) = (hubs.connect("chat", Some("ben")), hubs.connect("other", Some("ann")));
    let mut west = sandbox.endpoint("west").unwrap().hubs.connect("chat", Some("ann"));
    let group = format!("/api/hubs/chat/groups/g/connections/{}?api-version=2024-12-01", ann.id());
    assert_eq!(rest(&sandbox, "PUT", &group).await.send().await.status, StatusCode::OK);

    post(&sandbox, ":send", &hello(1)).await;
    post(&sandbox, "users/ann/:send", &hello(2)).await;
    post(&sandbox, "groups/g/:send", &hello(3)).await;
    post(&sandbox, &format!("connections/{}/:send", ben.id()), &hello(4)).await;
    post(&sandbox, &format!(":send?excluded={}&excluded={}", ann.id(), ben.id()), &hello(5)).await;
    post(&sandbox, &format!("groups/g/:send?excluded={}", ann.id()), &hello(6)).await;
    // The operation that sends to a user ignores `excluded`.
    post(&sandbox, &format!("users/ann/:send?excluded={}", ann.id()), &hello(7)).await;

    assert_eq!(numbers(&mut ann), [1, 2, 3, 7]);
    assert_eq!(numbers(&mut ann_too), [1, 2, 5, 7]);
    assert_eq!(numbers(&mut ben), [1, 4]);
    assert_eq!((numbers(&mut other_hub), numbers(&mut west)), (vec![], vec![]));
}

#[tokio::test]
async fn each_application_has_its_own_hubs() {
    let sandbox = start().await;
    let hubs = &east(&sandbox).hubs;
    let (mut without_application, mut with_application) = (hubs.connect("chat", None), hubs.connect("app_chat", None));
    post(&sandbox, ":send?application=App", &hello(1)).await;
    assert_eq!((numbers(&mut without_application), numbers(&mut with_application)), (vec![], vec![1]));
}

#[tokio::test]
async fn delivers_messagepack_and_pre_encoded_frames() {
    let sandbox = start().await;
    let mut connection = east(&sandbox).hubs.connect("chat", None);
    let send = "/api/hubs/chat/:send?api-version=2024-12-01";
    let packed = [&[0x82, 0xa6][..], b"target", &[0xa1, b't', 0xa9], b"arguments", &[0x91, 0x07]].concat();
    let response = rest(&sandbox, "POST", send).await.body("application/x-msgpack", packed).send().await;
    assert_eq!(response.status, StatusCode::ACCEPTED);
    let frame = b"{\"type\":1,\"target\":\"t\",\"arguments\":[8]}\x1e";
    let length = u8::try_from(frame.len()).unwrap();
    let frames = [&[0x81, 0xa4][..], b"json", &[0xc4, length], frame].concat();
    let response = rest(&sandbox, "POST", send).await.body("application/octet-stream", frames).send().await;
    assert_eq!(response.status, StatusCode::ACCEPTED);
    let seven_and_eight = [(String::from("t"), vec![json!(7)]), (String::from("t"), vec![json!(8)])];
    assert_eq!(received(&mut connection), seven_and_eight);
}

#[tokio::test]
async fn closes_with_a_reason_and_skips_excluded_connections() {
    let sandbox = start().await;
    let hubs = &east(&sandbox).hubs;
    let (mut one, mut two, mut three) =
        (hubs.connect("chat", Some("u")), hubs.connect("chat", Some("u")), hubs.connect("chat", None));
    post(&sandbox, ":send", &hello(1)).await;
    let path = format!("users/u/:closeConnections?reason=so%20long&excluded={}", two.id());
    assert_eq!(post(&sandbox, &path, &Value::Null).await.status, StatusCode::NO_CONTENT);
    // The queued message arrives first, then the close.
    assert!(matches!(one.recv().await, Some(Delivery::Message(_))));
    let close = Close { reason: Some(String::from("so long")), allow_reconnect: true };
    assert_eq!((one.recv().await, one.recv().await), (Some(Delivery::Close(close)), None));
    assert_eq!((numbers(&mut two), numbers(&mut three)), (vec![1], vec![1]));

    let target = format!("/api/hubs/chat/connections/{}?api-version=2024-12-01", three.id());
    assert_eq!(rest(&sandbox, "DELETE", &target).await.send().await.status, StatusCode::OK);
    assert_eq!(three.recv().await, Some(Delivery::Close(Close { reason: None, allow_reconnect: true })));
    assert_eq!(rest(&sandbox, "HEAD", &target).await.send().await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_invocation_waits_for_the_completion() {
    let sandbox = start().await;
    let mut connection = east(&sandbox).hubs.connect("chat", None);
    let path = format!("connections/{}/:invoke", connection.id());
    let client = tokio::spawn(async move {
        let mut seen = Vec::new();
        for result in [Ok(rmpv::Value::from(42)), Err(String::from("no such method"))] {
            let Some(Delivery::Invoke { id, message }) = connection.recv().await else {
                panic!("no invocation arrived")
            };
            seen.push(message.invocation().unwrap().target);
            assert!(connection.complete(&id, result));
            assert!(!connection.complete(&id, Ok(rmpv::Value::Nil)));
        }
        drop(connection.recv().await);
        seen
    });
    let response = post(&sandbox, &path, &hello(1)).await;
    assert_eq!((response.status, response.json()), (StatusCode::OK, json!({ "result": 42 })));
    let response = post(&sandbox, &path, &hello(2)).await;
    assert_eq!((response.status, &response.json()["message"]), (StatusCode::BAD_REQUEST, &"no such method".into()));
    // The client receives the third invocation and disconnects.
    let response = post(&sandbox, &path, &hello(3)).await;
    assert_eq!(response.header("x-ms-error-code"), Some("Warning.Connection.NotExisted"));
    assert_eq!(client.await.unwrap(), ["hello", "hello"]);
}

#[tokio::test]
async fn rejects_pre_encoded_frames_without_an_invocation() {
    let sandbox = start().await;
    let mut connection = east(&sandbox).hubs.connect("chat", None);
    let target = format!("/api/hubs/chat/connections/{}/:invoke?api-version=2024-12-01", connection.id());
    let ping = [&[0x81, 0xa4][..], b"json", &[0xc4, 11], b"{\"type\":6}\x1e"].concat();
    for frames in [ping, vec![0x80]] {
        let response = rest(&sandbox, "POST", &target).await.body("application/octet-stream", frames).send().await;
        assert_eq!((response.status, &response.json()["target"]), (StatusCode::BAD_REQUEST, &"payload".into()));
    }
    assert!(connection.try_recv().is_none());
}

#[tokio::test]
async fn delivers_stream_items_and_the_end_of_a_stream() {
    let sandbox = start().await;
    let mut connection = east(&sandbox).hubs.connect("chat", None);
    let stream = format!("connections/{}/streams/s1", connection.id());
    post(&sandbox, &format!("{stream}/:send"), &json!({ "a": 1 })).await;
    post(&sandbox, &format!("{stream}/:send?completed=true"), &json!(2)).await;
    post(&sandbox, &format!("{stream}/:complete?error=broken"), &Value::Null).await;
    let end = |error: Option<&str>| Delivery::StreamEnd { stream: String::from("s1"), error: error.map(str::to_owned) };
    let map = rmpv::Value::Map(vec![("a".into(), 1.into())]);
    assert_eq!(connection.recv().await, Some(Delivery::StreamItem { stream: String::from("s1"), item: map }));
    assert_eq!(connection.recv().await, Some(Delivery::StreamItem { stream: String::from("s1"), item: 2.into() }));
    assert_eq!((connection.recv().await, connection.recv().await), (Some(end(None)), Some(end(Some("broken")))));
}

#[tokio::test]
async fn executes_commands_for_the_connections_that_match_the_filter() {
    let sandbox = start().await;
    let hubs = &east(&sandbox).hubs;
    let (mut ann, mut ben) = (hubs.connect("chat", Some("listener-1")), hubs.connect("chat", Some("speaker")));
    let commands = json!([
        { "type": "SendMessage", "message": hello(1) },
        { "type": "JoinGroup", "group": "g" },
        { "type": "LeaveGroup", "group": "other" },
    ]);
    let path = ":execute?filter=startswith(userId,%20'listener-')";
    let response = post(&sandbox, path, &commands).await;
    assert_eq!((response.status, response.body.len()), (StatusCode::ACCEPTED, 0));
    post(&sandbox, "groups/g/:send", &hello(2)).await;
    post(&sandbox, ":execute", &json!([{ "type": "CloseConnection", "reason": "done" }])).await;
    assert_eq!((numbers(&mut ann), numbers(&mut ben)), (vec![1, 2], vec![]));
    assert_eq!(hubs.connection_counts()["chat"], 0);
    for commands in [json!([{ "type": "Nothing" }]), json!([{ "type": "JoinGroup" }]), json!({}), json!([1])] {
        assert_eq!(post(&sandbox, ":execute", &commands).await.status, StatusCode::BAD_REQUEST, "{commands}");
    }
}

#[tokio::test]
async fn each_concurrent_message_arrives_once() {
    let sandbox = Arc::new(start().await);
    let mut connection = east(&sandbox).hubs.connect("chat", None);
    let token = token(&sandbox).await;
    let sends: Vec<_> = (0..40)
        .map(|number| {
            let (sandbox, token) = (Arc::clone(&sandbox), token.clone());
            tokio::spawn(async move {
                let url = east(&sandbox).url();
                let target = "/api/hubs/chat/:send?api-version=2024-12-01";
                request(&sandbox, Method::POST, &url, target).bearer(&token).json(&hello(number)).send().await.status
            })
        })
        .collect();
    for send in sends {
        assert_eq!(send.await.unwrap(), StatusCode::ACCEPTED);
    }
    let mut seen = numbers(&mut connection);
    seen.sort_unstable();
    assert_eq!(seen, (0..40).collect::<Vec<_>>());
}
