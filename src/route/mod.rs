//! Which endpoints a call goes to, and in which order. Pure: it is shown the call and says what it decided.

mod pattern;
mod settings;
mod table;

pub use pattern::{Case, Pattern};
pub use settings::{HeaderMatch, MatchSettings, Pick, RouteEndpoint, RouteName, RouteSettings, WhenUnavailable};
pub use table::{Inquiry, Mismatch, Order, Route, Table};
