//! Access of clients: tokens, hubs, and pages of other origins (CORS).

use super::client::client_token;
use super::*;
use crate::sandbox::{Fault, FaultKind};

#[tokio::test]
async fn a_page_can_read_that_public_network_access_is_disabled() {
    let sandbox = start().await;
    let token = client_token(&sandbox, "chat", "ann").await;
    sandbox.directory().edit(|directory| directory.resource_mut("east").unwrap().public_network = false);
    let response = request(&sandbox, Method::POST, &east(&sandbox).url(), "/client/negotiate?hub=chat")
        .bearer(&token)
        .header(http::header::ORIGIN, "https://page.test")
        .send()
        .await;
    assert_eq!(response.status, StatusCode::FORBIDDEN);
    assert_eq!(response.header("access-control-allow-origin"), Some("https://page.test"));
}

#[tokio::test]
async fn a_page_can_read_the_responses_of_faults_and_of_rejected_bodies() {
    let sandbox = start().await;
    let token = client_token(&sandbox, "chat", "ann").await;
    let faults = east(&sandbox).server.faults();
    let (direct, plain) = (east(&sandbox).url(), sandbox.control().url());
    let target = "/client/negotiate?hub=chat&negotiateVersion=1";
    let from_page = |method: Method, origin: &str, target: &str| {
        request(&sandbox, method, origin, target).bearer(&token).header(http::header::ORIGIN, "https://page.test")
    };
    let cors = [
        ("access-control-allow-origin", "https://page.test"),
        ("access-control-allow-credentials", "true"),
        ("vary", "Origin"),
    ];
    let is_readable =
        |response: &TestResponse| cors.iter().all(|(name, value)| response.headers.get_all(*name).iter().eq([value]));

    faults.set(Fault::times(1, FaultKind::status(503)).on_path("/client"));
    let preflight =
        from_page(Method::OPTIONS, &direct, target).header(http::header::ACCESS_CONTROL_REQUEST_METHOD, "POST");
    assert_eq!(preflight.send().await.status, StatusCode::NO_CONTENT, "a preflight consumes no fault");
    let failed = from_page(Method::POST, &direct, target).send().await;
    assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(is_readable(&failed), "{failed:?}");
    assert!(is_readable(&from_page(Method::POST, &direct, target).send().await), "no header field is repeated");

    // The header fields of a fault take precedence, so that a test can deny access to a page.
    let denied = FaultKind::status(503).with_header("access-control-allow-origin", "https://other.test");
    faults.set(Fault::times(1, denied));
    let failed = from_page(Method::POST, &direct, target).send().await;
    assert_eq!(failed.header("access-control-allow-origin"), Some("https://other.test"));

    let large = vec![b' '; 1024 * 1024 + 1];
    for (origin, target) in [(&direct, String::from(target)), (&plain, format!("/endpoints/east{target}"))] {
        let rejected = from_page(Method::POST, origin, &target).body("text/plain", large.clone()).send().await;
        assert_eq!(rejected.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(is_readable(&rejected), "{rejected:?}");
    }
    // The REST API does not support CORS.
    let api = from_page(Method::POST, &direct, "/api/hubs/chat/:send").body("text/plain", large).send().await;
    assert_eq!((api.status, api.header("vary")), (StatusCode::PAYLOAD_TOO_LARGE, None));
}

#[tokio::test]
async fn checks_tokens_and_allows_pages_of_other_origins() {
    let sandbox = start().await;
    let (url, target) = (east(&sandbox).url(), "/client/negotiate?hub=chat");
    let of_other_hub = client_token(&sandbox, "other", "ann").await;
    let with_token = |token: &str| request(&sandbox, Method::POST, &url, target).bearer(token);
    for request in [
        request(&sandbox, Method::POST, &url, target),
        with_token("nonsense"),
        with_token(&of_other_hub),
        with_token(&token(&sandbox).await),
    ] {
        assert_eq!(request.send().await.status, StatusCode::UNAUTHORIZED);
    }
    let origin = || http::header::ORIGIN;
    let preflight = request(&sandbox, Method::OPTIONS, &url, target)
        .header(origin(), "https://page.test")
        .header(http::header::ACCESS_CONTROL_REQUEST_HEADERS, "x-custom")
        .send()
        .await;
    assert_eq!(preflight.status, StatusCode::NO_CONTENT);
    assert_eq!(preflight.header("access-control-allow-headers"), Some("x-custom"));
    let valid = client_token(&sandbox, "chat", "ann").await;
    let response = with_token(&valid).header(origin(), "https://page.test").send().await;
    assert_eq!(response.header("access-control-allow-origin"), Some("https://page.test"));
    assert_eq!(response.header("access-control-allow-credentials"), Some("true"));
    // A page can read a rejection, and every response varies by origin.
    let rejected = with_token("nonsense").header(origin(), "https://page.test").send().await;
    assert_eq!(rejected.header("access-control-allow-origin"), Some("https://page.test"));
    assert_eq!(with_token(&valid).send().await.header("vary"), Some("Origin"));
    // Version 0 of negotiation has one id.
    assert_eq!(response.json()["negotiateVersion"], 0);
    assert!(response.json().get("connectionToken").is_none());
    for hubs in ["", "?hub=chat&hub=chat", "?hub=1"] {
        let target = format!("/client/negotiate{hubs}");
        let response = request(&sandbox, Method::POST, &url, &target).bearer(&valid).send().await;
        assert_eq!(response.status, StatusCode::BAD_REQUEST, "{hubs}");
    }
}
