//! The sources of managed identity tokens: the instance metadata service, and the identity endpoint of App Service.

use std::time::SystemTime;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::sandbox::crypto::ids::guid;
use crate::sandbox::crypto::keys::{RsaKey, expiry, unix_seconds};
use crate::sandbox::directory::model::{Directory, DirectoryHandle, EXCHANGE_AUDIENCES, ManagedIdentity};
use crate::sandbox::entra::token::{self, ClientAuthentication, TokenParameters};
use crate::sandbox::server::exchange::{ReceivedRequest, Reply, Service};

/// Issues the tokens of managed identities.
#[derive(Clone)]
pub(crate) struct IdentityIssuer {
    /// The origin of the authority, which is in the issuer of exchange tokens.
    pub(crate) authority: String,
    /// The directory.
    pub(crate) directory: DirectoryHandle,
    /// The key with which Entra signs tokens.
    pub(crate) key: &'static RsaKey,
}

/// The instance metadata service.
pub(crate) struct Imds(pub(crate) IdentityIssuer);

/// The identity endpoint of App Service.
pub(crate) struct AppService {
    /// The issuer.
    pub(crate) issuer: IdentityIssuer,
    /// The required value of `X-IDENTITY-HEADER`.
    pub(crate) secret: String,
}

/// An issued token.
struct IssuedToken {
    token: String,
    client_id: String,
    resource: String,
    issued_at: SystemTime,
    expires: i64,
}

/// The reason why no token is issued.
enum IssueError {
    /// The host does not have the requested identity.
    IdentityNotFound,
    /// Entra rejects the resource with this message.
    InvalidResource(String),
    /// The request names no resource.
    MissingResource,
}

impl IdentityIssuer {
    fn issue(&self, request: &ReceivedRequest) -> Result<IssuedToken, IssueError> {
        let resource = request.query_value("resource").filter(|resource| !resource.is_empty());
        let resource = resource.ok_or(IssueError::MissingResource)?;
        let directory = self.directory.snapshot();
        let identity = find_identity(&directory, request).ok_or(IssueError::IdentityNotFound)?;
        let now = directory.tokens.now();
        let lifetime = directory.tokens.identity_lifetime;
        let parameters = TokenParameters {
            tenant: &identity.tenant,
            client_id: &identity.client_id,
            object_id: &identity.object_id,
            audience: &resource,
            authentication: ClientAuthentication::Assertion,
        };
        let provider = directory.tenant(&identity.tenant).is_some_and(|tenant| tenant.signalr_provider);
        let token = if EXCHANGE_AUDIENCES.contains(&resource.as_str()) {
            token::exchange_token(&parameters, &self.authority, now, lifetime, self.key)
        } else if token::is_signalr(&resource) && provider {
            token::access_token(&parameters, now, lifetime, self.key)
        } else {
            return Err(IssueError::InvalidResource(format!(
                "AADSTS500011: The resource principal named {resource} was not found in the tenant named {}.",
                identity.tenant
            )));
        };
        // Signing with a valid key does not fail.
        let token = token.map_err(|err| IssueError::InvalidResource(err.to_string()))?;
        let client_id = identity.client_id.clone();
        Ok(IssuedToken { token, client_id, resource, issued_at: now, expires: expiry(now, lifetime) })
    }
}

/// Returns the identity of the host that a request names, or the system-assigned identity if it names none.
fn find_identity<'a>(directory: &'a Directory, request: &ReceivedRequest) -> Option<&'a ManagedIdentity> {
    let query_value = |keys: &[&str]| keys.iter().find_map(|key| request.query_value(key));
    let client_id = query_value(&["client_id", "clientid"]);
    let object_id = query_value(&["object_id", "principal_id"]);
    let resource_id = query_value(&["msi_res_id", "mi_res_id"]);
    let is_requested = |identity: &&ManagedIdentity| match (&client_id, &object_id, &resource_id) {
        (Some(id), _, _) => identity.client_id.eq_ignore_ascii_case(id),
        (None, Some(id), _) => identity.object_id.eq_ignore_ascii_case(id),
        (None, None, Some(id)) => identity.resource_id.eq_ignore_ascii_case(id),
        (None, None, None) => identity.system_assigned,
    };
    directory.managed_identities.iter().filter(|identity| identity.assigned_to_host).find(is_requested)
}

impl Service for Imds {
    const MAX_BODY: usize = 4096;

    async fn handle(&self, request: ReceivedRequest) -> Reply {
        // Libraries differ in whether they end the path with a slash.
        if request.path.trim_end_matches('/') != "/metadata/identity/oauth2/token" {
            return Reply::empty(StatusCode::NOT_FOUND);
        }
        if request.method != Method::GET {
            return Reply::empty(StatusCode::METHOD_NOT_ALLOWED);
        }
        if !request.header("metadata").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return imds_error("bad_request_102", "Required metadata header not specified");
        }
        if request.query_value("api-version").is_none() {
            return imds_error("invalid_request", "Required query variable 'api-version' is missing");
        }
        match self.0.issue(&request) {
            Ok(issued) => {
                // All values are strings, including times.
                let lifetime = (issued.expires - unix_seconds(issued.issued_at)).to_string();
                let body = json!({
                    "access_token": issued.token,
                    "client_id": issued.client_id,
                    "expires_in": lifetime,
                    "expires_on": issued.expires.to_string(),
                    "ext_expires_in": lifetime,
                    "not_before": unix_seconds(issued.issued_at).to_string(),
                    "resource": issued.resource,
                    "token_type": "Bearer",
                });
                Reply::json(StatusCode::OK, &body).verdict("token issued")
            }
            Err(IssueError::IdentityNotFound) => imds_error("invalid_request", "Identity not found"),
            Err(IssueError::MissingResource) => {
                imds_error("invalid_request", "Required query variable 'resource' is missing")
            }
            Err(IssueError::InvalidResource(message)) => imds_error("invalid_resource", &message),
        }
    }
}

fn imds_error(error: &str, description: &str) -> Reply {
    let body = json!({ "error": error, "error_description": description });
    Reply::json(StatusCode::BAD_REQUEST, &body).verdict(description.to_owned())
}

impl Service for AppService {
    const MAX_BODY: usize = 4096;

    async fn handle(&self, request: ReceivedRequest) -> Reply {
        if request.path.trim_end_matches('/') != "/msi/token" {
            return Reply::empty(StatusCode::NOT_FOUND);
        }
        if request.method != Method::GET {
            return Reply::empty(StatusCode::METHOD_NOT_ALLOWED);
        }
        if request.header("x-identity-header") != Some(self.secret.as_str()) {
            return app_service_error(StatusCode::UNAUTHORIZED, "The X-IDENTITY-HEADER is missing or wrong.");
        }
        match self.issuer.issue(&request) {
            Ok(issued) => {
                let body = json!({
                    "access_token": issued.token,
                    "client_id": issued.client_id,
                    "expires_on": issued.expires.to_string(),
                    "resource": issued.resource,
                    "token_type": "Bearer",
                });
                Reply::json(StatusCode::OK, &body).verdict("token issued")
            }
            Err(IssueError::IdentityNotFound) => app_service_error(
                StatusCode::BAD_REQUEST,
                "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId.",
            ),
            Err(IssueError::MissingResource) => app_service_error(StatusCode::BAD_REQUEST, "The resource is missing."),
            Err(IssueError::InvalidResource(message)) => app_service_error(StatusCode::BAD_REQUEST, &message),
        }
    }
}

fn app_service_error(status: StatusCode, message: &str) -> Reply {
    let body: Value = json!({ "statusCode": status.as_u16(), "message": message, "correlationId": guid() });
    Reply::json(status, &body).verdict(message.to_owned())
}
