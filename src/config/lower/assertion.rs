//! Lowers the assertions of federated credentials.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;

use super::context::{Context, Key, below};
use super::identity::{managed_identity, secret_source, token_file};
use super::values::{self, PlainHttp};
use crate::config::file::{
    AssertionFile, ClientAuthenticationFile, CloudFile, GcpFormatFile, OAuth2TokenFile, SecretFile,
};
use crate::credential::{
    AssertionSettings, ClientAuthentication, Cloud, CommandSettings, ManagedIdentity, OAuth2Settings, OAuth2Token,
    SecretSource,
};
use crate::redact::{self, is_guid};

/// The origin of the metadata server. Every host of Google Cloud resolves its name.
const GCP_METADATA: &str = "http://metadata.google.internal";
/// The default deadline of a command.
const COMMAND_TIMEOUT: &str = "10s";
/// The maximum deadline of a command: an acquisition ends after 25 seconds, in which Entra must respond as well.
const MAX_COMMAND_TIMEOUT: Duration = Duration::from_secs(12);
/// The default variables of a command, which nearly every program needs.
const COMMAND_ENVIRONMENT: [&str; 2] = ["PATH", "HOME"];
/// The parameters of a token request that have a key of their own or that the gateway sets.
const OWN_PARAMETERS: [&str; 5] = ["grant_type", "client_id", "client_secret", "scope", "audience"];

pub(super) fn lower(
    at: &Key,
    file: &AssertionFile,
    cloud: CloudFile,
    context: &mut Context<'_>,
) -> Option<AssertionSettings> {
    match file {
        AssertionFile::ManagedIdentity { client_id, object_id, resource_id, audience, imds_endpoint } => {
            let ids = [client_id.as_deref(), object_id.as_deref(), resource_id.as_deref()];
            let identity = managed_identity(at, ids, imds_endpoint.as_deref(), context)?;
            if identity.id == ManagedIdentity::System && !context.is_incomplete(at) {
                let fix =
                    "add client_id, object_id or resource_id: only a user-assigned identity can be trusted by an app \
                           registration"
                        .to_owned();
                context.problem(at, "names no managed identity", fix);
            }
            let audience = lower_audience(&below(at, "audience"), audience.as_deref(), cloud, context);
            Some(AssertionSettings::ManagedIdentity { identity, audience })
        }
        AssertionFile::File { path } => {
            Some(AssertionSettings::File { path: token_file(&below(at, "path"), path, context) })
        }
        AssertionFile::GithubActions { audience, ca_file } => {
            let fix =
                "run the gateway as a step of a job with `permissions: id-token: write`, and pass the variable to it";
            for variable in ["ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"] {
                check_is_set(at, variable, fix, context);
            }
            let audience = lower_audience(&below(at, "audience"), audience.as_deref(), cloud, context);
            Some(AssertionSettings::GithubActions { audience, ca_file: lower_ca(at, ca_file.as_deref(), context) })
        }
        AssertionFile::AzurePipelines { service_connection, access_token, ca_file } => {
            azure_pipelines(at, service_connection, access_token.as_ref(), ca_file.as_deref(), context)
        }
        AssertionFile::GcpMetadata { audience, service_account, format, metadata_endpoint } => {
            let service_account = service_account.as_deref().unwrap_or("default");
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"@.-_".contains(&byte);
            if service_account.is_empty() || !service_account.bytes().all(is_plain) {
                let fix = "write its e-mail address, or leave it out for the default one";
                let fact = format!("`{service_account}` is not a service account");
                context.problem(&below(at, "service_account"), fact, fix);
            }
            let endpoint = metadata_endpoint.as_deref().unwrap_or(GCP_METADATA);
            let endpoint = values::origin(&below(at, "metadata_endpoint"), endpoint, PlainHttp::LinkLocal, context);
            Some(AssertionSettings::GcpMetadata {
                audience: lower_audience(&below(at, "audience"), audience.as_deref(), cloud, context),
                service_account: service_account.to_owned(),
                full: *format == GcpFormatFile::Full,
                endpoint: endpoint?.to_string(),
            })
        }
        AssertionFile::OAuth2 { .. } => oauth2(at, file, context).map(Box::new).map(AssertionSettings::OAuth2),
        AssertionFile::Command { argv, environment, timeout } => {
            command(at, argv, environment.as_deref(), timeout.as_deref(), context).map(AssertionSettings::Command)
        }
    }
}

fn azure_pipelines(
    at: &Key,
    service_connection: &str,
    access_token: Option<&SecretFile>,
    ca_file: Option<&Path>,
    context: &mut Context<'_>,
) -> Option<AssertionSettings> {
    if !is_guid(service_connection) {
        let fix = "copy it from the address of the service connection's page: …?resourceId=";
        context.problem(&below(at, "service_connection"), "is not a GUID", fix);
    }
    check_is_set(at, "SYSTEM_OIDCREQUESTURI", "run the gateway as a step of a job of Azure Pipelines", context);
    let access_token = if let Some(file) = access_token {
        secret_source(&below(at, "access_token"), file, context)
    } else {
        let fix = "pass it to the step: `env: SYSTEM_ACCESSTOKEN: $(System.AccessToken)`";
        check_is_set(at, "SYSTEM_ACCESSTOKEN", fix, context);
        Some(SecretSource::Env("SYSTEM_ACCESSTOKEN".to_owned()))
    };
    let ca_file = lower_ca(at, ca_file, context);
    Some(AssertionSettings::AzurePipelines {
        service_connection: service_connection.to_owned(),
        access_token: access_token?,
        ca_file,
    })
}

fn oauth2(at: &Key, file: &AssertionFile, context: &mut Context<'_>) -> Option<OAuth2Settings> {
    let AssertionFile::OAuth2 {
        token_url,
        client_id,
        secret,
        authentication,
        scope,
        audience,
        parameters,
        token,
        ca_file,
    } = file
    else {
        return None;
    };
    let token_url = lower_url(&below(at, "token_url"), token_url, context);
    let secret = secret_source(&below(at, "secret"), secret, context);
    let parameters = lower_parameters(&below(at, "parameters"), parameters, context);
    let ca_file = lower_ca(at, ca_file.as_deref(), context);
    if client_id.is_empty() {
        context.problem(&below(at, "client_id"), "is empty", "write the client id at the authorization server");
    }
    Some(OAuth2Settings {
        token_url: token_url?,
        client_id: client_id.clone(),
        secret: secret?,
        authentication: match authentication {
            ClientAuthenticationFile::Basic => ClientAuthentication::Basic,
            ClientAuthenticationFile::Post => ClientAuthentication::Post,
        },
        scope: scope.clone(),
        audience: audience.clone(),
        parameters,
        token: match token {
            OAuth2TokenFile::AccessToken => OAuth2Token::Access,
            OAuth2TokenFile::IdToken => OAuth2Token::Id,
        },
        ca_file,
    })
}

fn lower_parameters(
    at: &Key,
    parameters: &BTreeMap<String, String>,
    context: &mut Context<'_>,
) -> Vec<(String, String)> {
    for name in parameters.keys().filter(|name| OWN_PARAMETERS.contains(&name.as_str())) {
        let fix = "use its own key, or remove it: the gateway sets it";
        context.problem(&below(at, name), "is not an additional parameter", fix);
    }
    for (name, value) in parameters {
        let shown = redact::parameter(name, value);
        context.displayed_values.push((below(at, name).join("."), shown.into()));
    }
    parameters.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Parses a URL with a path. The message about an invalid URL does not contain it, since it may contain a password.
fn lower_url(key: &Key, text: &str, context: &mut Context<'_>) -> Option<String> {
    let uri = text.parse::<Uri>().ok().filter(|_| !text.contains(['#', '@']));
    let parts = uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.authority()?)));
    let Some((scheme, authority)) = parts else {
        let fix = "write `https://host/path`: no user and no fragment";
        context.problem(key, "is not a URL", fix);
        return None;
    };
    values::origin(key, &format!("{scheme}://{authority}"), PlainHttp::Loopback, context)?;
    Some(text.to_owned())
}

fn command(
    at: &Key,
    argv: &[String],
    environment: Option<&[String]>,
    timeout: Option<&str>,
    context: &mut Context<'_>,
) -> Option<CommandSettings> {
    let argv_key = below(at, "argv");
    let timeout_key = below(at, "timeout");
    let timeout = values::duration(&timeout_key, timeout.unwrap_or(COMMAND_TIMEOUT), context);
    if timeout > MAX_COMMAND_TIMEOUT {
        let fix = "run a slower program from a timer, and read the file that it writes with `source = \"file\"`";
        let fact = format!("is longer than {}", humantime::format_duration(MAX_COMMAND_TIMEOUT));
        context.problem(&timeout_key, fact, fix);
    }
    let environment: Vec<String> = match environment {
        Some(names) => names.to_vec(),
        None => COMMAND_ENVIRONMENT.map(str::to_owned).to_vec(),
    };
    for name in &environment {
        if name.is_empty() || name.contains(['=', '\0']) {
            // The message omits the entry, which may be a value and a secret.
            let fix = "write only the names; the values are those of the gateway";
            context.problem(&below(at, "environment"), "has an entry that is not the name of a variable", fix);
        }
    }
    let shown = redact::arguments(argv);
    context.displayed_values.push((argv_key.join("."), shown.into()));
    let Some((program, arguments)) = argv.split_first().filter(|(program, _)| !program.is_empty()) else {
        if !context.is_incomplete(&argv_key) {
            let fix =
                "write the program and its arguments, each as its own item: [\"get-token\", \"--audience\", \"…\"]";
            context.problem(&argv_key, "names no program", fix);
        }
        return None;
    };
    let program = if program.contains('/') {
        values::existing_file(&argv_key, Path::new(program), context)
    } else {
        PathBuf::from(program)
    };
    Some(CommandSettings { program, arguments: arguments.to_vec(), environment, timeout })
}

fn lower_ca(at: &Key, ca_file: Option<&Path>, context: &mut Context<'_>) -> Option<PathBuf> {
    values::ca_file(&below(at, "ca_file"), ca_file, context)
}

/// Checks that a variable of the platform is set. The environment of the process does not change later.
fn check_is_set(at: &Key, variable: &str, fix: &str, context: &mut Context<'_>) {
    if context.environment.get(variable).is_none_or(String::is_empty) {
        context.absent(at, format!("the environment variable {variable} is not set or empty"), fix);
    }
}

fn lower_audience(key: &Key, audience: Option<&str>, cloud: CloudFile, context: &mut Context<'_>) -> String {
    let audience = audience.unwrap_or(exchange_audience(cloud));
    if audience.is_empty() {
        context.problem(key, "is empty", format!("remove it for {}", exchange_audience(cloud)));
    }
    if audience.ends_with("/.default") {
        let fix = "remove `/.default`, which the gateway adds";
        context.problem(key, format!("`{audience}` is a scope, not an audience"), fix);
    }
    audience.to_owned()
}

/// Returns the audience that Entra requires of an assertion. Another authority has that of the public cloud.
fn exchange_audience(cloud: CloudFile) -> &'static str {
    let cloud = match cloud {
        CloudFile::Public | CloudFile::Custom => Cloud::Public,
        CloudFile::UsGovernment => Cloud::UsGovernment,
        CloudFile::China => Cloud::China,
    };
    cloud.exchange_audience()
}
