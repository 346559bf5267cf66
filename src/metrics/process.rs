//! Metrics of the process: memory, descriptors, threads and CPU time. Linux only.

use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Counter, MetricFamily};
use rustix::time::{ClockId, clock_gettime};

/// The library's collector, except that the CPU time has fractions: the library truncates it to seconds, so the rate of a
/// process that is nearly idle jumps between 0 and many times its mean.
pub(super) struct ProcessMetrics(ProcessCollector);

impl ProcessMetrics {
    pub(super) fn new() -> Self {
        Self(ProcessCollector::for_self())
    }
}

impl Collector for ProcessMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.0.collect();
        let cpu = families.iter_mut().filter(|family| family.name() == "process_cpu_seconds_total");
        for metric in cpu.flat_map(MetricFamily::mut_metric) {
            let mut counter = Counter::default();
            counter.set_value(cpu_seconds());
            metric.set_counter(counter);
        }
        families
    }
}

/// Returns the CPU time of all threads, in seconds.
#[expect(clippy::cast_precision_loss, reason = "a process runs for less than 2^52 s")]
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_has_fractions_of_a_second() {
        let collector = ProcessMetrics::new();
        let read = || {
            let families = collector.collect();
            let family = families.iter().find(|family| family.name() == "process_cpu_seconds_total").unwrap();
            family.get_metric()[0].get_counter().get_value()
        };
        let first = read();
        let mut later = read();
        for _ in 0..1_000_000 {
            later = read();
            if later > first {
                break;
            }
        }
        assert!(later > first && later - first < 1.0, "{first} {later}");
    }
}
