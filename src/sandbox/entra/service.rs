//! The HTTP service of Entra: validates token requests, issues tokens, and serves the keys and the discovery documents.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::header::{CACHE_CONTROL, DATE, HeaderName, PRAGMA};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::assertion::{self, UsedIds};
use super::discovery::{self, Version};
use super::error_response::{ErrorResponse, ResponseIds};
use super::token::{self, ClientAuthentication, TokenParameters};
use crate::sandbox::crypto::ids::is_guid;
use crate::sandbox::crypto::keys::{RsaKey, expiry, unix_seconds};
use crate::sandbox::directory::model::{Application, Directory, DirectoryHandle, ServicePrincipal, Tenant};
use crate::sandbox::server::exchange::{ReceivedRequest, Reply, Service};

/// The assertion type of RFC 7523.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The maximum number of stored tokens, which [`TokenPolicy::repeat`](crate::sandbox::TokenPolicy::repeat) issues again.
const MAX_STORED_TOKENS: usize = 1000;

/// The HTTP service of Entra.
pub(crate) struct Entra {
    authority: String,
    directory: DirectoryHandle,
    key: &'static RsaKey,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    used_ids: UsedIds,
    /// The last issued token and its expiry, by tenant, client id and audience.
    tokens: HashMap<(String, String, String), (String, SystemTime)>,
}

/// The form parameters of a token request.
struct TokenForm(HashMap<String, String>);

/// An issued token with its remaining lifetime.
struct IssuedToken {
    token: String,
    lifetime: Duration,
}

impl Entra {
    pub(crate) fn new(authority: String, directory: DirectoryHandle, key: &'static RsaKey) -> Self {
        Self { authority, directory, key, state: Mutex::default() }
    }

    fn token(&self, tenant: &str, version: Version, request: &ReceivedRequest) -> Reply {
        let directory = self.directory.snapshot();
        let now = directory.tokens.now();
        let mut form = TokenForm(form_urlencoded::parse(&request.body).into_owned().collect());
        if let (Version::V1, Some(resource)) = (version, form.get("resource")) {
            // The v1 endpoint takes a resource in place of a scope.
            let scope = format!("{resource}/.default");
            form.0.insert(String::from("scope"), scope);
        }
        let ids = ResponseIds::new(request.header("client-request-id"));
        let reply = match self.issue(&directory, tenant, &form, now) {
            Ok(issued) => {
                let mut body = token_response(&directory, &issued);
                if version == Version::V1 {
                    of_v1(&mut body, &form, &issued, now);
                }
                Reply::json(StatusCode::OK, &body).verdict("token issued")
            }
            Err(error) => self.error_reply(&error, &ids, now),
        };
        reply
            .header(CACHE_CONTROL, "no-store, no-cache")
            .header(PRAGMA, "no-cache")
            .header(HeaderName::from_static("x-ms-request-id"), &ids.trace)
            .header(DATE, &httpdate::fmt_http_date(now))
    }

    /// Validates a token request and issues a token.
    ///
    /// The order of the checks is that of Entra, as far as its errors show it: request, tenant, client, client
    /// authentication, resource, policies.
    fn issue(
        &self,
        directory: &Directory,
        requested_tenant: &str,
        form: &TokenForm,
        now: SystemTime,
    ) -> Result<IssuedToken, ErrorResponse> {
        let grant = form.required("grant_type")?;
        if grant != "client_credentials" {
            return Err(ErrorResponse::unsupported_grant(grant));
        }
        let client_id = form.required("client_id")?;
        let scope = form.required("scope")?;
        let tenant = find_tenant(directory, requested_tenant, client_id)?;
        if let Some(after) = tenant.throttled {
            return Err(ErrorResponse::throttled(after));
        }
        let (application, principal) = find_client(directory, tenant, client_id)?;
        let authentication = self.authenticate_client(directory, requested_tenant, application, form, now)?;
        let audience = find_resource(tenant, scope)?;
        if tenant.conditional_access_blocks {
            return Err(ErrorResponse::conditional_access());
        }
        let parameters = TokenParameters {
            tenant: &tenant.id,
            client_id: &application.client_id,
            object_id: &principal.object_id,
            audience,
            authentication,
        };
        self.token_for(directory, &parameters, now)
    }

    fn authenticate_client(
        &self,
        directory: &Directory,
        tenant: &str,
        application: &Application,
        form: &TokenForm,
        now: SystemTime,
    ) -> Result<ClientAuthentication, ErrorResponse> {
        if let Some(assertion) = form.get("client_assertion") {
            if form.get("client_assertion_type") != Some(ASSERTION_TYPE) {
                return Err(ErrorResponse::missing_parameter("client_assertion_type"));
            }
            let context =
                assertion::RequestContext { directory, entra_key: self.key, authority: &self.authority, tenant, now };
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            assertion::check(&context, application, assertion, &mut state.used_ids)?;
            return Ok(ClientAuthentication::Assertion);
        }
        let Some(secret) = form.get("client_secret") else {
            return Err(ErrorResponse::no_credential());
        };
        let registered = application.secrets.iter().find(|registered| registered.value.expose() == secret);
        match registered {
            None => Err(ErrorResponse::wrong_secret(&application.client_id)),
            Some(registered) if registered.expires <= now => Err(ErrorResponse::secret_expired(&application.client_id)),
            Some(_) => Ok(ClientAuthentication::Secret),
        }
    }

    /// Returns a new token. With `TokenPolicy::repeat`, returns the stored token if it has not expired.
    fn token_for(
        &self,
        directory: &Directory,
        parameters: &TokenParameters<'_>,
        now: SystemTime,
    ) -> Result<IssuedToken, ErrorResponse> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let key = [parameters.tenant, parameters.client_id, parameters.audience].map(str::to_owned).into();
        if directory.tokens.repeat
            && let Some((token, expires)) = state.tokens.get(&key)
            && let Ok(lifetime) = expires.duration_since(now)
        {
            return Ok(IssuedToken { token: token.clone(), lifetime });
        }
        let lifetime = directory.tokens.lifetime;
        let token = token::access_token(parameters, now, lifetime, self.key)
            .map_err(|err| ErrorResponse::assertion_invalid(&format!("The token could not be signed: {err}.")))?;
        if state.tokens.len() >= MAX_STORED_TOKENS {
            state.tokens.clear();
        }
        state.tokens.insert(key, (token.clone(), now + lifetime));
        Ok(IssuedToken { token, lifetime })
    }

    fn keys(&self) -> Reply {
        Reply::json(StatusCode::OK, &json!({ "keys": [self.key.public().jwk()] }))
    }

    fn discovery(&self, tenant: &str, version: Version) -> Reply {
        let id = if discovery::is_shared(tenant) {
            Some(tenant.to_owned())
        } else {
            self.directory.read(|directory| directory.tenant(tenant).map(|tenant| tenant.id.clone()))
        };
        match id {
            Some(id) => Reply::json(StatusCode::OK, &discovery::openid_configuration(&self.authority, &id, version)),
            None => self.error(&ErrorResponse::tenant_not_found(tenant), None),
        }
    }

    /// Returns an error outside of a token request.
    fn error(&self, error: &ErrorResponse, client_request_id: Option<&str>) -> Reply {
        let now = self.directory.read(|directory| directory.tokens.now());
        self.error_reply(error, &ResponseIds::new(client_request_id), now)
    }

    fn error_reply(&self, error: &ErrorResponse, ids: &ResponseIds, now: SystemTime) -> Reply {
        Reply::json(error.status, &error.body(ids, &self.authority, now))
            .retry_after(error.retry_after)
            .verdict(format!("AADSTS{}", error.code))
    }
}

impl Service for Entra {
    const MAX_BODY: usize = 256 * 1024;

    async fn handle(&self, request: ReceivedRequest) -> Reply {
        // Libraries differ in whether they end a path with a slash.
        let segments: Vec<&str> = request.path.trim_matches('/').split('/').collect();
        match (&request.method, segments.as_slice()) {
            (&Method::POST, [tenant, "oauth2", "token"] | [tenant, "oauth2", "v2.0", "token"]) => {
                let version = if segments.len() == 3 { Version::V1 } else { Version::V2 };
                let delay = self.directory.read(|directory| directory.tenant(tenant)?.token_delay);
                if let Some(delay) = delay {
                    tokio::time::sleep(delay).await;
                }
                self.token(tenant, version, &request)
            }
            (&Method::POST, [_, "oauth2", "devicecode"] | [_, "oauth2", "v2.0", "devicecode"]) => {
                self.error(&ErrorResponse::device_code(), request.header("client-request-id"))
            }
            (&Method::GET, ["common", "discovery", "instance"]) => {
                Reply::json(StatusCode::OK, &discovery::instance(&self.authority))
            }
            (&Method::GET, [_, "discovery", "keys"] | [_, "discovery", "v2.0", "keys"]) => self.keys(),
            (&Method::GET, [tenant, ".well-known", "openid-configuration"]) => self.discovery(tenant, Version::V1),
            (&Method::GET, [tenant, "v2.0", ".well-known", "openid-configuration"]) => {
                self.discovery(tenant, Version::V2)
            }
            (_, [_, "oauth2", "token"] | [_, "oauth2", "v2.0", "token"]) => {
                Reply::empty(StatusCode::METHOD_NOT_ALLOWED)
            }
            _ => Reply::empty(StatusCode::NOT_FOUND),
        }
    }
}

impl TokenForm {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn required(&self, name: &str) -> Result<&str, ErrorResponse> {
        self.get(name).filter(|value| !value.is_empty()).ok_or_else(|| ErrorResponse::missing_parameter(name))
    }
}

fn find_tenant<'a>(
    directory: &'a Directory,
    requested_tenant: &str,
    client_id: &str,
) -> Result<&'a Tenant, ErrorResponse> {
    if discovery::is_shared(requested_tenant) {
        let single = directory.application(client_id).is_some_and(|application| !application.multi_tenant);
        return Err(if single {
            ErrorResponse::single_tenant_at_common(client_id, requested_tenant)
        } else {
            ErrorResponse::tenant_unspecified(requested_tenant)
        });
    }
    match directory.tenant(requested_tenant) {
        Some(tenant) if tenant.in_other_cloud => Err(ErrorResponse::other_cloud(requested_tenant)),
        Some(tenant) => Ok(tenant),
        None if is_guid(requested_tenant) || requested_tenant.contains('.') => {
            Err(ErrorResponse::tenant_not_found(requested_tenant))
        }
        None => Err(ErrorResponse::tenant_malformed(requested_tenant)),
    }
}

fn find_client<'a>(
    directory: &'a Directory,
    tenant: &'a Tenant,
    client_id: &str,
) -> Result<(&'a Application, &'a ServicePrincipal), ErrorResponse> {
    let not_found = || ErrorResponse::application_not_found(client_id, &tenant.domain);
    let application = directory.application(client_id).ok_or_else(not_found)?;
    if !application.multi_tenant && application.home_tenant != tenant.id {
        return Err(not_found());
    }
    let principal = tenant.service_principal(client_id);
    let principal = principal.ok_or_else(|| ErrorResponse::service_principal_missing(client_id, &tenant.id))?;
    if !application.enabled || !principal.enabled {
        return Err(ErrorResponse::application_disabled(client_id));
    }
    Ok((application, principal))
}

/// Returns the resource that a scope names, which becomes the audience of the token.
fn find_resource<'a>(tenant: &Tenant, scope: &'a str) -> Result<&'a str, ErrorResponse> {
    if scope.trim().contains(' ') {
        return Err(ErrorResponse::several_scopes(scope));
    }
    let Some(resource) = scope.trim().strip_suffix("/.default").filter(|resource| !resource.is_empty()) else {
        return Err(ErrorResponse::scope_malformed(scope));
    };
    if !token::is_signalr(resource) || !tenant.signalr_provider {
        return Err(ErrorResponse::resource_not_found(resource, &tenant.domain));
    }
    Ok(resource)
}

/// Returns the body of a successful response (RFC 6749 section 5.1).
fn token_response(directory: &Directory, issued: &IssuedToken) -> Value {
    let seconds = issued.lifetime.as_secs();
    let mut body = json!({
        "token_type": "Bearer",
        "expires_in": directory.tokens.expires_in.clone().unwrap_or_else(|| Value::from(seconds)),
        "ext_expires_in": seconds,
        "access_token": issued.token,
    });
    if let (Some(refresh_in), Some(fields)) = (directory.tokens.refresh_in, body.as_object_mut()) {
        fields.insert(String::from("refresh_in"), Value::from(refresh_in.as_secs()));
    }
    body
}

/// Turns the body of a successful response into one of the v1 endpoint: all values are strings, and it names the resource and
/// the times.
fn of_v1(body: &mut Value, form: &TokenForm, issued: &IssuedToken, now: SystemTime) {
    let Some(fields) = body.as_object_mut() else { return };
    for value in fields.values_mut().filter(|value| value.is_number()) {
        *value = Value::from(value.to_string());
    }
    let text = |seconds: i64| Value::from(seconds.to_string());
    fields.insert(String::from("expires_on"), text(expiry(now, issued.lifetime)));
    fields.insert(String::from("not_before"), text(unix_seconds(now)));
    fields.insert(String::from("resource"), Value::from(form.get("resource").unwrap_or_default()));
}
