//! Remediation on this host: the configuration, the proof and the host's identity.

use super::facts::Facts;
use crate::credential::{AssertionSettings, CertificateSettings, CredentialKind, Proof, is_about_time};
use crate::diagnosis::commands::{self, quoted_path};
use crate::diagnosis::failure::Failure;
use crate::diagnosis::finding::Remediation;

pub(super) fn configuration(failure: &Failure, facts: &Facts<'_>) -> Vec<Remediation> {
    if failure.cause.keys.is_empty() {
        return vec![Remediation::command(
            "print the effective values and the source of each",
            commands::check_values(),
        )];
    }
    if failure.cause.keys == ["tenant", "url"] {
        let (tenant, url) = (facts.path("tenant"), facts.path("url"));
        let note = format!(
            "correct `{tenant}`, now {}, or `{url}`, now {}: the token must be of the tenant that has this resource. Signed in to \
             a tenant, this prints the resource if it is there",
            facts.tenant(),
            facts.endpoint.origin
        );
        return vec![
            Remediation::command(note, facts.resource("id")),
            Remediation::command("and this prints the id of that tenant", "az account show --query tenantId -o tsv"),
            Remediation::command("test the correction", commands::doctor(facts.endpoint.name.as_str())),
        ];
    }
    failure.cause.keys.iter().map(|key| correct(key, facts)).collect()
}

/// Returns whether this host's clock explains why an assertion is outside of its time.
pub(super) fn is_clock_wrong(failure: &Failure) -> bool {
    failure.skew.is_some() && is_about_time(&failure.codes)
}

/// Returns what a key must be, and the command that prints the correct value.
fn correct(key: &str, facts: &Facts<'_>) -> Remediation {
    let path = facts.path(key);
    let client_id = facts.client_id();
    match key {
        "tenant" => Remediation::command(
            format!(
                "correct `{path}`, now {}: the tenant of the SignalR resource. Signed in there, this prints it",
                facts.tenant()
            ),
            "az account show --query tenantId -o tsv",
        ),
        "cloud" | "authority" => Remediation::command(
            format!("correct `{path}`: the cloud of both tenants and the resource. Signed in there, this prints it"),
            "az cloud show --query name -o tsv",
        ),
        "client_id" => Remediation::command(
            format!(
                "correct `{path}`, now {client_id}: that of the app registration. Signed in to its tenant, this lists them"
            ),
            "az ad app list --show-mine --query \"[].{name: displayName, client_id: appId}\" -o table",
        ),
        "object_id" => Remediation::command(
            format!(
                "correct `{path}`: that of the enterprise application. Signed in to the endpoint's tenant, this prints it"
            ),
            format!("az ad sp show --id {client_id} --query id -o tsv"),
        ),
        "url" => Remediation::command(
            format!("correct `{path}`, now {}. Signed in to its tenant, this lists them", facts.endpoint.origin),
            "az signalr list --query \"[].{name: name, host: hostName}\" -o table",
        ),
        "scope" => Remediation::note(format!(
            "remove `{path}`: https://signalr.azure.com/.default is the default, in every cloud"
        )),
        "assertion.audience" => Remediation::note(format!("remove `{path}`: the audience of the cloud is the default")),
        _ => Remediation::note(format!("correct `{path}`")),
    }
}

/// What to do if a secret cannot be read.
const SECRET: &str = "put the secret into the configured file or variable, readable by the process";

pub(super) fn proof(failure: &Failure, facts: &Facts<'_>) -> Vec<Remediation> {
    let mut remediation = match &facts.credential.kind {
        CredentialKind::App { app, .. } => match &app.proof {
            Proof::Certificate(certificate) => match failure.remedy {
                Some(remedy) => renew(remedy, certificate, &app.client_id),
                None => vec![
                    Remediation::note("make the certificate and its key readable by the process"),
                    Remediation::command(
                        "print the certificate's validity",
                        format!("openssl x509 -in {} -noout -subject -dates", quoted_path(&certificate.certificate)),
                    ),
                ],
            },
            Proof::Federated(source) => vec![Remediation::note(assertion(source))],
            Proof::Secret(_) => vec![Remediation::note(SECRET)],
        },
        CredentialKind::AzureCli { tenant, .. } => vec![
            Remediation::command(
                "sign in to the endpoint's tenant, as the user that runs the gateway",
                format!("az login --tenant {tenant}"),
            ),
            Remediation::note("the `az` that the gateway finds in PATH must be version 2.54.0 or newer"),
        ],
        CredentialKind::TokenFile { path } => vec![Remediation::command(
            "make sure that the program that writes the file runs and requests a token of this endpoint's tenant",
            format!("ls -l {}", quoted_path(path)),
        )],
        CredentialKind::AccessKey { .. } => vec![Remediation::note(SECRET)],
        CredentialKind::ManagedIdentity { .. } => Vec::new(),
    };
    if is_clock_wrong(failure) {
        let note = "correct the clock of this host and keep it synchronised (NTP)";
        return vec![
            Remediation::command(note, "timedatectl set-ntp true"),
            Remediation::command("with chrony, to set it at once", "chronyc makestep"),
        ];
    }
    let is_clock = is_about_time(&failure.codes) || failure.tried == "claim exp";
    if is_clock || remediation.is_empty() {
        remediation.push(Remediation::command("set this host's clock and keep it synchronised", "timedatectl status"));
    }
    remediation
}

/// Returns how an expired certificate is replaced.
fn renew(remedy: &str, settings: &CertificateSettings, client_id: &str) -> Vec<Remediation> {
    let CertificateSettings { certificate, key, .. } = settings;
    let (new, new_key) = ("new-certificate.pem", "new-key.pem");
    let certificate = quoted_path(certificate);
    let replace = match key {
        Some(key) => format!("cat {new} > {certificate} && cat {new_key} > {}", quoted_path(key)),
        None => format!("cat {new} {new_key} > {certificate}"),
    };
    vec![
        Remediation::command(remedy, commands::make_certificate(new, new_key)),
        Remediation::command(
            "in the app's own tenant, upload it without its key",
            commands::add_certificate(client_id, new.as_ref()),
        ),
        Remediation::command("then replace the content of the file; on Kubernetes, that of the secret", replace),
    ]
}

/// Returns what to do if the assertion cannot be obtained.
fn assertion(source: &AssertionSettings) -> &'static str {
    match source {
        AssertionSettings::File { .. } => "make sure that the assertion's file exists, is readable and is kept fresh",
        AssertionSettings::ManagedIdentity { .. } => "make sure that the host returns a token of the identity",
        AssertionSettings::GithubActions { .. } => {
            "run the gateway as a step of a job with `permissions: id-token: write`, and stop it with the job: the request token \
             expires with it"
        }
        AssertionSettings::AzurePipelines { .. } => {
            "run the gateway as a step of the job, pass it the access token (`env: SYSTEM_ACCESSTOKEN: $(System.AccessToken)`), \
             and allow the pipeline to use the service connection"
        }
        AssertionSettings::GcpMetadata { .. } => {
            "run the gateway on Google Cloud with the service account attached, and allow it to reach metadata.google.internal \
             without a proxy"
        }
        AssertionSettings::OAuth2(_) => {
            "make the authorization server return a JWT to this client: check `token_url`, `client_id`, `secret`, `scope`, \
             `audience` and `token` of the assertion"
        }
        AssertionSettings::Command(_) => {
            "run the program by hand as the gateway's user, with only the variables in `environment`, until it prints a JWT and \
             nothing else"
        }
    }
}

pub(super) fn host_identity(failure: &Failure) -> Vec<Remediation> {
    if failure.is_unusable_response {
        return vec![Remediation::note(
            "find out which server answers instead of the host's identity endpoint (`imds_endpoint`, IDENTITY_ENDPOINT): its \
             response must be a JSON object with `access_token`, and `expires_on` or `expires_in`",
        )];
    }
    vec![
        Remediation::note(
            "run the gateway on an Azure host that has the identity, and allow it to reach 169.254.169.254 without a proxy",
        ),
        Remediation::command(
            "assign the identity to the host (virtual machine; App Service: az webapp identity assign)",
            "az vm identity assign --resource-group <group> --name <virtual machine> --identities <resource id of the identity>",
        ),
    ]
}
