//! Remediation in Entra: the app registration in its home tenant, and the enterprise application and the policies in the endpoint's
//! tenant.

use super::facts::Facts;
use crate::credential::{Claims, Proof};
use crate::diagnosis::commands::{self, quoted_path};
use crate::diagnosis::failure::Failure;
use crate::diagnosis::finding::Remediation;

pub(super) fn app(facts: &Facts<'_>) -> Vec<Remediation> {
    let client_id = facts.client_id();
    vec![
        Remediation::command(
            "as an administrator of the app's own tenant: make it multi-tenant",
            commands::make_multi_tenant(client_id),
        ),
        Remediation::command(
            "and make it a confidential client",
            format!("az ad app update --id {client_id} --is-fallback-public-client false"),
        ),
    ]
}

pub(super) fn app_proof(facts: &Facts<'_>) -> Vec<Remediation> {
    let client_id = facts.client_id();
    let proof = facts.app().map(|app| &app.proof);
    let Some(Proof::Certificate(certificate)) = proof else {
        let place = match proof {
            Some(Proof::Secret(source)) => source.to_string(),
            _ => "the configured file or variable".to_owned(),
        };
        return vec![
            Remediation::command(
                format!(
                    "put the value (not the id) of a secret that app {client_id} has now into {place}. In the tenant of the app \
                     registration (not the endpoint's), this lists its secrets (`hint` is the beginning of the value) and when they expire"
                ),
                format!(
                    "az ad app credential list --id {client_id} --query \"[].{{hint: hint, ends: endDateTime}}\" -o table"
                ),
            ),
            Remediation::command(
                format!("or create another, whose value this prints, for {place}"),
                commands::add_secret(client_id),
            ),
        ];
    };
    let path = quoted_path(&certificate.certificate);
    vec![
        Remediation::command(
            "print the thumbprint of the certificate in use",
            format!("openssl x509 -in {path} -noout -fingerprint -sha1"),
        ),
        Remediation::command(
            "in the app's own tenant: list the thumbprints that it accepts",
            format!("az ad app credential list --id {client_id} --cert --query \"[].customKeyIdentifier\" -o tsv"),
        ),
        // The file may also contain the private key.
        Remediation::command(
            "if it is not among them: upload the certificate, without its key",
            commands::add_certificate(client_id, &certificate.certificate),
        ),
    ]
}

pub(super) fn federation(failure: &Failure, facts: &Facts<'_>) -> Vec<Remediation> {
    let has = |codes: &[u32]| failure.codes.iter().any(|code| codes.contains(code));
    if has(&[700_236]) {
        return vec![
            Remediation::note(
                "use a managed identity of the app registration's own tenant: no federated credential can help",
            ),
            Remediation::command(
                "signed in to that tenant: create one, and assign it to this host",
                "az identity create --resource-group <group> --name signalr-gateway",
            ),
        ];
    }
    if has(&[700_222, 700_226, 700_227, 700_229]) {
        // The remedy of these codes says to use one.
        return vec![Remediation::command(
            "list the user-assigned managed identities of the app's tenant: the client id of one is for `assertion.client_id`",
            "az identity list --query \"[].{name: name, client_id: clientId, principal_id: principalId}\" -o table",
        )];
    }
    let client_id = facts.client_id();
    vec![
        Remediation::command(
            "in the app's own tenant: list the issuers, subjects and audiences that the app registration trusts; each must match \
             exactly",
            format!(
                "az ad app federated-credential list --id {client_id} --query \"[].{{issuer: issuer, subject: subject, \
                 audience: audiences[0]}}\" -o table"
            ),
        ),
        Remediation::command(
            "as its owner: trust the assertion that was presented",
            create_federated_credential(client_id, facts.assertion),
        ),
    ]
}

pub(super) fn enterprise_application(failure: &Failure, facts: &Facts<'_>) -> Vec<Remediation> {
    let client_id = facts.client_id();
    // AADSTS7000112 and 70001: the application is disabled.
    if failure.codes.iter().any(|code| [7_000_112, 70001].contains(code)) {
        return vec![
            Remediation::command("in the endpoint's tenant, as an administrator: enable sign-in", facts.sign_in()),
            Remediation::command("", format!("az ad sp update --id {client_id} --set accountEnabled=true")),
            Remediation::note(
                "if it is enabled there: the app registration itself is disabled, and an administrator of its own tenant must \
                 enable it",
            ),
        ];
    }
    vec![
        Remediation::command(
            "in the endpoint's tenant, as an administrator: create the enterprise application",
            facts.sign_in(),
        ),
        Remediation::command("", commands::create_enterprise_application(client_id)),
        Remediation::command(
            "if that reports that the app is unknown: in the app's own tenant, allow other tenants to use it",
            commands::make_multi_tenant(client_id),
        ),
        Remediation::note(format!("or correct `{}` or `{}`", facts.path("client_id"), facts.path("tenant"))),
    ]
}

pub(super) fn tenant_policy(failure: &Failure, facts: &Facts<'_>) -> Vec<Remediation> {
    if failure.is_throttled {
        return vec![Remediation::note(
            "wait, and find out what else requests tokens with this app or in this tenant without caching them",
        )];
    }
    vec![
        Remediation::command("in the endpoint's tenant, as an administrator", facts.sign_in()),
        Remediation::command(
            "the sign-in log of the enterprise application names the policy",
            format!(
                "az rest --url \"https://graph.microsoft.com/beta/auditLogs/signIns?\\$filter=signInEventTypes/any(t:t eq \
                 'servicePrincipal') and appId eq '{}'&\\$top=1\"",
                facts.client_id()
            ),
        ),
    ]
}

pub(super) fn resource_provider() -> Vec<Remediation> {
    vec![Remediation::command(
        "in a subscription of the endpoint's tenant: register SignalR",
        "az provider register --namespace Microsoft.SignalRService --subscription <subscription>",
    )]
}

fn create_federated_credential(client_id: &str, assertion: Option<&Claims>) -> String {
    let claim = |name: &str| {
        let value = assertion.and_then(|claims| claims.get(name));
        let value = value.and_then(|value| value.as_array().map_or(Some(value), |values| values.first()));
        value.and_then(|value| value.as_str()).map_or_else(|| format!("<{name} of the assertion>"), str::to_owned)
    };
    commands::create_federated_credential(client_id, &claim("iss"), &claim("sub"), &claim("aud"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_stay_one_argument_of_a_command() {
        let claims = serde_json::json!({ "iss": "https://i", "sub": "a'; rm -rf ~ #\u{1b}[2J", "aud": ["x", "y"] });
        let command = create_federated_credential("id", claims.as_object());
        assert!(command.contains(r"a'\''; rm") && !command.contains('\u{1b}'), "{command}");
        assert!(command.contains(r#""audiences":["x"]"#), "{command}");
    }
}
