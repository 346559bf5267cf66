//! RSA keys, JWTs and certificates, and random identifiers. Knows nothing of who uses them for what.

pub(super) mod certificates;
pub(super) mod ids;
pub(super) mod keys;
