//! Stateful reconnect of `WebSocket` clients.

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use super::client::{broadcast, connect_stateful_client, invocation, next_text, open_websocket};
use super::*;
use crate::sandbox::ClientTimeouts;

#[tokio::test]
async fn stateful_reconnect_loses_no_message() {
    let sandbox = start().await;
    let (mut socket, target, token) = connect_stateful_client(&sandbox).await;
    for number in 1..=2 {
        broadcast(&sandbox, number).await;
        assert_eq!(next_text(&mut socket).await, invocation(number));
    }
    let call = "{\"type\":1,\"target\":\"x\",\"invocationId\":\"0\",\"arguments\":[]}\u{1e}";
    socket.send(Message::text(format!("{{\"type\":8,\"sequenceId\":1}}\u{1e}{call}"))).await.unwrap();
    let failure = next_text(&mut socket).await;
    assert!(failure.contains("no upstream"), "{failure}");
    assert_eq!(next_text(&mut socket).await, "{\"type\":8,\"sequenceId\":1}\u{1e}");

    // The connection is lost, and a message is sent before the client reconnects.
    drop(socket);
    broadcast(&sandbox, 3).await;
    let mut socket = open_websocket(&sandbox, &target, &token).await.unwrap();
    assert_eq!(next_text(&mut socket).await, "{\"type\":9,\"sequenceId\":2}\u{1e}");
    assert_eq!(next_text(&mut socket).await, invocation(2));
    assert_eq!(next_text(&mut socket).await, failure);
    // The client resends its invocation, which the server ignores.
    socket.send(Message::text(format!("{{\"type\":9,\"sequenceId\":1}}\u{1e}{call}"))).await.unwrap();
    let mut rest = [next_text(&mut socket).await, next_text(&mut socket).await];
    rest.sort();
    assert_eq!(rest, [invocation(3), String::from("{\"type\":8,\"sequenceId\":1}\u{1e}")]);

    // A second WebSocket replaces one that is still open.
    let mut other = open_websocket(&sandbox, &target, &token).await.unwrap();
    assert_eq!(next_text(&mut other).await, "{\"type\":9,\"sequenceId\":2}\u{1e}");
    // A close record removes the connection.
    other.send(Message::text("{\"type\":7}\u{1e}")).await.unwrap();
    while other.next().await.is_some_and(|message| message.is_ok()) {}
    assert!(open_websocket(&sandbox, &target, &token).await.is_err());
}

#[tokio::test]
async fn removes_a_stateful_client_that_does_not_reconnect_in_time() {
    let client_timeouts = ClientTimeouts { away: Duration::from_millis(50), ..ClientTimeouts::default() };
    let sandbox = Sandbox::start(SandboxSettings { client_timeouts, ..SandboxSettings::default() }).await.unwrap();
    let (socket, _, _) = connect_stateful_client(&sandbox).await;
    drop(socket);
    let removed = async {
        while east(&sandbox).hubs.connection_counts().get("chat") != Some(&0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, removed).await.unwrap();
}
