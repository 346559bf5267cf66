//! The .NET Management SDK as a caller, in transient transport mode: each of its REST calls byte for byte, to a gateway
//! that its connection string names as `ServerEndpoint`. Headers are those of .NET's `HttpClient` in their order; the
//! token is signed with a made-up key.
//!
//! Source: `Azure/azure-signalr`: `Management/RestApiProvider.cs`, `RestHubLifetimeManager.cs`, `RestClient.cs`,
//! `JsonPayloadMessageContent.cs`, `BinaryPayloadMessageContent.cs`, `RestHealthCheckService.cs`.

use std::fmt::Write;

use serde_json::json;
use signalr_gateway::sandbox::{APP_CLIENT_ID, Connection, Delivery, Fault, FaultKind, Role, TENANT_B};

use crate::support::{ALL_OPERATIONS, Harness, RawConnection, Response, wait_until};

/// The SDK's token for a connection string with `AccessKey=not-a-secret-0000000`.
const TOKEN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6IjEyMyJ9.eyJuYW1laWQiOiJob3N0XzEifQ.bm90LW91cnM";
const AGENT: &str = "Microsoft.Azure.SignalR.Management/1.25.1 (.NET 8.0.6; Linux; X64)";
/// A message with capitalised property names.
const JSON: &str = r#"{"Target":"hello","Arguments":["world",{"deep":[1,2.5,null]}]}"#;

/// The body of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    None,
    /// `application/json; charset=utf-8`.
    Json,
    /// A bare JSON value, as an item of a stream.
    Item,
    /// `application/octet-stream`: sent by apps that add hub protocols.
    Frames,
}

impl Body {
    fn content_type(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Json | Self::Item => Some("application/json; charset=utf-8"),
            Self::Frames => Some("application/octet-stream"),
        }
    }

    fn bytes(self) -> Vec<u8> {
        match self {
            Self::None => Vec::new(),
            Self::Json => JSON.as_bytes().to_vec(),
            Self::Item => b"{\"step\":1}".to_vec(),
            Self::Frames => frames(),
        }
    }
}

/// Returns a `MessagePack` map from hub protocols to frames with `hello("world")`.
fn frames() -> Vec<u8> {
    let json = b"{\"type\":1,\"target\":\"hello\",\"arguments\":[\"world\"]}\x1e";
    let invocation = b"\x96\x01\x80\xc0\xa5hello\x91\xa5world\x90";
    let mut frames = b"\x82\xa4json\xc4".to_vec();
    frames.push(u8::try_from(json.len()).unwrap());
    frames.extend_from_slice(json);
    frames.extend_from_slice(b"\xabmessagepack\xc4");
    frames.push(u8::try_from(invocation.len() + 1).unwrap());
    frames.push(u8::try_from(invocation.len()).unwrap());
    frames.extend_from_slice(invocation);
    frames
}

/// Sends a call as the SDK does, with a chunked body because its length is unknown. Health probes have no token.
async fn send(raw: &mut RawConnection, method: &str, target: &str, body: Body, token: Option<&str>) -> Response {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: localhost:8080\r\n");
    if let Some(token) = token {
        write!(head, "Authorization: Bearer {token}\r\nAsrs-User-Agent: {AGENT}\r\n").unwrap();
    }
    let content_type = body.content_type();
    if let Some(content_type) = content_type {
        write!(head, "Transfer-Encoding: chunked\r\nContent-Type: {content_type}\r\n").unwrap();
    }
    raw.write(head + "\r\n").await;
    if content_type.is_some() {
        // Each write of the content becomes a chunk.
        for piece in body.bytes().chunks(40) {
            let mut chunk = format!("{:X}\r\n", piece.len()).into_bytes();
            chunk.extend_from_slice(piece);
            chunk.extend_from_slice(b"\r\n");
            raw.write(chunk).await;
        }
        raw.write("0\r\n\r\n").await;
    }
    raw.response_to(method).await.unwrap()
}

/// Starts a gateway that allows all operations, with `ann` connected to hub `chat` of `east`.
async fn harness() -> (Harness, Connection) {
    let harness = Harness::start(|options| {
        options.allow(&ALL_OPERATIONS);
    })
    .await;
    let ann = harness.endpoint("east").hubs.connect("chat", Some("user/ann"));
    (harness, ann)
}

/// A call of the SDK and the response that it expects: a status, and `x-ms-error-code` with a 404.
type Row = (&'static str, &'static str, &'static str, Body, u16, Option<&'static str>);

/// Calls of SDK 1.18.3 to 1.25.1, ordered so that each finds the state it needs. `{c}` is ann's connection.
const CALLS_OF_2022: &[Row] = &[
    ("Clients.All", "POST", "P/:send?V", Body::Json, 202, None),
    ("Clients.All, binary", "POST", "P/:send?V", Body::Frames, 202, None),
    ("Clients.AllExcept", "POST", "P/:send?V&excluded=x&excluded=y%2Fz", Body::Json, 202, None),
    ("Clients.User", "POST", "P/users/user%2Fann/:send?V", Body::Json, 202, None),
    ("Clients.User, not connected", "POST", "P/users/nobody/:send?V", Body::Json, 202, None),
    ("Clients.Group", "POST", "P/groups/g%20%C3%A9/:send?V", Body::Json, 202, None),
    ("Clients.GroupExcept", "POST", "P/groups/g/:send?V&excluded={c}", Body::Json, 202, None),
    ("Clients.Client", "POST", "P/connections/{c}/:send?V", Body::Json, 202, None),
    ("Clients.Client, binary", "POST", "P/connections/{c}/:send?V", Body::Frames, 202, None),
    ("Groups.AddToGroup", "PUT", "P/groups/g/connections/{c}?V", Body::None, 200, None),
    (
        "Groups.AddToGroup, not connected",
        "PUT",
        "P/groups/g/connections/gone?V",
        Body::None,
        404,
        Some("Error.Connection.NotExisted"),
    ),
    ("GroupExists", "HEAD", "P/groups/g?V", Body::None, 200, None),
    ("GroupExists, not", "HEAD", "P/groups/none?V", Body::None, 404, Some("Warning.Group.NotExisted")),
    ("Groups.RemoveFromGroup", "DELETE", "P/groups/g/connections/{c}?V", Body::None, 200, None),
    ("RemoveFromAllGroups", "DELETE", "P/connections/{c}/groups?V", Body::None, 200, None),
    ("UserGroups.Add", "PUT", "P/users/user%2Fann/groups/g?V", Body::None, 200, None),
    ("UserGroups.Add with ttl", "PUT", "P/users/user%2Fann/groups/h?V&ttl=60", Body::None, 200, None),
    ("UserGroups.IsUserInGroup", "GET", "P/users/user%2Fann/groups/g?V", Body::None, 200, None),
    (
        "UserGroups.IsUserInGroup, not",
        "GET",
        "P/users/user%2Fann/groups/x?V",
        Body::None,
        404,
        Some("Info.User.NotInGroup"),
    ),
    ("UserGroups.Remove", "DELETE", "P/users/user%2Fann/groups/g?V", Body::None, 204, None),
    ("UserGroups.RemoveAll", "DELETE", "P/users/user%2Fann/groups?V", Body::None, 204, None),
    ("UserExists", "HEAD", "P/users/user%2Fann?V", Body::None, 200, None),
    ("UserExists, not", "HEAD", "P/users/nobody?V", Body::None, 404, Some("Warning.User.NotExisted")),
    ("ConnectionExists", "HEAD", "P/connections/{c}?V", Body::None, 200, None),
    ("CloseConnection", "DELETE", "P/connections/{c}?V&reason=by%20the%20app", Body::None, 200, None),
    ("ConnectionExists, not", "HEAD", "P/connections/{c}?V", Body::None, 404, Some("Warning.Connection.NotExisted")),
];

/// Calls of SDK 1.18.1 and older: v1 paths, no api-version, the application's name before the hub's.
const CALLS_OF_V1: &[Row] = &[
    ("Clients.All", "POST", "/api/v1/hubs/chat", Body::Json, 202, None),
    ("Clients.AllExcept", "POST", "/api/v1/hubs/chat?excluded=x&excluded=y", Body::Json, 202, None),
    ("Clients.All of an application", "POST", "/api/v1/hubs/shop_chat", Body::Json, 202, None),
    ("Clients.User", "POST", "/api/v1/hubs/chat/users/user%2Fann", Body::Json, 202, None),
    ("Clients.Group", "POST", "/api/v1/hubs/chat/groups/g", Body::Json, 202, None),
    ("Groups.AddToGroup", "PUT", "/api/v1/hubs/chat/groups/g/connections/{c}", Body::None, 200, None),
    ("Groups.RemoveFromGroup", "DELETE", "/api/v1/hubs/chat/groups/g/connections/{c}", Body::None, 200, None),
    ("UserGroups.Add", "PUT", "/api/v1/hubs/chat/groups/g/users/user%2Fann?ttl=60", Body::None, 202, None),
    ("UserGroups.IsUserInGroup", "GET", "/api/v1/hubs/chat/groups/g/users/user%2Fann", Body::None, 200, None),
    ("UserGroups.Remove", "DELETE", "/api/v1/hubs/chat/groups/g/users/user%2Fann", Body::None, 202, None),
    ("UserGroups.RemoveAll", "DELETE", "/api/v1/hubs/chat/users/user%2Fann/groups", Body::None, 200, None),
];

/// Sends calls one after the other, and checks what the endpoint receives and what the SDK receives.
async fn send_all(rows: &[Row]) {
    let (harness, ann) = harness().await;
    // One persistent connection, as in .NET's connection pool.
    let mut raw = harness.raw_connection().await;
    for &(call, method, target, body, status, error_code) in rows {
        let target = target.replace('P', "/api/hubs/chat").replace("{c}", ann.id());
        let target = target.replace("?V", "?api-version=2022-06-01");
        harness.clear_arrivals();
        let response = send(&mut raw, method, &target, body, Some(TOKEN)).await;
        assert_eq!(
            (response.status.as_u16(), response.header("x-ms-error-code")),
            (status, error_code),
            "{call}: {response:?}"
        );
        assert_eq!(response.header("signalr-gateway-error"), None, "{call}");
        let arrived = harness.arrival("east");
        assert_eq!((arrived.method.as_str(), arrived.target.as_str()), (method, target.as_str()), "{call}");
        assert_eq!(arrived.header("content-type"), body.content_type(), "{call}");
        assert_eq!(arrived.body.as_deref(), Some(&*body.bytes()), "{call}");
        assert_eq!(arrived.header("asrs-user-agent"), Some(AGENT), "{call}");
        assert_eq!(arrived.host, harness.endpoint("east").server.address().to_string(), "{call}");
        let authorization = arrived.authorization.as_ref().unwrap();
        assert_eq!(authorization.claim("tid"), Some(TENANT_B), "{call}: not the gateway's own token");
    }
    assert!(harness.arrivals("west").is_empty());
}

#[tokio::test]
async fn calls_of_the_sdk_are_forwarded_unchanged_and_return_what_it_expects() {
    send_all(CALLS_OF_2022).await;
}

#[tokio::test]
async fn calls_of_old_sdk_versions_are_forwarded_unchanged_and_return_what_they_expect() {
    send_all(CALLS_OF_V1).await;
}

#[tokio::test]
async fn keeps_the_sdks_escaping_of_application_and_hub() {
    let (harness, _ann) = harness().await;
    let target = "/api/hubs/chat/users/user%2Fa/:send?application=app%60x&api-version=2022-06-01";
    send(&mut harness.raw_connection().await, "POST", target, Body::Json, Some(TOKEN)).await;
    assert_eq!(harness.arrival("east").target, target);
}

#[tokio::test]
async fn clients_receive_json_and_hub_protocol_messages_of_the_sdk() {
    let (harness, mut ann) = harness().await;
    let mut raw = harness.raw_connection().await;
    for body in [Body::Json, Body::Frames] {
        send(&mut raw, "POST", "/api/hubs/chat/:send?api-version=2022-06-01", body, Some(TOKEN))
            .await
            .assert_status(202);
        let Some(Delivery::Message(message)) = ann.try_recv() else { panic!("{body:?} was not delivered") };
        let invocation = message.invocation().unwrap();
        assert_eq!((&*invocation.target, &invocation.json_arguments()[0]), ("hello", &json!("world")), "{body:?}");
    }
}

/// Later versions add client invocations, streams and lists.
#[tokio::test]
async fn calls_of_new_sdk_versions_work() {
    let (harness, mut ann) = harness().await;
    let mut raw = harness.raw_connection().await;
    let connection = format!("/api/hubs/chat/connections/{}", ann.id());

    let target = format!("{connection}/:invoke?api-version=2024-12-01");
    let (response, ()) = tokio::join!(send(&mut raw, "POST", &target, Body::Json, Some(TOKEN)), async {
        let Some(Delivery::Invoke { id, .. }) = ann.recv().await else { panic!("the client was not invoked") };
        assert!(ann.complete(&id, Ok("a response".into())));
    });
    assert_eq!(response.assert_status(200).json(), json!({ "result": "a response" }));

    for (call, body) in [(":send", Body::Item), (":complete?error=it%20broke", Body::None)] {
        harness.clear_arrivals();
        let separator = if call.contains('?') { '&' } else { '?' };
        let target = format!("{connection}/streams/s1/{call}{separator}api-version=2024-12-01");
        send(&mut raw, "POST", &target, body, Some(TOKEN)).await.assert_status(202);
        let arrived = harness.arrival("east");
        assert_eq!((arrived.target, arrived.body.as_deref()), (target, Some(&*body.bytes())));
    }
}

#[tokio::test]
async fn sdk_continues_a_list_through_the_gateway() {
    let (harness, _ann) = harness().await;
    let hubs = &harness.endpoint("east").hubs;
    let members: Vec<_> = (0..5).map(|_| hubs.connect("chat", Some("bob"))).collect();
    let mut raw = harness.raw_connection().await;
    for member in &members {
        let target = format!("/api/hubs/chat/groups/g/connections/{}?api-version=2024-12-01", member.id());
        send(&mut raw, "PUT", &target, Body::None, Some(TOKEN)).await.assert_status(200);
    }
    let mut target = "/api/hubs/chat/groups/g/connections?api-version=2024-12-01&top=4&maxPageSize=3".to_owned();
    let mut found = Vec::new();
    loop {
        let page = send(&mut raw, "GET", &target, Body::None, Some(TOKEN)).await.assert_status(200).json();
        found.push(page["value"].as_array().unwrap().len());
        let Some(link) = page["nextLink"].as_str() else { break };
        // The SDK requests the link unchanged, so it must be absolute and lead to the gateway.
        target =
            link.strip_prefix("http://localhost:8080").unwrap_or_else(|| panic!("{link} leads elsewhere")).to_owned();
    }
    assert_eq!(found, [3, 1]);
}

#[tokio::test]
async fn answers_health_probes_of_the_sdk_without_a_token() {
    let (harness, _ann) = harness().await;
    let mut raw = harness.raw_connection().await;
    for token in [None, Some(TOKEN)] {
        let response = send(&mut raw, "HEAD", "/api/health?api-version=2022-06-01", Body::None, token).await;
        assert_eq!(response.assert_status(200).body.len(), 0);
    }
    assert!(harness.arrivals("east").is_empty());
}

#[tokio::test]
async fn serves_signing_keys_if_the_listener_allows_it() {
    // With an Entra identity, the SDK fetches a key to sign its clients' tokens.
    let path = "/api/v1/auth/accessKey";
    let harness = Harness::start(|_| {}).await;
    send(&mut harness.raw_connection().await, "GET", path, Body::None, Some(TOKEN))
        .await
        .assert_gateway_error(403, "operation_not_allowed");

    let (harness, _ann) = harness_with_app_server_role().await;
    let key = wait_until("the role takes effect", async || {
        let response = send(&mut harness.raw_connection().await, "GET", path, Body::None, Some(TOKEN)).await;
        (response.status == 200).then(|| response.json())
    })
    .await;
    assert!(["AccessKey", "KeyId"].iter().all(|name| key[name].as_str().is_some_and(|text| !text.is_empty())), "{key}");
}

async fn harness_with_app_server_role() -> (Harness, Connection) {
    let (harness, ann) = harness().await;
    harness.sandbox.directory().edit(|directory| {
        let app = directory.service_principal_mut(TENANT_B, APP_CLIENT_ID).unwrap();
        app.roles.push(("east".to_owned(), Role::AppServer));
    });
    (harness, ann)
}

/// The SDK retries statuses of 500 and above, so the status must show whether something was sent.
#[tokio::test]
async fn statuses_that_the_sdk_retries_mean_nothing_was_delivered() {
    let (harness, mut ann) = harness().await;
    let broadcast = async || {
        send(
            &mut harness.raw_connection().await,
            "POST",
            "/api/hubs/chat/:send?api-version=2022-06-01",
            Body::Json,
            Some(TOKEN),
        )
        .await
    };
    for name in ["east", "west"] {
        harness.endpoint(name).server.faults().refuse().await;
    }
    broadcast().await.assert_gateway_error(503, "endpoint_unavailable");
    assert!(ann.try_recv().is_none());
    for name in ["east", "west"] {
        harness.endpoint(name).server.faults().clear().await;
    }
    harness.endpoint("east").server.faults().set(Fault::times(1, FaultKind::status(429)));
    assert_eq!(broadcast().await.status, 429, "not the response of the service, which the SDK does not retry");
}
