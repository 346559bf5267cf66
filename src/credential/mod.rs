//! Credentials: how the gateway authenticates to endpoints, and how it acquires and refreshes tokens.
//!
//! The interface is [`BearerSource`]. The request path reads the current bearer without a lock, and waits only if there is
//! none.
//!
//! # From the acquisition to the request
//!
//! ```text
//! worker ── current() ──► cell ◄── refresh task ──► acquirer ──► azure_identity ──► RecordingClient ──► hyper, rustls
//!           acquire()             (control runtime)     │        (new for each      (validates the response,
//!           replace()                                   │         request)           records the step)
//!                                                       └─ secret · certificate · token of another identity
//! ```
//!
//! * `credentials.rs`: all credentials of a gateway, and `report.rs`: what commands learn about one.
//! * `cell.rs`: the token in service and its callers; `state.rs`: what the cell shares with the refresh task in `refresh.rs`;
//!   `schedule.rs`: when to refresh and retry.
//! * `acquirers.rs`: builds the acquirer of each kind; `app.rs`: the tenants of an app that are tried at start;
//!   `proof_files.rs`: the secrets and certificates that are tried when they change.
//! * `acquire.rs`: the trait of an acquisition, implemented in `entra.rs`, `managed_identity.rs`, `azure_cli.rs`, `token_file.rs`
//!   and `access_key_source.rs`; `record.rs`: the record of its steps.
//! * `authority/`: what the token requests to one authority share: a queue, and pauses when it throttles.
//! * `assertion/`: client assertions, shared by the tenants of an app where possible; `transport.rs`, `response.rs`: the HTTP client below the identity library; `process.rs`:
//!   programs that print tokens.
//! * `error.rs`, `response_error.rs`, `local_error.rs`, `identity_endpoint.rs`: why there is no token; `remedy.rs`: what the codes of
//!   Entra mean.
//!
//! # The flows, and the two tenants
//!
//! The app registration is in tenant A, the SignalR resource in tenant B. The role is always assigned in B, to the object id of
//! the caller there. [`SetupStep`] numbers the steps of the setup.
//!
//! `client_secret` and `client_certificate`: the app authenticates with a secret or certificate that is registered on it.
//!
//! ```text
//! this host                        tenant A                         tenant B
//! secret, or an assertion    app registration, multi-tenant    enterprise application ── role ──► SignalR
//! signed with the key        (secret or certificate)           of the same client id                 ▲
//!     └── POST /{tenant B}/oauth2/v2.0/token ────────────────────────► token ── request ─────────────┘
//! ```
//!
//! `federated`: a token of another identity replaces the secret. The app registration states which identity it trusts.
//!
//! ```text
//! this host                        tenant A                         tenant B
//! managed identity of A, or  app registration, multi-tenant    enterprise application ── role ──► SignalR
//! another provider's token   (federated credential:            of the same client id                 ▲
//!     │                       issuer, subject, audience)             │                               │
//!     └── assertion ── POST /{tenant B}/oauth2/v2.0/token ───────────┴► token ── request ────────────┘
//! ```
//!
//! The sources of such a token besides a managed identity (each is described in its file in `assertion/`):
//!
//! ```text
//! file             kubelet, or any program ──► file                            trimmed, read for each token request
//! github_actions   GET  $ACTIONS_ID_TOKEN_REQUEST_URL&audience=…               {"value"}
//! azure_pipelines  POST $SYSTEM_OIDCREQUESTURI?serviceConnectionId=…           {"oidcToken"}
//! gcp_metadata     GET  metadata.google.internal/…/identity?audience=…         the token
//! oauth2           POST token_url, grant_type=client_credentials               {"access_token"} or {"id_token"}
//! command          argv, no shell ──► stdout                                   the token, or {"token", "expires_at"}
//! ```
//!
//! `workload_identity` is `federated` with a file, configured by the variables that Azure's webhook sets in a pod.
//!
//! `managed_identity`: the host is in the resource's own tenant, and no app registration is needed.
//!
//! ```text
//! this host (tenant B)                                              tenant B
//! metadata service ── token of its identity ── request ──► SignalR ◄── role ── managed identity
//! ```
//!
//! `azure_cli`: a user of the resource's tenant is signed in to the Azure CLI on a developer's machine.
//!
//! ```text
//! this host                                                         tenant B
//! az account get-access-token ── token of the user ── request ──► SignalR ◄── role ── user
//! ```
//!
//! `access_key` and `token_file` request nothing. The key signs a token for each request; another program obtains the token in
//! the file.

mod access_key;
mod access_key_source;
mod acquire;
mod acquirers;
mod app;
mod app_state;
mod assertion;
mod authority;
mod authority_settings;
mod azure_cli;
mod bearer;
mod cell;
mod credentials;
mod egress_connector;
mod entra;
mod error;
mod failure_line;
mod file_watch;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod identity_endpoint;
mod jwt;
mod lifetime;
mod local_error;
mod managed_identity;
mod process;
mod proof_files;
mod proof_settings;
mod readiness;
mod record;
mod refresh;
mod remedy;
mod report;
mod response;
mod response_error;
mod schedule;
mod secret;
mod settings;
mod source;
mod state;
mod tls_connector;
mod token_file;
mod transport;
mod waiting_callers;

pub use crate::files::{Secret, SecretSource};
pub use acquirers::CredentialProblem;
pub use authority_settings::{AuthoritySettings, Cloud};
pub use bearer::{Actor, Bearer, Fingerprint, NotAToken, RequestUrl, TokenUnavailable};
pub use credentials::{CredentialBuildError, Credentials};
pub use error::{CredentialError, OtherRequestError};
pub use failure_line::RENEW_CERTIFICATE;
pub(crate) use failure_line::noteworthy_skew;
pub use identity_endpoint::{IdentityEndpoint, IdentityEndpointKind, IdentityProvider};
pub use jwt::Claims;
pub(crate) use jwt::{expiry as token_expiry, time as token_time};
pub use local_error::CertificateError;
pub use local_error::SecretError;
pub use process::CommandError;
pub use proof_settings::{
    AssertionAlgorithm, AssertionSettings, CertificateSettings, ClientAuthentication, CommandSettings, ManagedIdentity,
    ManagedIdentitySettings, OAuth2Settings, OAuth2Token, Proof,
};
pub use readiness::Readiness;
pub use record::{AcquisitionStep, FailedAcquisition, NotAfter, StepOutcome, presented_assertion};
pub use remedy::{REMEDIES, Remedy, SetupStep, is_about_time, remedy};
pub use report::{AcquisitionReport, Authorization, Inspection, SigningKey};
pub use response_error::{NoResponse, ResponseError, UnusableResponse};
pub use schedule::ErrorClass;
pub use settings::{
    AppSettings, CredentialId, CredentialKind, CredentialName, CredentialSettings, Identity, KindFacts, TokenSettings,
};
pub(crate) use source::NoBearer;
pub use source::{BearerSource, CredentialState, CredentialStatus};
pub(crate) use transport::IdentityClient;

#[cfg(test)]
mod canary_tests;
#[cfg(test)]
#[path = "../../tests/it/support/leaks.rs"]
mod leaks;
#[cfg(test)]
mod tests;
