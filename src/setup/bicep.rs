//! The part of the plan in one tenant of endpoints as Bicep, with the Microsoft Graph extension.

use std::fmt::Write as _;

use super::plan::{Grant, Plan, Principal};
use crate::credential::ManagedIdentity;

/// Writes the enterprise application and the role assignments. What the app registrations need is not in it: Bicep finds no
/// app registration by its client id.
pub(super) fn write(plan: &Plan) -> String {
    let mut text = String::from(
        "// What the endpoints need in their tenant: az deployment group create --resource-group <group> --template-file FILE\n\
         // bicepconfig.json: { \"extensions\": { \"microsoftGraphV1\": \"br:mcr.microsoft.com/bicep/extensions/microsoftgraph/v1.0:1.0.0\" } }\n\
         // The app registrations: signalr-gateway setup --format az\ntargetScope = 'resourceGroup'\n",
    );
    if plan.grants.iter().any(|grant| matches!(grant.principal, Principal::App { .. })) {
        text.push_str("\nextension microsoftGraphV1\n");
    }
    for grant in &plan.grants {
        write_grant(plan, grant, &mut text);
    }
    for note in &plan.notes {
        let _infallible = writeln!(text, "\n// {note}");
    }
    text
}

fn write_grant(plan: &Plan, grant: &Grant, text: &mut String) {
    // Bicep has one namespace for resources and parameters: the first word of an identifier is its kind.
    let name = format!("principal_{}", grant.label);
    let mut add = |part: String| text.push_str(&part);
    if let Some(tenant) = &grant.tenant {
        add(format!("\n// in tenant {tenant}"));
    }
    let (principal, principal_type) = match &grant.principal {
        Principal::App { client_id } => {
            add(format!(
                "\nresource {name} 'Microsoft.Graph/servicePrincipals@v1.0' = {{\n  appId: {}\n}}\n",
                quoted(client_id)
            ));
            (format!("{name}.id"), "ServicePrincipal")
        }
        Principal::Managed(ManagedIdentity::ObjectId(id)) => (quoted(id), "ServicePrincipal"),
        Principal::Managed(_) => {
            add(format!("\n@description('principal id of the managed identity of the host')\nparam {name} string\n"));
            (name, "ServicePrincipal")
        }
        Principal::User => {
            add(format!("\n@description('object id of the user')\nparam {name} string\n"));
            (name, "User")
        }
    };
    // The name of an assignment must be known before the enterprise application exists.
    let seed = if let Principal::App { client_id } = &grant.principal { quoted(client_id) } else { principal.clone() };
    for resource in &grant.resources {
        let endpoint = format!("resource_{}", resource.label);
        let resource_name = if let Some(name) = &resource.name {
            quoted(name)
        } else {
            let name = format!("name_{}", resource.label);
            add(format!(
                "\n@description({})\nparam {name} string\n",
                quoted(&format!("name of the SignalR resource with the host {}", resource.host))
            ));
            name
        };
        add(format!(
            "\nresource {endpoint} 'Microsoft.SignalRService/signalR@2024-03-01' existing = {{\n  name: {resource_name}\n}}\n"
        ));
        for role in &plan.roles {
            let assignment = format!("{}_{}", role.identifier, resource.label);
            add(format!(
                "\n// {}\nresource {assignment} 'Microsoft.Authorization/roleAssignments@2022-04-01' = {{\n  name: \
                 guid({endpoint}.id, {seed}, '{id}')\n  scope: {endpoint}\n  properties: {{\n    roleDefinitionId: \
                 subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '{id}')\n    principalId: {principal}\n    \
                 principalType: '{principal_type}'\n  }}\n}}\n",
                role.name,
                id = role.id
            ));
        }
    }
}

/// Quotes a text as a string of Bicep.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'").replace("${", r"\${").replace('\n', r"\n"))
}
