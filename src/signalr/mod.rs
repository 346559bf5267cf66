//! The grammar of the Azure SignalR Service REST API. Parses a method and a path into an operation and names, and merges the
//! responses of several endpoints. Pure functions, without I/O or configuration.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod grammar;
mod merge;
mod name;
mod operation;
mod operation_set;
mod parse_error;
mod shape;
mod spelling;

pub use grammar::{Call, query_value};
pub use merge::{FanOutKind, LegOutcome, Merged, Policy, merge_delivery, merge_first_success, merge_single_owner};
pub use name::Name;
pub use operation::{NameKind, Operation, OperationClass};
pub use operation_set::OperationSet;
pub use parse_error::ParseCallError;
