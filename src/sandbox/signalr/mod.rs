//! Azure SignalR Service in serverless mode: the data-plane REST API of one endpoint, and its hubs.
//!
//! A call passes `operation` (parsing), `access` (authorization), `parameters` (validation) and `rest` (execution). `problem`
//! defines the error responses. `hubs` stores the hubs of an endpoint. Each `hub` has a `membership` (connections, users,
//! groups), and each `connection` has a queue of deliveries.
//!
//! Source: the data-plane swaggers v1 and 2024-12-01, and `Azure/azure-signalr` issues 2281 and 2282 for 2026-07-01; where they specify nothing, the official emulator and SDKs.

pub(super) mod access;
pub(super) mod authentication;
pub(super) mod connection;
pub(super) mod delivery;
pub(super) mod endpoint;
mod filter;
pub(super) mod hub;
pub(super) mod hubs;
pub(super) mod membership;
pub(super) mod message;
pub(super) mod operation;
pub(super) mod parameters;
pub(super) mod problem;
pub(super) mod rest;

#[cfg(test)]
mod tests;
