//! A SignalR endpoint: who may call it, its REST API, its hubs and who is connected to them.

pub(super) mod access;
pub(super) mod connection;
pub(super) mod endpoint;
pub(super) mod filter;
pub(super) mod hub;
pub(super) mod message;
pub(super) mod operation;
pub(super) mod parameters;
pub(super) mod problem;
pub(super) mod rest;
pub(super) mod roster;
