//! What mends a broken step: words and `az` commands, filled in with the configured ids. Runs nothing.

mod network;

use super::acquisition::Link;
use super::{Broken, Mend};
use crate::credential::{
    AppSettings, AssertionSettings, Claims, CredentialKind, CredentialSettings, Proof, SetupStep, remedy,
};
use crate::endpoint::EndpointSettings;

/// What is known when a step is broken.
pub(super) struct Known<'a> {
    pub(super) credential: &'a CredentialSettings,
    pub(super) endpoint: &'a EndpointSettings,
    /// The claims of the assertion that was presented, if there was one.
    pub(super) assertion: Option<&'a Claims>,
    /// The object id of the caller in the endpoint's tenant, if it is configured or there was a token.
    pub(super) object_id: Option<&'a str>,
}

impl Known<'_> {
    fn app(&self) -> Option<&AppSettings> {
        if let CredentialKind::App(app) = &self.credential.kind { Some(app) } else { None }
    }

    fn client_id(&self) -> &str {
        self.app().map_or("<client id>", |app| &app.client_id)
    }

    fn tenant(&self) -> &str {
        self.app().map_or("<tenant of the endpoint>", |app| &app.tenant)
    }

    /// Queries the resource by its host name, with what is wanted of it.
    fn resource(&self, query: &str) -> String {
        let host = &self.endpoint.origin.host;
        format!("az signalr list --query \"[?hostName=='{host}'].{query}\" -o tsv")
    }

    /// A key of this credential or endpoint as it is configured.
    fn path(&self, key: &str) -> String {
        match key {
            "url" => format!("endpoints.{}.url", self.endpoint.name),
            key => format!("credentials.{}.{key}", self.credential.name),
        }
    }
}

/// Fills in what mends a broken link.
pub(super) fn fill_in(link: Link, known: &Known<'_>) -> Broken {
    let mend = mend(&link, known);
    broken(link, mend)
}

/// The broken link of an endpoint that names no credential.
pub(super) fn without_credential(link: Link) -> Broken {
    broken(link, vec![note("name a credential that is configured")])
}

fn broken(link: Link, mend: Vec<Mend>) -> Broken {
    Broken {
        step: link.blame.step,
        delay: delay(link.blame.step),
        tried: link.tried,
        came_back: link.came_back,
        description: link.description,
        codes: link.codes,
        correlation_id: link.correlation_id,
        trace_id: link.trace_id,
        mend,
    }
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

fn mend(link: &Link, known: &Known<'_>) -> Vec<Mend> {
    let client_id = known.client_id();
    let has = |codes: &[u32]| link.codes.iter().any(|code| codes.contains(code));
    match link.blame.step {
        SetupStep::Configuration => configuration(link, known),
        SetupStep::Proof => proof(link, known),
        SetupStep::HostIdentity if link.came_back.contains("answered 200 but") => vec![note(
            "see what answers at this address in place of the host's identity endpoint (`imds_endpoint`, IDENTITY_ENDPOINT): \
             its answer must be a JSON object with `access_token`, and `expires_on` or `expires_in`",
        )],
        SetupStep::HostIdentity => vec![
            note(
                "run the gateway on an Azure host that has the identity, and let it reach 169.254.169.254 without a proxy",
            ),
            run(
                "assign the identity to the host (virtual machine; App Service: az webapp identity assign)",
                "az vm identity assign --resource-group <group> --name <virtual machine> --identities <resource id of the identity>",
            ),
        ],
        SetupStep::IdentityEndpoint => network::identity_endpoint(link, known),
        SetupStep::App => vec![
            run("as an administrator of the app's own tenant: make it multi-tenant", multi_tenant(client_id)),
            run(
                "and let it be a confidential client",
                format!("az ad app update --id {client_id} --is-fallback-public-client false"),
            ),
        ],
        SetupStep::AppProof => app_proof(known),
        SetupStep::Federation => federation(link, known),
        SetupStep::EnterpriseApplication if has(&[7_000_112, 70001]) => vec![
            run("in the endpoint's tenant, as an administrator: enable sign-in", sign_in(known)),
            run("", format!("az ad sp update --id {client_id} --set accountEnabled=true")),
            note(
                "if it is enabled there: the app registration itself is disabled, and an administrator of its own tenant enables it",
            ),
        ],
        SetupStep::EnterpriseApplication => vec![
            run("in the endpoint's tenant, as an administrator: create the enterprise application", sign_in(known)),
            run("", format!("az ad sp create --id {client_id}")),
            run(
                "if that says that the app is unknown: in the app's own tenant, let other tenants use it",
                multi_tenant(client_id),
            ),
            note(&format!("or correct `{}` or `{}`", known.path("client_id"), known.path("tenant"))),
        ],
        SetupStep::TenantPolicy => tenant_policy(link, known),
        SetupStep::ResourceProvider => vec![run(
            "in a subscription of the endpoint's tenant: register SignalR",
            "az provider register --namespace Microsoft.SignalRService --subscription <subscription>",
        )],
        SetupStep::EndpointNetwork => network::endpoint_network(link, known),
        SetupStep::Access => access(known),
    }
}

fn configuration(link: &Link, known: &Known<'_>) -> Vec<Mend> {
    if link.blame.keys.is_empty() {
        return vec![run(
            "see what is in force, and where each value comes from",
            "signalr-gateway check --config <file>",
        )];
    }
    link.blame.keys.iter().map(|key| correct(key, known)).collect()
}

/// What a key should be, and what tells its value.
fn correct(key: &str, known: &Known<'_>) -> Mend {
    let path = known.path(key);
    let client_id = known.client_id();
    match key {
        "tenant" => run(
            &format!(
                "correct `{path}`, now {}: the tenant of the SignalR resource. Signed in there, this prints it",
                known.tenant()
            ),
            "az account show --query tenantId -o tsv",
        ),
        "cloud" | "authority" => run(
            &format!("correct `{path}`: the cloud of both tenants and the resource. Signed in there, this prints it"),
            "az cloud show --query name -o tsv",
        ),
        "client_id" => run(
            &format!(
                "correct `{path}`, now {client_id}: the app registration's. Signed in to its tenant, this lists them"
            ),
            "az ad app list --show-mine --query \"[].{name: displayName, client_id: appId}\" -o table",
        ),
        "object_id" => run(
            &format!(
                "correct `{path}`: the enterprise application's. Signed in to the endpoint's tenant, this prints it"
            ),
            format!("az ad sp show --id {client_id} --query id -o tsv"),
        ),
        "url" => run(
            &format!("correct `{path}`, now {}. Signed in to its tenant, this lists them", known.endpoint.origin),
            "az signalr list --query \"[].{name: name, host: hostName}\" -o table",
        ),
        "scope" => note(&format!("remove `{path}`: https://signalr.azure.com/.default is the default, in every cloud")),
        "assertion.audience" => note(&format!("remove `{path}`: the cloud's own audience is the default")),
        _ => note(&format!("correct `{path}`")),
    }
}

fn proof(link: &Link, known: &Known<'_>) -> Vec<Mend> {
    let mut mends = match &known.credential.kind {
        CredentialKind::App(AppSettings { proof: Proof::Certificate(certificate), .. }) => vec![
            note("let the process read the certificate and its key, and renew the certificate if it has ended"),
            run(
                "look at its dates",
                format!("openssl x509 -in {} -noout -subject -dates", quoted_path(&certificate.certificate)),
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
        CredentialKind::TokenFile { path } => vec![run(
            "see to it that the program that writes the file runs, and asks for a token of this endpoint's tenant",
            format!("ls -l {}", quoted_path(path)),
        )],
        CredentialKind::App(AppSettings { proof: Proof::Secret(_), .. }) | CredentialKind::AccessKey { .. } => {
            vec![note("put the secret where the configuration says, readable by the process")]
        }
        CredentialKind::ManagedIdentity { .. } => Vec::new(),
    };
    let is_outside = link.codes.contains(&700_024) || link.tried == "claim exp" || link.codes.contains(&500_133);
    if is_outside || mends.is_empty() {
        mends.push(run("set this host's clock, and keep it set", "timedatectl status"));
    }
    mends
}

/// What to see to when the assertion of another identity is not to be had.
fn assertion(source: &AssertionSettings) -> &'static str {
    match source {
        AssertionSettings::File { .. } => "see to it that the assertion's file is there, readable and kept fresh",
        AssertionSettings::ManagedIdentity { .. } => "see to it that the host hands out the identity's token",
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

fn tenant_policy(link: &Link, known: &Known<'_>) -> Vec<Mend> {
    if link.codes.iter().any(|code| [90055, 50196].contains(code)) || link.came_back.contains(" 429") {
        return vec![note(
            "wait, and find out what else asks for tokens with this app or in this tenant without keeping them",
        )];
    }
    vec![
        run("in the endpoint's tenant, as an administrator", sign_in(known)),
        run(
            "the sign-in log of the enterprise application names the policy",
            format!(
                "az rest --url \"https://graph.microsoft.com/beta/auditLogs/signIns?\\$filter=signInEventTypes/any(t:t eq \
                 'servicePrincipal') and appId eq '{}'&\\$top=1\"",
                known.client_id()
            ),
        ),
    ]
}

fn app_proof(known: &Known<'_>) -> Vec<Mend> {
    let client_id = known.client_id();
    let Some(Proof::Certificate(certificate)) = known.app().map(|app| &app.proof) else {
        return vec![
            run(
                "in the app's own tenant: see which secrets there are (`hint` is how a value begins) and when they end",
                format!(
                    "az ad app credential list --id {client_id} --query \"[].{{hint: hint, ends: endDateTime}}\" -o table"
                ),
            ),
            run(
                "create another, and put its value, not its id, where the configuration says",
                format!("az ad app credential reset --id {client_id} --append --query password -o tsv"),
            ),
        ];
    };
    let path = quoted_path(&certificate.certificate);
    vec![
        run(
            "the thumbprint of the certificate that is used here",
            format!("openssl x509 -in {path} -noout -fingerprint -sha1"),
        ),
        run(
            "in the app's own tenant: the thumbprints it knows",
            format!("az ad app credential list --id {client_id} --cert --query \"[].customKeyIdentifier\" -o tsv"),
        ),
        // The file may hold the key, too, which is nobody else's business.
        run(
            "if it is not among them: upload the certificate, without its key",
            format!(
                "openssl x509 -in {path} -out certificate-only.pem && az ad app credential reset --id {client_id} --append \
                 --cert @certificate-only.pem"
            ),
        ),
    ]
}

fn federation(link: &Link, known: &Known<'_>) -> Vec<Mend> {
    let has = |codes: &[u32]| link.codes.iter().any(|code| codes.contains(code));
    if has(&[700_236]) {
        return vec![
            note(
                "use a managed identity of the tenant that the app registration lives in: no federated credential helps",
            ),
            run(
                "signed in to that tenant: make one, and assign it to this host",
                "az identity create --resource-group <group> --name signalr-gateway",
            ),
        ];
    }
    if has(&[700_222, 700_226, 700_227, 700_229]) {
        let known = link.codes.iter().find_map(|code| remedy(*code)).map_or("", |remedy| remedy.action);
        return vec![run(
            &format!("{known}; its client id, for `assertion.client_id`"),
            "az identity list --query \"[].{name: name, client_id: clientId, principal_id: principalId}\" -o table",
        )];
    }
    let client_id = known.client_id();
    vec![
        run(
            "in the app's own tenant: what the app registration trusts now, to the letter",
            format!(
                "az ad app federated-credential list --id {client_id} --query \"[].{{issuer: issuer, subject: subject, \
                 audience: audiences[0]}}\" -o table"
            ),
        ),
        run("as its owner: trust exactly what was presented", federate(client_id, known.assertion)),
    ]
}

fn access(known: &Known<'_>) -> Vec<Mend> {
    if matches!(known.credential.kind, CredentialKind::AccessKey { .. }) {
        return vec![
            run("see whether the resource takes access keys at all", known.resource("disableLocalAuth")),
            run(
                "if it says false: take the key from the resource",
                format!("az signalr key list --query primaryKey -o tsv --ids $({})", known.resource("id")),
            ),
            note("if it says true: use a credential of another kind"),
        ];
    }
    let principal =
        if matches!(known.credential.kind, CredentialKind::AzureCli { .. }) { "User" } else { "ServicePrincipal" };
    let object_id = known.object_id.unwrap_or("<object id of the enterprise application>");
    vec![run(
        "as an owner of the resource, in its tenant: assign the role to the object id that the token carries",
        format!(
            "az role assignment create --assignee-object-id {object_id} --assignee-principal-type {principal} \
             --role \"SignalR REST API Owner\" --scope $({})",
            known.resource("id")
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
    let parameters = quoted(&parameters.to_string());
    format!("az ad app federated-credential create --id {client_id} --parameters {parameters}")
}

fn multi_tenant(client_id: &str) -> String {
    format!("az ad app update --id {client_id} --sign-in-audience AzureADMultipleOrgs")
}

fn sign_in(known: &Known<'_>) -> String {
    format!("az login --tenant {} --allow-no-subscriptions", known.tenant())
}

/// Quotes a word for a POSIX shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn quoted_path(path: &std::path::Path) -> String {
    let path = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if path.chars().all(is_plain) { path } else { quoted(&path) }
}

fn note(note: &str) -> Mend {
    Mend { note: note.to_owned(), command: None }
}

fn run(note: &str, command: impl Into<String>) -> Mend {
    Mend { note: note.to_owned(), command: Some(command.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_stays_one_word_of_a_command() {
        let claims = serde_json::json!({ "iss": "https://i", "sub": "a'; rm -rf ~ #\u{1b}[2J", "aud": ["x", "y"] });
        let command = federate("id", claims.as_object());
        assert!(command.contains(r"a'\''; rm") && !command.contains('\u{1b}'), "{command}");
        assert!(command.contains(r#""audiences":["x"]"#), "{command}");
        assert_eq!(quoted_path("/run/it's here.pem".as_ref()), r"'/run/it'\''s here.pem'");
        assert_eq!(quoted_path("/run/x.pem".as_ref()), "/run/x.pem");
    }
}
