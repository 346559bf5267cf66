//! The description of a group of tenants that one app registration of another tenant serves.

/// The client id of the app registration.
pub(crate) const GROUP_APP: &str = "44444444-dddd-4ddd-8ddd-444444444444";

/// The client id of the managed identity that the app registration trusts.
pub(crate) const GROUP_IDENTITY: &str = "66666666-ffff-4fff-8fff-666666666666";

/// Returns a description of the sandbox with the group of tenants `t`. `group` has more keys of the group.
pub(crate) fn tenant_group(group: &str) -> String {
    format!(
        "[tenants.home]\nid = \"22222222-bbbb-4bbb-8bbb-222222222222\"\n\
         [applications.saas]\nclient_id = \"{GROUP_APP}\"\ntenant = \"home\"\nsecrets = [{{ value = \"not-a-secret\" }}]\n\
         federated = [{{ identity = \"gateway\" }}]\n\
         [managed_identities.gateway]\ntenant = \"home\"\nclient_id = \"{GROUP_IDENTITY}\"\n\
         [tenant_groups.t]\napplication = \"saas\"\n{group}"
    )
}
