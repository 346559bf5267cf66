//! Chooses the endpoints of a call and their order. Does no I/O and ignores endpoint health.

mod choice;
mod hash;
mod hub_index;
mod mismatch;
mod pattern;
mod settings;
mod table;

pub use choice::{Choice, DeliveryMode, ENDPOINT_HEADER, EndpointNotSelectable, Order};
pub use hash::HashKey;
pub use mismatch::MismatchDetail;
pub use pattern::{Case, Pattern};
pub use settings::{
    Constraint, HeaderMatch, MatchSettings, Pick, RouteEndpoint, RouteName, RouteSettings, WhenUnavailable,
};
pub use table::{Mismatch, Route, RouteInput, Table, TableError, Target};
