//! Groups in the REST API: membership by connection and by user, and paged lists.

use super::*;
use crate::sandbox::HubSettings;

async fn rest_at(sandbox: &Sandbox, method: &str, path: &str) -> TestResponse {
    let separator = if path.contains('?') { '&' } else { '?' };
    let target = format!("/api/hubs/chat/{path}{separator}api-version=2024-12-01");
    rest(sandbox, method, &target).await.send().await
}

#[tokio::test]
async fn adding_a_user_to_a_group_adds_its_connections() {
    let sandbox = start().await;
    let hubs = &east(&sandbox).hubs;
    let _before = hubs.connect("chat", Some("u"));
    assert_eq!(rest_at(&sandbox, "PUT", "users/u/groups/g").await.status, StatusCode::OK);
    let _after = hubs.connect("chat", Some("u"));
    let list = rest_at(&sandbox, "GET", "groups/g/connections").await.json();
    assert_eq!(list["value"].as_array().unwrap().len(), 2);
    assert_eq!(rest_at(&sandbox, "HEAD", "users/u/groups/g").await.status, StatusCode::OK);
    assert_eq!(rest_at(&sandbox, "DELETE", "users/u/groups/g").await.status, StatusCode::NO_CONTENT);
    assert_eq!(rest_at(&sandbox, "HEAD", "groups/g").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_configured_hub_has_its_users_in_their_configured_groups() {
    let chat = HubSettings {
        name: String::from("Chat"),
        endpoints: vec![String::from("east")],
        users: vec![(String::from("ann"), vec![String::from("g"), String::from("h")])],
    };
    let sandbox = Sandbox::start(SandboxSettings { hubs: vec![chat], ..SandboxSettings::default() }).await.unwrap();
    assert_eq!(east(&sandbox).hubs.connection_counts(), [(String::from("chat"), 0)].into());
    assert_eq!(rest_at(&sandbox, "HEAD", "users/ann/groups/h").await.status, StatusCode::OK);
    assert_eq!(rest_at(&sandbox, "HEAD", "groups/h").await.status, StatusCode::NOT_FOUND, "no client is connected");
    let ann = east(&sandbox).hubs.connect("chat", Some("ann"));
    let _ben = east(&sandbox).hubs.connect("chat", Some("ben"));
    let list = rest_at(&sandbox, "GET", "groups/h/connections").await.json();
    assert_eq!(list["value"], serde_json::json!([{ "connectionId": ann.id(), "userId": "ann" }]));
    // A caller can remove the user from a configured group.
    assert_eq!(rest_at(&sandbox, "DELETE", "users/ann/groups/h").await.status, StatusCode::NO_CONTENT);
    assert_eq!(rest_at(&sandbox, "HEAD", "groups/h").await.status, StatusCode::NOT_FOUND);
    let west = &sandbox.endpoint("west").unwrap().hubs;
    assert!(west.connection_counts().is_empty());
}

#[tokio::test]
async fn accepts_names_with_a_slash() {
    let sandbox = start().await;
    let connection = east(&sandbox).hubs.connect("chat", Some("user/a"));
    assert_eq!(rest_at(&sandbox, "HEAD", "users/user%2Fa").await.status, StatusCode::OK);
    assert_eq!(rest_at(&sandbox, "HEAD", "users/user%252Fa").await.status, StatusCode::NOT_FOUND);
    let path = format!("groups/g%2F%C3%A4/connections/{}", connection.id());
    assert_eq!(rest_at(&sandbox, "PUT", &path).await.status, StatusCode::OK);
    assert_eq!(rest_at(&sandbox, "HEAD", "groups/g%2f%c3%a4").await.status, StatusCode::OK);
}

#[tokio::test]
async fn lists_a_group_in_linked_pages() {
    let sandbox = start().await;
    let connections: Vec<_> = (0..7).map(|_| east(&sandbox).hubs.connect("chat", Some("u"))).collect();
    rest_at(&sandbox, "PUT", "users/u/groups/g").await;
    let origin = east(&sandbox).url();
    for (query, expected) in [("maxpagesize=3", 7), ("maxPageSize=2&top=5", 5), ("top=7", 7), ("", 7)] {
        let mut target = format!("/api/hubs/chat/groups/g/connections?api-version=2024-12-01&{query}");
        let mut seen = Vec::new();
        loop {
            let page = rest(&sandbox, "GET", &target).await.send().await.json();
            let members = page["value"].as_array().unwrap();
            seen.extend(members.iter().map(|member| member["connectionId"].as_str().unwrap().to_owned()));
            let Some(next) = page["nextLink"].as_str() else { break };
            target = next.strip_prefix(&origin).unwrap().to_owned();
        }
        assert_eq!(seen.len(), expected, "{query}");
        let unique: std::collections::HashSet<_> = seen.iter().collect();
        assert_eq!(unique.len(), expected, "{query}");
        assert!(seen.iter().all(|id| connections.iter().any(|connection| connection.id() == id)));
    }
}
