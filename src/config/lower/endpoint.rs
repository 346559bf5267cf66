//! Lowers endpoints.

use std::collections::HashMap;
use std::time::Duration;

use super::context::{Context, below, key};
use super::values::{self, PlainHttp};
use crate::config::file::{ConfigFile, EndpointFile, HealthFile, HttpVersionFile, LimitsFile, RoleFile};
use crate::credential::{CredentialId, CredentialSettings};
use crate::endpoint::{
    EndpointName, EndpointRole, EndpointSettings, FailureRatio, HealthSettings, HttpVersion, PoolSettings,
};
use crate::limits::RateSettings;

/// Keeps the buckets of a window longer than a millisecond, the resolution of its time.
const MIN_WINDOW: Duration = Duration::from_secs(1);

pub(super) fn lower(
    file: &ConfigFile,
    credentials: &[CredentialSettings],
    context: &mut Context<'_>,
) -> Vec<EndpointSettings> {
    let names = context.names("endpoints");
    if names.is_empty() {
        let fix = if context.merged.has_file() {
            "define at least one as [endpoints.NAME]"
        } else {
            "give a configuration with --config FILE"
        };
        context.problem(&key(&["endpoints"]), "there is no endpoint", fix);
    }
    let common = Common { health: health(&file.health, context), limits: limits(&file.limits, context) };
    let ids = credentials.iter().map(|credential| &credential.id);
    let ids = ids.map(|id| ((id.name.as_str(), id.tenant.as_deref()), id)).collect();
    file.endpoints.iter().filter_map(|(name, endpoint)| lower_one(name, endpoint, &ids, &common, context)).collect()
}

/// What endpoints share, and the limits of those that have none of their own.
struct Common {
    health: HealthSettings,
    limits: Limits,
}

#[derive(Clone, Copy)]
struct Limits {
    max_requests: Option<usize>,
    rate: Option<RateSettings>,
}

fn limits(file: &LimitsFile, context: &mut Context<'_>) -> Limits {
    let at = |name: &str| key(&["limits", name]);
    let rate = file.endpoint_rate.as_ref();
    Limits {
        max_requests: values::max_requests(&at("endpoint_max_requests"), file.endpoint_max_requests, context),
        rate: rate.and_then(|rate| values::rate(&at("endpoint_rate"), rate.per_second, rate.burst, context)),
    }
}

fn health(file: &HealthFile, context: &mut Context<'_>) -> HealthSettings {
    if file.failures == 0 {
        context.problem(&key(&["health", "failures"]), "is 0, must be 1 or more", "write 1 or more");
    }
    let ratio = FailureRatio::new(file.failure_ratio);
    if ratio.is_none() {
        let fact = format!("is {}, must be above 0 and at most 1", file.failure_ratio);
        context.problem(&key(&["health", "failure_ratio"]), fact, "write a fraction, such as 0.5");
    }
    let window = values::duration(&key(&["health", "window"]), &file.window, context);
    if !window.is_zero() && window < MIN_WINDOW {
        context.problem(
            &key(&["health", "window"]),
            format!("`{}` is too short, the minimum is `1s`", file.window),
            "write `1s` or longer",
        );
    }
    HealthSettings {
        failures: file.failures,
        // Not used: an invalid ratio is already reported.
        failure_ratio: ratio.unwrap_or(FailureRatio::ALL),
        window,
        pause: values::duration(&key(&["health", "pause"]), &file.pause, context),
        probe_interval: values::duration(&key(&["health", "probe_interval"]), &file.probe_interval, context),
    }
}

/// The token lives, by the names of the credential and the tenant.
type Ids<'c> = HashMap<(&'c str, Option<&'c str>), &'c CredentialId>;

/// Lowers one endpoint. A new key needs a line here.
fn lower_one(
    name: &str,
    file: &EndpointFile,
    ids: &Ids<'_>,
    common: &Common,
    context: &mut Context<'_>,
) -> Option<EndpointSettings> {
    let table = key(&["endpoints", name]);
    let at = |name: &str| below(&table, name);
    values::check_name(&table, name, context);
    values::check_reference(&at("credential"), "credentials", &file.credential, context);
    if let Some(label) = &file.metrics_label {
        values::check_name(&at("metrics_label"), label, context);
    }
    // A token life that does not exist has a problem that is reported.
    let credential = ids.get(&(file.credential.as_str(), file.tenant.as_deref())).map(|id| (*id).clone());
    let origin = values::origin(&at("url"), &file.url, PlainHttp::Loopback, context);
    let name = EndpointName::new(name);
    Some(EndpointSettings {
        metrics_label: file.metrics_label.as_deref().map_or_else(|| name.shared(), Into::into),
        name,
        role: match file.role {
            RoleFile::Primary => EndpointRole::Primary,
            RoleFile::Secondary => EndpointRole::Secondary,
        },
        ca_file: file.ca_file.as_ref().map(|path| values::existing_file(&at("ca_file"), path, context)),
        connect_timeout: values::duration(
            &at("connect_timeout"),
            file.connect_timeout.as_deref().unwrap_or("2s"),
            context,
        ),
        http_version: match file.http_version {
            HttpVersionFile::Http1 => HttpVersion::Http1,
            HttpVersionFile::Http2 => HttpVersion::Http2,
        },
        max_requests: values::max_requests(&at("max_requests"), file.max_requests, context)
            .or(common.limits.max_requests),
        rate: match &file.rate {
            Some(rate) => values::rate(&at("rate"), rate.per_second, rate.burst, context),
            None => common.limits.rate,
        },
        pool: PoolSettings {
            max_idle_per_worker: file.pool.max_idle_per_worker as usize,
            idle_timeout: values::duration(&below(&at("pool"), "idle_timeout"), &file.pool.idle_timeout, context),
        },
        health: common.health,
        // Last, so that the problems of all other keys are reported as well.
        credential: credential?,
        origin: origin?,
    })
}
