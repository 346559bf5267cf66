//! The grammar of the Azure SignalR Service REST API. Parses a method and a path into an operation and names, and merges the
//! responses of several endpoints. Pure functions, without I/O or configuration.

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
