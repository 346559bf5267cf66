//! Who may connect as a client: tokens, hubs, and pages of other origins (CORS).

use super::client::client_token;
use super::*;
use crate::sandbox::{Fault, FaultKind};

#[tokio::test]
async fn a_page_can_read_that_public_network_access_is_disabled() {
    let sandbox = start().await;
    let token = client_token(&sandbox, "chat", "ann").await;
    sandbox.directory().edit(|directory| directory.resource_mut("east").unwrap().public_network = false);
    let answer = call(&sandbox, Method::POST, &east(&sandbox).url(), "/client/negotiate?hub=chat")
        .bearer(&token)
        .header(http::header::ORIGIN, "https://page.test")
        .send()
        .await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://page.test"));
}

#[tokio::test]
async fn a_page_can_read_the_responses_of_faults_and_of_rejected_bodies() {
    let sandbox = start().await;
    let token = client_token(&sandbox, "chat", "ann").await;
    let faults = east(&sandbox).server.faults();
    let (direct, plain) = (east(&sandbox).url(), sandbox.control().url());
    let target = "/client/negotiate?hub=chat&negotiateVersion=1";
    let of_page = |method: Method, origin: &str, target: &str| {
        call(&sandbox, method, origin, target).bearer(&token).header(http::header::ORIGIN, "https://page.test")
    };
    let cors = [
        ("access-control-allow-origin", "https://page.test"),
        ("access-control-allow-credentials", "true"),
        ("vary", "Origin"),
    ];
    let may_be_read =
        |answer: &Answer| cors.iter().all(|(name, value)| answer.headers.get_all(*name).iter().eq([value]));

    faults.set(Fault::times(1, FaultKind::status(503)).on_path("/client"));
    let ask = of_page(Method::OPTIONS, &direct, target).header(http::header::ACCESS_CONTROL_REQUEST_METHOD, "POST");
    assert_eq!(ask.send().await.status, StatusCode::NO_CONTENT, "a preflight consumes no fault");
    let failed = of_page(Method::POST, &direct, target).send().await;
    assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(may_be_read(&failed), "{failed:?}");
    assert!(may_be_read(&of_page(Method::POST, &direct, target).send().await), "no header field is repeated");

    // The header fields of a fault take precedence, so that a test can deny access to a page.
    let mut denied = FaultKind::status(503);
    if let FaultKind::Answer { headers, .. } = &mut denied {
        headers.push((String::from("access-control-allow-origin"), String::from("https://other.test")));
    }
    faults.set(Fault::times(1, denied));
    let failed = of_page(Method::POST, &direct, target).send().await;
    assert_eq!(failed.header("access-control-allow-origin"), Some("https://other.test"));

    let large = vec![b' '; 1024 * 1024 + 1];
    for (origin, target) in [(&direct, String::from(target)), (&plain, format!("/endpoints/east{target}"))] {
        let refused = of_page(Method::POST, origin, &target).body("text/plain", large.clone()).send().await;
        assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(may_be_read(&refused), "{refused:?}");
    }
    // The REST API does not support CORS.
    let api = of_page(Method::POST, &direct, "/api/hubs/chat/:send").body("text/plain", large).send().await;
    assert_eq!((api.status, api.header("vary")), (StatusCode::PAYLOAD_TOO_LARGE, None));
}

#[tokio::test]
async fn checks_tokens_and_allows_pages_of_other_origins() {
    let sandbox = start().await;
    let (url, target) = (east(&sandbox).url(), "/client/negotiate?hub=chat");
    let of_other_hub = client_token(&sandbox, "other", "ann").await;
    let keyed = |token: &str| call(&sandbox, Method::POST, &url, target).bearer(token);
    for request in [
        call(&sandbox, Method::POST, &url, target),
        keyed("nonsense"),
        keyed(&of_other_hub),
        keyed(&token(&sandbox).await),
    ] {
        assert_eq!(request.send().await.status, StatusCode::UNAUTHORIZED);
    }
    let origin = || http::header::ORIGIN;
    let asked = call(&sandbox, Method::OPTIONS, &url, target)
        .header(origin(), "https://page.test")
        .header(http::header::ACCESS_CONTROL_REQUEST_HEADERS, "x-custom")
        .send()
        .await;
    assert_eq!(asked.status, StatusCode::NO_CONTENT);
    assert_eq!(asked.header("access-control-allow-headers"), Some("x-custom"));
    let good = client_token(&sandbox, "chat", "ann").await;
    let answer = keyed(&good).header(origin(), "https://page.test").send().await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://page.test"));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    // A page can read a refusal, and caches know that responses vary by origin.
    let refused = keyed("nonsense").header(origin(), "https://page.test").send().await;
    assert_eq!(refused.header("access-control-allow-origin"), Some("https://page.test"));
    assert_eq!(keyed(&good).send().await.header("vary"), Some("Origin"));
    // Version 0 of negotiation has one id.
    assert_eq!(answer.json()["negotiateVersion"], 0);
    assert!(answer.json().get("connectionToken").is_none());
    for hubs in ["", "?hub=chat&hub=chat", "?hub=1"] {
        let target = format!("/client/negotiate{hubs}");
        let answer = call(&sandbox, Method::POST, &url, &target).bearer(&good).send().await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{hubs}");
    }
}
