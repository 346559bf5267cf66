//! Identity providers outside Entra, whose tokens a federated identity credential can trust. They reject the same invalid
//! requests as the real providers.
//!
//! ```text
//! GET  /github/token?api-version=2.0&audience=…                                   ──► {"count", "value"}
//! POST /contoso/_apis/…/oidctoken?api-version=7.1&serviceConnectionId=…           ──► {"oidcToken"}
//! POST /oauth2/token  grant_type=client_credentials&audience=…                    ──► {"access_token"[, "id_token"]}
//! GET  /computeMetadata/v1/instance/service-accounts/default/identity?audience=…  ──► the token
//! ```

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, LOCATION, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::sandbox::crypto::ids::random_string;
use crate::sandbox::crypto::keys::{Claims, RsaKey, expiry, unix_seconds};
use crate::sandbox::directory::model::{EXCHANGE_AUDIENCES, SecretText};
use crate::sandbox::directory::scenario::{
    GCP_ISSUER, GCP_SUBJECT, GITHUB_ISSUER, GITHUB_SUBJECT, OAUTH2_CLIENT_ID, OAUTH2_ISSUER, PIPELINES_ISSUER,
    PIPELINES_SUBJECT, SERVICE_CONNECTION,
};
use crate::sandbox::server::exchange::{ReceivedRequest, Reply, Service};

/// The path of GitHub's token request URL.
pub(crate) const GITHUB_PATH: &str = "/github/token";
/// The path of an Azure Pipelines job's token request URL.
pub(crate) const PIPELINES_PATH: &str = "/contoso/_apis/distributedtask/hubs/build/plans/1/jobs/1/oidctoken";
/// The path of the OAuth 2.0 token endpoint.
pub(crate) const OAUTH2_PATH: &str = "/oauth2/token";
/// The path prefix of the service accounts at Google's metadata server.
const ACCOUNTS_PATH: &str = "/computeMetadata/v1/instance/service-accounts/";

/// The lifetime of the tokens of GitHub and Azure Pipelines. Observed: 5 minutes at GitHub, 10 minutes at Azure Pipelines.
const JOB_LIFETIME: Duration = Duration::from_secs(300);
/// The lifetime of the tokens of Google and the authorization server.
const HOST_LIFETIME: Duration = Duration::from_secs(3600);

const METADATA_FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");

/// The secrets with which clients authenticate to the providers.
#[derive(Clone, Debug)]
pub(crate) struct ProviderSecrets {
    pub(crate) github: SecretText,
    pub(crate) pipelines: SecretText,
    pub(crate) oauth2: SecretText,
}

impl ProviderSecrets {
    pub(crate) fn generate() -> Self {
        let secret = |between: &str| SecretText::new(format!("{}{between}{}", random_string(), random_string()));
        // With the characters `: +`, a client that does not form-encode the secret fails.
        Self { github: secret(""), pipelines: secret(""), oauth2: secret(": +") }
    }
}

/// The service of GitHub Actions, Azure Pipelines and an OAuth 2.0 authorization server.
pub(crate) struct Providers {
    pub(crate) secrets: ProviderSecrets,
    pub(crate) key: &'static RsaKey,
}

/// The service of Google Cloud's metadata server.
pub(crate) struct GcpMetadata {
    pub(crate) key: &'static RsaKey,
}

impl Service for Providers {
    const MAX_BODY: usize = 64 * 1024;

    async fn handle(&self, request: ReceivedRequest) -> Reply {
        match (request.path.as_str(), &request.method) {
            (GITHUB_PATH, &Method::GET) => self.github(&request),
            (PIPELINES_PATH, &Method::POST) => self.pipelines(&request),
            (OAUTH2_PATH, &Method::POST) => {
                self.oauth2(&request).map_or_else(|error| error.reply(), |body| token_reply(&body))
            }
            (GITHUB_PATH | PIPELINES_PATH | OAUTH2_PATH, _) => Reply::empty(StatusCode::METHOD_NOT_ALLOWED),
            _ => Reply::empty(StatusCode::NOT_FOUND),
        }
    }
}

impl Providers {
    fn github(&self, request: &ReceivedRequest) -> Reply {
        if request.bearer() != Some(self.secrets.github.expose()) {
            return json_error(
                StatusCode::UNAUTHORIZED,
                "The request token is missing, wrong, or belongs to a job that has ended.",
            );
        }
        // The URL that GitHub passes to a job has this parameter. Clients must not remove it.
        if request.query_value("api-version").as_deref() != Some("2.0") {
            return json_error(StatusCode::BAD_REQUEST, "The api-version is missing or not supported.");
        }
        let audience = request.query_value("audience").filter(|audience| !audience.is_empty());
        let audience = audience.unwrap_or_else(|| String::from("https://github.com/contoso"));
        let claims = json!({ "repository": "contoso/deploy", "ref": "refs/heads/main" });
        match sign(self.key, [GITHUB_ISSUER, GITHUB_SUBJECT, &audience], JOB_LIFETIME, &claims) {
            Ok(token) => token_reply(&json!({ "count": token.len(), "value": token })),
            Err(err) => json_error(StatusCode::INTERNAL_SERVER_ERROR, &err.to_string()),
        }
    }

    fn pipelines(&self, request: &ReceivedRequest) -> Reply {
        if request.bearer() != Some(self.secrets.pipelines.expose()) {
            // Azure DevOps redirects clients that do not send this header field to its sign-in page.
            let suppresses_redirect = request.header("x-tfs-fedauthredirect") == Some("Suppress");
            if suppresses_redirect {
                return json_error(
                    StatusCode::UNAUTHORIZED,
                    "TF400813: The user is not authorized to access this resource.",
                );
            }
            let page = "https://spsprodcus1.vssps.visualstudio.com/_signin";
            return Reply::empty(StatusCode::FOUND).header(LOCATION, page).verdict("redirected to sign in");
        }
        if request.header(CONTENT_LENGTH).is_none() {
            return json_error(StatusCode::LENGTH_REQUIRED, "The request must be chunked or have a content length.");
        }
        if request.query_value("api-version").is_none() {
            return json_error(StatusCode::BAD_REQUEST, "No api-version was supplied.");
        }
        match request.query_value("serviceConnectionId").as_deref() {
            Some(SERVICE_CONNECTION) => {}
            Some(_) => return json_error(StatusCode::NOT_FOUND, "No service connection found with this identifier."),
            None => return json_error(StatusCode::BAD_REQUEST, "serviceConnectionId is missing."),
        }
        let claims = [PIPELINES_ISSUER, PIPELINES_SUBJECT, EXCHANGE_AUDIENCES[0]];
        match sign(self.key, claims, JOB_LIFETIME, &json!({})) {
            Ok(token) => token_reply(&json!({ "oidcToken": token })),
            Err(err) => json_error(StatusCode::INTERNAL_SERVER_ERROR, &err.to_string()),
        }
    }

    fn oauth2(&self, request: &ReceivedRequest) -> Result<Value, OAuth2Error> {
        let type_of_form = "application/x-www-form-urlencoded";
        if !request.header(CONTENT_TYPE).is_some_and(|value| value.starts_with(type_of_form)) {
            return Err(OAuth2Error::new("invalid_request", "The body is not a form."));
        }
        let pairs: Vec<(String, String)> = form_urlencoded::parse(&request.body).into_owned().collect();
        let form: HashMap<String, String> = pairs.iter().cloned().collect();
        if form.len() < pairs.len() {
            return Err(OAuth2Error::new("invalid_request", "A parameter is repeated."));
        }
        if form.get("grant_type").map(String::as_str) != Some("client_credentials") {
            return Err(OAuth2Error::new("unsupported_grant_type", "Only client_credentials is supported."));
        }
        self.authenticate(request, &form)?;
        let token =
            |audience: &str| sign(self.key, [OAUTH2_ISSUER, OAUTH2_CLIENT_ID, audience], HOST_LIFETIME, &json!({}));
        // As some servers do, issues an opaque token if the request has no audience.
        let access_token = form.get("audience").map_or_else(|| Ok(random_string()), |audience| token(audience))?;
        let mut body =
            json!({ "access_token": access_token, "token_type": "Bearer", "expires_in": HOST_LIFETIME.as_secs() });
        let scopes = form.get("scope").map_or("", String::as_str);
        if scopes.split(' ').any(|scope| scope == "openid")
            && let Some(fields) = body.as_object_mut()
        {
            fields.insert(String::from("id_token"), Value::from(token(EXCHANGE_AUDIENCES[0])?));
        }
        Ok(body)
    }

    /// Authenticates the client by the header or the form, but not by both (RFC 6749 section 2.3.1).
    fn authenticate(&self, request: &ReceivedRequest, form: &HashMap<String, String>) -> Result<(), OAuth2Error> {
        let basic = request.header(AUTHORIZATION).and_then(|value| value.strip_prefix("Basic "));
        let in_form = form.get("client_id").zip(form.get("client_secret"));
        let (id, secret) = match (basic, in_form) {
            (Some(_), Some(_)) => {
                return Err(OAuth2Error::new("invalid_request", "The client authenticates in more than one way."));
            }
            (Some(basic), None) => decode_basic(basic).unwrap_or_default(),
            (None, Some((id, secret))) => (id.clone(), secret.clone()),
            (None, None) => (String::new(), String::new()),
        };
        if id == OAUTH2_CLIENT_ID && secret == self.secrets.oauth2.expose() {
            return Ok(());
        }
        // As some servers do, repeats the secret in the error.
        Err(OAuth2Error::new("invalid_client", format!("No client '{id}' with secret '{secret}'.")))
    }
}

/// An error response of the authorization server (RFC 6749 section 5.2).
struct OAuth2Error {
    error: &'static str,
    description: String,
}

impl OAuth2Error {
    fn new(error: &'static str, description: impl Into<String>) -> Self {
        Self { error, description: description.into() }
    }

    fn reply(&self) -> Reply {
        let status = match self.error {
            "invalid_client" => StatusCode::UNAUTHORIZED,
            "server_error" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        let body = json!({ "error": self.error, "error_description": self.description });
        let reply = Reply::json(status, &body).verdict(self.error);
        if status == StatusCode::UNAUTHORIZED { reply.header(WWW_AUTHENTICATE, "Basic") } else { reply }
    }
}

impl From<jsonwebtoken::errors::Error> for OAuth2Error {
    fn from(err: jsonwebtoken::errors::Error) -> Self {
        Self::new("server_error", err.to_string())
    }
}

impl Service for GcpMetadata {
    const MAX_BODY: usize = 4096;

    async fn handle(&self, request: ReceivedRequest) -> Reply {
        self.identity(&request).header(METADATA_FLAVOR, "Google").header(http::header::SERVER, "Metadata Server for VM")
    }
}

impl GcpMetadata {
    fn identity(&self, request: &ReceivedRequest) -> Reply {
        let account = request.path.strip_prefix(ACCOUNTS_PATH).and_then(|rest| rest.strip_suffix("/identity"));
        let Some(account) = account else { return html_reply(StatusCode::NOT_FOUND, "Not Found") };
        if request.method != Method::GET {
            return html_reply(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        }
        if request.header(METADATA_FLAVOR) != Some("Google") {
            return html_reply(StatusCode::FORBIDDEN, "Missing required header \"Metadata-Flavor\": \"Google\"");
        }
        // Google's metadata server rejects forwarded requests.
        if request.header("x-forwarded-for").is_some() {
            return html_reply(StatusCode::FORBIDDEN, "Requests with X-Forwarded-For are not allowed");
        }
        if account != "default" && account != "gateway@contoso.iam.gserviceaccount.com" {
            return html_reply(StatusCode::NOT_FOUND, "The service account was not found.");
        }
        let Some(audience) = request.query_value("audience").filter(|audience| !audience.is_empty()) else {
            return html_reply(StatusCode::BAD_REQUEST, "non-empty audience parameter required");
        };
        let extra_claims = match request.query_value("format").as_deref() {
            None | Some("standard") => json!({ "azp": GCP_SUBJECT }),
            Some("full") => json!({ "azp": GCP_SUBJECT, "google": { "compute_engine": { "project_id": "contoso" } } }),
            Some(_) => return html_reply(StatusCode::BAD_REQUEST, "invalid format"),
        };
        match sign(self.key, [GCP_ISSUER, GCP_SUBJECT, &audience], HOST_LIFETIME, &extra_claims) {
            // The real server uses this content type, too.
            Ok(token) => Reply::with_content_type(StatusCode::OK, "text/html", token).verdict("token issued"),
            Err(err) => html_reply(StatusCode::INTERNAL_SERVER_ERROR, &err.to_string()),
        }
    }
}

fn sign(
    key: &RsaKey,
    [iss, sub, aud]: [&str; 3],
    lifetime: Duration,
    extra_claims: &Value,
) -> jsonwebtoken::errors::Result<String> {
    let now = SystemTime::now();
    let (issued, expires) = (unix_seconds(now), expiry(now, lifetime));
    let claims = json!({ "iss": iss, "sub": sub, "aud": aud, "iat": issued, "nbf": issued, "exp": expires, "jti": random_string() });
    let mut claims = claims.as_object().cloned().unwrap_or_else(Claims::new);
    claims.extend(extra_claims.as_object().cloned().unwrap_or_default());
    key.sign(&claims)
}

fn decode_basic(text: &str) -> Option<(String, String)> {
    let pair = String::from_utf8(STANDARD.decode(text).ok()?).ok()?;
    let (id, secret) = pair.split_once(':')?;
    let decoded = |text: &str| {
        let (text, _) = form_urlencoded::parse(text.as_bytes()).next()?;
        Some(text.into_owned())
    };
    Some((decoded(id)?, decoded(secret)?))
}

fn token_reply(body: &Value) -> Reply {
    Reply::json(StatusCode::OK, body).verdict("token issued")
}

fn json_error(status: StatusCode, message: &str) -> Reply {
    Reply::json(status, &json!({ "message": message })).verdict(message.to_owned())
}

fn html_reply(status: StatusCode, message: &str) -> Reply {
    Reply::with_content_type(status, "text/html; charset=UTF-8", message.to_owned()).verdict(message.to_owned())
}
