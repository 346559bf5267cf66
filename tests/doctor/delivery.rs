//! `doctor --deliver`: a message that arrives, and every way in which it may not.

use std::time::Duration;

use signalr_gateway::credential::SetupStep;
use signalr_gateway::diagnosis::{Deliver, Finding};
use signalr_gateway::sandbox::{APP_CLIENT_ID, CredentialChoice, Fault, FaultKind, Role, TENANT_B};

use super::connect_proxy::ConnectProxy;
use super::scripted_service::Script;
use super::setup::Setup;
use super::table::edit;

const HUB: &str = "signalr_gateway_doctor";

async fn deliver(setup: &Setup) -> Finding {
    setup.examine_with(Deliver::to(HUB).unwrap()).await
}

#[tokio::test]
async fn a_message_arrives_with_tokens_of_entra_and_of_access_keys() {
    for (credential, stages) in [(CredentialChoice::ClientSecret, 6), (CredentialChoice::AccessKey, 6)] {
        let setup = Setup::new(credential).await;
        let without = setup.examine().await;
        let finding = deliver(&setup).await;
        assert!(finding.broken.is_none(), "{credential:?}: {finding:#?}");
        assert_eq!(finding.checks.len(), without.checks.len() + stages, "{finding:#?}");
        let last = finding.checks.last().unwrap();
        assert!(last.what == "receive the message" && last.result.contains(" ms after it was sent"), "{last:?}");
        let clients = || setup.sandbox.endpoint("east").unwrap().hubs.connection_counts()[HUB];
        let gone = async {
            while clients() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the client disconnects");
    }
}

#[tokio::test]
async fn the_client_connects_through_the_proxy() {
    let setup = Setup::new(CredentialChoice::ClientSecret).await;
    let proxy = ConnectProxy::start();
    setup.rewrite_first("credential = \"east\"\n", &format!("credential = \"east\"\nproxy = \"{}\"\n", proxy.url()));
    let before = deliver(&setup).await;
    assert!(before.broken.is_none(), "{before:#?}");
    // Connectivity, health, read; client token, negotiation, WebSocket, send.
    assert_eq!(proxy.targets().len(), 7, "{:?}", proxy.targets());
}

#[tokio::test]
async fn a_role_that_may_read_but_not_send_is_reported_at_the_client_token() {
    let setup = Setup::new(CredentialChoice::ClientSecret).await;
    edit(&setup, |directory| {
        let principal = directory.service_principal_mut(TENANT_B, APP_CLIENT_ID).unwrap();
        principal.roles = principal.roles.iter().map(|(name, _)| (name.clone(), Role::RestApiReader)).collect();
    });
    assert!(setup.examine().await.broken.is_none(), "the read is allowed");
    check(&setup, SetupStep::Access, ":generateToken", "403", "assign SignalR REST API Owner").await;
}

#[tokio::test]
async fn a_name_that_is_no_hub_is_refused() {
    for hub in ["", "1chat", "chat room", "chat/x"] {
        assert!(Deliver::to(hub).is_err(), "{hub}");
    }
}

/// A fault, and what the finding says: the step, a part of the result, and a part of the remediation.
struct Broken {
    faults: Vec<Fault>,
    step: SetupStep,
    tried: &'static str,
    result: &'static str,
    remedy: &'static str,
}

async fn check(setup: &Setup, step: SetupStep, tried: &str, result: &str, remedy: &str) {
    let finding = deliver(setup).await;
    let broken = finding.broken.clone().unwrap_or_else(|| panic!("not broken: {tried} {result}: {finding:#?}"));
    let remediation: Vec<String> = broken.remediation.iter().map(|action| action.note.clone()).collect();
    let says_all = broken.step == step && broken.tried.contains(tried) && broken.result.contains(result);
    assert!(says_all && remediation.join("\n").contains(remedy), "{tried} {result} {remedy}: {broken:#?}");
}

#[tokio::test]
async fn each_refusal_names_its_side_and_the_remedy() {
    use SetupStep::{Access, Delivery};
    let on = |path: &str, kind| Fault::always(kind).on_path(path);
    let (token, negotiate) = (format!("/api/hubs/{HUB}/:generateToken"), "/client/negotiate");
    let connections = format!("/api/hubs/{HUB}/connections");
    let ids = FaultKind::json(200, r#"{"connectionId":"x","connectionToken":"y"}"#);
    let rows = [
        Broken {
            faults: vec![on(&token, FaultKind::json(200, "{}"))],
            step: Delivery,
            tried: ":generateToken",
            result: "the response has no token",
            remedy: "another server answers",
        },
        Broken {
            faults: vec![on(negotiate, FaultKind::status(401))],
            step: Delivery,
            tried: "/client/negotiate",
            result: "401",
            remedy: "the client token is another resource's",
        },
        Broken {
            faults: vec![on(negotiate, FaultKind::html(403))],
            step: Delivery,
            tried: "/client/negotiate",
            result: "403",
            remedy: "ClientConnection",
        },
        Broken {
            faults: vec![on(negotiate, FaultKind::Reset)],
            step: Delivery,
            tried: "/client/negotiate",
            result: "no response",
            remedy: "allow connections of clients",
        },
        Broken {
            faults: vec![on(negotiate, ids.clone())],
            step: Delivery,
            tried: "WebSocket",
            result: "404",
            remedy: "different instances",
        },
        Broken {
            faults: vec![on(negotiate, ids), on("/client/", FaultKind::html(200))],
            step: Delivery,
            tried: "WebSocket",
            result: "200",
            remedy: "does not pass WebSockets on",
        },
        Broken {
            faults: vec![on(&connections, FaultKind::status(403))],
            step: Access,
            tried: "/connections/<id>/:send",
            result: "403",
            remedy: "assign SignalR REST API Owner",
        },
        Broken {
            faults: vec![on(&connections, FaultKind::status(429))],
            step: Delivery,
            tried: "/connections/<id>/:send",
            result: "429",
            remedy: "add units",
        },
        Broken {
            faults: vec![Fault::times(1, FaultKind::status(202)).on_path(&connections)],
            step: Delivery,
            tried: "receive the message",
            result: "did not arrive within 5s; its REST API knows the connection",
            remedy: "message quota",
        },
    ];
    // One after another: each has the only sandbox of this test.
    let setup = Setup::new(CredentialChoice::ClientSecret).await;
    for Broken { faults, step, tried, result, remedy } in rows {
        let service = setup.sandbox.endpoint("east").unwrap();
        for fault in faults {
            service.server.faults().set(fault);
        }
        check(&setup, step, tried, result, remedy).await;
        service.server.faults().clear().await;
    }
}

#[tokio::test]
async fn reports_a_service_that_drops_its_clients_or_their_messages() {
    let accepts = Script { handshake: Some("{}"), then: "", exists: 404 };
    let no_servers = r#"{"type":7,"error":"no app server is connected"}"#;
    for (script, tried, result, remedy) in [
        (
            Script { handshake: Some(r#"{"error":"not supported"}"#), ..accepts },
            "SignalR handshake",
            "the service answered `not supported`",
            "Serverless",
        ),
        (Script { handshake: None, ..accepts }, "SignalR handshake", "was closed", "Serverless"),
        (Script { then: no_servers, ..accepts }, "", "was closed: no app server is connected", "Serverless"),
        (
            accepts,
            "receive the message",
            "did not arrive within 5s; its REST API does not know the connection",
            "different instances",
        ),
    ] {
        let setup = Setup::new(CredentialChoice::ClientSecret).await;
        let east = setup.sandbox.endpoint("east").unwrap().url();
        setup.rewrite(&east, &script.start().await);
        check(&setup, SetupStep::Delivery, tried, result, remedy).await;
    }
}
