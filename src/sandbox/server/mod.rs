//! The HTTP server that all emulated services share. It accepts connections, reads each request with its body, records it in
//! the journal, applies faults, and passes the request to the service.

pub(super) mod exchange;
pub(super) mod faults;
pub(super) mod journal;
pub(super) mod listen;
pub(super) mod port;
pub(super) mod shared;
mod stream;
