//! The embedded emulator: Entra, the identity endpoints of a host, and SignalR endpoints in memory, each at a URL of
//! its own. The gateway meets it by configuration alone; nothing in here is of the gateway.
//!
//! [`Sandbox::start`] binds and serves everything in tasks of the calling runtime. Tests change the [`Directory`] to
//! break one step of the cross-tenant set-up, set [`Fault`]s, add in-process [`Connection`]s to a hub, and read each
//! server's [`Journal`].
//!
//! A walk: `listen` accepts, reads the request whole, writes it in the `journal` and lets `faults` happen; the rest
//! goes to a service: `entra` (with `assertion`, `token`, `refusal`), `identity`, `provider`, `endpoint` (with `access`,
//! `path`, `parameters`, `rest`, `problem`) or `control`. What endpoints deliver goes through `hub` and its `roster` to
//! `connection`, and from there to a test in this process or, by `client` and `hub_protocol`, to a real client. People
//! watch it on a `page` of the control listener, which sends by way of `relay`.

mod client;
mod control;
mod crypto;
mod description;
mod directory;
mod endpoint_service;
mod entra;
mod error;
mod gateway_config;
mod handle;
mod identity;
mod page;
mod server;
mod settings;
mod signalr;
mod start;

#[cfg(test)]
mod tests;

pub use client::times::ClientTimes;
pub use crypto::certificates::ClientCertificate;
pub use crypto::keys::PublicKey;
pub use description::{Description, FileError};
pub use directory::model::{
    Application, ClientSecret, Directory, DirectoryHandle, ExternalIssuer, FederatedCredential, ManagedIdentity,
    Resource, SecretText, ServicePrincipal, Tenant, TokenPolicy,
};
pub use directory::roles::Role;
pub use directory::scenario::{
    APP_CLIENT_ID, EXTERNAL_ISSUER, EXTERNAL_SUBJECT, IDENTITY_CLIENT_ID, IDENTITY_OBJECT_ID, LOCAL_IDENTITY_CLIENT_ID,
    OAUTH2_CLIENT_ID, SERVICE_CONNECTION, TENANT_A, TENANT_B, TENANT_C,
};
pub use directory::world::World;
pub use error::SandboxError;
pub use gateway_config::config::GatewayConfig;
pub use gateway_config::credential::{CredentialChoice, GatewayCredential};
pub use gateway_config::files::{Files, WorldFiles};
pub use handle::Sandbox;
pub use server::faults::{Fault, FaultKind, Faults};
pub use server::journal::{Authorization, Entry, Journal, fingerprint};
pub use server::listen::Server;
pub use settings::{EndpointSettings, HubSettings, SandboxSettings};
pub use signalr::connection::Connection;
pub use signalr::delivery::{Close, Delivery};
pub use signalr::endpoint::Endpoint;
pub use signalr::hubs::Hubs;
pub use signalr::message::{Content, Invocation, Message, Packed};
