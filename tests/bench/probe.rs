//! How long other calls of a master take while something goes on: a `stat` and a `create`, each again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use curvine_actors::client::{Client, ClientOptions};
use curvine_protocol::CurvinePath;
use curvine_protocol::master::Lookup;

use crate::million::{commit, create};
use crate::report::{Report, Row, Target};

const STAT_EVERY: Duration = Duration::from_millis(2);
const CREATE_EVERY: Duration = Duration::from_millis(20);
const BUSY_TO_QUIET_MAX: f64 = 2.0;

/// Two threads that ask, each over a connection of its own.
pub struct Probe {
    ends: Arc<AtomicBool>,
    stat: JoinHandle<Result<Waits>>,
    create: JoinHandle<Result<Waits>>,
}

/// Of one kind of call: when each was made, and how long after that it was answered.
type Waits = Vec<(Instant, Duration)>;

/// What a probe has seen.
pub struct Seen {
    stat: Waits,
    create: Waits,
}

impl Probe {
    /// Asks for a file that is there, and creates files in a new directory of this name.
    pub fn start(masters: &str, file: &str, directory: &str) -> Result<Probe> {
        let file = CurvinePath::parse(file)?;
        let directory = CurvinePath::parse(directory)?;
        let ends = Arc::new(AtomicBool::new(false));
        let stat = again_and_again(masters, STAT_EVERY, &ends, move |client, _| {
            let node = (&file).into();
            async move {
                let begun = Instant::now();
                client.call(Lookup { node, follow: true }).await?;
                Ok(begun.elapsed())
            }
        });
        let create = again_and_again(masters, CREATE_EVERY, &ends, move |client, number| {
            let directory = directory.clone();
            async move {
                if number == 0 {
                    client.make_dir(&directory, 0o755, true).await?;
                }
                let path = directory.join(&number.to_string())?;
                let begun = Instant::now();
                let layout = create(&client, &path, 1).await?;
                let took = begun.elapsed();
                commit(&client, layout).await?;
                Ok(took)
            }
        });
        Ok(Probe { ends, stat, create })
    }

    pub fn end(self) -> Result<Seen> {
        self.ends.store(true, Ordering::Relaxed);
        let of = |thread: JoinHandle<Result<Waits>>, what| thread.join().expect("no panic").context(what);
        Ok(Seen {
            stat: of(self.stat, "a stat of the probe")?,
            create: of(self.create, "a create of the probe")?,
        })
    }
}

/// Makes a call every so often, whether those before it have been answered or not: others do not wait for each other. The
/// first is waited for.
fn again_and_again<F>(
    masters: &str,
    every: Duration,
    ends: &Arc<AtomicBool>,
    call: impl Fn(Client, usize) -> F + Send + 'static,
) -> JoinHandle<Result<Waits>>
where
    F: Future<Output = curvine_protocol::Result<Duration>> + Send + 'static,
{
    let (masters, ends) = (masters.to_owned(), ends.clone());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let client = runtime.block_on(Client::connect([masters], ClientOptions::default()))?;
        runtime.block_on(call(client.clone(), 0))?;
        let mut made = Vec::new();
        while !ends.load(Ordering::Relaxed) {
            let asked = runtime.spawn(call(client.clone(), made.len() + 1));
            made.push((Instant::now(), asked));
            std::thread::sleep(every);
        }
        let waits = made
            .into_iter()
            .map(|(begun, asked)| Ok((begun, runtime.block_on(asked)??)));
        waits.collect()
    })
}

impl Seen {
    /// Adds how long calls waited from one time to another, beside a quiet time before.
    pub fn compare(
        &self,
        report: &mut Report,
        (part, what): (&str, &str),
        quiet: (Instant, Instant),
        busy: (Instant, Instant),
    ) -> Result<()> {
        for (call, waits) in [("stat", &self.stat), ("create", &self.create)] {
            let quiet_ms = p99_ms(between(waits, quiet)).context("calls in a quiet time")?;
            let busy = between(waits, busy);
            let longest_ms = busy.iter().copied().fold(0.0, f64::max);
            let busy_ms = p99_ms(busy).with_context(|| format!("no {call} {what}"))?;
            report.add(
                Row::new(part, format!("{call}: p99 {what}"), busy_ms, "ms")
                    .beside(format!("quiet, {quiet_ms:.2} ms"), busy_ms / quiet_ms)
                    .target(Target::RatioAtMost(BUSY_TO_QUIET_MAX)),
            );
            report.add(Row::new(
                part,
                format!("{call}: longest {what}"),
                longest_ms,
                "ms",
            ));
        }
        Ok(())
    }
}

fn between(waits: &Waits, (from, to): (Instant, Instant)) -> Vec<f64> {
    let within = waits.iter().filter(|(begun, _)| (from..to).contains(begun));
    within.map(|(_, wait)| wait.as_secs_f64() * 1e3).collect()
}

fn p99_ms(mut waits: Vec<f64>) -> Option<f64> {
    waits.sort_by(f64::total_cmp);
    waits.get(waits.len() * 99 / 100).copied()
}
