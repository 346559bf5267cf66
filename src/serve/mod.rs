//! Accepts connections and serves HTTP on them: listeners, workers, limits, drain. Independent of SignalR: it calls any
//! [`Handler`].
//!
//! Each worker is a thread with its own current-thread runtime, its own sockets on every TCP address and its own handler, which
//! is made on that thread. Workers share nothing that a request uses.

mod balance;
mod bind;
mod body;
mod browser;
mod caller_address;
mod caller_stream;
mod certificate;
mod certificate_report;
mod client_verifier;
mod conn_waker;
mod connection;
mod drain;
mod forwarded;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod graceful;
mod guarded_body;
mod handler;
mod http1;
mod http2;
mod identity;
mod inherited;
mod listeners;
mod live_tls;
mod open_connections;
mod protocol;
mod proxy_protocol;
mod server;
mod settings;
mod socket;
mod timeouts;
mod tls_files;
mod tls_refusal;
mod worker;

pub use bind::{BindError, BoundAddress};
pub use body::{CallerBody, CallerBodyError};
pub use browser::{SEC_FETCH_SITE, is_allowed_host, is_valid_host, page_header};
pub use caller_address::{CallerAddress, TrustedProxies};
pub use certificate::ListenerTls;
pub use certificate_report::{CertificateReport, check_certificate, check_certificate_alone};
pub use client_verifier::ClientTrust;
pub use handler::{Handler, Peer};
pub use http1::HeadError;
pub use identity::{CallerIdentity, IdentityError};
pub use inherited::{InheritedError, InheritedSockets};
pub use listeners::{BoundListeners, ListenerId, ListenerPlan};
pub use live_tls::LiveTls;
pub use server::{Bound, Running, WorkerHandles};
pub use settings::{Bind, ClientAuthSettings, ListenerSettings, ListenerTlsSettings, ServeSettings};
pub use tls_files::TlsFileError;
pub use tls_refusal::report_failed_handshake;
