//! The grammar of the Azure SignalR Service REST API: which operation a method and a path stand for, which names the path
//! carries, and how the responses of several endpoints are merged. Pure functions: no I/O, no configured endpoints.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod grammar;
mod merge;
mod name;
mod operation;
mod operation_set;

pub use grammar::{Call, ParseCallError, query_value};
pub use merge::{FanOutKind, LegOutcome, Merged, Policy, merge_delivery, merge_first_success};
pub use name::Name;
pub use operation::{NameKind, Operation, OperationClass};
pub use operation_set::OperationSet;
