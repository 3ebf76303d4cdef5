//! What one small file costs one caller at a time, step by step: in the same process, and over TCP.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use curvine_actors::client::{Client, ClientOptions, CreateOptions};
use curvine_actors::kit::peer::Peer;
use curvine_actors::kit::{Answer, Ask, Endpoint, MasterPort, MasterRef, Ports, WorkerPort, WorkerRef};
use curvine_actors::master::namespace::actor::FileDefaults;
use curvine_actors::master::replica::{LogLimits, Members, Proxies};
use curvine_actors::master::workers::WorkerConnector;
use curvine_actors::master::{self, MasterConfig};
use curvine_actors::worker::{self, WorkerConfig};
use curvine_conf::DataDir;
use curvine_protocol::checksum::crc32c;
use curvine_protocol::cluster::Tier;
use curvine_protocol::master::{
    BlockCommit, CommitFile, CreateFile, Echo, IfExists, Lookup, MakeDir, OpenFile, Unlink,
};
use curvine_protocol::number::to_u32;
use curvine_protocol::worker::{PutBlock, ReadBlock, Wish, WorkerEcho, WriteOrder};
use curvine_protocol::{Call, CallContext, ClientId, CurvinePath, NodeId, WorkerId};

use crate::Bench;
use crate::report::{Report, Row};

const CONTENT_BYTES: usize = 4096;

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let files = bench.count(3_000);
    let directory = bench.scratch.path().join("steps");
    actix_rt::System::new().block_on(in_process(&directory, files, report))?;
    let node = bench
        .programs
        .node_of_all_roles(&bench.scratch.path().join("steps-tcp"))?;
    let (master, worker) = (node.master()?.to_owned(), node.worker()?.to_owned());
    actix_rt::System::new().block_on(over_tcp(master, worker, files, report))?;
    node.stop()
}

/// The worker of this process.
#[derive(Default)]
struct OneWorker(OnceLock<WorkerRef>);

impl WorkerConnector for OneWorker {
    fn connect(&self, _id: WorkerId, address: &str) -> WorkerRef {
        match self.0.get() {
            Some(worker) => worker.clone(),
            None => Arc::new(Peer::start(
                &actix_rt::Arbiter::current(),
                address,
                &Ports::system(),
            )),
        }
    }
}

async fn in_process(directory: &Path, files: usize, report: &mut Report) -> Result<()> {
    let ports = Ports::system();
    let connector = Arc::new(OneWorker::default());
    let arbiter = actix_rt::Arbiter::new();
    let config = MasterConfig {
        members: Members::alone(NodeId(1), "127.0.0.1:0"),
        directory: directory.join("master"),
        defaults: FileDefaults {
            block_bytes: 128 << 20,
            replicas: 1,
        },
        workers: connector.clone(),
        masters: Arc::new(Proxies::in_arbiter(arbiter.handle(), &ports)),
        log_limits: LogLimits::default(),
        pin_limit_percent: 50,
        hot_copies: 2,
    };
    let master = master::start(&arbiter.handle(), config, &ports).await?;
    master.joined().await?;
    let config = WorkerConfig::new(vec![DataDir {
        tier: Tier::Ssd,
        capacity: None,
        path: directory.join("worker"),
    }]);
    let mut worker = worker::start(
        config,
        ports.clone(),
        master.port.clone(),
        connector.clone(),
        "127.0.0.1:1".to_owned(),
    )
    .await?;
    connector.0.set(worker.port.clone()).ok().context("wired once")?;
    let local = worker.port.clone();
    let client = Client::local(
        &arbiter.handle(),
        master.port.clone(),
        Arc::new(move |_| Some(local.clone())),
        ClientOptions::default(),
        ports,
    );
    let steps = Steps::new(master.port.clone(), worker.port.clone());
    steps.measure("in process", files, report).await?;
    through_client(&client, "in process", files, report).await?;
    client.close().await;
    worker.stop().await;
    master.stop().await;
    arbiter.stop();
    Ok(())
}

async fn over_tcp(master: String, worker: String, files: usize, report: &mut Report) -> Result<()> {
    let ports = Ports::system();
    let steps = Steps::new(
        Arc::new(Peer::start(&actix_rt::Arbiter::current(), master.clone(), &ports)),
        Arc::new(Peer::start(&actix_rt::Arbiter::current(), worker, &ports)),
    );
    steps.measure("TCP", files, report).await?;
    let client = Client::connect([master], ClientOptions::default()).await?;
    through_client(&client, "TCP", files, report).await?;
    client.close().await;
    Ok(())
}

/// The calls that make, find and read a small file.
struct Steps {
    master: MasterRef,
    worker: WorkerRef,
    sequence: std::cell::Cell<u64>,
    took: std::cell::RefCell<Vec<(&'static str, Duration)>>,
}

impl Steps {
    fn new(master: MasterRef, worker: WorkerRef) -> Self {
        Steps {
            master,
            worker,
            sequence: std::cell::Cell::new(0),
            took: std::cell::RefCell::default(),
        }
    }

    fn context(&self, changes: bool) -> CallContext {
        if changes {
            self.sequence.set(self.sequence.get() + 1);
        }
        CallContext {
            client: ClientId(99),
            sequence: if changes { self.sequence.get() } else { 0 },
            acked_below: if changes { self.sequence.get() } else { 0 },
            deadline_ms: 30_000,
            ..CallContext::default()
        }
    }

    fn add(&self, step: &'static str, took: Duration) {
        let mut all = self.took.borrow_mut();
        match all.iter_mut().find(|(name, _)| *name == step) {
            Some((_, sum)) => *sum += took,
            None => all.push((step, took)),
        }
    }

    async fn ask_master<C: Call>(&self, step: &'static str, call: C, changes: bool) -> Result<C::Reply>
    where
        dyn MasterPort: Endpoint<C>,
    {
        let ask = Ask::new(call, self.context(changes));
        let begun = Instant::now();
        let answer = Endpoint::<C>::ask(&*self.master, ask).await;
        self.add(step, begun.elapsed());
        Ok(answer?.reply)
    }

    async fn ask_worker<C: Call>(&self, step: &'static str, call: C, body: Bytes) -> Result<Answer<C>>
    where
        dyn WorkerPort: Endpoint<C>,
    {
        let ask = Ask::new(call, self.context(false)).with_body(body);
        let begun = Instant::now();
        let answer = Endpoint::<C>::ask(&*self.worker, ask).await;
        self.add(step, begun.elapsed());
        Ok(answer?)
    }

    async fn measure(&self, how: &str, files: usize, report: &mut Report) -> Result<()> {
        let top = CurvinePath::parse("/steps")?;
        let make = MakeDir {
            node: (&top).into(),
            mode: 0o755,
            parents: false,
            unmasked: None,
        };
        self.ask_master("mkdir", make, true).await?;
        let content = Bytes::from(vec![7; CONTENT_BYTES]);
        for file in 0..files {
            self.one(&top.join(&file.to_string())?, &content).await?;
        }
        for (step, took) in self.took.borrow().iter().filter(|(step, _)| *step != "mkdir") {
            let each_us = took.as_secs_f64() * 1e6 / files as f64;
            report.add(Row::new("steps", format!("{how}: {step}"), each_us, "us"));
        }
        Ok(())
    }

    async fn one(&self, path: &CurvinePath, content: &Bytes) -> Result<()> {
        self.ask_master("empty call of the master", Echo {}, false)
            .await?;
        self.ask_worker("empty call of the worker", WorkerEcho {}, Bytes::new())
            .await?;
        let create = CreateFile {
            node: path.into(),
            mode: 0o644,
            if_exists: IfExists::Fail,
            parents: false,
            block_bytes: 0,
            replicas: 0,
            first_block: true,
            open: 0,
            unmasked: None,
        };
        let layout = self.ask_master("create", create, true).await?;
        let located = layout.blocks.first().context("the file has its first block")?;
        let block = located.block;
        let put = PutBlock {
            block: block.id,
            generation: block.generation,
            checksum: crc32c(content),
            sync: false,
            epoch: 0,
            order: WriteOrder::default(),
            tier: None,
        };
        self.ask_worker("put a block of 4 KiB", put, content.clone())
            .await?;
        let commit = CommitFile {
            inode: layout.attr.inode,
            size_bytes: content.len() as u64,
            blocks: vec![BlockCommit {
                index: 0,
                id: block.id,
                len_bytes: content.len() as u64,
                generation: block.generation,
                workers: located.workers.clone(),
                hole_bytes: 0,
            }],
            mtime_ns: None,
            close: true,
            keep_privileges: false,
            abandoned: false,
            keep_size: false,
            new_generation: false,
        };
        self.ask_master("commit and close", commit, true).await?;
        let lookup = Lookup {
            node: path.into(),
            follow: true,
        };
        self.ask_master("stat", lookup, false).await?;
        let open = OpenFile {
            node: path.into(),
            follow: true,
            open: 0,
        };
        let layout = self.ask_master("open", open, false).await?;
        ensure!(layout.attr.size_bytes == content.len() as u64, "committed");
        let read = ReadBlock {
            block: block.id,
            generation: block.generation,
            offset_bytes: 0,
            len_bytes: to_u32(content.len()),
            fill: None,
            exact: false,
            tier: Wish::UNSAID,
        };
        let answer = self
            .ask_worker("read a block of 4 KiB", read, Bytes::new())
            .await?;
        ensure!(answer.body.read()? == *content, "the bytes are those written");
        let unlink = Unlink {
            node: path.into(),
            keep_open: false,
            closed: Vec::new(),
            holders: None,
        };
        self.ask_master("delete", unlink, true).await?;
        Ok(())
    }
}

/// The same through the client, as FUSE does it.
async fn through_client(client: &Client, how: &str, files: usize, report: &mut Report) -> Result<()> {
    let top = CurvinePath::parse("/client")?;
    client.make_dir(&top, 0o755, false).await?;
    let content = Bytes::from(vec![7; CONTENT_BYTES]);
    let paths = (0..files)
        .map(|file| top.join(&file.to_string()))
        .collect::<curvine_protocol::Result<Vec<_>>>()?;
    let begun = Instant::now();
    for path in &paths {
        let file = client.create(path, CreateOptions::default()).await?;
        file.append(content.clone()).await?;
        file.close().await?;
    }
    let wrote = begun.elapsed().as_secs_f64() * 1e6 / files as f64;
    let begun = Instant::now();
    for path in &paths {
        ensure!(client.read(path).await? == content, "the bytes are those written");
    }
    let read = begun.elapsed().as_secs_f64() * 1e6 / files as f64;
    report.add(Row::new(
        "steps",
        format!("{how}: create, write 4 KiB, close"),
        wrote,
        "us",
    ));
    report.add(Row::new("steps", format!("{how}: open, read 4 KiB"), read, "us"));
    Ok(())
}
