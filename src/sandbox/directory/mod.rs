//! The directory: tenants, app registrations, managed identities, SignalR resources and role assignments.
//!
//! It models what Entra and Azure Resource Manager store. `scenario` defines the built-in content, `described` the content that
//! a description file defines.
//!
//! Source: Microsoft's documentation of app registrations, workload identity federation, managed identities and Azure's
//! built-in roles.

pub(super) mod described;
pub(super) mod index;
pub(super) mod model;
pub(super) mod roles;
pub(super) mod scenario;
