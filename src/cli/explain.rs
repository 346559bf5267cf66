//! `explain`: shows the route and the endpoints of a call, or why the gateway would refuse it. Sends no request.

use std::fmt::{self, Display};
use std::net::IpAddr;

use anyhow::anyhow;
use clap::Args;
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::options::ConfigOptions;
use super::output::{Outcome, print, usage};
use crate::delivery::MessageRetry;
use crate::endpoint::EndpointName;
use crate::gateway::{Decision, Destination, DryRun, DryRunCall, Settings};
use crate::route::{HashKey, Mismatch, MismatchDetail, NamedBy, Pick, RouteName};
use crate::serve::{CallerIdentity, ListenerSettings};
use crate::signalr::{Operation, Policy};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigOptions,
    /// The request's method.
    method: String,
    /// The request's URL, or its path and query.
    url: String,
    /// A header of the request. May be repeated.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The listener that receives the request. Default: the first.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// The caller's address. Default: this host's.
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,
    /// The identity in the caller's certificate: a URI such as a SPIFFE id, a DNS name, or a subject. Default: no certificate.
    #[arg(long, value_name = "IDENTITY")]
    caller: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("must be `name: value`")?;
    let name = name.trim().parse().map_err(|_invalid| format!("`{name}` is not a header name"))?;
    let value = value.trim().parse().map_err(|_invalid| "the value is not a header value".to_owned())?;
    Ok((name, value))
}

pub(super) fn run(options: &Options) -> anyhow::Result<Outcome> {
    // A route depends on no secret.
    let settings = options.config.load_for_other_host()?.settings;
    let mut call = DryRunCall::new(&options.method, &options.url, &options.headers).map_err(usage)?;
    call.client = options.client;
    let names: Vec<&str> = settings.listeners.iter().map(|(listener, _)| listener.name.as_str()).collect();
    if let Some(wanted) = &options.listener {
        call.listener = names.iter().position(|name| name == wanted).ok_or_else(|| {
            usage(anyhow!("there is no listener `{wanted}`; the configuration has {}", names.join(", ")))
        })?;
    }
    if let Some(identity) = &options.caller {
        let listener = settings.listeners.get(call.listener).map(|(listener, _)| listener);
        if !listener.is_some_and(ListenerSettings::identifies_callers) {
            let name = names.get(call.listener).copied().unwrap_or_default();
            return Err(usage(anyhow!("the listener `{name}` has no `client_ca`, so its callers have no identity")));
        }
        call.caller = Some(CallerIdentity::from_text(identity));
    }
    let decision = DryRun::new(&settings).map_err(usage)?.explain(&call);
    let listener = names.get(call.listener).copied().unwrap_or_default();
    let explanation = Explanation { settings: &settings, listener, decision: &decision };
    if options.json {
        print(format_args!("{:#}", explanation.json()))?;
    } else {
        print(format_args!("{explanation}"))?;
    }
    Ok(if decision.outcome.is_err() { Outcome::ProblemFound } else { Outcome::Success })
}

/// A decision, for output as text or JSON.
struct Explanation<'a> {
    settings: &'a Settings,
    listener: &'a str,
    decision: &'a Decision,
}

impl Explanation<'_> {
    fn json(&self) -> Value {
        let Decision { operation, names, caller, passed_over, route, outcome } = self.decision;
        let mut fields = Map::new();
        let mut set = |key: &str, value: Value| fields.insert(key.to_owned(), value);
        set("listener", self.listener.into());
        if let Some(operation) = operation {
            set("operation", operation.name().into());
        }
        for (key, name) in names {
            set(key, name.as_str().into());
        }
        if let Some(caller) = caller {
            set("caller", caller.as_str().into());
        }
        if !passed_over.is_empty() {
            let to_json = |(route, mismatch): &(RouteName, MismatchDetail)| {
                json!({
                    "route": route.as_str(),
                    "mismatch": mismatch.condition.to_string(),
                    "wanted": mismatch.wanted,
                    "found": mismatch.found,
                })
            };
            set("passed_over", passed_over.iter().map(to_json).collect());
        }
        if let Some(route) = route {
            set("route", route.as_str().into());
        }
        match outcome {
            Ok(Destination::Gateway) => {
                set("answered_by", "the gateway itself".into());
            }
            Ok(Destination::Endpoints { pick, named_by, endpoints, disabled, in_any_order }) => {
                set("pick", pick.as_str().into());
                if let Pick::Hash(by) = pick {
                    set("hash_by", hash_by(by).into());
                }
                set("named_by_caller", named_by.is_some().into());
                if let Some(by) = named_by {
                    set("named_by", by.to_string().into());
                }
                set("in_any_order", (*in_any_order).into());
                let to_json = |(name, weight): &(EndpointName, u32)| json!({ "endpoint": name.as_str(), "url": self.url(name), "weight": weight });
                set("endpoints", endpoints.iter().map(to_json).collect());
                if !disabled.is_empty() {
                    set("disabled", disabled.iter().map(EndpointName::as_str).collect());
                }
                set("retry", self.retry().into());
            }
            Err(err) => {
                let refused =
                    json!({ "status": err.status().as_u16(), "kind": err.kind().label(), "detail": err.to_string() });
                set("refused", refused);
            }
        }
        fields.into()
    }

    fn url(&self, name: &EndpointName) -> String {
        let found = self.settings.endpoints.iter().find(|endpoint| endpoint.name == *name);
        found.map(|endpoint| endpoint.origin.to_string()).unwrap_or_default()
    }

    /// Describes when the call is retried.
    fn retry(&self) -> &'static str {
        match (self.decision.operation.is_some_and(Operation::is_message), self.settings.proxy.delivery.retry.messages)
        {
            (true, MessageRetry::Never) => {
                "message: retried only if nothing was sent, and once with another token after a 401"
            }
            (true, MessageRetry::Sdk) => {
                "message: retried if nothing was sent, once with another token after a 401, and after a status above 500 \
                 (retry.messages = \"sdk\")"
            }
            (false, _) => {
                "idempotent: retried if nothing was sent, once with another token after a 401, and after 408, 429, 500 and \
                 above or no response"
            }
        }
    }
}

fn hash_by(by: &HashKey) -> String {
    match by {
        HashKey::Hub => "hub".to_owned(),
        HashKey::Group => "group".to_owned(),
        HashKey::User => "user".to_owned(),
        HashKey::Connection => "connection".to_owned(),
        HashKey::Header(name) => format!("header {name}"),
    }
}

/// The maximum number of routes that are all listed.
const MAX_LISTED: usize = 20;

/// Returns whether the text lists a route that was passed over. Among many, those for other hubs are only counted.
fn is_listed(mismatch: &MismatchDetail, routes: usize) -> bool {
    routes <= MAX_LISTED || mismatch.condition != Mismatch::Hub
}

/// Describes how a route uses its endpoints.
fn describe_pick(pick: &Pick, named_by: Option<&NamedBy>, in_any_order: bool) -> String {
    if let Some(by) = named_by {
        return format!("the endpoint that the {by} names");
    }
    match pick {
        Pick::First => "pick: first, in this order".to_owned(),
        Pick::Weighted => "pick: weighted, at random".to_owned(),
        Pick::Hash(by) => format!("pick: hash by {}, in this order", hash_by(by)),
        Pick::All(_) if !in_any_order => "pick: all, but for this operation one at a time, in this order".to_owned(),
        Pick::All(Policy::All) => "pick: all, policy all".to_owned(),
        Pick::All(Policy::Any) => "pick: all, policy any".to_owned(),
        Pick::All(Policy::Quorum) => "pick: all, policy quorum".to_owned(),
    }
}

impl Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Decision { operation, names, caller, passed_over, route, outcome } = self.decision;
        write!(f, "{:<11} {}", "listener", self.listener)?;
        let mut line = |label: &str, text: &dyn Display| write!(f, "\n{label:<11} {text}");
        if let Some(operation) = operation {
            line("operation", operation)?;
        }
        for (key, name) in names {
            line(key, name)?;
        }
        if let Some(caller) = caller {
            line("caller", caller)?;
        }
        for (route, mismatch) in passed_over.iter().filter(|(_, mismatch)| is_listed(mismatch, passed_over.len())) {
            line("passed over", &format_args!("{route}: {mismatch}"))?;
        }
        let unlisted = passed_over.iter().filter(|(_, mismatch)| !is_listed(mismatch, passed_over.len())).count();
        if unlisted > 0 {
            line("passed over", &format_args!("{unlisted} routes for other hubs (--json lists them)"))?;
        }
        match (route, outcome) {
            (Some(route), Ok(Destination::Endpoints { pick, named_by, in_any_order, .. })) => {
                line("route", &format_args!("{route} ({})", describe_pick(pick, named_by.as_ref(), *in_any_order)))?;
            }
            (Some(route), _) => line("route", route)?,
            (None, _) => {}
        }
        match outcome {
            Ok(Destination::Gateway) => line("answered by", &"the gateway itself"),
            Ok(Destination::Endpoints { pick, endpoints, disabled, .. }) => {
                for (name, weight) in endpoints {
                    let url = self.url(name);
                    match pick {
                        Pick::Weighted | Pick::Hash(_) => {
                            line("endpoint", &format_args!("{name} ({url}, weight {weight})"))?;
                        }
                        Pick::First | Pick::All(_) => line("endpoint", &format_args!("{name} ({url})"))?,
                    }
                }
                for name in disabled {
                    line("left out", &format_args!("{name}: it is disabled"))?;
                }
                line("retry", &self.retry())
            }
            Err(err) => line("refused", &format_args!("{} {}: {err}", err.status().as_u16(), err.kind().label())),
        }
    }
}
