//! What mends a broken step: words and `az` commands, filled in with the configured ids. Runs nothing.

use super::{Broken, Mend};
use crate::credential::{AppSettings, AssertionSettings, Claims, CredentialKind, Proof, SetupStep};

/// What is known when a step is broken.
pub(super) struct Known<'a> {
    pub(super) kind: &'a CredentialKind,
    /// The endpoint's host.
    pub(super) host: &'a str,
    /// The claims of the assertion that was presented, if there was one.
    pub(super) assertion: Option<&'a Claims>,
    /// The object id of the caller in the endpoint's tenant, if there was a token.
    pub(super) object_id: Option<&'a str>,
}

/// Fills in what mends a broken link.
pub(super) fn fill_in(mut broken: Broken, known: &Known<'_>) -> Broken {
    broken.mend = mend(broken.step, known);
    broken.delay = delay(broken.step);
    broken
}

/// How long a change takes to be known everywhere. Source: Microsoft's pages on role assignments of SignalR (up to 30
/// minutes) and on workload identity federation (minutes).
fn delay(step: SetupStep) -> Option<&'static str> {
    match step {
        SetupStep::Access => Some("a new role assignment takes up to 30 minutes to count"),
        SetupStep::Federation => Some("a new federated credential takes some minutes to be known everywhere"),
        SetupStep::EnterpriseApplication => {
            Some("a new enterprise application takes some minutes to be known everywhere")
        }
        SetupStep::AppProof => Some("a new secret or certificate takes a minute or two to be known everywhere"),
        SetupStep::Configuration
        | SetupStep::Proof
        | SetupStep::HostIdentity
        | SetupStep::IdentityEndpoint
        | SetupStep::App
        | SetupStep::TenantPolicy
        | SetupStep::ResourceProvider
        | SetupStep::EndpointNetwork => None,
    }
}

fn mend(step: SetupStep, known: &Known<'_>) -> Vec<Mend> {
    let app = match known.kind {
        CredentialKind::App(app) => Some(app),
        CredentialKind::ManagedIdentity { .. }
        | CredentialKind::AzureCli { .. }
        | CredentialKind::AccessKey { .. }
        | CredentialKind::TokenFile { .. } => None,
    };
    let client_id = app.map_or("<client id>", |app| app.client_id.as_str());
    let tenant = app.map_or("<tenant of the endpoint>", |app| app.tenant.as_str());
    match step {
        SetupStep::Configuration => vec![
            note("correct the configuration: `tenant`, `cloud`, `scope` and audience of the credential, `url` of the endpoint"),
            run("find the resource and the tenant it lives in", list_resource(known.host, "{id: id}")),
            run("show the tenant that is signed in to", "az account show --query tenantId".to_owned()),
        ],
        SetupStep::Proof => proof(known.kind),
        SetupStep::HostIdentity => vec![
            note("run the gateway on an Azure host that has the identity, and let it reach 169.254.169.254 without a proxy"),
            run(
                "assign the identity to the host (virtual machine; App Service: az webapp identity assign)",
                "az vm identity assign --resource-group <group> --name <virtual machine> --identities <resource id of the identity>"
                    .to_owned(),
            ),
        ],
        SetupStep::IdentityEndpoint => vec![
            note("let this host reach the authority on port 443, without a proxy that answers in its place; a custom authority needs `ca_file`"),
            run("see what answers", format!("curl -v {}", discovery(app))),
        ],
        SetupStep::App => vec![
            run("as an administrator of the app's own tenant: make it multi-tenant", multi_tenant(client_id)),
            run(
                "and let it be a confidential client",
                format!("az ad app update --id {client_id} --is-fallback-public-client false"),
            ),
        ],
        SetupStep::AppProof => app_proof(app, client_id),
        SetupStep::Federation => vec![run(
            "as an owner of the app registration, in its own tenant: trust exactly what was presented",
            federate(client_id, known.assertion),
        )],
        SetupStep::EnterpriseApplication => vec![
            run("sign in to the endpoint's tenant as an administrator", format!("az login --tenant {tenant} --allow-no-subscriptions")),
            run("create the enterprise application there", format!("az ad sp create --id {client_id}")),
            run(
                "if it is there: enable it",
                format!("az ad sp update --id {client_id} --set accountEnabled=true"),
            ),
            run("in the app's own tenant, if it is single-tenant", multi_tenant(client_id)),
        ],
        SetupStep::TenantPolicy => vec![
            note("an administrator of the endpoint's tenant looks at the sign-in logs of service principals: they name the policy"),
            run("the enterprise application to look for", format!("az ad sp show --id {client_id} --query id")),
        ],
        SetupStep::ResourceProvider => vec![run(
            "in a subscription of the endpoint's tenant: register SignalR",
            "az provider register --namespace Microsoft.SignalRService --subscription <subscription>".to_owned(),
        )],
        SetupStep::EndpointNetwork => vec![
            note("let this host resolve and reach the endpoint on its port; with a private endpoint its name must resolve to the private address here"),
            run(
                "or open the resource to the public network for the REST API",
                format!(
                    "az signalr network-rule update --public-network --allow RESTAPI --ids $({})",
                    list_resource(known.host, "id")
                ),
            ),
        ],
        SetupStep::Access => access(known),
    }
}

fn proof(kind: &CredentialKind) -> Vec<Mend> {
    match kind {
        CredentialKind::App(AppSettings { proof: Proof::Certificate(certificate), .. }) => vec![
            note("let the process read the certificate and its key, and renew the certificate if it has ended"),
            run(
                "look at its dates",
                format!("openssl x509 -in {} -noout -dates -fingerprint -sha256", certificate.certificate.display()),
            ),
        ],
        CredentialKind::App(AppSettings { proof: Proof::Federated(source), .. }) => vec![note(assertion(source))],
        CredentialKind::AzureCli { tenant, .. } => vec![
            run(
                "sign in to the endpoint's tenant, as the user that runs the gateway",
                format!("az login --tenant {tenant}"),
            ),
            note("the `az` that the gateway finds in PATH must be version 2.54.0 or newer"),
        ],
        CredentialKind::App(AppSettings { proof: Proof::Secret(_), .. }) | CredentialKind::AccessKey { .. } => {
            vec![note("put the secret where the configuration says, readable by the process")]
        }
        CredentialKind::TokenFile { .. } => {
            vec![note(
                "see to it that the program that writes the token's file runs, and asks for a token of this endpoint's tenant",
            )]
        }
        CredentialKind::ManagedIdentity { .. } => vec![note("check this host's clock")],
    }
}

/// What to see to when the assertion of another identity is not to be had.
fn assertion(source: &AssertionSettings) -> &'static str {
    match source {
        AssertionSettings::File { .. } => {
            "see to it that the assertion's file is there, readable and kept fresh, and that this host's clock is right"
        }
        AssertionSettings::ManagedIdentity { .. } => "check this host's clock",
        AssertionSettings::GithubActions { .. } => {
            "run the gateway as a step of a job with `permissions: id-token: write`, and end it with the job: the request token \
             does not outlive it"
        }
        AssertionSettings::AzurePipelines { .. } => {
            "run the gateway as a step of the job, hand it the access token (`env: SYSTEM_ACCESSTOKEN: $(System.AccessToken)`), \
             and let the pipeline use the service connection"
        }
        AssertionSettings::GcpMetadata { .. } => {
            "run the gateway on Google Cloud with the service account attached, and let it reach metadata.google.internal \
             without a proxy"
        }
        AssertionSettings::OAuth2(_) => {
            "make the authorization server hand out a JWT to this client: check `token_url`, `client_id`, `secret`, `scope`, \
             `audience` and `token` of the assertion"
        }
        AssertionSettings::Command(_) => {
            "run the program by hand as the gateway's user, with the variables of `environment` alone, until it prints a JWT and \
             nothing else"
        }
    }
}

fn app_proof(app: Option<&AppSettings>, client_id: &str) -> Vec<Mend> {
    match app.map(|app| &app.proof) {
        Some(Proof::Certificate(certificate)) => vec![run(
            "in the app's own tenant: upload the certificate that is used here",
            format!(
                "az ad app credential reset --id {client_id} --cert @{} --append",
                certificate.certificate.display()
            ),
        )],
        Some(Proof::Secret(_) | Proof::Federated(_)) | None => vec![run(
            "in the app's own tenant: create another secret, and put its value (`password`) where the configuration says",
            format!("az ad app credential reset --id {client_id} --append --query password -o tsv"),
        )],
    }
}

fn access(known: &Known<'_>) -> Vec<Mend> {
    if matches!(known.kind, CredentialKind::AccessKey { .. }) {
        return vec![
            run(
                "take the key from the resource",
                format!("az signalr key list --query primaryKey -o tsv --ids $({})", list_resource(known.host, "id")),
            ),
            note("if the resource has access keys disabled, use a credential of another kind"),
        ];
    }
    let principal = if matches!(known.kind, CredentialKind::AzureCli { .. }) { "User" } else { "ServicePrincipal" };
    let object_id = known.object_id.unwrap_or("<object id of the enterprise application>");
    vec![run(
        "as an owner of the resource, in its tenant: assign the role to the object id that the token carries",
        format!(
            "az role assignment create --assignee-object-id {object_id} --assignee-principal-type {principal} \
             --role \"SignalR REST API Owner\" --scope $({})",
            list_resource(known.host, "id")
        ),
    )]
}

fn federate(client_id: &str, assertion: Option<&Claims>) -> String {
    let claim = |name: &str| {
        let value = assertion.and_then(|claims| claims.get(name));
        let value = value.and_then(|value| value.as_array().map_or(Some(value), |values| values.first()));
        value.and_then(|value| value.as_str()).map_or_else(|| format!("<{name} of the assertion>"), str::to_owned)
    };
    let parameters = serde_json::json!({
        "name": "signalr-gateway",
        "issuer": claim("iss"),
        "subject": claim("sub"),
        "audiences": [claim("aud")],
    });
    format!(
        "az ad app federated-credential create --id {client_id} --parameters {}",
        shell_quoted(&parameters.to_string())
    )
}

fn multi_tenant(client_id: &str) -> String {
    format!("az ad app update --id {client_id} --sign-in-audience AzureADMultipleOrgs")
}

fn list_resource(host: &str, query: &str) -> String {
    format!("az signalr list --query \"[?hostName=='{host}'].{query}\" -o tsv")
}

fn discovery(app: Option<&AppSettings>) -> String {
    app.map_or_else(
        || "https://login.microsoftonline.com".to_owned(),
        |app| format!("{}/{}/v2.0/.well-known/openid-configuration", app.authority.origin(), app.tenant),
    )
}

/// Quotes a word for a POSIX shell.
fn shell_quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn note(note: &str) -> Mend {
    Mend { note: note.to_owned(), command: None }
}

fn run(note: &str, command: String) -> Mend {
    Mend { note: note.to_owned(), command: Some(command) }
}
