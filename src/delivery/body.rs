//! The caller's body, kept so that it can be sent again, and the endpoint's, before it is known to go to the caller.

mod answer;
mod failure;
mod memory;
mod replay;
mod request;

pub use answer::Answer;
pub(super) use failure::BodyFailure;
pub use memory::BodyMemory;
pub use request::RequestBody;
