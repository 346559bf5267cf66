//! The documents by which identity libraries find Entra's endpoints: `OpenID` discovery of both versions, and instance discovery.
//!
//! Source: the documents of `login.microsoftonline.com`, and the fields that MSAL for Python and for Node require.

use serde_json::{Value, json};

/// The version of an endpoint or a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// Returns the discovery document of a tenant. `tenant` is its id, or `common` and the like.
pub(super) fn openid_configuration(authority: &str, tenant: &str, version: Version) -> Value {
    let base = format!("{authority}/{tenant}");
    // A token names the tenant that it is for, so the shared documents have a placeholder.
    let issuer_tenant = if is_shared(tenant) { "{tenantid}" } else { tenant };
    let (path, keys, issuer) = match version {
        Version::V1 => ("oauth2", "discovery/keys", format!("https://sts.windows.net/{issuer_tenant}/")),
        Version::V2 => ("oauth2/v2.0", "discovery/v2.0/keys", format!("{authority}/{issuer_tenant}/v2.0")),
    };
    json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{base}/{path}/authorize"),
        "token_endpoint": format!("{base}/{path}/token"),
        "device_authorization_endpoint": format!("{base}/{path}/devicecode"),
        "end_session_endpoint": format!("{base}/{path}/logout"),
        "jwks_uri": format!("{base}/{keys}"),
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
        "response_modes_supported": ["query", "fragment", "form_post"],
        "response_types_supported": ["code", "id_token", "token"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "claims_supported": ["sub", "iss", "aud", "exp", "iat", "nbf", "tid", "ver"],
        "tenant_region_scope": Value::Null,
        "cloud_instance_name": host(authority),
    })
}

/// Returns the document that says which hosts are the same authority: this one alone.
pub(super) fn instance(authority: &str) -> Value {
    let host = host(authority);
    json!({
        "tenant_discovery_endpoint": format!("{authority}/common/v2.0/.well-known/openid-configuration"),
        "api-version": "1.1",
        "metadata": [{ "preferred_network": host, "preferred_cache": host, "aliases": [host] }],
    })
}

/// Returns whether a path names no tenant but any.
pub(super) fn is_shared(tenant: &str) -> bool {
    matches!(tenant, "common" | "organizations" | "consumers")
}

fn host(authority: &str) -> &str {
    authority.split_once("://").map_or(authority, |(_, host)| host)
}
