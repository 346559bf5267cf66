//! Entra: the token endpoint, the signing keys and the discovery document of every tenant.

mod assertion;
mod refusal;
pub(super) mod service;
pub(super) mod token;
