//! Lowers when tokens are requested.

use super::context::{Context, key};
use super::values;
use crate::config::file::{AcquireFile, ConfigFile};
use crate::credential::TokenSettings;

/// The most tokens that are acquired at start by default. Chosen: a start sends so many requests within a few seconds.
const MAX_AT_START: usize = 64;

/// Lowers the settings of `lives` token lives.
pub(super) fn lower(file: &ConfigFile, lives: usize, context: &mut Context<'_>) -> TokenSettings {
    let file = &file.tokens;
    let release_after = values::duration(&key(&["tokens", "release_after"]), &file.release_after, context);
    if file.max_requests == 0 {
        context.problem(&key(&["tokens", "max_requests"]), "is 0, must be 1 or more", "write 1 or more");
    }
    let on_demand = match file.acquire {
        Some(acquire) => acquire == AcquireFile::OnDemand,
        None => lives > MAX_AT_START,
    };
    TokenSettings { release_after: on_demand.then_some(release_after), max_requests: file.max_requests as usize }
}
