//! RSA keys, JWTs, certificates and random identifiers.

pub(super) mod certificates;
pub(super) mod ids;
pub(super) mod keys;
