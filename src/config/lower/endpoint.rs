//! Lowers endpoints.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::context::{Context, below, key};
use super::digest::Digest;
use super::egress;
use super::values::{self, PlainHttp};
use crate::canary::is_hub;
use crate::config::file::{CanaryFile, ConfigFile, EndpointFile, HealthFile, HttpVersionFile, LimitsFile, RoleFile};
use crate::credential::{CredentialId, CredentialSettings};
use crate::egress::Egress;
use crate::endpoint::{
    CanarySettings, DisabledEndpoint, EndpointName, EndpointRole, EndpointSettings, FailureRatio, HealthSettings,
    HttpVersion, PoolSettings,
};
use crate::limits::RateSettings;

/// Keeps the buckets of a window longer than a millisecond, the resolution of its time.
const MIN_WINDOW: Duration = Duration::from_secs(1);

/// Longer than the resolver of glibc takes to repeat a lost query (`RES_TIMEOUT`, 5 s), so that one lost packet fails no call.
const RESOLVE_TIMEOUT: &str = "6s";

/// The configuration of the packages' service.
const PACKAGED: &str = "/etc/signalr-gateway/gateway.toml";

/// The lowered endpoints.
#[derive(Default)]
pub(super) struct Endpoints {
    pub(super) enabled: Vec<Arc<EndpointSettings>>,
    pub(super) disabled: Vec<DisabledEndpoint>,
    /// The digests of `enabled`, in the same order.
    pub(super) digests: Vec<Digest>,
}

pub(super) fn lower(
    file: &ConfigFile,
    credentials: &[CredentialSettings],
    egress: &Arc<Egress>,
    context: &mut Context<'_>,
) -> Endpoints {
    if file.endpoints.is_empty() && context.names("endpoints").is_empty() {
        let fix = if context.merged.has_file() {
            "define at least one as [endpoints.NAME]".to_owned()
        } else if Path::new(PACKAGED).exists() {
            format!("give the configuration with --config {PACKAGED}")
        } else {
            "give a configuration with --config FILE".to_owned()
        };
        context.problem(&key(&["endpoints"]), "there is no endpoint", fix);
    }
    let common = Common {
        health: health(&file.health, context),
        limits: limits(&file.limits, context),
        egress: Arc::clone(egress),
    };
    let ids = credentials.iter().map(|credential| &credential.id);
    let ids: Ids<'_> = ids.map(|id| ((id.name.as_str(), id.tenant.as_deref()), id)).collect();
    let mut endpoints = Endpoints::default();
    for (name, file) in &file.endpoints {
        // A token life that does not exist has a problem that is reported.
        let credential = ids.get(&(file.credential.as_str(), file.tenant.as_deref())).copied();
        let kept = context.last.endpoints.take(file).filter(|(kept, _)| Some(&kept.credential) == credential);
        let (settings, digest) = if let Some(kept) = kept {
            context.memo.endpoints.insert(file, kept.clone());
            kept
        } else {
            let reports = context.reports();
            match lower_one(name, file, credential, &common, context) {
                None => continue,
                Some(Lowered::Disabled(disabled)) => {
                    endpoints.disabled.push(disabled);
                    continue;
                }
                Some(Lowered::Enabled(settings, digest)) => {
                    if context.reports() == reports {
                        context.memo.endpoints.insert(file, (Arc::clone(&settings), digest));
                    }
                    (settings, digest)
                }
            }
        };
        endpoints.enabled.push(settings);
        endpoints.digests.push(digest);
    }
    if endpoints.enabled.is_empty() && !endpoints.disabled.is_empty() {
        let fix = "set enabled = true for those that calls may go to";
        context.warning(&key(&["endpoints"]), "all endpoints are disabled, so no call can be served", fix);
    }
    endpoints
}

/// What endpoints share, and the limits of those that have none of their own.
struct Common {
    health: HealthSettings,
    limits: Limits,
    egress: Arc<Egress>,
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

/// The shortest interval of a canary. Chosen: as long as its message may take to arrive.
const MIN_CANARY_INTERVAL: Duration = Duration::from_secs(10);

fn lower_canary(table: &[String], file: &CanaryFile, context: &mut Context<'_>) -> CanarySettings {
    if !is_hub(&file.hub) {
        let fix = "begin with a letter, and use only letters, digits and _";
        context.problem(&below(table, "hub"), format!("`{}` is not the name of a hub", file.hub), fix);
    }
    let interval = values::duration(&below(table, "interval"), &file.interval, context);
    if !interval.is_zero() && interval < MIN_CANARY_INTERVAL {
        let fact = format!("`{}` is too short, the minimum is `10s`", file.interval);
        context.problem(&below(table, "interval"), fact, "write `10s` or longer");
    }
    CanarySettings { hub: file.hub.to_ascii_lowercase().into(), interval }
}

/// A lowered endpoint.
enum Lowered {
    Enabled(Arc<EndpointSettings>, Digest),
    Disabled(DisabledEndpoint),
}

/// The token lives, by the names of the credential and the tenant.
type Ids<'c> = HashMap<(&'c str, Option<&'c str>), &'c CredentialId>;

/// Lowers one endpoint with its credential's id, if that exists. A new key needs a line here.
fn lower_one(
    name: &str,
    file: &EndpointFile,
    credential: Option<&CredentialId>,
    common: &Common,
    context: &mut Context<'_>,
) -> Option<Lowered> {
    let table = key(&["endpoints", name]);
    let at = |name: &str| below(&table, name);
    values::check_name(&table, name, context);
    values::check_reference(&at("credential"), "credentials", &file.credential, context);
    if let Some(label) = &file.metrics_label {
        values::check_name(&at("metrics_label"), label, context);
    }
    let origin = values::origin(&at("url"), &file.url, PlainHttp::Loopback, context);
    let ca_file = values::ca_file(&at("ca_file"), file.ca_file.as_deref(), context);
    let proxy = egress::lower_choice(&at("proxy"), file.proxy.as_ref(), &common.egress, context);
    let resolve_timeout = file.resolve_timeout.as_deref().unwrap_or(RESOLVE_TIMEOUT);
    let resolve_timeout = values::duration(&at("resolve_timeout"), resolve_timeout, context);
    let connect_timeout = file.connect_timeout.as_deref().unwrap_or("2s");
    let connect_timeout = values::duration(&at("connect_timeout"), connect_timeout, context);
    let max_requests = values::max_requests(&at("max_requests"), file.max_requests, context);
    let rate = match &file.rate {
        Some(rate) => values::rate(&at("rate"), rate.per_second, rate.burst, context),
        None => common.limits.rate,
    };
    let idle_timeout = values::duration(&below(&at("pool"), "idle_timeout"), &file.pool.idle_timeout, context);
    let max_age = Some(file.pool.max_age.as_str()).filter(|text| *text != "off");
    let max_age = values::age(&below(&at("pool"), "max_age"), max_age, context);
    let canary = file.canary.as_ref().map(|canary| lower_canary(&at("canary"), canary, context));
    // Last, so that the problems of all keys are reported.
    let (name, origin) = (EndpointName::new(name), origin?);
    if !origin.tls && file.proxy.is_some() && proxy.proxy.is_some() {
        let fix = "remove it: an http:// URL is on this host, and its connections are direct";
        context.problem(&at("proxy"), "has no effect: the URL is http://", fix);
    }
    // An http:// URL is on this host. Through a proxy, it would be another host, and the token would cross a network in the clear.
    let proxy = proxy.proxy_for(&origin.host).filter(|_| origin.tls).cloned();
    if !file.enabled {
        return Some(Lowered::Disabled(DisabledEndpoint { name, origin }));
    }
    let settings = EndpointSettings {
        metrics_label: file.metrics_label.as_deref().map_or_else(|| name.shared(), Into::into),
        name,
        origin,
        credential: credential?.clone(),
        role: match file.role {
            RoleFile::Primary => EndpointRole::Primary,
            RoleFile::Secondary => EndpointRole::Secondary,
        },
        ca_file,
        proxy,
        resolve_timeout,
        connect_timeout,
        http_version: match file.http_version {
            HttpVersionFile::Http1 => HttpVersion::Http1,
            HttpVersionFile::Http2 => HttpVersion::Http2,
        },
        max_requests: max_requests.or(common.limits.max_requests),
        rate,
        pool: PoolSettings { max_idle_per_worker: file.pool.max_idle_per_worker as usize, idle_timeout, max_age },
        health: common.health,
        canary,
    };
    let digest = Digest::of(&settings);
    Some(Lowered::Enabled(Arc::new(settings), digest))
}
