//! The form of the identifiers of Microsoft Entra: GUIDs and tenants.
//!
//! Configuration files and connection strings are checked by the same functions, so that what `convert` writes can be read.

/// Returns whether a text is a GUID with hyphens, such as `11111111-2222-3333-4444-555555555555`.
pub(super) fn is_guid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths = groups.iter().map(|group| group.len());
    lengths.eq([8, 4, 4, 4, 12]) && groups.concat().bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Returns whether a text names one tenant: by its GUID, or by one of its domains, which have a dot.
///
/// The identity library accepts the same characters. A leading `-` is refused because the tenant is an argument of `az`.
pub(super) fn is_tenant(text: &str) -> bool {
    let is_of_domain = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    is_guid(text) || text.contains('.') && !text.starts_with('-') && text.bytes().all(is_of_domain)
}
