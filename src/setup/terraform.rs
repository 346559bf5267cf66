//! The plan as Terraform, with the providers azuread and azurerm.

use std::fmt::Write as _;

use super::labels::RESERVED;
use super::plan::{AppPlan, Grant, Plan, Principal, ProofPlan, Resource, Value};
use crate::credential::ManagedIdentity;
use crate::diagnosis::commands;

/// Writes the plan. Values that the configuration does not determine are variables.
pub(super) fn write(plan: &Plan) -> String {
    let mut file = File {
        body: String::from(
            "# What the endpoints need in their tenants. `terraform plan` shows what it would create. Not in here: secrets, which\n\
             # would be in the state.\n\nterraform {\n  required_version = \">= 1.5\"\n  required_providers {\n    azuread = {\n      \
             source  = \"hashicorp/azuread\"\n      version = \"~> 3.0\"\n    }\n    azurerm = {\n      source  = \
             \"hashicorp/azurerm\"\n      version = \"~> 4.0\"\n    }\n  }\n}\n",
        ),
    };
    if !plan.apps.is_empty() {
        let description = "id of the tenant of the app registrations (tenant A)";
        let tenant = file.variable(&format!("tenant_{RESERVED}"), description);
        file.add(format_args!("\nprovider \"azuread\" {{\n  alias     = \"{RESERVED}\"\n  tenant_id = {tenant}\n}}\n"));
    }
    for app in &plan.apps {
        file.app(app);
    }
    for grant in &plan.grants {
        file.grant(plan, grant);
    }
    for note in &plan.notes {
        file.add(format_args!("\n# {note}\n"));
    }
    file.body
}

struct File {
    body: String,
}

impl File {
    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        let _infallible = self.body.write_fmt(text);
    }

    /// Declares a variable without a default. Returns the reference to it.
    fn variable(&mut self, name: &str, description: &str) -> String {
        let description = quoted(description);
        self.add(format_args!("\nvariable \"{name}\" {{\n  type        = string\n  description = {description}\n}}\n"));
        format!("var.{name}")
    }

    fn value(&mut self, name: &str, value: &Value) -> String {
        match value {
            Value::Known(text) => quoted(text),
            Value::Unknown(what) => self.variable(name, what),
        }
    }

    fn app(&mut self, app: &AppPlan) {
        let AppPlan { label: name, credential, client_id, proof } = app;
        self.add(format_args!(
            "\n# Credential {credential}. Other tenants may use its app registration after\n# {}\ndata \"azuread_application\" \
             \"{name}\" {{\n  provider  = azuread.{RESERVED}\n  client_id = {}\n}}\n",
            commands::make_multi_tenant(client_id),
            quoted(client_id)
        ));
        match proof {
            ProofPlan::Secret { source } => {
                let command = commands::add_secret(client_id);
                self.add(format_args!("\n# Its secret, for the gateway's {source}:\n# {command}\n"));
            }
            ProofPlan::Certificate { .. } => {
                let path = self.variable(
                    &format!("certificate_{name}"),
                    "path of the PEM file with the certificate, without its private key",
                );
                self.add(format_args!(
                    "\nresource \"azuread_application_certificate\" \"{name}\" {{\n  provider       = azuread.{RESERVED}\n  \
                     application_id = data.azuread_application.{name}.id\n  type           = \"AsymmetricX509Cert\"\n  value          \
                     = file({path})\n}}\n"
                ));
            }
            ProofPlan::Federated { issuer, subject, audience } => {
                let issuer = self.value(&format!("issuer_{name}"), issuer);
                let subject = self.value(&format!("subject_{name}"), subject);
                let audience = self.value(&format!("audience_{name}"), audience);
                self.add(format_args!(
                    "\nresource \"azuread_application_federated_identity_credential\" \"{name}\" {{\n  provider       = azuread.{RESERVED}\n  \
                     application_id = data.azuread_application.{name}.id\n  display_name   = \"{}\"\n  issuer         = \
                     {issuer}\n  subject        = {subject}\n  audiences      = [{audience}]\n}}\n",
                    commands::FEDERATED_CREDENTIAL
                ));
            }
        }
    }

    fn grant(&mut self, plan: &Plan, grant: &Grant) {
        let name = &grant.label;
        // Providers take no domain.
        let tenant = match grant.tenant.as_deref() {
            Some(tenant) if tenant.len() == 36 && !tenant.contains('.') => quoted(tenant),
            Some(tenant) => self.variable(&format!("tenant_{name}"), &format!("id of the tenant {tenant}")),
            None => self.variable(&format!("tenant_{name}"), "id of the tenant of the host's identity"),
        };
        let subscription =
            self.variable(&format!("subscription_{name}"), "id of the subscription of the SignalR resources");
        self.add(format_args!(
            "\nprovider \"azurerm\" {{\n  alias           = \"{name}\"\n  tenant_id       = {tenant}\n  subscription_id = \
             {subscription}\n  features {{}}\n}}\n"
        ));
        let (principal, principal_type) = match &grant.principal {
            Principal::App { client_id } => {
                self.add(format_args!(
                    "\nprovider \"azuread\" {{\n  alias     = \"{name}\"\n  tenant_id = {tenant}\n}}\n\nresource \
                     \"azuread_service_principal\" \"{name}\" {{\n  provider     = azuread.{name}\n  client_id    = {}\n  use_existing \
                     = true\n}}\n",
                    quoted(client_id)
                ));
                (format!("azuread_service_principal.{name}.object_id"), "ServicePrincipal")
            }
            Principal::Managed(ManagedIdentity::ObjectId(id)) => (quoted(id), "ServicePrincipal"),
            Principal::Managed(_) => {
                let what = "principal id of the host's managed identity";
                (self.variable(&format!("principal_{name}"), what), "ServicePrincipal")
            }
            Principal::User => (self.variable(&format!("principal_{name}"), "object id of the user"), "User"),
        };
        for resource in &grant.resources {
            let scope = self.scope(name, resource);
            for role in &plan.roles {
                let role_label = format!("{}_{}", resource.label, role.identifier).to_ascii_lowercase();
                self.add(format_args!(
                    "\nresource \"azurerm_role_assignment\" \"{role_label}\" {{\n  provider             = azurerm.{name}\n  scope                \
                     = {scope}\n  role_definition_name = \"{}\"\n  principal_id         = {principal}\n  principal_type       = \
                     \"{principal_type}\"\n}}\n",
                    role.name
                ));
            }
        }
    }

    /// Returns the id of a resource.
    fn scope(&mut self, grant: &str, Resource { label, host, name, .. }: &Resource) -> String {
        let Some(name) = name else {
            return self
                .variable(&format!("resource_{label}"), &format!("id of the SignalR resource with the host {host}"));
        };
        self.add(format_args!(
            "\ndata \"azurerm_resources\" \"{label}\" {{\n  provider = azurerm.{grant}\n  type     = \"Microsoft.SignalRService/SignalR\"\n  name     \
             = {}\n}}\n",
            quoted(name)
        ));
        format!("data.azurerm_resources.{label}.resources[0].id")
    }
}

/// Quotes a text as a string of HCL.
fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    json.replace("${", "$${").replace("%{", "%%{")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_no_template() {
        assert_eq!(quoted("a\"${b}%{c}\n"), r#""a\"$${b}%%{c}\n""#);
    }
}
