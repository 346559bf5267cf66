//! The remediation of a broken step: instructions and `az` commands with the configured ids filled in. Runs nothing.
//!
//! `host.rs` has the steps on this host, `entra.rs` those in the two tenants, `network.rs` those of connections,
//! `certificate.rs` those of refused certificates, `proxy.rs` those of proxies. `facts.rs` has the values for the commands.

mod certificate;
mod entra;
mod facts;
mod host;
mod network;
mod proxy;

pub(super) use facts::Facts;

use super::commands;
use super::failure::Failure;
use super::finding::{BrokenStep, Remediation};
use crate::credential::{CredentialKind, Proof, SetupStep};

/// Adds the remediation to a failure.
pub(super) fn of(failure: Failure, facts: &Facts<'_>) -> BrokenStep {
    let mut remediation = remediation(&failure, facts);
    remediation.extend(setup(failure.cause.step, facts));
    let is_specific = is_specific(&failure, facts);
    BrokenStep { is_specific, ..broken_step(failure, remediation) }
}

/// Adds the remediation to the failure of an endpoint whose credential is not configured.
pub(super) fn without_credential(failure: Failure) -> BrokenStep {
    broken_step(failure, vec![Remediation::note("name a credential that is configured")])
}

/// Returns whether the first remediation is for this configuration, and so better than the general action for the codes.
fn is_specific(failure: &Failure, facts: &Facts<'_>) -> bool {
    let has_secret = facts.app().is_some_and(|app| matches!(app.proof, Proof::Secret(_)));
    host::is_clock_wrong(failure) || (failure.cause.step == SetupStep::AppProof && has_secret)
}

/// Returns the command that writes the whole setup of the endpoint, if a part of it is broken.
fn setup(step: SetupStep, facts: &Facts<'_>) -> Option<Remediation> {
    let is_setup = match step {
        SetupStep::App | SetupStep::AppProof | SetupStep::Federation | SetupStep::EnterpriseApplication => true,
        SetupStep::Access => {
            !matches!(facts.credential.kind, CredentialKind::AccessKey { .. } | CredentialKind::TokenFile { .. })
        }
        SetupStep::Configuration
        | SetupStep::Proof
        | SetupStep::IdentityEndpoint
        | SetupStep::HostIdentity
        | SetupStep::TenantPolicy
        | SetupStep::ResourceProvider
        | SetupStep::EndpointNetwork
        | SetupStep::Proxy
        | SetupStep::Delivery => false,
    };
    is_setup.then(|| {
        Remediation::command(
            "or print all that this endpoint needs in its tenants, as commands, Terraform, Bicep or a page",
            commands::setup(facts.endpoint.name.as_str()),
        )
    })
}

fn broken_step(failure: Failure, remediation: Vec<Remediation>) -> BrokenStep {
    BrokenStep {
        step: failure.cause.step,
        delay: delay(failure.cause.step),
        tried: failure.tried,
        result: failure.result,
        description: failure.description,
        codes: failure.codes,
        correlation_id: failure.correlation_id,
        trace_id: failure.trace_id,
        details: failure.details,
        skew: failure.skew,
        is_specific: false,
        remediation,
    }
}

/// Returns how long a change takes to come into effect. Source: Microsoft's pages on role assignments of SignalR (up to 30
/// minutes) and on workload identity federation (minutes).
fn delay(step: SetupStep) -> Option<&'static str> {
    match step {
        SetupStep::Access => Some("a new role assignment takes up to 30 minutes to come into effect"),
        SetupStep::Federation => Some("a new federated credential takes some minutes to come into effect"),
        SetupStep::EnterpriseApplication => Some("a new enterprise application takes some minutes to come into effect"),
        SetupStep::AppProof => Some("a new secret or certificate takes a minute or two to come into effect"),
        SetupStep::Configuration
        | SetupStep::Proof
        | SetupStep::HostIdentity
        | SetupStep::IdentityEndpoint
        | SetupStep::App
        | SetupStep::TenantPolicy
        | SetupStep::ResourceProvider
        | SetupStep::EndpointNetwork
        | SetupStep::Proxy
        | SetupStep::Delivery => None,
    }
}

fn remediation(failure: &Failure, facts: &Facts<'_>) -> Vec<Remediation> {
    match failure.cause.step {
        SetupStep::Configuration => host::configuration(failure, facts),
        SetupStep::Proof => host::proof(failure, facts),
        SetupStep::HostIdentity => host::host_identity(failure),
        SetupStep::IdentityEndpoint => network::identity_endpoint(failure, facts),
        SetupStep::App => entra::app(facts),
        SetupStep::AppProof => entra::app_proof(facts),
        SetupStep::Federation => entra::federation(failure, facts),
        SetupStep::EnterpriseApplication => entra::enterprise_application(failure, facts),
        SetupStep::TenantPolicy => entra::tenant_policy(failure, facts),
        SetupStep::ResourceProvider => entra::resource_provider(),
        SetupStep::EndpointNetwork => network::endpoint_network(failure, facts),
        SetupStep::Access => access(facts),
        SetupStep::Proxy => proxy::proxy(failure, facts),
        SetupStep::Delivery => delivery(failure, facts),
    }
}

fn delivery(failure: &Failure, facts: &Facts<'_>) -> Vec<Remediation> {
    vec![
        Remediation::note(failure.remedy.unwrap_or_default()),
        Remediation::command(
            "print the resource's service mode and tier",
            facts.resource("{features: features, sku: sku}"),
        ),
    ]
}

fn access(facts: &Facts<'_>) -> Vec<Remediation> {
    if matches!(facts.credential.kind, CredentialKind::AccessKey { .. }) {
        return vec![
            Remediation::command(
                "print whether access keys of the resource are disabled",
                facts.resource("disableLocalAuth"),
            ),
            Remediation::command(
                "if it prints false: use a key of the resource",
                format!("az signalr key list --query primaryKey -o tsv --ids $({})", facts.resource("id")),
            ),
            Remediation::note("if it prints true: use a credential of another kind"),
        ];
    }
    let principal =
        if matches!(facts.credential.kind, CredentialKind::AzureCli { .. }) { "User" } else { "ServicePrincipal" };
    let object_id = facts.object_id.unwrap_or("<object id of the enterprise application>");
    vec![
        Remediation::command(
            format!(
                "as an owner of the resource, signed in to its tenant and subscription (`az login --tenant {}`): assign SignalR \
                 REST API Owner to the object id in the token",
                facts.tenant()
            ),
            commands::assign_role(object_id, principal, "SignalR REST API Owner", &facts.endpoint.origin.host),
        ),
        Remediation::note("if callers use access_key: assign SignalR App Server or SignalR Service Owner as well"),
    ]
}
