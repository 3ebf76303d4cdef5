//! What `cv bench` measures, on a scratch node; and the memory of idle roles.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::Bench;
use crate::node::Node;
use crate::report::{Report, Row, Target};

pub fn number(value: &Value, field: &str) -> Result<f64> {
    value[field]
        .as_f64()
        .with_context(|| format!("no number {field} in {value}"))
}

pub fn whole(value: &Value, field: &str) -> Result<u64> {
    value[field]
        .as_u64()
        .with_context(|| format!("no whole number {field} in {value}"))
}

pub fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    value[field]
        .as_str()
        .with_context(|| format!("no text {field} in {value}"))
}

/// Resident memory of a master and a worker of their own, idle and after small files went through them.
pub fn memory(bench: &Bench, report: &mut Report) -> Result<()> {
    let (master_dir, worker_dir) = (bench.scratch.path().join("m"), bench.scratch.path().join("w"));
    let master = bench.programs.node(
        "master",
        &[
            "--data-dir",
            &master_dir.to_string_lossy(),
            "--listen",
            "127.0.0.1:0",
        ],
    )?;
    let worker = bench.programs.worker(&worker_dir, master.master()?)?;
    // Idle means idle: the first reports and heartbeats are over.
    std::thread::sleep(Duration::from_secs(3));
    let mut sum = 0.0;
    for (name, node) in [("master", &master), ("worker", &worker)] {
        let (all, own) = node.resident_mb()?;
        sum += all;
        report.add(Row::new(
            "memory",
            format!("{name}, idle (without file pages {own:.0})"),
            all,
            "MB",
        ));
    }
    report.add(Row::new("memory", "master + worker, idle", sum, "MB").target(Target::ValueAtMost(100.0)));
    let files = bench.count(20_000).to_string();
    let local = bench.scratch.path().to_string_lossy();
    bench.programs.cv(
        &master,
        &[
            "bench",
            "small",
            "--files",
            &files,
            "--bytes",
            "4096",
            "--clients",
            "8",
            "--local",
            &local,
        ],
    )?;
    for (name, node) in [("master", &master), ("worker", &worker)] {
        let (all, own) = node.resident_mb()?;
        let what = format!("{name}, after {files} small files (without file pages {own:.0})");
        report.add(Row::new("memory", what, all, "MB"));
    }
    worker.stop()?;
    master.stop()
}

pub fn meta(bench: &Bench, report: &mut Report) -> Result<()> {
    let data_dir = bench.scratch.path().join("meta");
    let node = bench.programs.node_of_all_roles(&data_dir)?;
    let files = bench.count(20_000).to_string();
    let local = bench.scratch.path().to_string_lossy();
    let answers = bench
        .programs
        .cv(&node, &["bench", "meta", "--files", &files, "--local", &local])?;
    for answer in &answers {
        let (op, rate) = (text(answer, "op")?, number(answer, "per_second")?);
        let Some(clients) = answer["clients"].as_u64() else {
            report.add(Row::new("meta", format!("bare {op} of 4 KiB"), rate, "/s"));
            continue;
        };
        let row = Row::new("meta", format!("{op}, {clients} clients"), rate, "/s");
        report.add(match op {
            "echo" => row,
            "create" | "rename" | "delete" => {
                let row = row.beside("append+fdatasync", number(answer, "of_fdatasync")?);
                match (op, clients) {
                    ("create", 40) => row.target(Target::ValueAtLeast(15_000.0)),
                    _ => row,
                }
            }
            _ => {
                let row = row.beside("echo", number(answer, "of_echo")?);
                match op {
                    "stat" => row.target(Target::RatioAtLeast(0.7)),
                    _ => row,
                }
            }
        });
    }
    node.stop()
}

pub fn data(bench: &Bench, report: &mut Report) -> Result<()> {
    let data_dir = bench.scratch.path().join("data");
    let node = bench.programs.node_of_all_roles(&data_dir)?;
    big_file(bench, report, &node, None)?;
    node.stop()
}

pub fn small(bench: &Bench, report: &mut Report) -> Result<()> {
    let data_dir = bench.scratch.path().join("small");
    let node = bench.programs.node_of_all_roles(&data_dir)?;
    small_files(bench, report, &node, None)?;
    node.stop()
}

/// The same by POSIX calls in a mount of a node of every role.
pub fn fuse(bench: &Bench, report: &mut Report) -> Result<()> {
    let data_dir = bench.scratch.path().join("fuse");
    let mount_point = bench.scratch.path().join("mount").display().to_string();
    let node = bench
        .programs
        .mounted_node_of_all_roles(&data_dir, &mount_point)?;
    small_files(bench, report, &node, Some(&mount_point))?;
    big_file(bench, report, &node, Some(&mount_point))?;
    node.stop()
}

/// What a measurement is told to be on: the mount's directory is another one each time.
fn on(answer: &Value, mount_point: Option<&str>) -> Result<String> {
    let on = text(answer, "on")?;
    Ok(if Some(on) == mount_point { "FUSE" } else { on }.to_owned())
}

fn big_file(bench: &Bench, report: &mut Report, node: &Node, mount_point: Option<&str>) -> Result<()> {
    let bytes = bench.count(1 << 30).to_string();
    let local = bench.scratch.path().to_string_lossy();
    let mut command = vec!["bench", "data", "--bytes", &bytes, "--local", &local];
    command.extend(mount_point);
    for answer in bench.programs.cv(node, &command)? {
        let (on, op) = (on(&answer, mount_point)?, text(&answer, "op")?);
        let (rate, unit) = match answer["mb_per_second"].as_f64() {
            Some(rate) => (rate, "MB/s"),
            None => (number(&answer, "per_second")?, "/s"),
        };
        let in_flight = answer["in_flight"]
            .as_u64()
            .map_or(String::new(), |n| format!(", {n} in flight"));
        let what = match op {
            "random" => format!("{on}: random reads of 4 KiB{in_flight}"),
            _ => format!("{on}: sequential {op}"),
        };
        let row = Row::new("data", what, rate, unit);
        report.add(match on.as_str() {
            "client" | "FUSE" => row.beside("raw directory", number(&answer, "of_raw")?),
            _ => row,
        });
    }
    Ok(())
}

fn small_files(bench: &Bench, report: &mut Report, node: &Node, mount_point: Option<&str>) -> Result<()> {
    let files = bench.count(5_000).to_string();
    let local = bench.scratch.path().to_string_lossy();
    let mut command = vec!["bench", "small", "--files", &files, "--local", &local];
    command.extend(mount_point);
    for answer in bench.programs.cv(node, &command)? {
        let (op, kibibytes) = (text(&answer, "op")?, number(&answer, "bytes")? / 1024.0);
        let on = on(&answer, mount_point)?;
        let what = format!(
            "{on}: {kibibytes} KiB files, {op}, {} clients",
            number(&answer, "clients")?
        );
        let row = Row::new("small", what, number(&answer, "per_second")?, "/s");
        let row = row.beside("raw directory", number(&answer, "of_raw")?);
        report.add(match (on.as_str(), kibibytes, op) {
            ("FUSE", 4.0, "write") => row.target(Target::ValueAtLeast(2_000.0)),
            ("FUSE", 4.0, _) => row.target(Target::ValueAtLeast(5_000.0)),
            _ => row,
        });
    }
    Ok(())
}
