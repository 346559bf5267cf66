//! The plan as `az` commands for a POSIX shell.

use std::fmt::Write as _;

use super::plan::{AppPlan, Grant, Plan, Principal, ProofPlan, Value};
use crate::credential::ManagedIdentity;
use crate::diagnosis::commands;

/// Writes the plan. Values that the configuration does not determine are `<…>`.
pub(super) fn write(plan: &Plan) -> String {
    let mut text = String::from(
        "# What the endpoints need in their tenants. Read it before you run it; replace each <…>. A command whose result exists already\n\
         # fails and changes nothing.\n",
    );
    for app in &plan.apps {
        app_to_text(app, &mut text);
    }
    for grant in &plan.grants {
        grant_to_text(plan, grant, &mut text);
    }
    for note in &plan.notes {
        let _infallible = writeln!(text, "\n# {note}");
    }
    text
}

fn app_to_text(app: &AppPlan, text: &mut String) {
    let AppPlan { credential, client_id, proof, .. } = app;
    let what = match proof {
        ProofPlan::Secret { source } => {
            format!("# The value goes to the gateway's {source}.\n{}", commands::add_secret(client_id))
        }
        ProofPlan::Certificate { path } => {
            format!("# Without its private key.\n{}", commands::add_certificate(client_id, path))
        }
        ProofPlan::Federated { issuer, subject, audience } => {
            let [issuer, subject, audience] = [issuer, subject, audience].map(shown);
            commands::create_federated_credential(client_id, &issuer, &subject, &audience)
        }
    };
    let multi_tenant = commands::make_multi_tenant(client_id);
    let _infallible = write!(
        text,
        "\n# Credential {credential}: signed in to the tenant of the app registration, as its owner\n{multi_tenant}\n{what}\n"
    );
}

fn shown(value: &Value) -> String {
    match value {
        Value::Known(text) => text.clone(),
        Value::Unknown(what) => format!("<{what}>"),
    }
}

fn grant_to_text(plan: &Plan, grant: &Grant, text: &mut String) {
    let endpoints: Vec<&str> = grant.resources.iter().map(|resource| resource.endpoint.as_str()).collect();
    let whom = match &grant.tenant {
        Some(tenant) => format!("in tenant {tenant}, as an administrator and an owner of the resources"),
        None => "in the tenant of the host's identity, as an owner of the resources".to_owned(),
    };
    let _infallible = writeln!(text, "\n# Endpoints {}: {whom}", endpoints.join(", "));
    if let Some(tenant) = &grant.tenant {
        let _infallible = writeln!(text, "{}", commands::sign_in(tenant));
    }
    let _infallible = writeln!(text, "{}", object_id(&grant.principal));
    for command in role_assignments(plan, grant) {
        let _infallible = writeln!(text, "{command}");
    }
}

/// Returns the commands that assign the roles to the object id in `$OBJECT_ID`.
pub(super) fn role_assignments(plan: &Plan, grant: &Grant) -> Vec<String> {
    let principal_type = if matches!(grant.principal, Principal::User) { "User" } else { "ServicePrincipal" };
    let each = grant.resources.iter().flat_map(|resource| plan.roles.iter().map(move |role| (resource, role)));
    let command = |(resource, role): (&super::plan::Resource, &super::plan::Role)| {
        commands::assign_role("\"$OBJECT_ID\"", principal_type, role.name, &resource.host)
    };
    each.map(command).collect()
}

/// Returns the command that puts the object id of an identity into `$OBJECT_ID`.
pub(super) fn object_id(principal: &Principal) -> String {
    match principal {
        Principal::App { client_id } => {
            let create = commands::create_enterprise_application(client_id);
            format!("OBJECT_ID=$({} || {create} --query id -o tsv)", commands::enterprise_application(client_id))
        }
        Principal::User => "OBJECT_ID=$(az ad signed-in-user show --query id -o tsv)".to_owned(),
        Principal::Managed(ManagedIdentity::ObjectId(id)) => format!("OBJECT_ID={id}"),
        Principal::Managed(ManagedIdentity::ClientId(id)) => {
            format!("OBJECT_ID=$(az ad sp show --id {id} --query id -o tsv)")
        }
        Principal::Managed(ManagedIdentity::ResourceId(id)) => {
            format!("OBJECT_ID=$(az identity show --ids {} --query principalId -o tsv)", commands::quoted(id))
        }
        Principal::Managed(ManagedIdentity::System) => "OBJECT_ID='<object id of the host>'".to_owned(),
    }
}
