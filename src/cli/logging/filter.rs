//! The filter of log lines in force. A reload or a signal may replace it.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;

use crate::gateway::LogFilter;

/// The filter in force. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct FilterInForce(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    targets: ArcSwap<Targets>,
    wanted: Mutex<Wanted>,
}

#[derive(Debug)]
struct Wanted {
    configured: LogFilter,
    /// Whether a signal has turned debug lines on.
    debug: bool,
}

impl Wanted {
    fn targets(&self) -> Targets {
        let debug = self.debug.then(|| self.configured.with_debug());
        let filter = debug.as_ref().unwrap_or(&self.configured);
        Targets::new().with_default(filter.level()).with_targets(filter.targets().iter().cloned())
    }
}

impl FilterInForce {
    pub(super) fn new(configured: LogFilter) -> Self {
        let wanted = Wanted { configured, debug: false };
        Self(Arc::new(Shared { targets: ArcSwap::from_pointee(wanted.targets()), wanted: Mutex::new(wanted) }))
    }

    /// Replaces the configured filter.
    pub(super) fn configure(&self, configured: &LogFilter) {
        self.change(|wanted| wanted.configured.clone_from(configured));
    }

    /// Turns debug lines on or off, whatever the configured filter is.
    pub(super) fn set_debug(&self, debug: bool) {
        self.change(|wanted| wanted.debug = debug);
    }

    fn change(&self, change: impl FnOnce(&mut Wanted)) {
        let mut wanted = self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut wanted);
        self.0.targets.store(Arc::new(wanted.targets()));
        drop(wanted);
        // Each place that logs has cached whether it is enabled.
        tracing::callsite::rebuild_interest_cache();
    }
}

impl<S: Subscriber> Layer<S> for FilterInForce {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        let is_enabled = self.0.targets.load().would_enable(metadata.target(), metadata.level());
        if is_enabled { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _context: Context<'_, S>) -> bool {
        self.0.targets.load().would_enable(metadata.target(), metadata.level())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        <Targets as Layer<S>>::max_level_hint(&self.0.targets.load())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tracing::Event;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    struct Count(Arc<AtomicUsize>);

    impl<S: Subscriber> Layer<S> for Count {
        fn on_event(&self, _event: &Event<'_>, _context: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn replaces_the_filter_of_places_that_have_logged_before() {
        let (filter, count) = (FilterInForce::new(LogFilter::parse("warn").unwrap()), Arc::new(AtomicUsize::new(0)));
        let subscriber = tracing_subscriber::registry().with(Count(Arc::clone(&count))).with(filter.clone());
        tracing::subscriber::with_default(subscriber, || {
            let lines = || {
                count.store(0, Ordering::Relaxed);
                tracing::warn!(target: "signalr_gateway::proxy", "a warning");
                tracing::info!(target: "signalr_gateway::proxy", "an information");
                tracing::debug!(target: "signalr_gateway::proxy", "a detail");
                tracing::debug!(target: "h2", "a detail of a library");
                count.load(Ordering::Relaxed)
            };
            assert_eq!(lines(), 1);
            filter.configure(&LogFilter::parse("info").unwrap());
            assert_eq!(lines(), 2);
            filter.set_debug(true);
            assert_eq!(lines(), 3);
            // A reload meanwhile keeps the debug lines.
            filter.configure(&LogFilter::parse("error").unwrap());
            assert_eq!(lines(), 3);
            filter.set_debug(false);
            assert_eq!(lines(), 0);
        });
    }
}
