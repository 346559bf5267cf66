//! The `az` commands of the cross-tenant setup, with the configured ids filled in. `doctor` and `setup` print the same ones.

use std::path::Path;

/// The name of the federated credential on the app registration.
pub const FEDERATED_CREDENTIAL: &str = "signalr-gateway";

/// The configuration in commands of the gateway, where its path is not known.
const CONFIG: &str = "--config <file>";

/// Returns the command that writes the whole setup of an endpoint.
pub fn setup(endpoint: &str) -> String {
    format!("signalr-gateway setup {CONFIG} --endpoint {endpoint}")
}

/// Returns the command that examines an endpoint.
pub fn doctor(endpoint: &str) -> String {
    format!("signalr-gateway doctor {CONFIG} --endpoint {endpoint}")
}

/// Returns the command that checks a configuration file.
pub fn check(config: &Path) -> String {
    format!("signalr-gateway check --config {}", quoted_path(config))
}

/// Returns the command that prints the effective values of a configuration.
pub fn check_values() -> String {
    format!("signalr-gateway check {CONFIG}")
}

/// Names the configuration file in a command that needs it.
pub(super) fn name_config(command: &mut String, config: &Path) {
    if command.contains(CONFIG) {
        *command = command.replace(CONFIG, &format!("--config {}", quoted_path(config)));
    }
}

/// Returns the command that lets other tenants use an app registration.
pub fn make_multi_tenant(client_id: &str) -> String {
    format!("az ad app update --id {client_id} --sign-in-audience AzureADMultipleOrgs")
}

/// Returns the command that creates another client secret and prints it.
pub fn add_secret(client_id: &str) -> String {
    format!("az ad app credential reset --id {client_id} --append --query password -o tsv")
}

/// Returns the command that makes a self-signed certificate that is valid for a year, and its key.
pub fn make_certificate(certificate: &str, key: &str) -> String {
    format!(
        "openssl req -x509 -newkey rsa:3072 -nodes -days 365 -subj /CN=signalr-gateway -keyout {key} -out {certificate}"
    )
}

/// Returns the command that uploads a certificate. Its file may also contain the private key.
pub fn add_certificate(client_id: &str, certificate: &Path) -> String {
    let path = quoted_path(certificate);
    format!(
        "openssl x509 -in {path} -out certificate-only.pem && az ad app credential reset --id {client_id} --append \
         --cert @certificate-only.pem"
    )
}

/// Returns the command that makes an app registration trust the tokens of another issuer.
pub fn create_federated_credential(client_id: &str, issuer: &str, subject: &str, audience: &str) -> String {
    let parameters = serde_json::json!({
        "name": FEDERATED_CREDENTIAL,
        "issuer": issuer,
        "subject": subject,
        "audiences": [audience],
    });
    let parameters = quoted(&parameters.to_string());
    format!("az ad app federated-credential create --id {client_id} --parameters {parameters}")
}

/// Returns the command that signs in to a tenant.
pub fn sign_in(tenant: &str) -> String {
    format!("az login --tenant {tenant} --allow-no-subscriptions")
}

/// Returns the command that creates the enterprise application of an app registration.
pub fn create_enterprise_application(client_id: &str) -> String {
    format!("az ad sp create --id {client_id}")
}

/// Returns the command that prints the object id of an enterprise application.
pub fn enterprise_application(client_id: &str) -> String {
    format!("az ad sp show --id {client_id} --query id -o tsv")
}

/// Returns the command that prints a property of the SignalR resource with a host name.
pub fn resource(host: &str, property: &str) -> String {
    format!("az signalr list --query \"[?hostName=='{host}'].{property}\" -o tsv")
}

/// Returns the command that assigns a role on the SignalR resource with a host name.
pub fn assign_role(object_id: &str, principal_type: &str, role: &str, host: &str) -> String {
    // With an empty scope, the role would be assigned on the whole subscription.
    format!(
        "scope=$({}) && az role assignment create --assignee-object-id {object_id} --assignee-principal-type \
         {principal_type} --role \"{role}\" --scope \"${{scope:?the resource is in another subscription}}\"",
        resource(host, "id")
    )
}

/// Quotes a text as one argument of a POSIX shell.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Quotes a path for a POSIX shell if it needs quotes.
pub fn quoted_path(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if path.chars().all(is_plain) { path } else { quoted(&path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_paths_for_a_shell() {
        assert_eq!(quoted_path("/run/it's here.pem".as_ref()), r"'/run/it'\''s here.pem'");
        assert_eq!(quoted_path("/run/x.pem".as_ref()), "/run/x.pem");
    }
}
