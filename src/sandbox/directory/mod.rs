//! What Entra and Azure know: tenants, app registrations, managed identities, SignalR resources and role assignments.

pub(super) mod model;
pub(super) mod roles;
pub(super) mod scenario;
pub(super) mod world;
