//! Logs: to stderr, text on a terminal and JSON otherwise.

use std::io::{IsTerminal, stderr};

use anyhow::Context;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::gateway::{LogFormat, LoggingSettings};

/// What the identity libraries say of each acquisition is said better by us.
const QUIET: &str = "azure_identity=warn,azure_core=warn,typespec_client_core=warn";

/// Sets up logging for the whole process.
pub(super) fn init(settings: &LoggingSettings) -> anyhow::Result<()> {
    let filter: Targets = format!("{QUIET},{}", settings.filter).parse().context("`logging.filter` is not a filter")?;
    let is_text = match settings.format {
        LogFormat::Auto => stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(stderr);
    let layer = if is_text {
        layer.with_ansi(stderr().is_terminal()).boxed()
    } else {
        layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init().context("logging cannot be set up")
}
