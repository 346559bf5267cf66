//! Rows about the connections to Entra and to the endpoint, and about what the endpoint's tenant allows.

use std::time::Duration;

use serde_json::json;
use signalr_gateway::credential::SetupStep;
use signalr_gateway::sandbox::{
    APP_CLIENT_ID, CredentialChoice, Fault, FaultKind, LOCAL_IDENTITY_CLIENT_ID, TENANT_A, TENANT_B,
};

use super::table::{Row, edit, row};

pub(super) const ROWS: &[Row] = {
    use CredentialChoice as By;
    use SetupStep as Step;
    &[
        row(
            "Entra cannot be reached",
            By::ClientSecret,
            |b| {
                let entra = b.sandbox.entra().url();
                b.rewrite(&entra, "https://127.0.0.1:1");
            },
            Step::IdentityEndpoint,
            "connect to the authority",
        ),
        row(
            "Entra breaks off",
            By::ClientSecret,
            |b| b.sandbox.entra().faults().set(Fault::always(FaultKind::Reset)),
            Step::IdentityEndpoint,
            "nothing but Entra may answer",
        ),
        row(
            "a proxy answers in Entra's place",
            By::ClientSecret,
            |b| b.sandbox.entra().faults().set(Fault::always(FaultKind::html(403))),
            Step::IdentityEndpoint,
            "nothing but Entra may answer",
        ),
        row(
            "Entra answers an empty success",
            By::ClientSecret,
            |b| b.sandbox.entra().faults().set(Fault::always(FaultKind::json(200, "{}"))),
            Step::IdentityEndpoint,
            "nothing but Entra may answer",
        ),
        row(
            "Conditional Access blocks the app",
            By::ClientSecret,
            |b| edit(b, |d| d.tenant_mut(TENANT_B).unwrap().conditional_access_blocks = true),
            Step::TenantPolicy,
            "auditLogs/signIns",
        ),
        row(
            "the tenant is throttled",
            By::ClientSecret,
            |b| edit(b, |d| d.tenant_mut(TENANT_B).unwrap().throttled = Some(Duration::from_secs(7200))),
            Step::TenantPolicy,
            "wait",
        ),
        row(
            "SignalR is not registered in the tenant",
            By::ClientSecret,
            |b| edit(b, |d| d.tenant_mut(TENANT_B).unwrap().signalr_provider = false),
            Step::ResourceProvider,
            "az provider register --namespace Microsoft.SignalRService",
        ),
        row(
            "the endpoint cannot be reached",
            By::ClientSecret,
            |b| {
                let east = b.sandbox.endpoint("east").unwrap().url();
                b.rewrite(&east, "https://127.0.0.1:1");
            },
            Step::EndpointNetwork,
            "connect to the endpoint",
        ),
        row(
            "the resource is closed to the public network",
            By::ClientSecret,
            |b| edit(b, |d| d.resource_mut("east").unwrap().public_network = false),
            Step::EndpointNetwork,
            "az signalr network-rule update",
        ),
        row(
            "the URL is another tenant's resource",
            By::ClientSecret,
            |b| edit(b, |d| TENANT_A.clone_into(&mut d.resource_mut("east").unwrap().tenant)),
            Step::Configuration,
            "endpoints.east.url",
        ),
        row(
            "the role is missing",
            By::ClientSecret,
            |b| edit(b, |d| d.service_principal_mut(TENANT_B, APP_CLIENT_ID).unwrap().roles.clear()),
            Step::Access,
            "az role assignment create --assignee-object-id bbbbbbbb",
        ),
        row(
            "the identity's role is missing",
            By::ManagedIdentity,
            |b| edit(b, |d| d.service_principal_mut(TENANT_B, LOCAL_IDENTITY_CLIENT_ID).unwrap().roles.clear()),
            Step::Access,
            "az role assignment create",
        ),
        row(
            "access keys are disabled",
            By::AccessKey,
            |b| edit(b, |d| d.resource_mut("east").unwrap().local_auth = false),
            Step::Access,
            "disableLocalAuth",
        ),
        row(
            "the access key is another resource's",
            By::AccessKey,
            |b| std::fs::write(b.file("east-access-key"), "another").unwrap(),
            Step::Access,
            "az signalr key list",
        ),
        row(
            "the token's file is missing",
            By::TokenFile,
            |b| std::fs::remove_file(b.file("east-token")).unwrap(),
            Step::Proof,
            "ls -l",
        ),
        row(
            "the name of the authority does not resolve",
            By::ClientSecret,
            |b| {
                let entra = b.sandbox.entra().url();
                b.rewrite(&entra, "https://login.nowhere.invalid");
            },
            Step::IdentityEndpoint,
            "resolve the name of the authority",
        ),
        row(
            "the authority's certificate is of another CA",
            By::ClientSecret,
            |b| b.rewrite_first("ca_file = \"ca.pem\"", "ca_file = \"client.pem\""),
            Step::IdentityEndpoint,
            "ca_file",
        ),
        row(
            "Entra is not well",
            By::ClientSecret,
            |b| b.sandbox.entra().faults().set(Fault::always(FaultKind::status(503))),
            Step::IdentityEndpoint,
            "nothing but Entra may answer",
        ),
        row(
            "the endpoint's certificate is of another CA",
            By::ClientSecret,
            |b| {
                let own = "credential = \"east\"\nca_file = \"ca.pem\"";
                b.rewrite(own, "credential = \"east\"\nca_file = \"client.pem\"");
            },
            Step::EndpointNetwork,
            "ca_file",
        ),
        row(
            "the name of the endpoint does not resolve",
            By::ClientSecret,
            |b| {
                let east = b.sandbox.endpoint("east").unwrap().url();
                b.rewrite(&east, "https://nowhere.service.signalr.invalid");
            },
            Step::EndpointNetwork,
            "az signalr list",
        ),
        row(
            "the resource's network rules exclude only the REST API",
            By::ClientSecret,
            |b| {
                let closed = Fault::always(FaultKind::html(403)).on_path("/api/hubs");
                b.sandbox.endpoint("east").unwrap().server.faults().set(closed);
            },
            Step::EndpointNetwork,
            "--allow RESTAPI",
        ),
        row(
            "the endpoint is unhealthy",
            By::ClientSecret,
            |b| b.sandbox.endpoint("east").unwrap().server.faults().set(Fault::always(FaultKind::status(500))),
            Step::EndpointNetwork,
            "public network",
        ),
        row(
            "the host is not a SignalR resource",
            By::ClientSecret,
            |b| {
                let (east, entra) = (b.sandbox.endpoint("east").unwrap().url(), b.sandbox.entra().url());
                b.rewrite(&east, &entra);
            },
            Step::Configuration,
            "endpoints.east.url",
        ),
        row(
            "the host answers 200 to everything",
            By::ClientSecret,
            |b| b.sandbox.endpoint("east").unwrap().server.faults().set(Fault::always(FaultKind::status(200))),
            Step::Configuration,
            "endpoints.east.url",
        ),
        row(
            "the URL is the resource of another endpoint",
            By::ClientSecret,
            |b| {
                let url = |name: &str| b.sandbox.endpoint(name).unwrap().url();
                b.rewrite(&url("east"), &url("west"));
            },
            Step::Configuration,
            "endpoints.east.url",
        ),
        row(
            "the token in the file has expired",
            By::TokenFile,
            |b| {
                let claims = json!({ "exp": 1_700_000_000 });
                std::fs::write(b.file("east-token"), b.sandbox.external_token(&claims).unwrap()).unwrap();
            },
            Step::Proof,
            "ls -l",
        ),
        row(
            "the token in the file is another tenant's",
            By::TokenFile,
            |b| {
                let token = b.sandbox.access_token("west", Duration::from_secs(600)).unwrap();
                std::fs::write(b.file("east-token"), token).unwrap();
            },
            Step::Proof,
            "a token of this endpoint's tenant",
        ),
    ]
};
