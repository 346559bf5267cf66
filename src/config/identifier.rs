//! Validation of Microsoft Entra identifiers: GUIDs and tenants.
//!
//! Configuration files and connection strings share these functions, so the output of `convert` is valid.

use crate::redact::is_guid;

/// The id that stands for one that only the gateway's host knows.
pub(crate) const UNKNOWN_ID: &str = "00000000-0000-0000-0000-000000000000";

/// Returns what is wrong with a text that is almost a GUID: has only hexadecimal digits and hyphens.
pub(super) fn guid_fault(text: &str) -> Option<String> {
    if !text.contains('-') || !text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()) {
        return None;
    }
    let lengths: Vec<String> = text.split('-').map(|group| group.len().to_string()).collect();
    let lengths = lengths.join("-");
    (lengths != "8-4-4-4-12").then(|| format!("its groups have {lengths} digits, those of a GUID have 8-4-4-4-12"))
}

/// Returns whether a text names one tenant: by its GUID, or by one of its domains, which contain a dot.
///
/// The identity library accepts the same characters. A leading `-` is invalid because the tenant is an argument of `az`.
pub(super) fn is_tenant(text: &str) -> bool {
    let is_domain_byte = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    is_guid(text) || text.contains('.') && !text.starts_with('-') && text.bytes().all(is_domain_byte)
}
