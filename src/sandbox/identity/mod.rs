//! The services that give a host or a job its tokens.
//!
//! - `managed_identity`: the instance metadata service (IMDS) of Azure virtual machines, and the identity endpoint of App
//!   Service and Container Apps. Source: Microsoft's documentation of both; what the official SDK sends was measured.
//! - `providers`: GitHub Actions, Azure Pipelines, an OAuth 2.0 authorization server and Google Cloud's metadata server.
//!   Sources: GitHub, "`OpenID` Connect reference"; Microsoft, "Oidctoken - Create" and what the official SDK sends; RFC
//!   6749; Google Cloud, "Verify the identity of a Compute Engine instance" and "View and query VM metadata".

pub(super) mod managed_identity;
pub(super) mod providers;
