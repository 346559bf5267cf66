//! A SignalR endpoint: who may call it, its REST API, its hubs and who is connected to them.

pub(super) mod access;
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
