//! A page in Markdown for the administrators of the endpoints' tenants.

use std::fmt::Write as _;

use super::az;
use super::plan::{Grant, Plan, Principal};
use crate::diagnosis::commands;

/// Writes a section for each tenant.
pub(super) fn write(plan: &Plan) -> String {
    let mut text = String::from(
        "# Access of signalr-gateway to your SignalR resources\n\nsignalr-gateway calls the REST API of the resources below on behalf of \
         its operator. It needs the roles below on them, and nothing else in your tenant. No secret is exchanged: you create an \
         identity without one, and assign roles to it.\n",
    );
    for grant in &plan.grants {
        write_grant(plan, grant, &mut text);
    }
    for note in &plan.notes {
        let _infallible = writeln!(text, "\n{note}.");
    }
    text
}

fn write_grant(plan: &Plan, grant: &Grant, text: &mut String) {
    let mut add = |part: String| text.push_str(&part);
    let tenant = grant.tenant.as_deref().unwrap_or("of the gateway's identity");
    add(format!("\n## Tenant {tenant}\n\n"));
    for resource in &grant.resources {
        add(format!("- `{}`\n", resource.host));
    }
    if let (Principal::App { client_id }, Some(tenant)) = (&grant.principal, &grant.tenant) {
        add(format!(
            "\n**1. Allow the application** `{client_id}` in your tenant. As a Cloud Application Administrator, run this in Azure Cloud \
             Shell:\n\n```sh\n{}\n```\n\nor open the [consent page]({}/{tenant}/adminconsent?client_id={client_id}) and accept. The page \
             works only if the app registration has a redirect URI. The application gets no permission by this.\n",
            commands::create_enterprise_application(client_id),
            grant.authority,
        ));
        add("\n**2. Assign the role.** As an owner of the resources, run:\n".to_owned());
        let object_id = commands::enterprise_application(client_id);
        add(format!("\n```sh\n{}\nOBJECT_ID=$({object_id})\n", commands::sign_in(tenant)));
    } else {
        add("\n**Assign the role.** As an owner of the resources, run:\n".to_owned());
        add(format!("\n```sh\n{}\n", az::object_id(&grant.principal)));
    }
    for command in az::role_assignments(plan, grant) {
        add(format!("{command}\n"));
    }
    let roles: Vec<&str> = plan.roles.iter().map(|role| role.name).collect();
    add(format!(
        "```\n\nRoles: {}. They take up to 30 minutes to come into effect. To withdraw the access, delete the role assignments.\n",
        roles.join(", ")
    ));
}
