//! What was measured, as a table and as JSON.

use anyhow::Result;
use serde::Serialize;

#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
}

/// One measurement, what it was measured beside, and what it should reach.
#[derive(Serialize)]
pub struct Row {
    part: String,
    what: String,
    value: f64,
    unit: &'static str,
    /// What it is compared with, and the ratio to that.
    beside: Option<(String, f64)>,
    /// What the value, or else the ratio, should be.
    target: Option<Target>,
}

#[derive(Clone, Copy, Serialize)]
pub enum Target {
    ValueAtLeast(f64),
    ValueAtMost(f64),
    RatioAtLeast(f64),
    RatioAtMost(f64),
}

impl Row {
    pub fn new(part: &str, what: impl Into<String>, value: f64, unit: &'static str) -> Row {
        Row {
            part: part.to_owned(),
            what: what.into(),
            value,
            unit,
            beside: None,
            target: None,
        }
    }

    pub fn beside(mut self, what: impl Into<String>, ratio: f64) -> Row {
        self.beside = Some((what.into(), ratio));
        self
    }

    pub fn target(mut self, target: Target) -> Row {
        self.target = Some(target);
        self
    }

    fn verdict(&self) -> String {
        let ratio = self.beside.as_ref().map_or(f64::NAN, |(_, ratio)| *ratio);
        let (text, met) = match self.target {
            None => return String::new(),
            Some(Target::ValueAtLeast(least)) => (format!(">= {}", number(least)), self.value >= least),
            Some(Target::ValueAtMost(most)) => (format!("<= {}", number(most)), self.value <= most),
            Some(Target::RatioAtLeast(least)) => (format!("ratio >= {least}"), ratio >= least),
            Some(Target::RatioAtMost(most)) => (format!("ratio <= {most}"), ratio <= most),
        };
        format!("{text}: {}", if met { "met" } else { "**missed**" })
    }
}

impl Report {
    pub fn add(&mut self, row: Row) {
        eprintln!("  {}", line(&row));
        self.rows.push(row);
    }

    pub fn table(&self) -> String {
        let mut table = "| part | what | measured | ratio | target |\n|---|---|---:|---:|---|\n".to_owned();
        for row in &self.rows {
            table += &line(row);
            table.push('\n');
        }
        table
    }

    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(&self.rows)?)
    }
}

fn line(row: &Row) -> String {
    let ratio = row
        .beside
        .as_ref()
        .map_or(String::new(), |(what, ratio)| format!("{ratio:.2} of {what}"));
    format!(
        "| {} | {} | {} {} | {ratio} | {} |",
        row.part,
        row.what,
        number(row.value),
        row.unit,
        row.verdict()
    )
}

/// Three digits that count, and thousands apart.
fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.3}")
            .chars()
            .take(4)
            .collect::<String>()
            .trim_end_matches('.')
            .to_owned();
    }
    let digits = format!("{value:.0}");
    let mut apart = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            apart.push(',');
        }
        apart.push(digit);
    }
    apart
}
