//! Groups, users and queues of a hub.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::delivery::{Close, Delivery};
use super::hub::Hub;
use super::membership::{Audience, GroupTtl};
use super::message::{Content, Invocation, Message};

fn message(size: usize) -> Arc<Message> {
    let content = Content::from(Invocation { target: String::from("t"), arguments: Vec::new() });
    Arc::new(Message::new(content, size))
}

#[test]
fn a_connection_in_a_group_twice_gets_a_message_once() {
    let (hub, now) = (Arc::new(Hub::default()), Instant::now());
    let mut connection = Connection::open(&hub, Some("u"), now);
    hub.add_user("u", "g", GroupTtl::Unlimited, now);
    assert!(hub.add_connection(connection.id(), "g"));
    assert_eq!(hub.send(Audience::Group("g"), &message(1), &[], now), 1);
    assert!(connection.try_recv().is_some() && connection.try_recv().is_none());
}

#[test]
fn a_users_stay_ends_when_its_time_is_over() {
    let (hub, now) = (Arc::new(Hub::default()), Instant::now());
    let connection = Connection::open(&hub, Some("u"), now);
    hub.add_user("u", "g", GroupTtl::Limited(Duration::from_secs(10)), now);
    let later = now + Duration::from_secs(10);
    assert!(hub.exists(Audience::Group("g"), now) && hub.user_in_group("u", "g", now));
    assert!(!hub.exists(Audience::Group("g"), later) && !hub.user_in_group("u", "g", later));
    assert_eq!(hub.list("g", None, 10, later).members, []);
    // What it joined by itself has no end.
    hub.add_connection(connection.id(), "g");
    assert!(hub.exists(Audience::Group("g"), later));
    let late = Connection::open(&hub, Some("u"), later);
    assert_eq!(hub.list("g", None, 10, later).members, [(connection.id().to_owned(), Some(String::from("u")))]);
    drop(late);
}

#[test]
fn a_stay_of_zero_takes_only_those_connected_now() {
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
fn a_user_keeps_the_hundred_latest_lasting_groups() {
    let (hub, now) = (Arc::new(Hub::default()), Instant::now());
    let _connection = Connection::open(&hub, Some("u"), now);
    for number in 0..101 {
        hub.add_user("u", &format!("g{number}"), GroupTtl::Unlimited, now);
    }
    assert!(!hub.user_in_group("u", "g0", now) && !hub.exists(Audience::Group("g0"), now));
    assert!(hub.user_in_group("u", "g1", now) && hub.user_in_group("u", "g100", now));
}

#[test]
fn leaving_by_user_takes_its_connections_along() {
    let (hub, now) = (Arc::new(Hub::default()), Instant::now());
    let connection = Connection::open(&hub, Some("u"), now);
    hub.add_connection(connection.id(), "own");
    hub.add_user("u", "g", GroupTtl::Unlimited, now);
    hub.remove_user("u", "own");
    assert!(!hub.exists(Audience::Group("own"), now));
    hub.remove_user_from_all("u");
    assert!(!hub.user_in_group("u", "g", now) && !hub.exists(Audience::Group("g"), now));
    assert!(hub.exists(Audience::User("u"), now) && !hub.exists(Audience::User("U"), now));
}

#[test]
fn a_disconnect_ends_membership_but_not_the_users() {
    let (hub, now) = (Arc::new(Hub::default()), Instant::now());
    let connection = Connection::open(&hub, Some("u"), now);
    hub.add_user("u", "g", GroupTtl::Unlimited, now);
    drop(connection);
    assert!(!hub.exists(Audience::Group("g"), now) && hub.user_in_group("u", "g", now));
    let _back = Connection::open(&hub, Some("u"), now);
    assert!(hub.exists(Audience::Group("g"), now));
}

#[test]
fn a_client_that_does_not_read_is_closed_and_harms_no_other() {
    let (hub, now) = (Arc::new(Hub::default()), Instant::now());
    let (mut stuck, mut lively) = (Connection::open(&hub, None, now), Connection::open(&hub, None, now));
    for _ in 0..10 {
        hub.send(Audience::All, &message(1024 * 1024), &[], now);
        assert!(lively.try_recv().is_some());
    }
    assert!(!hub.exists(Audience::Connection(stuck.id()), now));
    assert!(hub.exists(Audience::Connection(lively.id()), now));
    let mut waiting = 0;
    let end = loop {
        match stuck.try_recv() {
            Some(Delivery::Message(_)) => waiting += 1,
            other => break other,
        }
    };
    assert_eq!(waiting, 7);
    let reason = Some(String::from("the client does not read what it is sent"));
    assert_eq!(end, Some(Delivery::Close(Close { reason, allow_reconnect: false })));
}

#[test]
fn what_is_larger_than_may_wait_reaches_a_client_for_which_nothing_waits() {
    let (hub, now) = (Arc::new(Hub::default()), Instant::now());
    let mut connection = Connection::open(&hub, None, now);
    // A body of numbers takes many times as much memory as text.
    let large = Delivery::StreamItem { stream: String::from("s"), item: vec![rmpv::Value::from(0); 500_000].into() };
    for _ in 0..2 {
        assert!(hub.deliver(connection.id(), &large, now));
        assert_eq!(connection.try_recv(), Some(large.clone()));
    }
    assert!(hub.deliver(connection.id(), &large, now));
    assert!(!hub.deliver(connection.id(), &large, now));
    assert!(!hub.exists(Audience::Connection(connection.id()), now));
}
