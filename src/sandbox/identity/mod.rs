//! Where a host asks for tokens: metadata services, and identity providers outside Entra.

pub(super) mod managed_identity;
pub(super) mod providers;
