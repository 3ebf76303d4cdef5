//! One worker with a million small blocks (`CURVINE_FILES` for another number of files, each of ten): how soon it serves after
//! a restart, what memory it takes for each, and how long other calls of the master wait while it reports all of them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use actix::Addr;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use curvine_actors::client::{Client, ClientOptions};
use curvine_actors::kit::peer::Peer;
use curvine_actors::kit::{Ask, Endpoint, Ports};
use curvine_actors::worker::membership::REPORT_PART;
use curvine_protocol::checksum::crc32c;
use curvine_protocol::number::{to_u32, to_usize};
use curvine_protocol::worker::{MarkBlocks, MarkedBlock, PutBlock, ReadBlock, Wish, WriteOrder};
use curvine_protocol::{BlockId, Call, CallContext, CurvinePath};
use futures::{StreamExt, TryStreamExt, stream};

use crate::Bench;
use crate::masters::Places;
use crate::million::{BLOCK_BYTES, FILLERS, files_or, fill, one_of};
use crate::node::Node;
use crate::probe::Probe;
use crate::report::{Report, Row, Target};

/// Of each file.
pub const BLOCKS_EACH: u32 = 10;
const FILES: usize = 100_000;
/// Blocks that are put at once, over so many connections.
const PUTS: usize = 256;
const CONNECTIONS: u64 = 4;
/// Blocks in one order.
const MARKED: usize = 4_096;
const RESTART_S_MAX: f64 = 3.0;
const LIMIT: Duration = Duration::from_secs(120);

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let files = files_or(bench.count(FILES));
    let blocks = files as u64 * u64::from(BLOCKS_EACH);
    let places = Places::pick(bench, "blocks-master", 1)?;
    let master = places.start(bench, 0, 1)?;
    let one = One {
        bench,
        masters: &places.addresses[0],
        directory: bench.scratch.path().join("blocks-worker"),
        blocks,
        system: actix_rt::System::new(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;

    let worker = one.start()?;
    let empty_mb = worker.resident_mb()?;
    runtime.block_on(fill([one.masters], "", 0..files, BLOCKS_EACH, FILLERS))?;
    let generation = runtime.block_on(generation(one.masters, files))?;
    let begun = Instant::now();
    one.put_all(worker.worker()?, generation)?;
    let rate = blocks as f64 / begun.elapsed().as_secs_f64();
    report.add(Row::new("blocks", one.what("put in a worker"), rate, "/s"));
    // The master has heard of them.
    std::thread::sleep(quiet_time(bench));

    let probe = Probe::start(one.masters, &one_of(files), "/probe")?;
    let quiet = (Instant::now(), Instant::now() + quiet_time(bench));
    std::thread::sleep(quiet_time(bench));
    let before = reports(&master)?;
    drop(worker);
    let worker = one.restart("kill -9", generation, report)?;
    let reporting = Instant::now();
    // One more ends it.
    let parts = blocks.div_ceil(REPORT_PART as u64) + 1;
    while reports(&master)? < before + parts as f64 {
        ensure!(reporting.elapsed() < LIMIT, "the report does not come");
        std::thread::sleep(Duration::from_millis(50));
    }
    let reported = Instant::now();
    let seen = probe.end()?;
    report.add(Row::new(
        "blocks",
        one.what("full report, until the master has taken it"),
        (reported - reporting).as_secs_f64(),
        "s",
    ));
    seen.compare(
        report,
        ("blocks", "while a full report is taken"),
        quiet,
        (reporting, reported),
    )?;
    one.memory("kept", &worker, empty_mb, report)?;

    one.mark_cached(worker.worker()?, generation)?;
    worker.stop()?;
    let worker = one.restart("a stop", generation, report)?;
    std::thread::sleep(quiet_time(bench));
    one.memory("cached", &worker, empty_mb, report)?;
    worker.stop()?;
    master.stop()
}

/// How long nothing else goes on before something is measured.
pub fn quiet_time(bench: &Bench) -> Duration {
    Duration::from_secs(if bench.quick { 3 } else { 20 })
}

/// In which generation such files have their blocks.
pub async fn generation(masters: &str, files: usize) -> Result<u32> {
    let client = Client::connect([masters], ClientOptions::default()).await?;
    let layout = client.locate(&CurvinePath::parse(&one_of(files))?).await?;
    client.close().await;
    Ok(layout.blocks.first().context("it has blocks")?.block.generation)
}

/// The parts of reports that the master has taken.
fn reports(master: &Node) -> Result<f64> {
    let metrics = master.metrics()?;
    let count = metrics.get("curvine_master_call_seconds_count{call=\"ReportBlocks\"}");
    Ok(count.copied().unwrap_or(0.0))
}

/// The worker that has all blocks.
struct One<'a> {
    bench: &'a Bench,
    masters: &'a str,
    directory: PathBuf,
    blocks: u64,
    /// Where its calls are waited for.
    system: actix_rt::SystemRunner,
}

impl One<'_> {
    fn what(&self, text: &str) -> String {
        format!("{text}, {} blocks of {BLOCK_BYTES} bytes", self.blocks)
    }

    fn start(&self) -> Result<Node> {
        self.bench.programs.worker(&self.directory, self.masters)
    }

    /// Asks it one thing after another, so many at once, over several connections.
    fn ask_all<C: Call>(
        &self,
        address: &str,
        calls: impl Iterator<Item = (C, Bytes)>,
    ) -> Result<Vec<C::Reply>>
    where
        Addr<Peer>: Endpoint<C>,
    {
        let asked = async {
            let connect = |_| Peer::start(&actix_rt::Arbiter::current(), address, &Ports::system());
            let connections: Vec<_> = (0..CONNECTIONS).map(connect).collect();
            stream::iter(calls.zip(connections.iter().cycle()))
                .map(|((call, body), connection)| {
                    let ask = Ask::new(call, CallContext::default()).with_body(body);
                    let answer = Endpoint::<C>::ask(connection, ask);
                    async move { Ok(answer.await?.reply) }
                })
                .buffer_unordered(PUTS)
                .try_collect()
                .await
        };
        self.system.block_on(asked)
    }

    /// Puts all blocks into it, as their writers would.
    fn put_all(&self, address: &str, generation: u32) -> Result<()> {
        let content = Bytes::from(vec![7; to_usize(BLOCK_BYTES)]);
        let checksum = crc32c(&content);
        let put = |block| PutBlock {
            block: BlockId(block),
            generation,
            checksum,
            sync: false,
            epoch: 0,
            order: WriteOrder::default(),
            tier: None,
        };
        let puts = (1..=self.blocks).map(|block| (put(block), content.clone()));
        self.ask_all(address, puts).map(drop)
    }

    /// Tells it that all blocks are cached, as after an export.
    fn mark_cached(&self, address: &str, generation: u32) -> Result<()> {
        let blocks: Vec<_> = (1..=self.blocks).map(BlockId).collect();
        let marked = |blocks: &[BlockId]| MarkBlocks {
            blocks: (blocks.iter())
                .map(|block| MarkedBlock {
                    block: *block,
                    generation,
                    mount: None,
                })
                .collect(),
            cached: true,
            number: 1,
        };
        let orders = blocks.chunks(MARKED).map(|blocks| (marked(blocks), Bytes::new()));
        for answer in self.ask_all(address, orders)? {
            ensure!(answer.marked.iter().all(|marked| *marked), "all are here");
        }
        Ok(())
    }

    /// Starts it, and reads a block as soon as it can be read.
    fn restart(&self, after: &str, generation: u32, report: &mut Report) -> Result<Node> {
        let begun = Instant::now();
        let worker = self.start()?;
        let read = ReadBlock {
            block: BlockId(self.blocks / 2),
            generation,
            offset_bytes: 0,
            len_bytes: to_u32(to_usize(BLOCK_BYTES)),
            fill: None,
            exact: false,
            tier: Wish::UNSAID,
        };
        self.ask_all(worker.worker()?, std::iter::once((read, Bytes::new())))?;
        let took = begun.elapsed().as_secs_f64();
        let what = self.what(&format!("restart after {after} until a read is answered"));
        report.add(Row::new("blocks", what, took, "s").target(Target::ValueAtMost(RESTART_S_MAX)));
        Ok(worker)
    }

    fn memory(&self, kind: &str, worker: &Node, (_, empty): (f64, f64), report: &mut Report) -> Result<()> {
        let (all, own) = worker.resident_mb()?;
        let each = (own - empty) * 1e6 / self.blocks as f64;
        let what = format!(
            "memory for each {kind} block ({all:.0} MB in all, {own:.0} without file pages, {empty:.0} when it was empty)"
        );
        report.add(Row::new("blocks", self.what(&what), each, "bytes"));
        Ok(())
    }
}
