//! The grammar of the Azure SignalR Service REST API, pure: which operation a method and a path are, and what the
//! names in them may look like. Knows no sockets, no endpoints and nothing of this gateway.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod grammar;
mod merge;
mod name;
mod operation;
mod operation_set;

pub use grammar::{Call, ParseCallError};
pub use merge::{FanOutKind, LegOutcome, Merged, Policy, merge_delivery, merge_first_success};
pub use name::Name;
pub use operation::{NameKind, Operation, OperationClass};
pub use operation_set::OperationSet;
