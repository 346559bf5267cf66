//! Chooses the endpoints of a call and their order. Does no I/O and ignores endpoint health.

mod caller;
mod capture;
mod case;
mod choice;
mod directory;
mod hash;
mod hub_index;
mod mismatch;
mod pattern;
mod settings;
mod table;
mod target;

pub use caller::{Caller, CallerRefusal, CallerSettings, Callers, Reach, RouteCaller, identity_pattern};
pub use capture::CaptureError;
pub use case::Case;
pub use choice::{Choice, DeliveryMode, ENDPOINT_HEADER, NamedEndpointError, Order};
pub use hash::HashKey;
pub use mismatch::MismatchDetail;
pub use pattern::Pattern;
pub use settings::{
    Constraint, HeaderMatch, MatchSettings, NamedBy, Pick, RouteEndpoint, RouteName, RouteSettings, WhenUnavailable,
};
pub use table::{Mismatch, Route, RouteInput, Table, TableError};
pub use target::Target;
