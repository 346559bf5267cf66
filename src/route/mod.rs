//! Which endpoints a call goes to, and in which order. Pure: it is shown the call and says what it decided.

mod choice;
mod difference;
mod hash;
mod pattern;
mod settings;
mod table;

pub use choice::{Choice, ENDPOINT_HEADER, Manner, NotAChoice, Order};
pub use difference::Difference;
pub use hash::HashKey;
pub use pattern::{Case, Pattern};
pub use settings::{
    Constraint, HeaderMatch, MatchSettings, Pick, RateSettings, RouteEndpoint, RouteName, RouteSettings,
    WhenUnavailable,
};
pub use table::{Inquiry, Mismatch, Route, Table, TableError, Target};
