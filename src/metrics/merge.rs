//! How metrics combine what shares a label: several endpoints with one `metrics_label`, the tenants of one credential, and
//! the names beyond the maximum, which share `_other`.

/// How a metric combines the values of what shares a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// The sum: of counters, of histograms, and of gauges that count.
    Sum,
    /// The worst state.
    Worst,
    /// The least value.
    Least,
    /// The earliest time. What has no such time does not count.
    Earliest,
    /// The latest time.
    Latest,
}

/// Every metric with a label that may be shared.
pub const MERGES: &[(&str, Merge)] = &[
    ("assertion_file_expiry_timestamp_seconds", Merge::Earliest),
    ("breaker_state", Merge::Worst),
    ("caller_rate_limited_total", Merge::Sum),
    ("caller_requests_total", Merge::Sum),
    ("canary_delivery_seconds", Merge::Worst),
    ("canary_success", Merge::Worst),
    ("credential_not_after_timestamp_seconds", Merge::Earliest),
    ("endpoint_cooldown_until_timestamp_seconds", Merge::Latest),
    ("endpoint_queue_total", Merge::Sum),
    ("endpoint_rate_limited_total", Merge::Sum),
    ("endpoint_up", Merge::Worst),
    ("fanout_legs_total", Merge::Sum),
    ("fanout_partial_total", Merge::Sum),
    ("fanout_repeats_total", Merge::Sum),
    ("message_units_total", Merge::Sum),
    ("rate_limited_total", Merge::Sum),
    ("requests_total", Merge::Sum),
    ("retries_total", Merge::Sum),
    ("retry_budget_ratio", Merge::Least),
    ("token_errors_total", Merge::Sum),
    ("token_expiry_timestamp_seconds", Merge::Earliest),
    ("token_last_success_timestamp_seconds", Merge::Earliest),
    ("token_requests_total", Merge::Sum),
    ("upstream_connections", Merge::Sum),
    ("upstream_connections_closed_total", Merge::Sum),
    ("upstream_connects_total", Merge::Sum),
    ("upstream_duration_seconds", Merge::Sum),
    ("upstream_errors_total", Merge::Sum),
    ("upstream_requests_total", Merge::Sum),
    ("upstream_unauthorized_total", Merge::Sum),
];
