//! The sandbox: an embedded emulator of Microsoft Entra ID, metadata services and Azure SignalR Service.
//!
//! Each emulated service is an HTTP server at its own URL. A gateway uses them through its ordinary configuration. The sandbox
//! imports no module of the gateway.
//!
//! [`Sandbox::start`] binds every server and serves it in tasks of the calling runtime. A test can change the [`Directory`],
//! for example to remove one step of the cross-tenant setup. It can inject [`Fault`]s and add in-process [`Connection`]s to a
//! hub. Each server records its requests in a [`Journal`].
//!
//! # Modules
//!
//! | module | responsibility |
//! |---|---|
//! | `crypto` | keys, JWTs, certificates, random identifiers |
//! | `server` | the HTTP server: connections, journal, faults |
//! | `directory` | tenants, applications, identities, resources, roles |
//! | `entra` | the token endpoint of Entra |
//! | `identity` | metadata services, App Service, identity providers outside Entra |
//! | `signalr` | the REST API of SignalR, hubs and their members |
//! | `client` | the clients of a hub: negotiation, transports, hub protocol |
//! | `endpoint_service` | the service of one endpoint: passes requests to `signalr` or `client` |
//! | `page` | the web page |
//! | `control` | the control listener |
//! | `gateway_config` | the configuration of a gateway in front of the sandbox |
//! | `settings`, `start`, `handle` | starting a sandbox, and the handle of a running one |
//! | `description` | the description file |
//!
//! A module imports only modules above it in this table, and `error`.

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

pub use client::timeouts::ClientTimeouts;
pub use crypto::certificates::ClientCertificate;
pub use crypto::keys::PublicKey;
pub use description::{Description, FileError};
pub use directory::described::DescribedDirectory;
pub use directory::model::{
    Application, ClientSecret, Directory, DirectoryHandle, ExternalIssuer, FederatedCredential, ManagedIdentity,
    Resource, SecretText, ServicePrincipal, Tenant, TokenPolicy,
};
pub use directory::roles::Role;
pub use directory::scenario::{
    APP_CLIENT_ID, EXTERNAL_ISSUER, EXTERNAL_SUBJECT, IDENTITY_CLIENT_ID, IDENTITY_OBJECT_ID, LOCAL_IDENTITY_CLIENT_ID,
    OAUTH2_CLIENT_ID, SERVICE_CONNECTION, TENANT_A, TENANT_B, TENANT_C,
};
pub use error::SandboxError;
pub use gateway_config::config::GatewayConfig;
pub use gateway_config::credential::{CredentialChoice, GatewayCredential};
pub use gateway_config::files::{DescribedFiles, Files};
pub use handle::Sandbox;
pub use server::faults::{Fault, FaultKind, Faults};
pub use server::journal::{Authorization, Entry, Journal, fingerprint};
pub use server::listen::Server;
pub use settings::{EndpointGroupSettings, EndpointSettings, HubSettings, SandboxSettings};
pub use signalr::connection::Connection;
pub use signalr::delivery::{Close, Delivery};
pub use signalr::endpoint::Endpoint;
pub use signalr::hubs::Hubs;
pub use signalr::message::{Content, Invocation, Message, PackedInvocation};
