//! Routes whose calls name their endpoint.

use http::header::CONTENT_TYPE;

use crate::support::{BROADCAST_BODY, Harness, Response, request};

/// Starts a gateway with this route, before one that sends all other calls to `east`.
async fn harness_with(route: &str) -> Harness {
    Harness::start(|options| {
        options.append_toml(&format!(
            "[[routes]]\nname = \"tenants\"\n{route}\n[[routes]]\nname = \"rest\"\nendpoints = [\"east\"]\n"
        ));
    })
    .await
}

/// Sends a call, and returns the response and the number of calls that arrived at `east` and `west`.
async fn send(harness: &Harness, target: &str, headers: &[(&str, &str)]) -> (Response, (usize, usize)) {
    harness.clear_arrivals();
    let separator = if target.contains('?') { '&' } else { '?' };
    let mut call =
        request("POST", &format!("{target}{separator}api-version=2024-12-01")).header(CONTENT_TYPE, "application/json");
    for (name, value) in headers {
        call = call.header(*name, *value);
    }
    let response = harness.caller().await.send(call, BROADCAST_BODY).await;
    (response, (harness.arrivals("east").len(), harness.arrivals("west").len()))
}

#[tokio::test]
async fn call_goes_to_the_endpoint_that_it_names_and_to_no_other() {
    for (route, west, unknown) in [
        ("match = { hub = \"{endpoint}_*\" }", "/api/hubs/WEST_chat/:send", "/api/hubs/north_chat/:send"),
        (
            "match = { group = \"{endpoint}/*\" }",
            "/api/hubs/h/groups/west%2F1/:send",
            "/api/hubs/h/groups/WEST%2F1/:send",
        ),
        (
            "match = { application = \"{endpoint}\" }",
            "/api/hubs/h/:send?application=West",
            "/api/hubs/h/:send?application=north",
        ),
        (
            "match = { hub = \"{endpoint}_*\" }\nendpoints = [\"west\"]",
            "/api/hubs/west_chat/:send",
            "/api/hubs/east_chat/:send",
        ),
    ] {
        let harness = harness_with(route).await;
        let (response, arrived) = send(&harness, west, &[]).await;
        response.assert_status(202);
        assert_eq!(arrived, (0, 1), "{route}");
        let (response, arrived) = send(&harness, unknown, &[]).await;
        response.assert_gateway_error(404, "no_endpoint");
        assert_eq!(arrived, (0, 0), "{route}");
        let (response, arrived) = send(&harness, "/api/hubs/plain/:send", &[]).await;
        response.assert_status(202);
        assert_eq!(arrived, (1, 0), "{route}");
    }
}

#[tokio::test]
async fn header_names_the_endpoint_and_is_required_without_a_list() {
    let harness = harness_with("match = { hub = \"chat\" }\nendpoint_header = \"x-tenant\"").await;
    let target = "/api/hubs/chat/:send";
    let (response, arrived) = send(&harness, target, &[("x-tenant", "west")]).await;
    response.assert_status(202);
    assert_eq!(arrived, (0, 1));
    for (headers, status, kind) in [
        (&[("x-tenant", "north")][..], 404, "no_endpoint"),
        (&[("x-tenant", "West")], 404, "no_endpoint"),
        (&[("x-tenant", "west"), ("x-tenant", "west")], 404, "no_endpoint"),
        (&[("x-tenant", "west"), ("signalr-gateway-endpoint", "west")], 404, "no_endpoint"),
        (&[], 412, "header_required"),
    ] {
        let (response, arrived) = send(&harness, target, headers).await;
        response.assert_gateway_error(status, kind);
        assert_eq!(arrived, (0, 0), "{headers:?}");
    }
}

#[tokio::test]
async fn unknown_names_are_counted_and_never_become_labels() {
    let harness = harness_with("match = { hub = \"{endpoint}_*\" }").await;
    for _ in 0..3 {
        let (response, _) = send(&harness, "/api/hubs/nosuchtenant_chat/:send", &[]).await;
        response.assert_gateway_error(404, "no_endpoint");
        assert!(response.text().contains("`nosuchtenant`"), "{}", response.text());
    }
    let metrics = harness.admin("/metrics").await.text();
    let rejected = metrics.lines().find(|line| line.contains("rejected_total") && line.contains("\"no_endpoint\""));
    assert!(rejected.is_some_and(|line| line.ends_with(" 3")), "{rejected:?}");
    assert!(!metrics.contains("nosuchtenant"), "{metrics}");
    let status = harness.admin("/status").await.text();
    assert!(status.contains("hub {endpoint}_*"), "{status}");
    let page = harness.admin("/").await.text();
    assert!(page.contains("named by hub {endpoint}_*"), "{page}");
}
