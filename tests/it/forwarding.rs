//! Requests and responses pass unchanged, except for what belongs to the connection or to the caller.

use std::fmt::Write;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE};
use signalr_gateway::sandbox::{Entry, Fault, FaultKind};

use crate::support::frames::{DATA, END_STREAM, Frames, Outcome, frame, headers, pseudo};
use crate::support::{
    ALL_OPERATIONS, BROADCAST_BODY, BROADCAST_PATH, Harness, HarnessBuilder, broadcast_request, request,
};

/// Every operation in every form that official clients send: method, target, operation name.
const CALLS: [(&str, &str, &str); 50] = [
    ("GET", "/api/auth/accessKey?api-version=2024-12-01", "access_key"),
    ("POST", "/api/hubs/chat/:send?api-version=2022-06-01", "hub_send"),
    ("POST", "/api/hubs/chat/:closeConnections?reason=bye%20bye&api-version=2024-12-01", "hub_close_connections"),
    ("POST", "/api/hubs/chat/:execute?api-version=2024-12-01&filter=userId%20eq%20'u'", "hub_execute"),
    ("POST", "/api/hubs/chat/:generateToken?userId=u&minutesToExpire=5&api-version=2024-12-01", "generate_token"),
    ("HEAD", "/api/hubs/chat/connections/c?api-version=2024-12-01", "connection_exists"),
    ("DELETE", "/api/hubs/chat/connections/c?reason=x&api-version=2024-12-01", "connection_close"),
    ("POST", "/api/hubs/chat/connections/c/:send?api-version=2024-12-01", "connection_send"),
    ("POST", "/api/hubs/chat/connections/c/:invoke?api-version=2024-12-01", "connection_invoke"),
    ("DELETE", "/api/hubs/chat/connections/c/groups?api-version=2024-12-01", "connection_leave_all_groups"),
    ("POST", "/api/hubs/chat/connections/c/streams/s/:send?completed=true&api-version=2024-12-01", "stream_send"),
    ("POST", "/api/hubs/chat/connections/c/streams/s/:complete?api-version=2024-12-01", "stream_complete"),
    ("HEAD", "/api/hubs/chat/groups/g?api-version=2024-12-01", "group_exists"),
    ("POST", "/api/hubs/chat/groups/g/:closeConnections?api-version=2024-12-01", "group_close_connections"),
    ("POST", "/api/hubs/chat/groups/g/:send?excluded=a&excluded=b&api-version=2024-12-01", "group_send"),
    ("GET", "/api/hubs/chat/groups/g/connections?maxpagesize=2&top=9&api-version=2024-12-01", "group_list_connections"),
    ("PUT", "/api/hubs/chat/groups/g/connections/c?api-version=2024-12-01", "group_add_connection"),
    ("DELETE", "/api/hubs/chat/groups/g/connections/c?api-version=2024-12-01", "group_remove_connection"),
    ("HEAD", "/api/hubs/chat/users/u?api-version=2024-12-01", "user_exists"),
    ("POST", "/api/hubs/chat/users/u/:closeConnections?api-version=2024-12-01", "user_close_connections"),
    ("POST", "/api/hubs/chat/users/u/:send?api-version=2024-12-01", "user_send"),
    ("DELETE", "/api/hubs/chat/users/u/groups?api-version=2024-12-01", "user_leave_all_groups"),
    ("HEAD", "/api/hubs/chat/users/u/groups/g?api-version=2024-12-01", "user_in_group"),
    ("GET", "/api/hubs/chat/users/u/groups/g?api-version=2024-12-01", "user_in_group"),
    ("PUT", "/api/hubs/chat/users/u/groups/g?ttl=60&api-version=2024-12-01", "user_add_to_group"),
    ("DELETE", "/api/hubs/chat/users/u/groups/g?api-version=2024-12-01", "user_remove_from_group"),
    ("POST", "/api/hubs/chat/connections/:refreshAuth?api-version=2026-07-01", "connection_refresh_auth"),
    ("POST", "/api/hubs/chat/connections/claims?api-version=2026-07-01", "connection_claims"),
    ("QUERY", "/api/hubs/chat/connections/claims?api-version=2026-07-01", "connection_claims"),
    ("GET", "/api/v1/auth/accessKey", "access_key"),
    ("POST", "/api/v1/hubs/chat", "hub_send"),
    ("POST", "/api/v1/hubs/app_chat?excluded=a", "hub_send"),
    ("POST", "/api/v1/hubs/chat/users/u", "user_send"),
    ("POST", "/api/v1/hubs/chat/connections/c", "connection_send"),
    ("GET", "/api/v1/hubs/chat/connections/c", "connection_exists"),
    ("HEAD", "/api/v1/hubs/chat/connections/c", "connection_exists"),
    ("DELETE", "/api/v1/hubs/chat/connections/c?reason=x", "connection_close"),
    ("POST", "/api/v1/hubs/chat/groups/g", "group_send"),
    ("GET", "/api/v1/hubs/chat/groups/g", "group_exists"),
    ("HEAD", "/api/v1/hubs/chat/groups/g", "group_exists"),
    ("GET", "/api/v1/hubs/chat/users/u", "user_exists"),
    ("HEAD", "/api/v1/hubs/chat/users/u", "user_exists"),
    ("PUT", "/api/v1/hubs/chat/groups/g/connections/c", "group_add_connection"),
    ("DELETE", "/api/v1/hubs/chat/groups/g/connections/c", "group_remove_connection"),
    ("GET", "/api/v1/hubs/chat/groups/g/users/u", "user_in_group"),
    ("HEAD", "/api/v1/hubs/chat/groups/g/users/u", "user_in_group"),
    ("PUT", "/api/v1/hubs/chat/groups/g/users/u?ttl=1", "user_add_to_group"),
    ("DELETE", "/api/v1/hubs/chat/groups/g/users/u", "user_remove_from_group"),
    ("DELETE", "/api/v1/hubs/chat/users/u/groups", "user_leave_all_groups"),
    ("PUT", "/api/v1/hubs/chat/users/u/groups/g", "user_add_to_group"),
];

/// Starts a gateway that allows all operations.
async fn open_harness() -> Harness {
    Harness::start(|options| {
        options.allow(&ALL_OPERATIONS);
    })
    .await
}

/// Returns the SHA-256 of a body, formatted as in the journals.
fn sha256(body: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body);
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

#[track_caller]
fn assert_unchanged(arrived: &Entry, method: &str, target: &str, content_type: Option<&str>, body: &[u8]) {
    assert_eq!((arrived.method.as_str(), arrived.target.as_str()), (method, target));
    assert_eq!(arrived.header("content-type"), content_type, "{target}");
    assert_eq!((arrived.body_length, arrived.body_sha256.as_str()), (body.len(), &*sha256(body)), "{target}");
    assert!(arrived.complete, "{target}");
}

#[tokio::test]
async fn forwards_every_operation_unchanged_and_returns_its_response() {
    let harness = open_harness().await;
    let east = &harness.endpoint("east").server;
    let mut caller = harness.caller().await;
    for (method, target, operation) in CALLS {
        harness.clear_arrivals();
        let counted = harness.metrics().await.sum("upstream_requests_total", &[("operation", operation)]);
        // A few operations wait for clients that do not exist here. A fault makes the endpoint respond at once.
        east.faults().set(Fault::times(1, FaultKind::json(200, r#"{"from":"east"}"#)));
        let (content_type, body) = match method {
            "POST" | "QUERY" => (Some("application/json"), BROADCAST_BODY),
            _ => (None, ""),
        };
        let builder = content_type
            .into_iter()
            .fold(request(method, target), |builder, content_type| builder.header(CONTENT_TYPE, content_type));
        let response = caller.send(builder, body).await;
        response.assert_status(200);
        assert_eq!(response.body.is_empty(), method == "HEAD", "{method} {target}");
        assert_eq!(response.header("content-type"), Some("application/json; charset=utf-8"), "{method} {target}");
        assert_unchanged(&harness.arrival("east"), method, target, content_type, body.as_bytes());
        let counts = harness.metrics().await.sum("upstream_requests_total", &[("operation", operation)]);
        assert!(counts > counted, "{method} {target} is not counted as {operation}");
    }
}

#[tokio::test]
async fn forwards_query_with_its_body_over_http2() {
    let harness = Harness::start(|options| {
        options.allow(&["claims"]).set("endpoints.east.http_version", "2");
    })
    .await;
    let ann = harness.endpoint("east").hubs.connect("chat", Some("ann"));
    let target = "/api/hubs/chat/connections/claims?api-version=2026-07-01";
    let body = serde_json::json!({ "connectionToken": ann.token() }).to_string();
    let mut caller = Frames::connect(harness.listener("default"), &[]).await;
    let fields = [&pseudo("QUERY", target)[..], &[("content-type", "application/json")]].concat();
    caller.write(&[headers(1, 0, &fields), frame(DATA, END_STREAM, 1, body.as_bytes())].concat()).await;
    assert_eq!(caller.outcome(1).await, Some(Outcome::Response));
    let arrived = harness.arrival("east");
    assert_unchanged(&arrived, "QUERY", target, Some("application/json"), body.as_bytes());
    assert_eq!((arrived.status, arrived.header("host")), (Some(200), None), "not an HTTP/2 request");
}

#[tokio::test]
async fn uses_one_http2_connection_per_worker() {
    let harness = Harness::start(|options| {
        options.set("endpoints.east.http_version", "2").set("process.workers", "1");
    })
    .await;
    let authority = harness.endpoint("east").url().trim_start_matches("https://").trim_end_matches('/').to_owned();
    let target = "/api/hubs/chat/users/a%2Fb/:send?excluded=x&excluded=y&api-version=2024-12-01";
    let calls = (0..20).map(|number| {
        let harness = &harness;
        async move {
            let body = format!(r#"{{"target":"news","arguments":["{}"]}}"#, number.to_string().repeat(20_000));
            let builder = request("POST", target).header(CONTENT_TYPE, "application/json");
            harness.caller().await.send(builder, body).await.assert_status(202);
        }
    });
    // The first call opens the connection that the others use.
    harness.broadcast().await.assert_status(202);
    harness.clear_arrivals();
    futures_util::future::join_all(calls).await;
    let arrived = harness.arrivals("east");
    assert_eq!(arrived.len(), 20);
    for entry in &arrived {
        assert_eq!((entry.target.as_str(), entry.host.as_str(), entry.complete), (target, authority.as_str(), true));
        assert_eq!(entry.header("host"), None, "an HTTP/2 request has a Host header");
        assert!(entry.authorization.is_some());
    }
    let connected = [("endpoint", "east"), ("result", "ok")];
    let connections = harness.metrics().await.sum("upstream_connects_total", &connected);
    assert!((0.5..1.5).contains(&connections), "{connections} connections");

    // A reset stream fails its own call only, because the message may have been received.
    harness.endpoint("east").server.faults().set(Fault::times(1, FaultKind::Reset));
    harness.broadcast().await.assert_gateway_error(502, "upstream_broken");
    harness.broadcast().await.assert_status(202);
}

#[tokio::test]
async fn each_operation_has_its_effect_at_the_service() {
    let harness = open_harness().await;
    let hubs = &harness.endpoint("east").hubs;
    let connection = hubs.connect("chat", Some("user/a"));
    let id = connection.id().to_owned();
    let mut caller = harness.caller().await;
    for (method, target, status) in [
        ("PUT", format!("/api/hubs/chat/groups/g/connections/{id}?api-version=2024-12-01"), 200),
        ("HEAD", "/api/hubs/chat/groups/g?api-version=2024-12-01".to_owned(), 200),
        ("HEAD", "/api/hubs/chat/users/user%2Fa?api-version=2024-12-01".to_owned(), 200),
        ("HEAD", "/api/hubs/chat/users/user?api-version=2024-12-01".to_owned(), 404),
        ("GET", "/api/hubs/chat/groups/g/connections?api-version=2024-12-01".to_owned(), 200),
        ("DELETE", format!("/api/hubs/chat/connections/{id}?api-version=2024-12-01"), 200),
        ("HEAD", format!("/api/hubs/chat/connections/{id}?api-version=2024-12-01"), 404),
    ] {
        caller.call(method, &target).await.assert_status(status);
    }
}

#[tokio::test]
async fn forwards_path_and_query_byte_for_byte() {
    let harness = open_harness().await;
    let mut caller = harness.caller().await;
    for target in [
        "/api/hubs/Chat/users/user%2Fa/:send?api-version=2022-11-01",
        "/api/hubs/chat/users/user%2fa/:send?api-version=2022-11-01",
        "/api/hubs/chat/groups/%E4%BD%A0%20+~!$&'()*,;=:@/:send?api-version=2022-11-01",
        "/api/hubs/chat/:send?excluded=b&excluded=a&excluded=a&api-version=2022-11-01",
        "/api/hubs/chat/:send?API-Version=2022-11-01&x=%41%zz&&=&a=b=c?/",
        "/api/hubs/a%60b,.%5Bc%5D/:send?api-version=2022-11-01",
        "/api/hubs/chat/groups/%25252E/:send?api-version=2022-11-01",
        "/api/hubs/chat/users/...%2F...%2F/:send?api-version=2022-11-01",
        "/api/hubs/chat/:send?",
        "/API/Hubs/chat/%3Asend/?api-version=2022-11-01",
        "/%61pi/hubs/chat/USERS/a%2Fb%2F/:SEND?api-version=2022-11-01",
        "/api/v1/hubs/my-app_chat/",
        "/api/hubs/chat/users/%3Abob/:send?api-version=2022-11-01",
    ] {
        harness.clear_arrivals();
        caller.post(target, "application/json", BROADCAST_BODY).await;
        assert_unchanged(&harness.arrival("east"), "POST", target, Some("application/json"), BROADCAST_BODY.as_bytes());
    }
}

#[tokio::test]
async fn forwards_bodies_of_every_content_type_unchanged() {
    let harness = open_harness().await;
    let mut caller = harness.caller().await;
    // {"target": "hello", "arguments": [-1, h'00ff']}
    let messagepack = b"\x82\xa6target\xa5hello\xa9arguments\x92\xff\xc4\x02\x00\xff".to_vec();
    let binary: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    for (content_type, body) in [
        ("application/json; charset=utf-8", BROADCAST_BODY.as_bytes().to_vec()),
        ("application/x-msgpack", messagepack),
        ("application/octet-stream", binary),
        ("application/json", b"\xef\xbb\xbf not json \0 at all".to_vec()),
        ("application/json", Vec::new()),
    ] {
        harness.clear_arrivals();
        caller.post(BROADCAST_PATH, content_type, body.clone()).await;
        let arrived = harness.arrival("east");
        assert_unchanged(&arrived, "POST", BROADCAST_PATH, Some(content_type), &body);
        assert_eq!(arrived.header("transfer-encoding"), None, "Content-Length became chunked");

        harness.clear_arrivals();
        let pieces = body.chunks(1000).map(Bytes::copy_from_slice).collect();
        caller.send_chunked(request("POST", BROADCAST_PATH).header(CONTENT_TYPE, content_type), pieces).await;
        assert_unchanged(&harness.arrival("east"), "POST", BROADCAST_PATH, Some(content_type), &body);
    }
}

#[tokio::test]
async fn forwards_content_length_0_of_an_empty_body() {
    let harness = open_harness().await;
    let mut raw = harness.raw_connection().await;
    raw.write("POST /api/hubs/chat/:closeConnections?api-version=2024-12-01 HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n").await;
    raw.response().await.unwrap().assert_status(204);
    // Without it, Microsoft's servers answer 411.
    assert_eq!(harness.arrival("east").header("content-length"), Some("0"));
}

#[tokio::test]
async fn removes_connection_headers_and_headers_about_the_caller() {
    let harness = open_harness().await;
    let builder = broadcast_request()
        .header(AUTHORIZATION, "Bearer of-the-caller")
        .header(COOKIE, "session=1")
        .header("connection", "keep-alive, x-hop, te")
        .header("x-hop", "1")
        .header("keep-alive", "timeout=5")
        .header("te", "trailers")
        .header("proxy-authorization", "Basic YTpi")
        .header("proxy-connection", "keep-alive")
        .header("upgrade", "h2c")
        .header("x-stays", "1")
        .header("x-stays", "2")
        .header("user-agent", "caller/1.0");
    harness.caller().await.send(builder, BROADCAST_BODY).await.assert_status(202);
    let arrived = harness.arrival("east");
    let mut names: Vec<&str> = arrived.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let expected = ["content-length", "content-type", "host", "user-agent", "x-request-id", "x-stays", "x-stays"];
    assert_eq!(names, expected, "{arrived:#?}");
    assert_eq!(arrived.host, harness.endpoint("east").server.address().to_string());
    assert_eq!(arrived.authorization.as_ref().unwrap().claim("aud"), Some("https://signalr.azure.com"));
}

#[tokio::test]
async fn connection_header_cannot_remove_headers_set_by_the_gateway() {
    let harness = open_harness().await;
    let builder =
        broadcast_request().header("connection", "authorization, host, content-length, content-type, x-request-id");
    harness.caller().await.send(builder, BROADCAST_BODY).await.assert_status(202);
    let arrived = harness.arrival("east");
    assert_unchanged(&arrived, "POST", BROADCAST_PATH, Some("application/json"), BROADCAST_BODY.as_bytes());
    assert!(arrived.authorization.is_some() && arrived.header("x-request-id").is_some());
}

#[tokio::test]
async fn keeps_or_creates_request_ids_and_forwards_trace_headers() {
    let harness = open_harness().await;
    let mut caller = harness.caller().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let builder = broadcast_request()
        .header("x-request-id", "from-the-caller/1")
        .header("traceparent", trace)
        .header("tracestate", "a=b");
    let response = caller.send(builder, BROADCAST_BODY).await;
    assert_eq!(response.assert_status(202).header("x-request-id"), Some("from-the-caller/1"));
    let arrived = harness.arrival("east");
    assert_eq!(arrived.header("x-request-id"), Some("from-the-caller/1"));
    assert_eq!((arrived.header("traceparent"), arrived.header("tracestate")), (Some(trace), Some("a=b")));

    for invalid in ["", "two words", "\"quoted\"", &"x".repeat(129)] {
        harness.clear_arrivals();
        let response = caller.send(broadcast_request().header("x-request-id", invalid), BROADCAST_BODY).await;
        let made = response.assert_status(202).header("x-request-id").unwrap();
        assert!(made.len() == 32 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made}");
        assert_eq!(harness.arrival("east").header("x-request-id"), Some(made));
    }
}

#[tokio::test]
async fn forwards_the_callers_address_only_when_configured() {
    for (configured, expected) in [("false", vec!["10.0.0.1"]), ("true", vec!["10.0.0.1", "127.0.0.1"])] {
        let harness = Harness::start(|options| {
            options.set("forwarding.client_address", configured);
        })
        .await;
        let builder = broadcast_request().header("x-forwarded-for", "10.0.0.1");
        harness.caller().await.send(builder, BROADCAST_BODY).await.assert_status(202);
        let arrived = harness.arrival("east");
        let addresses: Vec<&str> =
            arrived.headers.iter().filter(|(name, _)| name == "x-forwarded-for").map(|(_, value)| &**value).collect();
        assert_eq!(addresses, expected);
    }
}

#[tokio::test]
async fn keeps_error_codes_of_the_service_and_removes_headers_about_its_host() {
    let harness = open_harness().await;
    let response = harness.call("HEAD", "/api/hubs/chat/connections/nobody?api-version=2024-12-01").await;
    assert_eq!(response.assert_status(404).header("x-ms-error-code"), Some("Warning.Connection.NotExisted"));

    let fault = [
        ("retry-after", "7"),
        ("x-ms-error-code", "Warning.User.NotExisted"),
        ("set-cookie", "a=b"),
        ("strict-transport-security", "max-age=1"),
        ("alt-svc", "h3=\":443\""),
        ("signalr-gateway-error", "forged"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("x-request-id", "of-the-endpoint"),
    ]
    .into_iter()
    .fold(FaultKind::json(404, "{}"), |fault, (name, value)| fault.with_header(name, value));
    harness.endpoint("east").server.faults().set(Fault::times(1, fault));
    // `Caller` fails on response headers that are not on its list.
    let response = harness.broadcast().await;
    assert_eq!(response.assert_status(404).header("x-ms-error-code"), Some("Warning.User.NotExisted"));
    assert_eq!((response.header("retry-after"), &*response.text()), (Some("7"), "{}"));
    assert_eq!(response.header("x-request-id").unwrap().len(), 32, "not a request id of the gateway");
}

#[tokio::test]
async fn rewrites_links_of_the_endpoint_to_the_gateway() {
    let harness = open_harness().await;
    let (gateway, east) = (harness.listener("default"), harness.endpoint("east").url());
    for (from_the_endpoint, at_the_caller) in [
        (format!("{east}/api/hubs/chat?x=1"), format!("http://{gateway}/api/hubs/chat?x=1")),
        ("/relative".to_owned(), "/relative".to_owned()),
        (format!("{east}.evil.example/"), format!("{east}.evil.example/")),
    ] {
        let fault = FaultKind::status(308).with_header("location", &from_the_endpoint);
        harness.endpoint("east").server.faults().set(Fault::times(1, fault));
        assert_eq!(harness.broadcast().await.assert_status(308).header("location"), Some(&*at_the_caller));
    }
}

#[tokio::test]
async fn caller_sees_that_a_response_is_incomplete() {
    let harness = open_harness().await;
    let faults = harness.endpoint("east").server.faults();
    faults.set(Fault::times(1, FaultKind::BreakBody));
    let broken = harness.caller().await.try_send(request("POST", BROADCAST_PATH), BROADCAST_BODY).await;
    assert!(broken.is_err(), "{broken:?}");
    harness.broadcast().await.assert_status(202);
    assert_eq!(harness.arrivals("east").len(), 2, "a message with an incomplete response was resent");
    let broken = harness.metrics().await.sum("upstream_errors_total", &[("endpoint", "east"), ("reason", "body")]);
    assert!((broken - 1.0).abs() < 0.5, "{broken}");
}

#[tokio::test]
async fn gateway_answers_health_itself() {
    let harness = open_harness().await;
    for (method, path) in [("GET", "/api/health"), ("HEAD", "/api/health"), ("GET", "/api/v1/health")] {
        harness.call(method, path).await.assert_status(200);
    }

    let builder = HarnessBuilder::start().await;
    builder.sandbox.entra().faults().refuse().await;
    let harness = builder
        .start_gateway(|options| {
            options.wait_until_ready = false;
        })
        .await;
    harness.call("GET", "/api/health").await.assert_gateway_error(503, "token_unavailable");
    harness.call("HEAD", "/api/health").await.assert_gateway_error(503, "token_unavailable");
}
