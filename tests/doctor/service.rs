//! Rows about the connections to Entra and to the endpoint, and about the policies of the endpoint's tenant.

use std::time::Duration;

use serde_json::json;
use signalr_gateway::credential::SetupStep;
use signalr_gateway::sandbox::{
    APP_CLIENT_ID, CredentialChoice, Fault, FaultKind, LOCAL_IDENTITY_CLIENT_ID, TENANT_A, TENANT_B,
};

use super::table::{Row, edit, row};

pub(super) const ROWS: &[Row] = {
    use CredentialChoice as Choice;
    use SetupStep as Step;
    &[
        row(
            "Entra cannot be reached",
            Choice::ClientSecret,
            |setup| {
                let entra = setup.sandbox.entra().url();
                setup.rewrite(&entra, "https://127.0.0.1:1");
            },
            Step::IdentityEndpoint,
            "connect to 127.0.0.1:1: check",
        ),
        row(
            "Entra closes the connection without a response",
            Choice::ClientSecret,
            |setup| setup.sandbox.entra().faults().set(Fault::always(FaultKind::Reset)),
            Step::IdentityEndpoint,
            "allow this host to reach 127.0.0.1:",
        ),
        row(
            "a proxy answers instead of Entra",
            Choice::ClientSecret,
            |setup| setup.sandbox.entra().faults().set(Fault::always(FaultKind::html(403))),
            Step::IdentityEndpoint,
            "only Entra may answer",
        ),
        row(
            "Entra answers 200 without a token",
            Choice::ClientSecret,
            |setup| setup.sandbox.entra().faults().set(Fault::always(FaultKind::json(200, "{}"))),
            Step::IdentityEndpoint,
            "only Entra may answer",
        ),
        row(
            "Conditional Access blocks the app",
            Choice::ClientSecret,
            |setup| edit(setup, |d| d.tenant_mut(TENANT_B).unwrap().conditional_access_blocks = true),
            Step::TenantPolicy,
            "auditLogs/signIns",
        ),
        row(
            "the tenant is throttled",
            Choice::ClientSecret,
            |setup| edit(setup, |d| d.tenant_mut(TENANT_B).unwrap().throttled = Some(Duration::from_secs(7200))),
            Step::TenantPolicy,
            "wait",
        ),
        row(
            "SignalR is not registered in the tenant",
            Choice::ClientSecret,
            |setup| edit(setup, |d| d.tenant_mut(TENANT_B).unwrap().signalr_provider = false),
            Step::ResourceProvider,
            "az provider register --namespace Microsoft.SignalRService",
        ),
        row(
            "the endpoint cannot be reached",
            Choice::ClientSecret,
            |setup| {
                let east = setup.sandbox.endpoint("east").unwrap().url();
                setup.rewrite(&east, "https://127.0.0.1:1");
            },
            Step::EndpointNetwork,
            "connect to 127.0.0.1:",
        ),
        row(
            "the resource is closed to the public network",
            Choice::ClientSecret,
            |setup| edit(setup, |d| d.resource_mut("east").unwrap().public_network = false),
            Step::EndpointNetwork,
            "az signalr network-rule update",
        ),
        row(
            "the URL is another tenant's resource",
            Choice::ClientSecret,
            |setup| edit(setup, |d| TENANT_A.clone_into(&mut d.resource_mut("east").unwrap().tenant)),
            Step::Configuration,
            "endpoints.east.url",
        ),
        row(
            "the role is missing",
            Choice::ClientSecret,
            |setup| edit(setup, |d| d.service_principal_mut(TENANT_B, APP_CLIENT_ID).unwrap().roles.clear()),
            Step::Access,
            "az role assignment create --assignee-object-id bbbbbbbb",
        ),
        row(
            "the identity's role is missing",
            Choice::ManagedIdentity,
            |setup| edit(setup, |d| d.service_principal_mut(TENANT_B, LOCAL_IDENTITY_CLIENT_ID).unwrap().roles.clear()),
            Step::Access,
            "az role assignment create",
        ),
        row(
            "access keys are disabled",
            Choice::AccessKey,
            |setup| edit(setup, |d| d.resource_mut("east").unwrap().local_auth = false),
            Step::Access,
            "disableLocalAuth",
        ),
        row(
            "the access key is another resource's",
            Choice::AccessKey,
            |setup| std::fs::write(setup.file("east-access-key"), "another").unwrap(),
            Step::Access,
            "az signalr key list",
        ),
        row(
            "the token's file is missing",
            Choice::TokenFile,
            |setup| std::fs::remove_file(setup.file("east-token")).unwrap(),
            Step::Proof,
            "ls -l",
        ),
        row(
            "the name of the authority does not resolve",
            Choice::ClientSecret,
            |setup| {
                let entra = setup.sandbox.entra().url();
                setup.rewrite(&entra, "https://login.nowhere.invalid");
            },
            Step::IdentityEndpoint,
            "it does not resolve login.nowhere.invalid",
        ),
        row(
            "the authority's certificate is of another CA",
            Choice::ClientSecret,
            |setup| setup.rewrite_first("ca_file = \"ca.pem\"", "ca_file = \"client.pem\""),
            Step::IdentityEndpoint,
            "ca_file",
        ),
        row(
            "Entra answers 503",
            Choice::ClientSecret,
            |setup| setup.sandbox.entra().faults().set(Fault::always(FaultKind::status(503))),
            Step::IdentityEndpoint,
            "only Entra may answer",
        ),
        row(
            "the endpoint's certificate is of another CA",
            Choice::ClientSecret,
            |setup| {
                let own = "credential = \"east\"\nca_file = \"ca.pem\"";
                setup.rewrite(own, "credential = \"east\"\nca_file = \"client.pem\"");
            },
            Step::EndpointNetwork,
            "ca_file",
        ),
        row(
            "the name of the endpoint does not resolve",
            Choice::ClientSecret,
            |setup| {
                let east = setup.sandbox.endpoint("east").unwrap().url();
                setup.rewrite(&east, "https://nowhere.service.signalr.invalid");
            },
            Step::EndpointNetwork,
            "az signalr list",
        ),
        row(
            "the resource's network rules exclude only the REST API",
            Choice::ClientSecret,
            |setup| {
                let closed = Fault::always(FaultKind::html(403)).on_path("/api/hubs");
                setup.sandbox.endpoint("east").unwrap().server.faults().set(closed);
            },
            Step::EndpointNetwork,
            "--allow RESTAPI",
        ),
        row(
            "the endpoint is unhealthy",
            Choice::ClientSecret,
            |setup| setup.sandbox.endpoint("east").unwrap().server.faults().set(Fault::always(FaultKind::status(500))),
            Step::EndpointNetwork,
            "resource's health in the Azure portal",
        ),
        row(
            "the host is not a SignalR resource",
            Choice::ClientSecret,
            |setup| {
                let (east, entra) = (setup.sandbox.endpoint("east").unwrap().url(), setup.sandbox.entra().url());
                setup.rewrite(&east, &entra);
            },
            Step::Configuration,
            "endpoints.east.url",
        ),
        row(
            "the host answers 200 to everything",
            Choice::ClientSecret,
            |setup| setup.sandbox.endpoint("east").unwrap().server.faults().set(Fault::always(FaultKind::status(200))),
            Step::Configuration,
            "endpoints.east.url",
        ),
        row(
            "the URL is the resource of another endpoint",
            Choice::ClientSecret,
            |setup| {
                let url = |name: &str| setup.sandbox.endpoint(name).unwrap().url();
                setup.rewrite(&url("east"), &url("west"));
            },
            Step::Configuration,
            "endpoints.east.url",
        ),
        row(
            "the token in the file has expired",
            Choice::TokenFile,
            |setup| {
                let claims = json!({ "exp": 1_700_000_000 });
                std::fs::write(setup.file("east-token"), setup.sandbox.external_token(&claims).unwrap()).unwrap();
            },
            Step::Proof,
            "ls -l",
        ),
        row(
            "the token in the file is another tenant's",
            Choice::TokenFile,
            |setup| {
                let token = setup.sandbox.access_token("west", Duration::from_secs(600)).unwrap();
                std::fs::write(setup.file("east-token"), token).unwrap();
            },
            Step::Proof,
            "a token of this endpoint's tenant",
        ),
    ]
};
