//! An HTTP server of the sandbox: it accepts connections, reads requests, records them in a journal, injects faults and
//! passes the rest to a service. Knows none of the services.

pub(super) mod exchange;
pub(super) mod faults;
pub(super) mod journal;
pub(super) mod listen;
