//! Lowers the keys that credentials and assertions share: managed identities, and the sources of secrets and tokens.

use std::path::{Path, PathBuf};

use super::context::{Context, Key, below};
use super::values::{self, PlainHttp, is_content};
use crate::config::file::SecretFile;
use crate::credential::{ManagedIdentity, ManagedIdentitySettings, SecretSource};
use crate::redact::is_guid;

pub(super) fn managed_identity(
    at: &Key,
    [client_id, object_id, resource_id]: [Option<&str>; 3],
    imds_endpoint: Option<&str>,
    context: &mut Context<'_>,
) -> Option<ManagedIdentitySettings> {
    for (name, id) in [("client_id", client_id), ("object_id", object_id)] {
        if let Some(id) = id.filter(|id| !is_guid(id)) {
            context.problem(
                &below(at, name),
                format!("`{id}` is not a GUID"),
                "copy it from the identity's page in the Azure portal",
            );
        }
    }
    let id = match (client_id, object_id, resource_id) {
        (None, None, None) => ManagedIdentity::System,
        (Some(id), None, None) => ManagedIdentity::ClientId(id.to_owned()),
        (None, Some(id), None) => ManagedIdentity::ObjectId(id.to_owned()),
        (None, None, Some(id)) => ManagedIdentity::ResourceId(id.to_owned()),
        _ => {
            let fix = "keep one of client_id, object_id and resource_id";
            context.problem(at, "names a managed identity in more than one way", fix);
            return None;
        }
    };
    let imds_endpoint = match imds_endpoint {
        None => None,
        Some(text) => {
            Some(values::origin(&below(at, "imds_endpoint"), text, PlainHttp::LinkLocal, context)?.to_string())
        }
    };
    Some(ManagedIdentitySettings { id, imds_endpoint })
}

pub(super) fn secret_source(key: &Key, file: &SecretFile, context: &mut Context<'_>) -> Option<SecretSource> {
    match (&file.file, &file.env) {
        (Some(path), None) => Some(SecretSource::File(values::existing_file(key, path, context))),
        (None, Some(name)) => {
            if context.environment.get(name).is_none_or(String::is_empty) {
                // A text that is not the name of a variable may be the secret itself.
                let shown = if SecretSource::is_variable_name(name) { name } else { "that `env` names" };
                context.absent(
                    key,
                    format!("the environment variable {shown} is not set or empty"),
                    "set it where the gateway starts",
                );
            }
            Some(SecretSource::Env(name.clone()))
        }
        (None, None) if context.is_incomplete(key) => None,
        (None, None) | (Some(_), Some(_)) => {
            let fix = "write either { file = \"/path\" } or { env = \"NAME\" }";
            context.problem(key, "names no source of the secret", fix);
            None
        }
    }
}

/// Resolves the path of a token file. The file need not exist: it may be mounted after the gateway starts.
pub(super) fn token_file(key: &Key, path: &Path, context: &mut Context<'_>) -> PathBuf {
    if is_content(path) {
        let fix = "write the path of the file that contains it";
        context.problem(key, "is a token, must be the path of a file", fix);
    }
    context.path(key, path)
}
