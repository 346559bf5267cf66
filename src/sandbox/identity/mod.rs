//! The services from which a host or a job obtains tokens.
//!
//! - `managed_identity`: the instance metadata service (IMDS) of Azure virtual machines, and the identity endpoint of App
//!   Service and Container Apps. Source: Microsoft's documentation of both, and captured requests of the official SDK.
//! - `providers`: GitHub Actions, Azure Pipelines, an OAuth 2.0 authorization server and Google Cloud's metadata server.
//!   Source: GitHub, "`OpenID` Connect reference"; Microsoft, "Oidctoken - Create" and requests of the official SDK; RFC
//!   6749; Google Cloud, "Verify the identity of a Compute Engine instance" and "View and query VM metadata".

pub(super) mod managed_identity;
pub(super) mod providers;
