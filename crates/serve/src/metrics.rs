//! Metrics: for Prometheus at `/metrics`, and as Triton's statistics.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    /// `infer`, `classify`, `health`, `metadata`, ...; over gRPC `grpc_infer`, `grpc_metadata`, ...
    endpoint: &'static str,
    /// HTTP's status, also for gRPC's equivalents.
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// Counters, gauges and histograms of one server.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Ended, Counter>,
    rejected: Family<Reason, Counter>,
    expired: Counter,
    in_flight: Gauge,
    connections: Gauge,
    queue_depth: Gauge,
    batch_clips: Histogram,
    clips: Counter,
    queue_seconds: Histogram,
    compute_seconds: Histogram,
    request_seconds: Histogram,
    statistics: Mutex<Statistics>,
    /// True when the last run failed.
    failing: AtomicBool,
}

/// Totals since the start, as Triton reports them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Statistics {
    /// Milliseconds since 1970 of the last one.
    pub last_ms: u64,
    /// Clips.
    pub clips: u64,
    /// Runs.
    pub runs: u64,
    pub success: Sum,
    pub fail: Sum,
    pub queue: Sum,
    pub compute: Sum,
    /// Runs by their clips.
    pub batches: BTreeMap<usize, Sum>,
}

/// A count with the time it took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    pub count: u64,
    pub ns: u64,
}

impl Sum {
    /// The same count, without time.
    pub fn without_time(self) -> Self {
        Self { ns: 0, ..self }
    }

    fn add(&mut self, time: Duration) {
        self.count += 1;
        self.ns = self.ns.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}

impl Metrics {
    pub fn new(model: &str, runtime: &str) -> Self {
        let mut registry = Registry::with_prefix("vjepa");
        let seconds = || Histogram::new(exponential_buckets(0.0005, 2.0, 18));
        let about = [("version", env!("CARGO_PKG_VERSION")), ("model", model), ("runtime", runtime)];
        let about: Vec<(String, String)> = about.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        registry.register("build", "What is served, by what", Info::new(about));
        let metrics = Self {
            requests: Family::default(),
            rejected: Family::default(),
            expired: Counter::default(),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            queue_depth: Gauge::default(),
            batch_clips: Histogram::new(exponential_buckets(1.0, 2.0, 8)),
            clips: Counter::default(),
            queue_seconds: seconds(),
            compute_seconds: seconds(),
            request_seconds: seconds(),
            statistics: Mutex::default(),
            failing: AtomicBool::new(false),
            registry: Registry::default(),
        };
        registry.register("requests", "Requests by endpoint and status", metrics.requests.clone());
        registry.register("requests_rejected", "Requests refused before the model", metrics.rejected.clone());
        registry.register("requests_expired", "Requests over their deadline", metrics.expired.clone());
        registry.register("requests_in_flight", "Inferences accepted but not answered", metrics.in_flight.clone());
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register("queue_depth", "Requests waiting for an instance", metrics.queue_depth.clone());
        registry.register("batch_clips", "Clips per run", metrics.batch_clips.clone());
        registry.register("clips", "Clips run", metrics.clips.clone());
        let timed = [
            ("queue", "Time in the queue", &metrics.queue_seconds),
            ("compute", "Time of a run", &metrics.compute_seconds),
            ("request", "Time of an inference from its head to its result", &metrics.request_seconds),
        ];
        for (name, help, histogram) in timed {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
        Self { registry, ..metrics }
    }

    /// All metrics in OpenMetrics' text format, version 1.0.0.
    pub fn open_metrics(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// All metrics in Prometheus' text format, version 0.0.4.
    pub fn text(&self) -> String {
        as_text(&self.open_metrics())
    }

    pub fn queue_depth(&self, depth: usize) {
        self.queue_depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    /// A request was answered.
    pub fn answered(&self, endpoint: &'static str, status: u16) {
        self.requests.get_or_create(&Ended { endpoint, status }).inc();
    }

    pub fn rejected(&self, reason: &'static str) {
        self.rejected.get_or_create(&Reason { reason }).inc();
    }

    pub fn expired(&self) {
        self.expired.inc();
    }

    /// Counts an inference for as long as the guard lives.
    pub fn in_flight(&self) -> Counted {
        Counted::new(self.in_flight.clone())
    }

    /// Counts a connection for as long as the guard lives.
    pub fn connected(&self) -> Counted {
        Counted::new(self.connections.clone())
    }

    /// An instance ran a batch.
    pub fn ran(&self, clips: usize, time: Duration, ok: bool) {
        self.failing.store(!ok, Ordering::Relaxed);
        self.compute_seconds.observe(time.as_secs_f64());
        self.batch_clips.observe(clips as f64);
        if ok {
            self.clips.inc_by(clips as u64);
            let mut statistics = self.lock();
            statistics.clips += clips as u64;
            statistics.runs += 1;
            statistics.batches.entry(clips).or_default().add(time);
        }
    }

    /// True when the last run failed.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// An inference succeeded; the parts of its time.
    pub fn succeeded(&self, queued: Duration, computed: Duration, total: Duration) {
        self.queue_seconds.observe(queued.as_secs_f64());
        self.request_seconds.observe(total.as_secs_f64());
        let mut statistics = self.lock();
        statistics.success.add(total);
        statistics.queue.add(queued);
        statistics.compute.add(computed);
        statistics.last_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    }

    /// An inference failed.
    pub fn failed(&self, total: Duration) {
        self.lock().fail.add(total);
    }

    pub fn statistics(&self) -> Statistics {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Statistics> {
        self.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Converts OpenMetrics to Prometheus' text format, in which a counter is named like its samples, with `_total`, an info
/// is a gauge, and there are no units and no end mark.
fn as_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    // The help comes before the type that decides its name.
    let mut help = "";
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), ..) => help = line,
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    kind => ("", kind),
                };
                if let Some(words) = help.strip_prefix("# HELP ").and_then(|rest| rest.strip_prefix(name)) {
                    text.extend(["# HELP ", name, suffix, words, "\n"]);
                }
                text.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
            }
            (Some("#"), Some("UNIT" | "EOF"), ..) => {}
            _ => text.extend([line, "\n"]),
        }
    }
    text
}

/// Counts one more for as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

impl Counted {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_text_form_has_its_own_names_and_types() {
        let open = "# HELP a Things.\n# TYPE a counter\na_total{x=\"# EOF\"} 1\n# HELP b_seconds Time.\n\
                    # TYPE b_seconds histogram\n# UNIT b_seconds seconds\nb_seconds_sum 0.5\n# HELP c About.\n\
                    # TYPE c info\nc_info{v=\"1\"} 1\n# HELP d Now.\n# TYPE d gauge\nd 2\n# EOF\n";
        let text = "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"# EOF\"} 1\n# HELP b_seconds Time.\n\
                    # TYPE b_seconds histogram\nb_seconds_sum 0.5\n# HELP c_info About.\n\
                    # TYPE c_info gauge\nc_info{v=\"1\"} 1\n# HELP d Now.\n# TYPE d gauge\nd 2\n";
        assert_eq!(as_text(open), text);
    }
}
