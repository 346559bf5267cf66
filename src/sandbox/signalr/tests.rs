//! Tests of the groups, users and queues of a hub.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::delivery::{Close, Delivery};
use super::hub::Hub;
use super::membership::{GroupTtl, Selector};
use super::message::{Content, Invocation, Message};

fn message(size: usize) -> Arc<Message> {
    let content = Content::from(Invocation { target: String::from("t"), arguments: Vec::new() });
    Arc::new(Message::new(content, size))
}

#[test]
fn delivers_a_message_once_to_a_connection_that_is_in_a_group_twice() {
    let (hub, now) = (Arc::new(Hub::default()), Instant::now());
    let mut connection = Connection::open(&hub, Some("u"), now);
    hub.add_user("u", "g", GroupTtl::Unlimited, now);
    assert!(hub.add_connection(connection.id(), "g"));
    assert_eq!(hub.send(Selector::Group("g"), &message(1), &[], now), 1);
    assert!(connection.try_recv().is_some() && connection.try_recv().is_none());
}

#[test]
fn a_user_leaves_a_group_after_its_ttl() {
    let (hub, now) = (Arc::new(Hub::default()), Instant::now());
    let connection = Connection::open(&hub, Some("u"), now);
    hub.add_user("u", "g", GroupTtl::Limited(Duration::from_secs(10)), now);
    let later = now + Duration::from_secs(10);
    assert!(hub.exists(Selector::Group("g"), now) && hub.user_in_group("u", "g", now));
    assert!(!hub.exists(Selector::Group("g"), later) && !hub.user_in_group("u", "g", later));
    assert_eq!(hub.list("g", None, 10, later).members, []);
    // A direct membership has no ttl.
    hub.add_connection(connection.id(), "g");
    assert!(hub.exists(Selector::Group("g"), later));
    let late = Connection::open(&hub, Some("u"), later);
    assert_eq!(hub.list("g", None, 10, later).members, [(connection.id().to_owned(), Some(String::from("u")))]);
    drop(late);
}

#[test]
fn a_ttl_of_zero_adds_only_the_current_connections() {
    let (hub, now) = (Arc::new(Hub::default()), Instant::now());
    let first = Connection::open(&hub, Some("u"), now);
    hub.add_user("u", "g", GroupTtl::CurrentConnections, now);
    let _second = Connection::open(&hub, Some("u"), now);
    assert_eq!(hub.list("g", None, 10, now).members.len(), 1);
    assert!(hub.user_in_group("u", "g", now));
    drop(first);
    assert!(!hub.user_in_group("u", "g", now));
}

#[test]
fn a_user_stays_in_the_hundred_latest_groups_without_a_ttl() {
    let (hub, now) = (Arc::new(Hub::default()), Instant::now());
    let _connection = Connection::open(&hub, Some("u"), now);
    for number in 0..101 {
        hub.add_user("u", &format!("g{number}"), GroupTtl::Unlimited, now);
    }
    assert!(!hub.user_in_group("u", "g0", now) && !hub.exists(Selector::Group("g0"), now));
    assert!(hub.user_in_group("u", "g1", now) && hub.user_in_group("u", "g100", now));
}

#[test]
fn removing_a_user_removes_its_connections() {
    let (hub, now) = (Arc::new(Hub::default()), Instant::now());
    let connection = Connection::open(&hub, Some("u"), now);
    hub.add_connection(connection.id(), "own");
    hub.add_user("u", "g", GroupTtl::Unlimited, now);
    hub.remove_user("u", "own");
    assert!(!hub.exists(Selector::Group("own"), now));
    hub.remove_user_from_all("u");
    assert!(!hub.user_in_group("u", "g", now) && !hub.exists(Selector::Group("g"), now));
    assert!(hub.exists(Selector::User("u"), now) && !hub.exists(Selector::User("U"), now));
}

#[test]
fn a_disconnect_does_not_remove_the_user_from_its_groups() {
    let (hub, now) = (Arc::new(Hub::default()), Instant::now());
    let connection = Connection::open(&hub, Some("u"), now);
    hub.add_user("u", "g", GroupTtl::Unlimited, now);
    drop(connection);
    assert!(!hub.exists(Selector::Group("g"), now) && hub.user_in_group("u", "g", now));
    let _back = Connection::open(&hub, Some("u"), now);
    assert!(hub.exists(Selector::Group("g"), now));
}

#[test]
fn closes_a_client_that_does_not_read_without_affecting_others() {
    let (hub, now) = (Arc::new(Hub::default()), Instant::now());
    let (mut not_reading, mut reading) = (Connection::open(&hub, None, now), Connection::open(&hub, None, now));
    for _ in 0..10 {
        hub.send(Selector::All, &message(1024 * 1024), &[], now);
        assert!(reading.try_recv().is_some());
    }
    assert!(!hub.exists(Selector::Connection(not_reading.id()), now));
    assert!(hub.exists(Selector::Connection(reading.id()), now));
    let mut queued = 0;
    let end = loop {
        match not_reading.try_recv() {
            Some(Delivery::Message(_)) => queued += 1,
            other => break other,
        }
    };
    assert_eq!(queued, 7);
    let reason = Some(String::from("the client does not read its messages"));
    assert_eq!(end, Some(Delivery::Close(Close { reason, allow_reconnect: false })));
}

#[test]
fn an_empty_queue_takes_a_delivery_of_any_size() {
    let (hub, now) = (Arc::new(Hub::default()), Instant::now());
    let mut connection = Connection::open(&hub, None, now);
    // Parsed numbers use many times as much memory as their JSON.
    let large = Delivery::StreamItem { stream: String::from("s"), item: vec![rmpv::Value::from(0); 500_000].into() };
    for _ in 0..2 {
        assert!(hub.deliver(connection.id(), &large, now));
        assert_eq!(connection.try_recv(), Some(large.clone()));
    }
    assert!(hub.deliver(connection.id(), &large, now));
    assert!(!hub.deliver(connection.id(), &large, now));
    assert!(!hub.exists(Selector::Connection(connection.id()), now));
}
