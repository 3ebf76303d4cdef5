//! `/metrics`, read as Prometheus reads it: the text format, version 0.0.4.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use curvine_actors::kit::metrics::{ALL, Kind, Of};
use curvine_protocol::master::{Lookup, MountUfs};
use curvine_protocol::mount::MountSettings;
use curvine_protocol::{CurvinePath, ErrorKind};

use super::support::*;

/// A metric's samples by their suffix and labels.
struct Family {
    kind: String,
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

/// Takes the text apart. Fails on whatever the format does not allow.
fn parse(text: &str) -> HashMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line has an end");
    let mut families: HashMap<String, Family> = HashMap::new();
    let mut helped = None;
    let mut current = None;
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("a name and a text");
            assert!(!help.is_empty() && !families.contains_key(name), "{line}");
            helped = Some(name);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a name and a type");
            assert_eq!(helped, Some(name), "{name} has a HELP just before");
            current = Some(name);
            let family = Family {
                kind: kind.to_owned(),
                samples: Vec::new(),
            };
            families.insert(name.to_owned(), family);
        } else {
            let name = current.expect("a TYPE comes before samples");
            let (series, value) = line.rsplit_once(' ').expect("a series and a value");
            let value = value.parse().expect("a number");
            let (full, labels) = series
                .split_once('{')
                .map_or((series, BTreeMap::new()), |(full, labels)| {
                    (full, parse_labels(labels))
                });
            let suffix = full.strip_prefix(name).expect("a sample of the metric before it");
            let family = families.get_mut(name).expect("it has a TYPE");
            let is_new = !family
                .samples
                .iter()
                .any(|(other, others, _)| (other.as_str(), others) == (suffix, &labels));
            assert!(is_new, "{series} is there once");
            family.samples.push((suffix.to_owned(), labels, value));
        }
    }
    families
}

/// `a="b",c="d"}`
fn parse_labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while rest != "}" {
        let (name, value) = rest.split_once("=\"").expect("a name and a value");
        let mut end = 0;
        while !value[end..].starts_with('"') {
            end += if value[end..].starts_with('\\') { 2 } else { 1 };
        }
        labels.insert(name.to_owned(), value[..end].to_owned());
        rest = value[end + 1..].trim_start_matches(',');
    }
    labels
}

/// Every series of a histogram has buckets that grow up to `+Inf`, which is its count, and a sum.
fn assert_histogram(name: &str, family: &Family) {
    let mut series: HashMap<BTreeMap<String, String>, Vec<(f64, f64)>> = HashMap::new();
    let mut ends: HashMap<(String, BTreeMap<String, String>), f64> = HashMap::new();
    for (suffix, labels, value) in &family.samples {
        let mut labels = labels.clone();
        match suffix.as_str() {
            "_bucket" => {
                let bound = labels.remove("le").expect("a bucket has a bound");
                let bound = if bound == "+Inf" {
                    f64::INFINITY
                } else {
                    bound.parse().expect("a number")
                };
                series.entry(labels).or_default().push((bound, *value));
            }
            "_sum" | "_count" => {
                ends.insert((suffix.clone(), labels), *value);
            }
            other => panic!("{name}{other} is no part of a histogram"),
        }
    }
    assert_eq!(ends.len(), 2 * series.len(), "{name}");
    for (labels, buckets) in series {
        assert!(
            buckets.is_sorted_by(|one, next| one.0 < next.0 && one.1 <= next.1),
            "{name}{labels:?}: {buckets:?}"
        );
        let (last, total) = buckets.last().expect("there are buckets");
        assert!(
            last.is_infinite() && buckets.len() > 1,
            "{name}{labels:?}: {buckets:?}"
        );
        assert_eq!(
            ends.get(&("_count".to_owned(), labels.clone())),
            Some(total),
            "{name}{labels:?}"
        );
        assert!(
            ends.contains_key(&("_sum".to_owned(), labels.clone())),
            "{name}{labels:?}"
        );
    }
}

/// What the node shows is what the table has of these parts, all of it, in the format.
fn scrape(node: &Node, parts: &[Of]) -> HashMap<String, Family> {
    let (code, text) = node.get("/metrics");
    assert_eq!(code, 200);
    let families = parse(&text);
    let expected: BTreeMap<&str, &str> = ALL
        .iter()
        .filter(|kind| parts.contains(&kind.metric().of))
        .map(|kind| (kind.metric().name, kind.name()))
        .collect();
    let found: BTreeMap<&str, &str> = families
        .iter()
        .map(|(name, family)| (name.as_str(), family.kind.as_str()))
        .collect();
    assert_eq!(found, expected);
    for kind in ALL.iter().filter(|kind| parts.contains(&kind.metric().of)) {
        let metric = kind.metric();
        let family = &families[metric.name];
        let parts_of_one = match kind {
            Kind::Histogram(_) => {
                assert_histogram(metric.name, family);
                metric.unit.bounds().len() + 3
            }
            Kind::Counter(_) | Kind::Gauge(_) => {
                assert!(family.samples.iter().all(|(suffix, _, _)| suffix.is_empty()));
                1
            }
        };
        // Those of gauges are what there is of disks and so on.
        match kind {
            Kind::Gauge(_) => assert!(!family.samples.is_empty(), "{} is read", metric.name),
            _ => assert_eq!(
                family.samples.len(),
                parts_of_one * metric.series(),
                "{}",
                metric.name
            ),
        }
        for (_, labels, _) in &family.samples {
            let mut names: Vec<&str> = metric.labels.iter().map(|(label, _)| *label).collect();
            names.sort_unstable();
            let found: Vec<&str> = labels
                .keys()
                .map(String::as_str)
                .filter(|label| *label != "le")
                .collect();
            assert_eq!(found, names, "{}", metric.name);
        }
    }
    families
}

/// The one sample of a metric with this suffix and these labels, among others.
fn value(families: &HashMap<String, Family>, name: &str, suffix: &str, labels: &[(&str, &str)]) -> f64 {
    let has = |found: &BTreeMap<String, String>| {
        labels
            .iter()
            .all(|(label, value)| found.get(*label).is_some_and(|found| found == value))
    };
    let mut found = families[name]
        .samples
        .iter()
        .filter(|(other, found, _)| other == suffix && has(found));
    let (_, _, value) = found.next().expect("there is one");
    assert!(found.next().is_none(), "there are several");
    *value
}

/// Each a process of its own.
fn master_and_worker(dir: &Path) -> (Node, Node) {
    let node = |role: &[&str], name: &str| {
        let data_dir = dir.join(name);
        let rest = ["--listen", "127.0.0.1:0", "--data-dir", text(&data_dir)];
        Node::start(&[role, &rest].concat())
    };
    let master = node(&["--role", "master", "--id", "1"], "m");
    let worker = node(&["--role", "worker", "--master", master.said("master")], "w");
    (master, worker)
}

#[test]
fn every_metric_of_a_node_is_shown_from_its_start_and_counts() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (master, worker) = master_and_worker(dir.path());
    let store = dir.path().join("store");
    std::fs::create_dir(&store).expect("a directory");
    let mount = MountUfs {
        path: CurvinePath::parse("/w").expect("a path"),
        uri: format!("file://{}", store.display()),
        options: BTreeMap::new(),
        settings: MountSettings {
            writable: true,
            cache_quota_bytes: Some(1 << 30),
            ..MountSettings::default()
        },
    };
    master.ask(mount).expect("mounted");

    let of_worker = scrape(&worker, &[Of::Node, Of::Cluster, Of::Worker]);
    for nothing in ["curvine_mount_waiting_files", "curvine_mount_failed"] {
        assert_eq!(value(&of_worker, nothing, "", &[("mount", "/w")]), 0.0);
    }
    let quota = value(
        &of_worker,
        "curvine_mount_cache_quota_bytes",
        "",
        &[("mount", "/w")],
    );
    assert_eq!(quota, f64::from(1 << 30));
    assert_eq!(
        value(&of_worker, "curvine_workers", "", &[("state", "live")]),
        1.0
    );
    assert_eq!(value(&of_worker, "curvine_corrupt_blocks_total", "", &[]), 0.0);
    let build = [("version", env!("CARGO_PKG_VERSION")), ("role", "worker")];
    assert_eq!(value(&of_worker, "curvine_build_info", "", &build), 1.0);

    let calls = |families: &_, call| {
        value(
            families,
            "curvine_master_call_seconds",
            "_count",
            &[("call", call)],
        )
    };
    let refusals = |families: &_| {
        let labels = [("call", "Lookup"), ("outcome", "refused")];
        value(families, "curvine_master_call_errors_total", "", &labels)
    };
    let parts = [Of::Node, Of::Cluster, Of::Master];
    let before = scrape(&master, &parts);
    assert_eq!((calls(&before, "MakeDir"), refusals(&before)), (0.0, 0.0));
    master.ask(make_dir("/there")).expect("is made");
    let missing = Lookup {
        node: at("/missing"),
        follow: true,
    };
    let error = master.ask(missing).expect_err("is not there");
    assert_eq!(error.kind, ErrorKind::NotFound);
    let after = scrape(&master, &parts);
    assert_eq!((calls(&after, "MakeDir"), refusals(&after)), (1.0, 1.0));
    assert_eq!(calls(&after, "Lookup"), calls(&before, "Lookup") + 1.0);
    assert!(value(&after, "curvine_raft_log_commit_seconds", "_count", &[]) >= 1.0);
    assert!(value(&after, "curvine_raft_log_commit_seconds", "_sum", &[]) > 0.0);
}

#[test]
fn a_node_without_a_leader_says_so_and_shows_what_is_its_own() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (mut master, worker) = master_and_worker(dir.path());
    let answers = |families: &_| value(families, "curvine_cluster_answers", "", &[]);
    assert_eq!(answers(&parse(&worker.get("/metrics").1)), 1.0);
    master.kill();
    let families = parse(&worker.get("/metrics").1);
    assert_eq!(answers(&families), 0.0);
    assert!(families["curvine_workers"].samples.is_empty());
    assert!(!families["curvine_worker_call_seconds"].samples.is_empty());
}
