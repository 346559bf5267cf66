//! Who the gateway is towards an endpoint: where bearers come from and how long they live.
//!
//! The seam is [`BearerSource`]: the request path reads a ready bearer without a lock and waits only when there is
//! none. Knows nothing of requests, routes or endpoints.

mod bearer;
mod settings;

pub use bearer::{
    Bearer, BearerSource, CredentialState, CredentialStatus, Fingerprint, NotAToken, RequestUrl, TokenUnavailable,
};
pub use settings::{
    AppSettings, AssertionAlgorithm, AssertionSettings, AuthoritySettings, CertificateSettings, Cloud, CredentialKind,
    CredentialName, CredentialSettings, ManagedIdentity, ManagedIdentitySettings, Proof, SecretSource,
};
