//! Whether a text has the form of an identifier of Microsoft Entra.

/// Returns whether a text is a GUID with hyphens, such as `11111111-2222-3333-4444-555555555555`.
pub(super) fn is_guid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths = groups.iter().map(|group| group.len());
    lengths.eq([8, 4, 4, 4, 12]) && groups.concat().bytes().all(|byte| byte.is_ascii_hexdigit())
}
