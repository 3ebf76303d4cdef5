//! A master whose hundred workers have a million blocks together (`CURVINE_FILES` for another number of files, each of ten):
//! how soon it knows all of them after a restart, what memory it takes for each, and how long other calls wait meanwhile, and
//! while a worker goes and comes back.
//!
//! The workers are tasks of this process: they say what workers with these blocks would. So this process takes a part of the
//! same processor for them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use actix::Addr;
use anyhow::{Result, ensure};
use curvine_actors::kit::peer::Peer;
use curvine_actors::kit::{Endpoint, Ports, call};
use curvine_actors::worker::membership::REPORT_PART;
use curvine_protocol::cluster::{BlockReplica, DiskStatus, Labels, Tier};
use curvine_protocol::master::{MasterCall, RegisterWorker, ReportBlocks, WorkerHeartbeat};
use curvine_protocol::number::to_usize;
use curvine_protocol::{BlockId, CallContext, Error, ErrorKind, WorkerId};

use crate::Bench;
use crate::blocks::{BLOCKS_EACH, generation, quiet_time};
use crate::masters::Places;
use crate::million::{BLOCK_BYTES, FILLERS, files_or, fill, one_of};
use crate::probe::Probe;
use crate::report::{Report, Row};

const WORKERS: u64 = 100;
const FILES: usize = 100_000;
const HEARTBEAT: Duration = Duration::from_secs(1);
/// As a worker waits for its master.
const DEADLINE_MS: u32 = 10_000;
/// A worker is lost by then that is not heard, and the leader has looked what that means.
const LOST_BY_THEN: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(300);

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let files = files_or(bench.count(FILES));
    let blocks = files as u64 * u64::from(BLOCKS_EACH);
    let what = |text: &str| format!("{text}, {blocks} blocks on {WORKERS} workers");
    let places = Places::pick(bench, "workers-master", 1)?;
    let masters = &*places.addresses[0];
    let master = places.start(bench, 0, 1)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let _system = actix_rt::System::new();
    let said = Arc::new(Said {
        blocks,
        ..Said::default()
    });
    let arbiter = actix_rt::Arbiter::new();
    for number in 0..WORKERS {
        let port = Peer::start(&arbiter.handle(), masters, &Ports::system());
        runtime.spawn(Simulated::new(number, port, said.clone()).live());
    }
    said.wait_for(&said.registered, WORKERS, "the workers do not register")?;
    runtime.block_on(fill([masters], "", 0..files, BLOCKS_EACH, FILLERS))?;
    let generation = runtime.block_on(generation(masters, files))?;
    said.generation.set(generation).expect("set once");

    said.silent.store(WORKERS, Ordering::Relaxed);
    drop(master);
    let master = places.start(bench, 0, 1)?;
    let probe = Probe::start(masters, &one_of(files), "/probe")?;
    std::thread::sleep(quiet_time(bench));
    let (_, before_mb) = master.resident_mb()?;
    let reporting = said.all_report(0)?;
    let (_, after_mb) = master.resident_mb()?;
    let took = (reporting.1 - reporting.0).as_secs_f64();
    report.add(Row::new(
        "workers",
        what("restarted, until all have reported"),
        took,
        "s",
    ));
    let each = (after_mb - before_mb) * 1e6 / blocks as f64;
    report.add(Row::new(
        "workers",
        what("memory of the master for each"),
        each,
        "bytes",
    ));

    std::thread::sleep(HEARTBEAT);
    let quiet = (Instant::now(), Instant::now() + quiet_time(bench));
    std::thread::sleep(quiet_time(bench));
    let losing = Instant::now();
    said.silent.store(1, Ordering::Relaxed);
    std::thread::sleep(LOST_BY_THEN);
    let losing = (losing, Instant::now());
    let returning = said.all_report(WORKERS - 1)?;
    std::thread::sleep(HEARTBEAT);
    let seen = probe.end()?;
    // Short as some of this is, others feel it a moment later.
    let and_after = |(from, to): (Instant, Instant)| (from, to + HEARTBEAT);
    for (what, busy) in [
        ("while all workers report", and_after(reporting)),
        ("while a worker is lost", losing),
        ("while it comes back", and_after(returning)),
    ] {
        seen.compare(report, ("workers", what), quiet, busy)?;
    }
    said.ends.store(true, Ordering::Relaxed);
    runtime.shutdown_timeout(HEARTBEAT);
    arbiter.stop();
    master.stop()
}

/// What the simulated workers are told, and what they have done.
#[derive(Default)]
struct Said {
    blocks: u64,
    /// Of the files' blocks, once they are there.
    generation: OnceLock<u32>,
    /// The first so many say nothing.
    silent: AtomicU64,
    registered: AtomicU64,
    reported: AtomicU64,
    ends: AtomicBool,
}

impl Said {
    fn wait_for(&self, count: &AtomicU64, wanted: u64, failure: &str) -> Result<()> {
        let begun = Instant::now();
        while count.load(Ordering::Relaxed) < wanted {
            ensure!(begun.elapsed() < LIMIT, "{failure}");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Those that were silent register and report; so many others have. From when to when.
    fn all_report(&self, others: u64) -> Result<(Instant, Instant)> {
        let begun = Instant::now();
        self.reported.store(others, Ordering::Relaxed);
        self.silent.store(0, Ordering::Relaxed);
        self.wait_for(&self.reported, WORKERS, "the workers do not report")?;
        Ok((begun, Instant::now()))
    }
}

/// A worker without disks.
struct Simulated {
    number: u64,
    master: Addr<Peer>,
    said: Arc<Said>,
    id: Option<WorkerId>,
    token: u64,
    reports: u64,
}

impl Simulated {
    fn new(number: u64, master: Addr<Peer>, said: Arc<Said>) -> Self {
        Simulated {
            number,
            master,
            said,
            id: None,
            token: 0,
            reports: 0,
        }
    }

    async fn live(mut self) {
        let mut registers = true;
        while !self.said.ends.load(Ordering::Relaxed) {
            if self.number < self.said.silent.load(Ordering::Relaxed) {
                // A worker that was away registers anew.
                registers = true;
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            if registers {
                registers = self.begin().await.is_err();
            } else if let Ok(false) = self.beat().await {
                registers = true;
                continue;
            }
            tokio::time::sleep(HEARTBEAT).await;
        }
    }

    async fn ask<C: MasterCall>(&self, asked: C) -> curvine_protocol::Result<C::Reply>
    where
        Addr<Peer>: Endpoint<C>,
    {
        let context = CallContext {
            deadline_ms: DEADLINE_MS,
            ..CallContext::default()
        };
        call(&self.master, asked, context).await
    }

    fn id(&self) -> curvine_protocol::Result<WorkerId> {
        self.id
            .ok_or_else(|| Error::new(ErrorKind::NotPermitted, "not registered"))
    }

    fn disks(&self) -> Vec<DiskStatus> {
        vec![DiskStatus {
            tier: Tier::Ssd,
            path: "/data".to_owned(),
            capacity_bytes: 1 << 40,
            used_bytes: 1 << 39,
            available_bytes: 1 << 39,
            blocks: self.said.blocks / WORKERS,
            failure: None,
            cached_bytes: 0,
            pinned_bytes: 0,
        }]
    }

    /// Registers, and says all that it holds.
    async fn begin(&mut self) -> curvine_protocol::Result<()> {
        let registered = self
            .ask(RegisterWorker {
                worker: self.id,
                cluster: None,
                address: format!("127.0.0.1:{}", 1 + self.number),
                disks: self.disks(),
                version: "0".to_owned(),
                epoch: 0,
                labels: Labels::default(),
            })
            .await?;
        self.id = Some(registered.worker);
        self.token = registered.token;
        self.said.registered.fetch_add(1, Ordering::Relaxed);
        // Before the files are there it has nothing.
        let (blocks, generation) = match self.said.generation.get() {
            Some(generation) => (self.said.blocks, *generation),
            None => (0, 0),
        };
        let mut held = (1 + self.number..=blocks).step_by(to_usize(WORKERS));
        let (mut is_first, mut beaten) = (true, Instant::now());
        loop {
            if beaten.elapsed() >= HEARTBEAT {
                self.beat().await?;
                beaten = Instant::now();
            }
            let replica = |id| BlockReplica {
                id: BlockId(id),
                generation,
                len_bytes: BLOCK_BYTES,
            };
            let stored: Vec<_> = held.by_ref().take(REPORT_PART).map(replica).collect();
            let is_last = stored.is_empty();
            self.reports += 1;
            let part = ReportBlocks {
                full_start: std::mem::take(&mut is_first),
                full_end: is_last,
                kept: ReportBlocks::bits(stored.iter().map(|_| true)),
                stored,
                number: self.reports,
                ..ReportBlocks::nothing(registered.worker, registered.token)
            };
            let answer = self.ask(part).await?;
            assert!(answer.delete.is_empty(), "the namespace has all of them");
            if is_last {
                break;
            }
        }
        self.said.reported.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the master knows it.
    async fn beat(&self) -> curvine_protocol::Result<bool> {
        let orders = self
            .ask(WorkerHeartbeat {
                worker: self.id()?,
                token: self.token,
                disks: self.disks(),
                traffic: Vec::new(),
                hot: Vec::new(),
            })
            .await?;
        Ok(!orders.register)
    }
}
