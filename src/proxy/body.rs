//! The two bodies that cross the gateway. Both stream; neither looks at what it carries.

mod kept;
mod memory;
mod request;
mod response;

use std::time::Duration;

pub(super) use memory::BodyMemory;
pub(super) use request::RequestBody;
pub(super) use response::Answer;
pub use response::{DownloadError, ResponseBody};

/// How long it may take to read a body that nobody wants.
const UNWANTED_TIME: Duration = Duration::from_secs(2);
