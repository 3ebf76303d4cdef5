//! Masters with a million files (`CURVINE_FILES` for another number): how soon each is back, and how soon a new one is in step.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use curvine_protocol::number::to_usize;
use serde_json::Value;

use crate::Bench;
use crate::commands::{text, whole};
use crate::masters::Places;
use crate::million::{FILES_IN_DIRECTORY, FILLERS, files, fill, one_of};
use crate::node::Node;
use crate::report::{Report, Row, Target};

/// Of the load.
const CLIENTS: usize = 40;
/// A follower is down for so long, while the others take changes.
const DOWN: Duration = Duration::from_secs(60);
const RESTART_S_MAX: f64 = 5.0;
const IN_STEP_S_MAX: f64 = 10.0;
const IN_STEP_DEADLINE: Duration = Duration::from_secs(900);

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let files = files(bench);
    let places = Places::pick(bench, "size", 3)?;
    let addresses = places.addresses.join(",");
    let what = |text: &str| format!("{text}, {files} files");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let first = places.start(bench, 0, 1)?;
    let worker_dir = bench.scratch.path().join("size-worker");
    let _worker = bench.programs.worker(&worker_dir, &addresses)?;
    runtime.block_on(fill([&*places.addresses[0]], "", 0..files, 1, FILLERS))?;
    memory(&first, &what("master 1"), report)?;
    drop(first);
    let begun = Instant::now();
    let first = places.start(bench, 0, 1)?;
    stat(bench, &addresses, files)?;
    let took = begun.elapsed().as_secs_f64();
    let row = Row::new(
        "size",
        what("one master, kill -9, until a stat is answered"),
        took,
        "s",
    );
    report.add(row.target(Target::ValueAtMost(RESTART_S_MAX)));

    let mut masters = vec![Some(first)];
    for number in 1..3 {
        let begun = Instant::now();
        // It is ready only as a member.
        let newcomer = places.begin(bench, number, 3)?;
        add(bench, &places, number)?;
        let took = begun.elapsed();
        let master = newcomer.ready()?;
        masters.push(Some(master));
        let row = what(&format!("master {} until it votes", number + 1));
        report.add(Row::new("size", row, took.as_secs_f64(), "s"));
    }

    // Changes go on until all of this is over.
    let load = runtime.spawn({
        let addresses = places.addresses.clone();
        let from = files.next_multiple_of(FILES_IN_DIRECTORY);
        async move {
            fill(
                addresses.iter().map(String::as_str),
                "",
                from..usize::MAX / 2,
                1,
                CLIENTS,
            )
            .await
        }
    });
    let leader = leader(bench, &addresses)?;
    let follower = (0..3).find(|number| *number != leader).expect("there are three");
    let before = applied(bench, &addresses, leader)?;
    masters[follower] = None;
    std::thread::sleep(DOWN);
    let missed = applied(bench, &addresses, leader)? - before;
    let begun = Instant::now();
    masters[follower] = Some(places.start(bench, follower, 3)?);
    let ready = begun.elapsed().as_secs_f64();
    in_step(bench, &addresses, follower, leader)?;
    let took = begun.elapsed().as_secs_f64();
    let row = what(&format!(
        "a follower that missed {missed} entries in a minute: ready"
    ));
    report.add(Row::new("size", row, ready, "s").target(Target::ValueAtMost(RESTART_S_MAX)));
    let row = Row::new("size", what("the same: in step, under load"), took, "s");
    report.add(row.target(Target::ValueAtMost(IN_STEP_S_MAX)));

    masters[leader] = None;
    let begun = Instant::now();
    stat(bench, &addresses, files)?;
    let took = begun.elapsed().as_secs_f64();
    let row = Row::new(
        "size",
        what("kill -9 of the leader under load, until a stat is answered"),
        took,
        "s",
    );
    report.add(row.target(Target::ValueAtMost(3.0)));
    let begun = Instant::now();
    masters[leader] = Some(places.start(bench, leader, 3)?);
    let row = Row::new(
        "size",
        what("that leader: ready again"),
        begun.elapsed().as_secs_f64(),
        "s",
    );
    report.add(row.target(Target::ValueAtMost(RESTART_S_MAX)));
    for (number, master) in masters.iter().enumerate() {
        let master = master.as_ref().expect("all run");
        memory(
            master,
            &what(&format!("master {} under load", number + 1)),
            report,
        )?;
    }
    ensure!(
        !load.is_finished(),
        "the changes ended: {:?}",
        runtime.block_on(load)
    );
    load.abort();
    Ok(())
}

fn memory(master: &Node, what: &str, report: &mut Report) -> Result<()> {
    let (all, own) = master.resident_mb()?;
    let row = format!("{what}: resident (without file pages {own:.0})");
    report.add(Row::new("size", row, all, "MB"));
    Ok(())
}

fn stat(bench: &Bench, addresses: &str, files: usize) -> Result<()> {
    bench
        .programs
        .cv_at(addresses, &["stat", &one_of(files)])
        .map(|_| ())
}

/// Once it is there to be asked.
fn add(bench: &Bench, places: &Places, number: usize) -> Result<()> {
    let newcomer = format!("{}={}", number + 1, places.addresses[number]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(&places.addresses[number]).is_err() {
        ensure!(Instant::now() < deadline, "master {newcomer} does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    let addresses = places.addresses[..number].join(",");
    bench
        .programs
        .cv_at(&addresses, &["master", "add", &newcomer])
        .map(|_| ())
}

fn masters(bench: &Bench, addresses: &str) -> Result<Vec<Value>> {
    let answers = bench.programs.cv_at(addresses, &["master", "list"])?;
    let listed = answers.first().and_then(Value::as_array);
    Ok(listed.context("cv lists the masters")?.clone())
}

/// By number, from 0.
fn leader(bench: &Bench, addresses: &str) -> Result<usize> {
    let masters = masters(bench, addresses)?;
    let leader = masters
        .iter()
        .find(|master| text(master, "role").is_ok_and(|role| role == "leader"));
    let id = whole(leader.context("one of them leads")?, "id")?;
    Ok(to_usize(id) - 1)
}

/// The entries that one has applied.
fn applied(bench: &Bench, addresses: &str, of: usize) -> Result<u64> {
    let masters = masters(bench, addresses)?;
    let id = |master: &&Value| whole(master, "id").is_ok_and(|id| to_usize(id) == of + 1);
    whole(
        masters.iter().find(id).context("it is of the group")?,
        "applied_index",
    )
}

/// Returns when the one has what the other had a moment ago.
fn in_step(bench: &Bench, addresses: &str, follower: usize, leader: usize) -> Result<()> {
    let deadline = Instant::now() + IN_STEP_DEADLINE;
    let mut goal = u64::MAX;
    while applied(bench, addresses, follower)? < goal {
        ensure!(
            Instant::now() < deadline,
            "it is not in step within {IN_STEP_DEADLINE:?}"
        );
        goal = applied(bench, addresses, leader)?;
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
