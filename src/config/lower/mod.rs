//! Lowers the configuration file to settings: parses durations, sizes and addresses, resolves names, and checks that files
//! exist. Reports every problem instead of stopping at the first. Reads no secret.

mod advice;
mod assertion;
mod caller;
mod context;
mod credential;
mod digest;
mod egress;
mod endpoint;
mod identity;
mod listener;
mod memo;
mod named_endpoint;
mod process;
mod proxies;
mod request;
mod route;
mod store;
mod tenant;
mod test;
mod tokens;
mod trace;
mod values;

use std::num::NonZero;

use super::file::ConfigFile;
use crate::gateway::{Settings, short_hash};
use endpoint::Endpoints;

pub(super) use context::Context;
pub(super) use memo::Memo;
pub(super) use test::{Test, run as run_tests};
pub(super) use values::parse_host;

/// Lowers a file. The settings are complete only if `context.problems` stays empty; run the routing tests only then.
pub(super) fn lower(file: &ConfigFile, context: &mut Context<'_>) -> (Settings, Vec<Test>) {
    let listeners = listener::lower(file, context);
    let admin = listener::lower_admin(&file.admin, &listeners, context);
    let egress = egress::lower(&file.egress, context);
    let credentials = credential::lower(file, &egress, context);
    let tokens = tokens::lower(file, credentials.len(), context);
    let Endpoints { enabled: endpoints, disabled, digests: endpoint_digests } =
        endpoint::lower(file, &credentials, &egress, context);
    let (routes, route_digests) = route::lower(file, context);
    let callers = caller::lower(file, context);
    caller::check_listeners(file, &listeners, &routes, context);
    let tests = test::lower(file, context);
    let proxy = request::lower(file, context);
    let store = store::lower(&file.idempotency, context);
    let serve = process::lower_serve(file, context);
    let metrics = process::lower_metrics(file, context);
    let tracing = trace::lower(&file.tracing, &egress, context);
    let logging = process::lower_logging(file, context);
    // Settings contain no secrets, so a new secret does not change the hash. Large parts have digests, which are kept if the part
    // is the same as in the last load.
    let credential_digests = credential::digests(&credentials);
    let digests = (endpoint_digests, route_digests, credential_digests);
    let hash = short_hash(&format!(
        "{listeners:?} {admin:?} {callers:?} {tokens:?} {disabled:?} {proxy:?} {store:?} {serve:?} {metrics:?} {tracing:?} {logging:?} {digests:?}"
    ));
    let mut settings = Settings {
        listeners,
        admin,
        credentials,
        tokens,
        endpoints,
        disabled,
        routes,
        callers,
        proxy,
        store,
        serve,
        metrics,
        tracing,
        logging,
        hash,
        file: None,
    };
    advice::warn(file, &settings, context);
    // After the hash: replicas with different numbers of cores must have the same hash.
    if settings.serve.workers == 0 {
        settings.serve.workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    }
    (settings, tests)
}
