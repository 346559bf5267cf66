//! Microsoft Entra ID: the token endpoint for the client credentials grant, the signing keys and the discovery document.
//!
//! `service` validates token requests, `assertion` validates client assertions, `token` creates the tokens and
//! `error_response` the error responses.
//!
//! Source: RFC 6749 section 4.4, RFC 7521 and RFC 7523; Microsoft's documentation of the client credentials flow,
//! certificate credentials, workload identity federation, access token claims and the AADSTS error codes.

mod assertion;
mod discovery;
mod error_response;
pub(super) mod service;
pub(super) mod token;
