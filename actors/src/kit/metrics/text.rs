//! The metrics as text: Prometheus' exposition format 0.0.4.

use std::collections::HashMap;
use std::fmt::Write;

use super::ALL;
use super::instrument::{Gauge, Kind, Metric, Of};

const LINE: &str = "writing to a String cannot fail";

/// What gauges have right now. A gauge without a reading shows no sample.
#[derive(Default)]
pub struct Readings(HashMap<&'static str, Vec<(Vec<String>, f64)>>);

impl Readings {
    /// Takes a gauge's value for these values of its labels, in their order.
    pub fn set(&mut self, gauge: &'static Gauge, labels: &[&str], value: f64) {
        assert_eq!(gauge.0.labels.len(), labels.len(), "labels of {}", gauge.0.name);
        let labels = labels.iter().map(|value| (*value).to_owned()).collect();
        self.0.entry(gauge.0.name).or_default().push((labels, value));
    }
}

/// The metrics of these parts of a node, in the order of the table.
pub fn render(parts: &[Of], readings: &Readings) -> String {
    let mut out = String::new();
    for kind in ALL.iter().filter(|kind| parts.contains(&kind.metric().of)) {
        let metric = kind.metric();
        let name = metric.name;
        writeln!(out, "# HELP {name} {}", metric.help.replace('\\', "\\\\")).expect(LINE);
        writeln!(out, "# TYPE {name} {}", kind.name()).expect(LINE);
        match kind {
            Kind::Counter(counter) => {
                for series in 0..metric.series() {
                    let value = counter.value(series) as f64;
                    sample(&mut out, name, "", &labels(metric, series), value);
                }
            }
            Kind::Histogram(histogram) => {
                for series in 0..metric.series() {
                    let mut labels = labels(metric, series);
                    let shown = histogram.shown(series);
                    let parts = metric.unit.parts() as f64;
                    let bounds = metric.unit.bounds().iter();
                    let bounds = bounds.map(|bound| (*bound as f64 / parts).to_string());
                    let mut count = 0;
                    for (bound, here) in bounds.chain(["+Inf".to_owned()]).zip(shown.buckets) {
                        count += here;
                        labels.push(("le", bound));
                        sample(&mut out, name, "_bucket", &labels, count as f64);
                        labels.pop();
                    }
                    sample(&mut out, name, "_sum", &labels, shown.sum);
                    sample(&mut out, name, "_count", &labels, count as f64);
                }
            }
            Kind::Gauge(_) => {
                for (values, value) in readings.0.get(name).into_iter().flatten() {
                    let names = metric.labels.iter().map(|(label, _)| *label);
                    let labels: Vec<_> = names.zip(values.iter().cloned()).collect();
                    sample(&mut out, name, "", &labels, *value);
                }
            }
        }
    }
    out
}

/// The labels of the series with this place.
fn labels(metric: &Metric, mut series: usize) -> Vec<(&'static str, String)> {
    let mut labels = Vec::new();
    for (label, values) in metric.labels.iter().rev() {
        labels.push((*label, values[series % values.len()].to_owned()));
        series /= values.len();
    }
    labels.reverse();
    labels
}

fn sample(out: &mut String, name: &str, suffix: &str, labels: &[(&str, String)], value: f64) {
    write!(out, "{name}{suffix}").expect(LINE);
    let mut open = '{';
    for (label, value) in labels {
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        write!(out, "{open}{label}=\"{value}\"").expect(LINE);
        open = ',';
    }
    if !labels.is_empty() {
        out.push('}');
    }
    writeln!(out, " {value}").expect(LINE);
}
