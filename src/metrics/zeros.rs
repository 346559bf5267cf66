//! Error counters exist from the start, at 0: `increase()` does not see the first error of a series that appears with it.

use prometheus::IntCounterVec;

use super::label_table::{LabelTable, Labels};
use super::labels::{
    AddressProblem, CallerCloseReason, ErrorKind, FanOutOutcome, ProxyProtocolError, QueueOutcome, RetryOutcome,
    StoreOperation, TokenErrorReason, TokenOutcome, TokenStage, UnauthorizedAction, UpstreamErrorReason,
};
use super::shared::SharedMetrics;
use super::states::StateSource;

/// The statuses of failures, those of the gateway's own among them.
const SERVER_ERRORS: [&str; 4] = ["500", "502", "503", "504"];

/// The operations whose failures have series before they occur. Chosen: almost all calls are one of these, and with all operations,
/// the series of 500 routes would be larger than the rest of a scrape.
const USUAL_OPERATIONS: [&str; 3] = ["hub_send", "user_send", "group_send"];

/// Returns the labels of an enum.
macro_rules! labels {
    ($name:ident) => {
        $name::ALL.iter().map(|value| value.label()).collect::<Vec<_>>()
    };
}

/// Creates the series of a counter: every combination of the values of its labels.
pub(super) fn create(counters: &IntCounterVec, values: &[&[&str]]) {
    fn create_all<'a>(counters: &IntCounterVec, chosen: &mut Vec<&'a str>, rest: &[&[&'a str]]) {
        let Some((first, rest)) = rest.split_first() else {
            let _created = counters.with_label_values(chosen);
            return;
        };
        for value in *first {
            chosen.push(value);
            create_all(counters, chosen, rest);
            chosen.pop();
        }
    }
    create_all(counters, &mut Vec::new(), values);
}

/// Returns the names of a table that have series.
fn names(table: &LabelTable) -> Vec<&str> {
    table.names().collect()
}

/// Creates the error series of what workers count.
pub(super) fn create_shared(metrics: &SharedMetrics, labels: &Labels, parts: &dyn StateSource) {
    let (endpoints, routes, callers) = (names(&labels.endpoints), names(&labels.routes), names(&labels.callers));
    let listeners: Vec<&str> = labels.listeners.iter().map(String::as_str).collect();
    let queue = labels!(QueueOutcome);
    create(&metrics.requests, &[&[routes.as_slice(), &["_none"]].concat(), &USUAL_OPERATIONS, &SERVER_ERRORS]);
    create(&metrics.rejected, &[&labels!(ErrorKind)]);
    create(&metrics.upstream_errors, &[&endpoints, &labels!(UpstreamErrorReason)]);
    create(&metrics.upstream_connects, &[&endpoints, &["ok", "error"]]);
    create(&metrics.retries, &[&endpoints, &labels!(RetryOutcome)]);
    create(&metrics.unauthorized, &[&endpoints, &["401", "403"], &labels!(UnauthorizedAction)]);
    create(&metrics.endpoint_queue, &[&endpoints, &queue]);
    create(&metrics.endpoint_rate_limited, &[&endpoints]);
    create(&metrics.message_units, &[&endpoints]);
    create(&metrics.listener_queue, &[&listeners, &queue]);
    create(&metrics.client_rate_limited, &[&listeners]);
    create(&metrics.address_unclear, &[&listeners, &labels!(AddressProblem)]);
    create(&metrics.proxy_protocol_refused, &[&listeners, &labels!(ProxyProtocolError)]);
    create(&metrics.rate_limited, &[&routes]);
    create(&metrics.caller_rate_limited, &[&callers]);
    parts.fan_outs(&mut |route| {
        let route = labels.routes.label_name(route);
        create(&metrics.fan_out_legs, &[&[route], &labels!(FanOutOutcome)]);
        create(&metrics.fan_out_partial, &[&[route]]);
        create(&metrics.fan_out_repeated, &[&[route]]);
    });
}

/// Creates the error series of token requests: by credential, stage and result, and by credential and reason.
pub(super) fn create_token(requests: &IntCounterVec, errors: &IntCounterVec, labels: &Labels) {
    let credentials = names(&labels.credentials);
    create(requests, &[&credentials, &labels!(TokenStage), &labels!(TokenOutcome)]);
    create(errors, &[&credentials, &labels!(TokenErrorReason)]);
}

/// Creates the series of closed connections of callers.
pub(super) fn create_closed(counters: &IntCounterVec) {
    create(counters, &[&labels!(CallerCloseReason)]);
}

/// Creates the series of failed operations of the idempotency store.
pub(super) fn create_store(counters: &IntCounterVec) {
    create(counters, &[&labels!(StoreOperation)]);
}
