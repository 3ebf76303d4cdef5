//! Counters and histograms: atomic numbers in arrays, and what their row says of them.

use curvine_protocol::number::whole_ns;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::labels::Outcome;

pub type Cell = AtomicU64;

/// Upper bounds of buckets, in nanoseconds: from an answer out of memory to the deadline of a call.
const SECONDS_BOUNDS: &[u64] = &[
    30_000,
    100_000,
    300_000,
    1_000_000,
    3_000_000,
    10_000_000,
    30_000_000,
    100_000_000,
    300_000_000,
    1_000_000_000,
    3_000_000_000,
    10_000_000_000,
    30_000_000_000,
];
/// Up to the most that an entry takes.
const COMMANDS_BOUNDS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

/// What a number counts, and the buckets of histograms of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    None,
    Bytes,
    Commands,
    Seconds,
}

impl Unit {
    /// Upper bounds of the buckets, in what is added up.
    pub const fn bounds(self) -> &'static [u64] {
        match self {
            Unit::Seconds => SECONDS_BOUNDS,
            Unit::Commands => COMMANDS_BOUNDS,
            Unit::None | Unit::Bytes => &[],
        }
    }

    /// How many of what is added up make one.
    pub const fn parts(self) -> u64 {
        match self {
            Unit::Seconds => 1_000_000_000,
            Unit::None | Unit::Bytes | Unit::Commands => 1,
        }
    }

    /// Cells of one series of a histogram: its buckets, that of what is over all bounds, and the sum.
    pub const fn cells(self) -> usize {
        self.bounds().len() + 2
    }

    pub fn name(self) -> &'static str {
        match self {
            Unit::None => "",
            Unit::Bytes => "bytes",
            Unit::Commands => "commands",
            Unit::Seconds => "seconds",
        }
    }
}

/// Which nodes show a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Every one, about itself.
    Node,
    /// Every one, about the whole cluster, as its leader says.
    Cluster,
    /// Those with a master.
    Master,
    /// Those with a worker.
    Worker,
    /// Those with a mount.
    Mount,
}

impl Of {
    pub fn name(self) -> &'static str {
        match self {
            Of::Node => "every node",
            Of::Cluster => "every node, of the cluster",
            Of::Master => "masters",
            Of::Worker => "workers",
            Of::Mount => "mounts",
        }
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub unit: Unit,
    /// With the values that each can have; none where they are not known before they are read.
    pub labels: &'static [(&'static str, &'static [&'static str])],
    pub of: Of,
    pub help: &'static str,
}

impl Metric {
    /// How many combinations of labels there are.
    pub const fn series(&self) -> usize {
        let mut series = 1;
        let mut label = 0;
        while label < self.labels.len() {
            series *= self.labels[label].1.len();
            label += 1;
        }
        series
    }
}

/// A row, by what it measures with.
#[derive(Clone, Copy)]
pub enum Kind {
    Counter(&'static Counter),
    Gauge(&'static Gauge),
    Histogram(&'static Histogram),
}

impl Kind {
    pub fn metric(&self) -> &'static Metric {
        match self {
            Kind::Counter(counter) => &counter.metric,
            Kind::Gauge(gauge) => &gauge.0,
            Kind::Histogram(histogram) => &histogram.metric,
        }
    }

    /// As Prometheus calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Counter(_) => "counter",
            Kind::Gauge(_) => "gauge",
            Kind::Histogram(_) => "histogram",
        }
    }
}

/// Counts up from the start of the process.
pub struct Counter {
    metric: Metric,
    cells: &'static [Cell],
}

impl Counter {
    pub(super) const fn new(metric: Metric, cells: &'static [Cell]) -> Self {
        Counter { metric, cells }
    }

    /// To the only series of a counter without labels.
    pub fn add(&self, count: u64) {
        self.add_at(0, count);
    }

    /// To a series, by its place: the last label counts fastest.
    fn add_at(&self, series: usize, count: u64) {
        self.cells[series].fetch_add(count, Ordering::Relaxed);
    }

    /// To a counter of errors, whose last label is the outcome, by the place of its other labels.
    pub fn add_error(&self, place: usize, outcome: Outcome) {
        self.add_at(place * Outcome::NAMES.len() + outcome as usize, 1);
    }

    pub fn value(&self, series: usize) -> u64 {
        self.cells[series].load(Ordering::Relaxed)
    }
}

/// Is read at the moment it is shown; see [`Readings`](super::Readings).
pub struct Gauge(pub(super) Metric);

/// Counts observations by size.
pub struct Histogram {
    metric: Metric,
    cells: &'static [Cell],
}

/// One series of a histogram, as it is shown.
pub struct Shown {
    /// Of each bucket by itself; the last one is what is over all bounds.
    pub buckets: Vec<u64>,
    pub sum: f64,
}

impl Histogram {
    pub(super) const fn new(metric: Metric, cells: &'static [Cell]) -> Self {
        Histogram { metric, cells }
    }

    /// Of a histogram of seconds: how long something took, in the series with this place.
    pub fn observe(&self, series: usize, took: Duration) {
        self.put(series, whole_ns(took));
    }

    /// Of a histogram without labels: how many there were.
    pub fn observe_count(&self, count: usize) {
        self.put(0, count as u64);
    }

    fn put(&self, series: usize, amount: u64) {
        let bounds = self.metric.unit.bounds();
        let bucket = bounds
            .iter()
            .position(|bound| amount <= *bound)
            .unwrap_or(bounds.len());
        let cells = self.of(series);
        cells[bucket].fetch_add(1, Ordering::Relaxed);
        cells[bounds.len() + 1].fetch_add(amount, Ordering::Relaxed);
    }

    pub fn shown(&self, series: usize) -> Shown {
        let mut buckets: Vec<u64> = self
            .of(series)
            .iter()
            .map(|cell| cell.load(Ordering::Relaxed))
            .collect();
        let sum = buckets.pop().unwrap_or_default();
        Shown {
            buckets,
            sum: sum as f64 / self.metric.unit.parts() as f64,
        }
    }

    fn of(&self, series: usize) -> &'static [Cell] {
        let count = self.metric.unit.cells();
        &self.cells[series * count..][..count]
    }
}
