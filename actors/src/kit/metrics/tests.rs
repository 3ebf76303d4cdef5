use std::collections::HashSet;
use std::fmt::Write;
use std::time::Duration;

use curvine_protocol::call::Done;
use curvine_protocol::cluster::Tier;
use curvine_protocol::{Call, Error, ErrorKind};
use serde::{Deserialize, Serialize};

use super::*;
use crate::documented;

const BEGIN: &str =
    "<!-- The table is rendered: UPDATE_RENDERED=1 cargo test -p curvine-actors metrics -->\n";
const END: &str = "<!-- The end of what is rendered. -->\n";

/// The table of `docs/metrics.md`.
fn table() -> String {
    let mut out = String::from("| metric | type | shown by | labels | meaning |\n|---|---|---|---|---|\n");
    for kind in ALL {
        let metric = kind.metric();
        let labels: Vec<String> = metric
            .labels
            .iter()
            .map(|(label, values)| match (*label, *values) {
                (label, []) | (label @ ("call" | "op"), _) => format!("`{label}`"),
                (label, values) => format!("`{label}`: {}", values.join(", ")),
            })
            .collect();
        writeln!(
            out,
            "| `{}` | {} | {} | {} | {} |",
            metric.name,
            kind.name(),
            metric.of.name(),
            labels.join("; "),
            metric.help,
        )
        .expect("writing to a String cannot fail");
    }
    out
}

#[test]
fn the_documentation_has_the_table_and_names_no_other_metric() {
    let right = documented::check(
        "docs/metrics.md",
        (BEGIN, END),
        &table(),
        "cargo test -p curvine-actors metrics",
    );
    let mut names: HashSet<String> = ALL.iter().map(|kind| kind.metric().name.to_owned()).collect();
    for kind in ALL.iter().filter(|kind| matches!(kind, Kind::Histogram(_))) {
        names.extend(["bucket", "sum", "count"].map(|part| format!("{}_{part}", kind.metric().name)));
    }
    let words = right.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for word in words.filter(|word| word.starts_with("curvine_")) {
        assert!(names.contains(word), "docs/metrics.md names {word}");
    }
}

#[test]
fn names_follow_the_conventions_of_prometheus() {
    let mut names = HashSet::new();
    for kind in ALL {
        let metric = kind.metric();
        let name = metric.name;
        assert!(names.insert(name), "{name} is there twice");
        // Every process of every program that is watched by Prometheus has this one.
        assert!(
            name.starts_with("curvine_") || name == "process_resident_memory_bytes",
            "{name}"
        );
        assert_eq!(
            name.ends_with("_total"),
            matches!(kind, Kind::Counter(_)),
            "{name}"
        );
        let stem = name.trim_end_matches("_total");
        let unit = metric.unit.name();
        assert!(stem.ends_with(unit), "{name} is in {unit}");
        for (label, _) in metric.labels {
            assert!(
                *label != "le" && !label.starts_with("__"),
                "{name} has the label {label}"
            );
        }
        // A sentence each, in one line.
        assert!(
            metric.help.ends_with('.') && !metric.help.contains('\n'),
            "{name}"
        );
    }
}

#[test]
fn tiers_are_named_as_they_are_shown() {
    assert_eq!(
        TIERS,
        [Tier::Mem, Tier::Ssd, Tier::Hdd].map(|tier| tier.to_string())
    );
}

#[test]
fn a_histogram_counts_up_to_and_with_its_bounds() {
    static CELLS: [instrument::Cell; Unit::Seconds.cells()] =
        [const { instrument::Cell::new(0) }; Unit::Seconds.cells()];
    let histogram = Histogram::new(PROBE, &CELLS);
    for micros in [30, 31, 31_000_000] {
        histogram.observe(0, Duration::from_micros(micros));
    }
    let shown = histogram.shown(0);
    let mut buckets = vec![1, 1];
    buckets.resize(Unit::Seconds.bounds().len(), 0);
    buckets.push(1);
    assert_eq!((shown.buckets, shown.sum), (buckets, 31.000_061));
}

#[test]
fn what_is_read_is_shown_with_its_labels_escaped() {
    let mut readings = Readings::default();
    readings.set(&MOUNTS, &[], 2.0);
    readings.set(&DISK_BLOCKS, &["7", "SSD", "/data\\\"x\"\n"], 1e10);
    let text = render(&[Of::Cluster], &readings);
    assert!(
        text.contains("\n# TYPE curvine_mounts gauge\ncurvine_mounts 2\n"),
        "{text}"
    );
    let sample = r#"curvine_disk_blocks{worker="7",tier="SSD",path="/data\\\"x\"\n"} 10000000000"#;
    assert!(text.contains(&format!("\n{sample}\n")), "{text}");
    assert!(
        !text.contains("_call_seconds"),
        "parts that are not there are not shown"
    );
}

/// A call with metrics of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Probe {}

impl Call for Probe {
    const CODE: u16 = 0;
    const NAME: &'static str = "Probe";
    type Reply = Done;
}

const PROBE: Metric = Metric {
    name: "curvine_probe_seconds",
    unit: Unit::Seconds,
    labels: &[],
    of: Of::Node,
    help: "",
};
static SECONDS_CELLS: [instrument::Cell; Unit::Seconds.cells()] =
    [const { instrument::Cell::new(0) }; Unit::Seconds.cells()];
static PROBE_SECONDS: Histogram = Histogram::new(PROBE, &SECONDS_CELLS);
static ERRORS_CELLS: [instrument::Cell; Outcome::NAMES.len()] =
    [const { instrument::Cell::new(0) }; Outcome::NAMES.len()];
static PROBE_ERRORS: Counter = Counter::new(PROBE, &ERRORS_CELLS);

impl Measured for Probe {
    const PLACE: usize = 0;
    const SECONDS: &'static Histogram = &PROBE_SECONDS;
    const ERRORS: &'static Counter = &PROBE_ERRORS;
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_timed_and_an_error_counted_by_whose_business_it_is() {
    let fail = |kind| timed::<Probe, ()>(async move { Err(Error::new(kind, "")) });
    let slow = timed::<Probe, ()>(async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(())
    });
    slow.await.expect("is answered");
    for kind in [
        ErrorKind::NotFound,
        ErrorKind::NotLeader,
        ErrorKind::Io,
        ErrorKind::Internal,
    ] {
        assert_eq!(fail(kind).await.map_err(|error| error.kind), Err(kind));
    }
    let never = timed::<Probe, ()>(std::future::pending());
    let given_up = tokio::time::timeout(Duration::from_secs(1), never).await;
    assert!(given_up.is_err(), "nobody waits any more");

    let shown = PROBE_SECONDS.shown(0);
    assert_eq!((shown.buckets.iter().sum::<u64>(), shown.sum), (6, 3.0));
    let errors: Vec<u64> = (0..Outcome::NAMES.len())
        .map(|outcome| PROBE_ERRORS.value(outcome))
        .collect();
    // Refused, redirected, unavailable, storage, defect.
    assert_eq!(errors, [1, 1, 1, 1, 1]);
}
