//! The caller's body, kept so that it can be sent again, and the response body of an attempt, before it is chosen as
//! the caller's response.

mod failure;
mod memory;
mod replay;
mod request;
mod upstream;

pub(super) use failure::BodyFailure;
pub use memory::BodyMemory;
pub use request::RequestBody;
pub use upstream::UpstreamBody;
