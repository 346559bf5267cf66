//! `explain`: where a call would go, or why it would be refused. Sends nothing.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, anyhow};
use clap::Args;
use http::header::HOST;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use serde_json::{Value, json};

use super::{ConfigOptions, Outcome, print, usage};
use crate::gateway::Settings;
use crate::proxy::{Admission, ProxyError};
use crate::route::{Inquiry, Pick, Table};
use crate::serve::Peer;
use crate::signalr::{Call, Operation};

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
    /// The listener it comes in by. Default: the first.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// The caller's address.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    client: IpAddr,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write `name: value`")?;
    let name = name.trim().parse().map_err(|_invalid| format!("`{name}` is not a header name"))?;
    let value = value.trim().parse().map_err(|_invalid| "the value is not a header value".to_owned())?;
    Ok((name, value))
}

pub(super) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let settings = options.config.load()?.settings;
    let request = request(options).map_err(usage)?;
    let names: Vec<&str> = settings.listeners.iter().map(|(listener, _)| listener.name.as_str()).collect();
    let listener = match &options.listener {
        None => 0,
        Some(wanted) => names.iter().position(|name| name == wanted).ok_or_else(|| {
            usage(anyhow!("there is no listener `{wanted}`; the configuration has {}", names.join(", ")))
        })?,
    };
    let explanation = explain(&settings, &request, listener, options.client);
    let outcome = if explanation.get("refused").is_some() { Outcome::ProblemFound } else { Outcome::Good };
    if options.json {
        print(format_args!("{explanation:#}"))?;
    } else {
        print(format_args!("{}", words(&explanation)))?;
    }
    Ok(outcome)
}

fn request(options: &Options) -> anyhow::Result<http::request::Parts> {
    let method: Method = options.method.to_ascii_uppercase().parse().context("the method is not one of HTTP")?;
    let url: Uri = options.url.parse().with_context(|| format!("`{}` is not a URL", options.url))?;
    let host = url.authority().map_or("localhost", http::uri::Authority::as_str).to_owned();
    let target = url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let mut request = Request::builder().method(method).uri(target).header(HOST, host).body(())?;
    for (name, value) in &options.headers {
        if *name == HOST {
            request.headers_mut().insert(HOST, value.clone());
        } else {
            request.headers_mut().append(name, value.clone());
        }
    }
    Ok(request.into_parts().0)
}

/// Walks the request through the pipeline's own decisions.
fn explain(settings: &Settings, request: &http::request::Parts, listener: usize, client: IpAddr) -> Value {
    let mut found = json!({ "listener": settings.listeners.get(listener).map(|(listener, _)| &listener.name) });
    match decide(settings, request, listener, client, &mut found) {
        Ok(()) => {}
        Err(err) => {
            set(
                &mut found,
                "refused",
                json!({
                    "status": err.status().as_u16(),
                    "kind": err.kind().label(),
                    "detail": err.to_string(),
                }),
            );
        }
    }
    found
}

fn decide(
    settings: &Settings,
    request: &http::request::Parts,
    listener: usize,
    client: IpAddr,
    found: &mut Value,
) -> Result<(), ProxyError> {
    let (_, admission) = settings.listeners.get(listener).ok_or(ProxyError::Internal)?;
    let proxy = &settings.proxy;
    let admission = Admission::new(admission.clone(), proxy.max_header_bytes, proxy.max_body_bytes);
    let peer = Peer { listener, address: Some(SocketAddr::new(client, 0)), is_tls: false, forwarded_for: None };
    admission.admit(&peer, request)?;
    let call = Call::parse(&request.method, request.uri.path(), request.uri.query())?;
    set(found, "operation", json!(call.operation.name()));
    let names = [("hub", call.hub), ("group", call.group), ("user", call.user), ("connection", call.connection)];
    for (key, name) in names {
        if let Some(name) = name {
            set(found, key, json!(name.decoded()));
        }
    }
    admission.admit_operation(call.operation)?;
    if call.operation == Operation::Health {
        set(found, "answered_by", json!("the gateway itself"));
        return Ok(());
    }
    let endpoint_names: Vec<_> = settings.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
    let listener_names: Vec<_> = settings.listeners.iter().map(|(listener, _)| listener.name.as_str()).collect();
    let table = Table::build(&settings.routes, &endpoint_names, &listener_names);
    let inquiry = Inquiry { call: &call, headers: &request.headers, listener, client: Some(client.to_canonical()) };
    let picked = table.pick(&inquiry);
    let before = picked.map_or(table.routes().len(), |(place, _)| place);
    let passed_over: Vec<_> = table
        .routes()
        .iter()
        .take(before)
        .filter_map(|route| {
            Some(json!({ "route": route.name().as_str(), "mismatch": route.mismatch(&inquiry)?.to_string() }))
        })
        .collect();
    set(found, "passed_over", json!(passed_over));
    let (_, route) = picked.ok_or(ProxyError::NoRoute)?;
    set(found, "route", json!(route.name().as_str()));
    set(
        found,
        "pick",
        json!(match route.pick() {
            Pick::First => "first",
            Pick::Weighted => "weighted",
            Pick::All(_) => "all",
        }),
    );
    let endpoints: Vec<_> = route
        .endpoints()
        .iter()
        .filter_map(|(place, weight)| {
            let endpoint = settings.endpoints.get(*place)?;
            Some(json!({ "endpoint": endpoint.name.as_str(), "url": endpoint.origin.to_string(), "weight": weight }))
        })
        .collect();
    set(found, "endpoints", json!(endpoints));
    let class = if call.operation.is_message() {
        "message: sent again only if nothing was sent, and once with another token after a 401"
    } else {
        "not a message: repeating it does no harm; sent again if nothing was sent, and once with another token after a 401"
    };
    set(found, "retry", json!(class));
    Ok(())
}

fn set(found: &mut Value, key: &str, value: Value) {
    if let Some(found) = found.as_object_mut() {
        found.insert(key.to_owned(), value);
    }
}

fn words(found: &Value) -> String {
    let text = |key: &str| found.get(key).and_then(Value::as_str);
    let mut words = String::new();
    let mut line = |label: &str, value: &str| {
        let _infallible = writeln!(words, "{label:<11} {value}");
    };
    for key in ["listener", "operation", "hub", "group", "user", "connection"] {
        if let Some(value) = text(key) {
            line(key, value);
        }
    }
    for skipped in found.get("passed_over").and_then(Value::as_array).into_iter().flatten() {
        let of = |key: &str| skipped.get(key).and_then(Value::as_str).unwrap_or_default();
        line("passed over", &format!("{}: {} does not match", of("route"), of("mismatch")));
    }
    if let (Some(route), Some(pick)) = (text("route"), text("pick")) {
        line("route", &format!("{route} (pick: {pick})"));
    }
    for endpoint in found.get("endpoints").and_then(Value::as_array).into_iter().flatten() {
        let of = |key: &str| endpoint.get(key).and_then(Value::as_str).unwrap_or_default();
        let weight = match text("pick") {
            Some("weighted") => format!(", weight {}", endpoint.get("weight").unwrap_or(&Value::Null)),
            _ => String::new(),
        };
        line("endpoint", &format!("{} ({}{weight})", of("endpoint"), of("url")));
    }
    for key in ["retry", "answered_by"] {
        if let Some(value) = text(key) {
            line(&key.replace('_', " "), value);
        }
    }
    if let Some(refused) = found.get("refused") {
        let of =
            |key: &str| refused.get(key).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        let part = |key| of(key).unwrap_or_default();
        line("refused", &format!("{} {}: {}", part("status"), part("kind"), part("detail")));
    }
    words.truncate(words.trim_end().len());
    words
}
