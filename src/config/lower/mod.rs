//! From what the operator wrote to settings: reads durations, sizes and addresses, resolves names, checks what the
//! gateway would trip over later. Collects every problem instead of stopping at the first. Reads no secret.

mod advice;
mod assertion;
mod context;
mod credential;
mod endpoint;
mod identity;
mod listener;
mod process;
mod request;
mod route;
mod test;
mod values;

use std::num::NonZero;

use super::file::ConfigFile;
use crate::gateway::{Settings, short_hash};

pub(super) use context::Context;
pub(super) use test::{Test, run as run_tests};
pub(super) use values::parse_host;

/// Lowers a file. The settings are complete only if `context.problems` is empty, and the tests are run after that.
pub(super) fn lower(file: &ConfigFile, context: &mut Context<'_>) -> (Settings, Vec<Test>) {
    let listeners = listener::lower(file, context);
    let admin = listener::lower_admin(&file.admin, &listeners, context);
    let credentials = credential::lower(file, context);
    let endpoints = endpoint::lower(file, context);
    let routes = route::lower(file, context);
    let tests = test::lower(file, context);
    let proxy = request::lower(file, context);
    let serve = process::lower_serve(file, context);
    let logging = process::lower_logging(file, context);
    let mut settings =
        Settings { listeners, admin, credentials, endpoints, routes, proxy, serve, logging, hash: String::new() };
    settings.hash = hash(&settings);
    advice::advise(file, &settings, context);
    // Not part of the hash: replicas on different machines have one configuration.
    if settings.serve.workers == 0 {
        settings.serve.workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    }
    (settings, tests)
}

/// Names the effective settings. It tells replicas with different configurations apart. Secrets are not part of the
/// settings, so changing one changes nothing here.
fn hash(settings: &Settings) -> String {
    short_hash(&format!("{settings:?}"))
}
