//! What the endpoints of a configuration need in their tenants, as `az` commands, Bicep, Terraform, or a page for the
//! administrators of the endpoints' tenants. Contacts nobody and reads no secret.
//!
//! `plan.rs` derives the needs from the settings, with an identifier of `labels.rs` for each part; the other files write them
//! in one format each.

mod az;
mod bicep;
mod labels;
mod page;
mod plan;
mod terraform;

pub use plan::Plan;

/// A format of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Commands of the Azure CLI.
    Az,
    /// Bicep with the Microsoft Graph extension, for one tenant of endpoints.
    Bicep,
    /// Terraform with the providers azuread and azurerm.
    Terraform,
    /// A page in Markdown.
    Page,
}

/// Writes a plan. The same plan is always written in the same way.
pub fn write(plan: &Plan, format: Format) -> String {
    match format {
        Format::Az => az::write(plan),
        Format::Bicep => bicep::write(plan),
        Format::Terraform => terraform::write(plan),
        Format::Page => page::write(plan),
    }
}
