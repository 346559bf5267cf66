//! The HTTP server that all emulated services share. It accepts connections, reads each request whole, records it in the
//! journal, applies faults, and otherwise passes it to a service. Knows none of the services.

pub(super) mod exchange;
pub(super) mod faults;
pub(super) mod journal;
pub(super) mod listen;
mod stream;
