//! A mounted store beside a plain client of the same server: a rename, long listings, and what is written.
//!
//! Each line is the median of some rounds, and in each round the plain client did the same, as much of it at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use curvine_actors::client::Client;
use curvine_protocol::CurvinePath;
use futures::stream::{self, StreamExt, TryStreamExt};
use opendal::Operator;
use opendal::options::WriteOptions;

use crate::Bench;
use crate::node::{Mounted, Node};
use crate::report::{Report, Row, Target};
use crate::server::{Counter, S3Server};
use crate::trees::long_listing;

const ROUNDS: usize = 3;
const RENAMED: usize = 1_500;
const LISTED: usize = 10_000;
const RENAMED_BYTES: usize = 4 << 10;
/// Requests at once, as many as a rename makes.
const AT_ONCE: usize = 64;
/// Files that are written: how many of which size, and how many at once.
const WRITTEN: [(&str, usize, usize, usize); 2] = [("4 KiB", 1_000, 4 << 10, 16), ("64 MiB", 8, 64 << 20, 4)];
/// As an export writes a big object.
const PART_BYTES: usize = 8 << 20;
const PARTS_AT_ONCE: usize = 4;
/// How soon it is looked again whether something is done.
const LOOK: Duration = Duration::from_millis(5);

struct Stores<'a> {
    bench: &'a Bench,
    node: Node,
    mount_point: PathBuf,
    runtime: tokio::runtime::Runtime,
    client: Client,
    server: S3Server,
    plain: Operator,
}

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let root = bench.scratch.path().join("stores-s3");
    std::fs::create_dir_all(root.join("bucket"))?;
    let server = match S3Server::start(&root) {
        Ok(server) => server,
        Err(error) => {
            eprintln!("  stores skipped: {error:#}");
            return Ok(());
        }
    };
    let Mounted {
        node,
        mount_point,
        runtime,
        client,
    } = Mounted::start(bench, "stores")?;
    let stores = Stores {
        plain: S3Server::operator(server.port)?,
        bench,
        node,
        mount_point,
        runtime,
        client,
        server,
    };
    stores.mount("/through", stores.server.port, &["--write"])?;
    stores.mount("/back", stores.server.port, &["--write", "--write-mode", "back"])?;
    stores.renames(report)?;
    stores.listings(report)?;
    stores.requests(report)?;
    for (name, count, bytes, at_once) in WRITTEN {
        stores.writes(report, name, (bench.count(count).max(1), bytes, at_once))?;
    }
    stores.runtime.block_on(stores.client.close());
    stores.node.stop()
}

/// Of what each round took, in seconds: of ours, and of the plain client.
#[derive(Default)]
struct Rounds {
    ours: Vec<f64>,
    plain: Vec<f64>,
}

impl Rounds {
    fn took(&mut self, ours: Duration, plain: Duration) {
        self.ours.push(ours.as_secs_f64());
        self.plain.push(plain.as_secs_f64());
    }

    /// So much was done in each round. The ratio is of the rates.
    fn row(mut self, what: String, amount: f64, unit: &'static str, peer: &str) -> Row {
        let [ours, plain] = [&mut self.ours, &mut self.plain].map(|took| median(took));
        let (value, peer) = match unit {
            "s" => (ours, format!("{peer}, {plain:.2} s")),
            _ => (amount / ours, format!("{peer}, {:.0} {unit}", amount / plain)),
        };
        Row::new("stores", what, value, unit).beside(peer, plain / ours)
    }
}

fn median(of: &mut [f64]) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Stores<'_> {
    fn mount(&self, top: &str, port: u16, how: &[&str]) -> Result<()> {
        let options = S3Server::mount_options(port);
        // Long: whether a key is a directory, this server answers with a fault, and each such question is repeated.
        let mut command = vec!["mount", "s3://bucket", top, "--staleness", "1h"];
        command.extend(how);
        options.iter().for_each(|option| command.extend(["-o", option]));
        self.bench.programs.cv(&self.node, &command).map(|_| ())
    }

    /// Puts objects below a prefix, big ones in parts if that is asked for; how long it took.
    fn put(
        &self,
        prefix: &str,
        (count, bytes, at_once): (usize, usize, usize),
        in_parts: bool,
    ) -> Result<Duration> {
        let begun = Instant::now();
        let put = stream::iter(0..count).map(|number| async move {
            let options = WriteOptions {
                chunk: (in_parts && bytes > PART_BYTES).then_some(PART_BYTES),
                concurrent: PARTS_AT_ONCE,
                ..WriteOptions::default()
            };
            let (key, content) = (format!("{prefix}/{number:05}"), content(number, bytes));
            self.plain.write_options(&key, content, options).await
        });
        self.runtime
            .block_on(put.buffer_unordered(at_once).try_for_each(|_| async { Ok(()) }))?;
        Ok(begun.elapsed())
    }

    fn renames(&self, report: &mut Report) -> Result<()> {
        let count = self.bench.count(RENAMED);
        let (mut answered, mut done) = (Rounds::default(), Rounds::default());
        for round in 0..ROUNDS {
            let (from, to) = (format!("renamed-{round}"), format!("after-{round}"));
            self.put(&from, (count, RENAMED_BYTES, AT_ONCE), false)?;
            self.put(&format!("{from}-plain"), (count, RENAMED_BYTES, AT_ONCE), false)?;
            let plain = self.rename_plainly(&format!("{from}-plain"), &format!("{to}-plain"), count)?;
            // What is there is known before.
            let listed = CurvinePath::parse(&format!("/through/{from}"))?;
            self.runtime.block_on(self.client.list_page(&listed, None, 1))?;
            let begun = Instant::now();
            let command = ["mv", listed.as_str(), &format!("/through/{to}")];
            self.bench.programs.cv(&self.node, &command)?;
            answered.took(begun.elapsed(), plain);
            while self.is_changing("/through")? {
                std::thread::sleep(LOOK);
            }
            done.took(begun.elapsed(), plain);
            let left = self.runtime.block_on(self.plain.list(&format!("{from}/")))?;
            ensure!(left.is_empty(), "{} old objects are left", left.len());
        }
        let what = |until: &str| format!("cv mv of {count} objects of 4 KiB until {until}");
        let peer = format!("copies and deletions, {AT_ONCE} at once");
        report.add(answered.row(what("it is answered"), 0.0, "s", &peer));
        let done = done.row(what("the old ones are gone"), 0.0, "s", &peer);
        report.add(done.target(Target::RatioAtLeast(0.7)));
        Ok(())
    }

    fn rename_plainly(&self, from: &str, to: &str, count: usize) -> Result<Duration> {
        let begun = Instant::now();
        self.runtime.block_on(async {
            let each = |number: usize| (format!("{from}/{number:05}"), format!("{to}/{number:05}"));
            let copied = stream::iter(0..count).map(|number| async move {
                let (from, to) = each(number);
                self.plain.copy(&from, &to).await
            });
            copied
                .buffer_unordered(AT_ONCE)
                .try_for_each(|_| async { Ok(()) })
                .await?;
            stream::iter(0..count)
                .map(|number| async move { self.plain.delete(&each(number).0).await })
                .buffer_unordered(AT_ONCE)
                .try_for_each(|()| async { Ok(()) })
                .await
        })?;
        Ok(begun.elapsed())
    }

    /// Whether something is under way in the store of a mount.
    fn is_changing(&self, top: &str) -> Result<bool> {
        let mounts = self.runtime.block_on(self.client.mounts())?;
        let mount = mounts.into_iter().find(|mount| mount.path.as_str() == top);
        let backlog = mount.context("it is mounted")?.backlog;
        Ok(!backlog
            .context("the leader knows its backlog")?
            .effects
            .is_empty())
    }

    /// A directory that nobody has looked at, through the mount.
    fn listings(&self, report: &mut Report) -> Result<()> {
        let count = self.bench.count(LISTED);
        self.put("listed", (count, 1, AT_ONCE), false)?;
        let counter = Counter::before(&self.server)?;
        let plain = S3Server::operator(counter.port)?;
        for (name, how) in [
            ("read-only", &[][..]),
            (
                "attributes in the namespace",
                &["--write", "--attributes", "namespace"][..],
            ),
            ("attributes with objects", &["--write"][..]),
        ] {
            let (mut rounds, mut requests) = (Rounds::default(), BTreeMap::new());
            for round in 0..ROUNDS {
                // A name that neither the kernel nor the masters have heard of.
                let top = format!("/{}-{round}", name.replace(' ', "-"));
                self.mount(&top, counter.port, how)?;
                counter.taken();
                let begun = Instant::now();
                let listed = self.runtime.block_on(plain.list("listed/"))?;
                ensure!(listed.len() >= count, "{} objects are listed", listed.len());
                let took = begun.elapsed();
                let pages = counter.taken();
                let ours = long_listing(&self.mount_point.join(&top[1..]).join("listed"))?;
                requests = counter.taken();
                rounds.took(Duration::from_secs_f64(ours), took);
                ensure!(
                    requests.contains_key("GET"),
                    "it was known: {requests:?} after {pages:?}"
                );
            }
            let asked = |method: &str| requests.get(method).copied().unwrap_or(0);
            let what = format!(
                "FUSE: cold ls -l of {count} objects, {name} ({} GET, {} HEAD)",
                asked("GET"),
                asked("HEAD")
            );
            report.add(rounds.row(what, 0.0, "s", "plain listing"));
        }
        Ok(())
    }

    /// What a store is asked for a small file that is written through.
    fn requests(&self, report: &mut Report) -> Result<()> {
        let count = self.bench.count(RENAMED) / 10;
        let counter = Counter::before(&self.server)?;
        self.mount("/counted", counter.port, &["--write"])?;
        let top = CurvinePath::parse("/counted/counted")?;
        self.runtime.block_on(self.client.make_dir(&top, 0o755, false))?;
        counter.taken();
        for number in 0..count {
            let path = top.join(&format!("{number:05}"))?;
            self.runtime
                .block_on(self.client.write(&path, content(number, RENAMED_BYTES)))?;
        }
        let requests = counter.taken();
        let each = requests.values().sum::<usize>() as f64 / count as f64;
        let what =
            format!("requests for a file of 4 KiB that is written through ({count} files: {requests:?})");
        report.add(Row::new("stores", what, each, "").beside("one PUT", 1.0 / each));
        Ok(())
    }

    fn writes(
        &self,
        report: &mut Report,
        name: &str,
        (count, bytes, at_once): (usize, usize, usize),
    ) -> Result<()> {
        let all = |rounds: Rounds, what: String| match bytes {
            ..=PART_BYTES => rounds.row(what, count as f64, "files/s", "plain PUT"),
            _ => rounds.row(what, (count * bytes) as f64 / 1e6, "MB/s", "plain PUT in parts"),
        };
        if bytes > PART_BYTES {
            let mut rounds = Rounds::default();
            for round in 0..ROUNDS {
                let prefix = format!("plain-{bytes}-{round}");
                let parts = self.put(&prefix, (count, bytes, at_once), true)?;
                rounds.took(
                    parts,
                    self.put(&format!("{prefix}-whole"), (count, bytes, at_once), false)?,
                );
            }
            let amount = (count * bytes) as f64 / 1e6;
            let what = format!("{count} files of {name}, {at_once} at once, plain PUT in parts of 8 MiB");
            report.add(rounds.row(what, amount, "MB/s", "PUT as a whole"));
        }
        for mode in ["through", "back"] {
            let (mut closed, mut stored) = (Rounds::default(), Rounds::default());
            for round in 0..ROUNDS {
                let directory = format!("{mode}-{bytes}-{round}");
                let plain = self.put(&format!("{directory}-plain"), (count, bytes, at_once), true)?;
                let top = CurvinePath::parse(&format!("/{mode}/{directory}"))?;
                self.runtime.block_on(self.client.make_dir(&top, 0o755, false))?;
                let begun = Instant::now();
                let written = stream::iter(0..count).map(|number| {
                    let path = top.join(&format!("{number:05}"));
                    async move { self.client.write(&path?, content(number, bytes)).await }
                });
                self.runtime.block_on(
                    written
                        .buffer_unordered(at_once)
                        .try_for_each(|_| async { Ok(()) }),
                )?;
                closed.took(begun.elapsed(), plain);
                self.runtime.block_on(self.client.persist(&top))?;
                stored.took(begun.elapsed(), plain);
                let there = self.runtime.block_on(self.plain.list(&format!("{directory}/")))?;
                ensure!(
                    there.len() >= count,
                    "{} of {count} objects are there",
                    there.len()
                );
            }
            let what = |until: &str| {
                format!("{count} files of {name}, {at_once} at once, write mode {mode}, until {until}")
            };
            report.add(all(closed, what("closed")));
            if mode == "back" {
                report.add(all(stored, what("stored")));
            }
        }
        Ok(())
    }
}

/// No two objects have the same.
fn content(number: usize, bytes: usize) -> Bytes {
    let mut content = vec![b'x'; bytes];
    let number = number.to_le_bytes();
    let len = number.len().min(bytes);
    content[..len].copy_from_slice(&number[..len]);
    content.into()
}
