//! Lowers the settings of every request: limits, timeouts, retries, idempotency keys, access log.

use super::context::{Context, key};
use super::values;
use crate::config::file::{AccessFile, ConfigFile, IdempotencyFile, LoggingFile, MessageRetryFile, RetryFile};
use crate::config::problem::Origin;
use crate::delivery::{DeliverySettings, MessageRetry, RetrySettings};
use crate::idempotency::IdempotencySettings;
use crate::limits::QueueSettings;
use crate::proxy::{AccessLog, ProxySettings};

/// The read buffer of a connection can hold a head of this size.
const MAX_HEADER: u64 = 64 * 1024;
/// Source: Azure SignalR Service, REST API reference: a message has at most 1 MB.
const SERVICE_MAX_BODY: u64 = 1024 * 1024;
/// Chosen: smaller limits refuse an ordinary head (about 300 bytes) or message with arguments.
const USEFUL_SIZE: u64 = 512;
/// Bounds memory: a request body is kept until the response arrives.
const MAX_BODY: u64 = 64 * 1024 * 1024;
/// Chosen: more memory than any machine has.
const MAX_BODY_MEMORY: u64 = 1 << 40;
/// Chosen: more connections than any process has descriptors for.
const MAX_IDLE_CONNECTIONS: u32 = 1_000_000;
/// Chosen: more attempts than any caller waits for.
const MAX_ATTEMPTS: u32 = 10;
/// Bounds memory.
const MAX_KEYS: u32 = 1_000_000;

pub(super) fn lower(file: &ConfigFile, context: &mut Context<'_>) -> ProxySettings {
    let (limits, timeouts) = (&file.limits, &file.timeouts);
    let (request_key, try_key) = (key(&["timeouts", "request"]), key(&["timeouts", "try"]));
    let request_timeout = values::duration(&request_key, &timeouts.request, context);
    let mut try_timeout = values::duration(&try_key, &timeouts.attempt, context);
    if try_timeout > request_timeout && !request_timeout.is_zero() && !context.is_invalid(&request_key) {
        if context.origin_of(&try_key) == Some(Origin::Default) {
            try_timeout = request_timeout;
            context.displayed_values.push((try_key.join("."), timeouts.request.clone().into()));
        } else {
            let fact = format!("`{}` is longer than timeouts.request (`{}`)", timeouts.attempt, timeouts.request);
            context.problem(&try_key, fact, "lower it, or raise timeouts.request: an attempt is part of a request");
        }
    }
    let max_header = values::size(&key(&["limits", "max_header"]), &limits.max_header, MAX_HEADER, context);
    let max_body_bytes = values::size(&key(&["limits", "max_body"]), &limits.max_body, MAX_BODY, context);
    for (name, bytes, refused) in [
        ("max_header", max_header, "most requests are refused with 431"),
        ("max_body", max_body_bytes, "most messages are refused with 413"),
    ] {
        if bytes < USEFUL_SIZE {
            let fact = format!("is {bytes} bytes, so {refused}");
            context.warning(&key(&["limits", name]), fact, "write 1KiB or more, or remove it for the default");
        }
    }
    if max_body_bytes > SERVICE_MAX_BODY {
        context.warning(
            &key(&["limits", "max_body"]),
            "the service itself rejects bodies over 1 MiB",
            "write 1MiB or less",
        );
    }
    let body_memory = values::size(&key(&["limits", "body_memory"]), &limits.body_memory, MAX_BODY_MEMORY, context);
    if body_memory < max_body_bytes {
        let fact = format!("is {body_memory} bytes, must be at least limits.max_body ({max_body_bytes})");
        context.problem(&key(&["limits", "body_memory"]), fact, "raise it, or lower limits.max_body");
    }
    ProxySettings {
        max_body_bytes,
        body_memory,
        request_timeout,
        delivery: DeliverySettings {
            max_header_bytes: usize::try_from(max_header).unwrap_or(usize::MAX),
            try_timeout,
            queue: QueueSettings {
                length: limits.queue as usize,
                max_wait: values::duration(&key(&["limits", "queue_time"]), &limits.queue_time, context),
            },
            max_idle_connections: max_idle_connections(limits.max_idle_connections, context),
            retry: retry(file, context),
            idempotency: idempotency(&file.idempotency, context),
        },
        forward_client_address: file.forwarding.client_address,
        access_log: access_log(file, context),
    }
}

fn max_idle_connections(number: u32, context: &mut Context<'_>) -> usize {
    if !(1..=MAX_IDLE_CONNECTIONS).contains(&number) {
        let fact = format!("is {number}, must be 1 to {MAX_IDLE_CONNECTIONS}");
        let fix = format!("write a number from 1 to {MAX_IDLE_CONNECTIONS}");
        context.problem(&key(&["limits", "max_idle_connections"]), fact, fix);
    }
    number as usize
}

fn access_log(file: &ConfigFile, context: &mut Context<'_>) -> AccessLog {
    let LoggingFile { access, access_percent, .. } = file.logging;
    if access_percent > 100 {
        let fact = format!("is {access_percent}, must be 100 at most");
        context.problem(&key(&["logging", "access_percent"]), fact, "write 100 to log each request");
    }
    match access {
        AccessFile::All => AccessLog::Sampled { percent: access_percent },
        AccessFile::Failures => AccessLog::Failures,
        AccessFile::Off => AccessLog::Off,
    }
}

fn idempotency(file: &IdempotencyFile, context: &mut Context<'_>) -> IdempotencySettings {
    if !(1..=MAX_KEYS).contains(&file.keys) {
        let fact = format!("is {}, must be 1 to {MAX_KEYS}", file.keys);
        context.problem(&key(&["idempotency", "keys"]), fact, format!("write a number from 1 to {MAX_KEYS}"));
    }
    IdempotencySettings {
        expires_after: values::duration(&key(&["idempotency", "expires_after"]), &file.expires_after, context),
        keys: file.keys as usize,
    }
}

fn retry(file: &ConfigFile, context: &mut Context<'_>) -> RetrySettings {
    let RetryFile { messages, attempts, budget_percent } = file.retry;
    if !(1..=MAX_ATTEMPTS).contains(&attempts) {
        let fix = "write 1 for no retries";
        context.problem(&key(&["retry", "attempts"]), format!("is {attempts}, must be 1 to {MAX_ATTEMPTS}"), fix);
    }
    if budget_percent > 100 {
        context.problem(
            &key(&["retry", "budget_percent"]),
            format!("is {budget_percent}, must be 100 at most"),
            "write a percentage from 0 to 100",
        );
    }
    RetrySettings {
        messages: match messages {
            MessageRetryFile::Never => MessageRetry::Never,
            MessageRetryFile::Sdk => MessageRetry::Sdk,
        },
        attempts,
        // Exact, since it is at most 100.
        budget: f32::from(u16::try_from(budget_percent).unwrap_or(u16::MAX)) / 100.0,
    }
}
