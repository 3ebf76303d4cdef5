//! Big trees: what their deletion does to everybody else's changes, and directories with many entries.
//!
//! A client makes and removes a directory again and again, alone at first, and then while a tree goes: from the command that
//! deletes it until the last inode of it is gone. What it waited for longest is the pause that others notice.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use curvine_actors::client::{Client, ClientOptions};
use curvine_protocol::mount::MountSettings;
use curvine_protocol::{CurvinePath, Node as Place};
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::Bench;
use crate::million::{FILES_IN_DIRECTORY, FILLERS, fill};
use crate::node::{Mounted, Node};
use crate::report::{Report, Row, Target};

const FILES: usize = 500_000;
const DIRECTORIES: usize = 65_000;
/// How long the client is alone.
const QUIET: Duration = Duration::from_secs(10);
/// Until the last inode of a tree is gone.
const GONE_DEADLINE: Duration = Duration::from_secs(300);
/// One command removes some inodes in a few milliseconds, and a change waits for one or two such commands.
const LONGEST_MS_MAX: f64 = 100.0;
const LISTING_S_MAX: f64 = 5.0;
/// Changes, or listings, at the same time.
const AT_ONCE: usize = 64;
const LIST_AT_ONCE: usize = 8;

/// What a client waited for its changes.
struct Pauses {
    longest_ms: f64,
    p99_ms: f64,
}

struct Trees<'a> {
    bench: &'a Bench,
    node: Node,
    runtime: tokio::runtime::Runtime,
    client: Client,
    /// Inodes when there is no tree.
    inodes: u64,
    quiet: Pauses,
}

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let Mounted {
        node,
        mount_point,
        runtime,
        client,
    } = Mounted::start(bench, "trees")?;
    let quiet = || {
        std::thread::sleep(QUIET);
        Ok(())
    };
    let ((), quiet) = beside(node.master()?, quiet)?;
    let trees = Trees {
        inodes: runtime.block_on(client.status())?.inodes,
        bench,
        node,
        runtime,
        client,
        quiet,
    };
    for (what, ms) in [
        ("longest", trees.quiet.longest_ms),
        ("slowest hundredth", trees.quiet.p99_ms),
    ] {
        report.add(Row::new("trees", format!("a change, alone: {what}"), ms, "ms"));
    }
    trees.plain_files(report)?;
    trees.mounted_files(report)?;
    trees.directories(&mount_point, report)?;
    trees.mounted_directories(report)?;
    trees.runtime.block_on(trees.client.close());
    trees.node.stop()
}

impl Trees<'_> {
    fn plain_files(&self, report: &mut Report) -> Result<()> {
        let files = self.bench.count(FILES);
        self.runtime
            .block_on(fill([self.node.master()?], "/files", 0..files, 1, FILLERS))?;
        self.deletion(
            report,
            &format!("rm -r of {files} files"),
            &["rm", "-r", "/files"],
        )
    }

    fn mounted_files(&self, report: &mut Report) -> Result<()> {
        let files = self.bench.count(FILES);
        let local = self.bench.scratch.path().join("files");
        for number in 0..files {
            let directory = local.join(format!("{:04}", number / FILES_IN_DIRECTORY));
            if number.is_multiple_of(FILES_IN_DIRECTORY) {
                std::fs::create_dir_all(&directory)?;
            }
            std::fs::write(directory.join(format!("{:04}", number % FILES_IN_DIRECTORY)), "")?;
        }
        let directories = files.div_ceil(FILES_IN_DIRECTORY);
        let listed = (0..directories).map(|directory| format!("/mounted/{directory:04}"));
        self.know(&local, listed, files + directories)?;
        self.deletion(
            report,
            &format!("umount of {files} known files"),
            &["umount", "/mounted"],
        )?;
        self.bench
            .programs
            .cv(&self.node, &["rm", "-r", "/mounted"])
            .map(|_| ())
    }

    fn directories(&self, mount_point: &Path, report: &mut Report) -> Result<()> {
        let directories = self.bench.count(DIRECTORIES);
        let top = CurvinePath::parse("/many")?;
        self.runtime.block_on(self.client.make_dir(&top, 0o755, false))?;
        let begun = Instant::now();
        self.runtime.block_on(
            stream::iter(0..directories)
                .map(|number| {
                    let path = top.join(&format!("{number:06}"));
                    async move { self.client.make_dir(&path?, 0o755, false).await }
                })
                .buffer_unordered(AT_ONCE)
                .try_for_each(|_| async { Ok(()) }),
        )?;
        let rate = directories as f64 / begun.elapsed().as_secs_f64();
        let what = format!("{directories} directories in one, {AT_ONCE} at once");
        report.add(Row::new("trees", what, rate, "/s"));
        let local = self.bench.scratch.path().join("many");
        for number in 0..directories {
            std::fs::create_dir_all(local.join(format!("{number:06}")))?;
        }
        for (what, mounted) in [
            ("first", mount_point.join("many")),
            ("again", mount_point.join("many")),
        ] {
            let (took, raw) = (long_listing(&mounted)?, long_listing(&local)?);
            let row = Row::new(
                "trees",
                format!("FUSE: ls -l of {directories} entries, {what}"),
                took,
                "s",
            )
            .beside(format!("raw directory, {raw:.2} s"), raw / took);
            report.add(row.target(Target::ValueAtMost(LISTING_S_MAX)));
        }
        self.deletion(
            report,
            &format!("rm -r of {directories} directories in one"),
            &["rm", "-r", "/many"],
        )
    }

    /// Those that were made to be compared with.
    fn mounted_directories(&self, report: &mut Report) -> Result<()> {
        let directories = self.bench.count(DIRECTORIES);
        self.know(&self.bench.scratch.path().join("many"), [], directories)?;
        self.deletion(
            report,
            &format!("umount of {directories} known directories in one"),
            &["umount", "/mounted"],
        )
    }

    /// Mounts a local directory, and lists it and what it holds, so that so many inodes of it are known.
    fn know(&self, local: &Path, listed: impl IntoIterator<Item = String>, inodes: usize) -> Result<()> {
        let top = CurvinePath::parse("/mounted")?;
        let settings = MountSettings {
            staleness_ms: 3_600_000,
            ..MountSettings::default()
        };
        let uri = format!("file://{}", local.display());
        self.runtime.block_on(async {
            self.client.mount(&top, &uri, BTreeMap::new(), settings).await?;
            self.client.list_page(&top, None, 1).await?;
            stream::iter(listed)
                .map(|path| async move { self.client.list_page(&CurvinePath::parse(&path)?, None, 1).await })
                .buffer_unordered(LIST_AT_ONCE)
                .try_for_each(|_| async { Ok(()) })
                .await
        })?;
        let known = self.inodes()? - self.inodes;
        ensure!(
            known > u64::try_from(inodes)?,
            "{known} of {inodes} inodes are known"
        );
        Ok(())
    }

    fn inodes(&self) -> Result<u64> {
        Ok(self.runtime.block_on(self.client.status())?.inodes)
    }

    /// Runs a command of `cv` that deletes a tree, beside another client's changes, until it is gone.
    fn deletion(&self, report: &mut Report, what: &str, command: &[&str]) -> Result<()> {
        let begun = Instant::now();
        let delete = || {
            self.bench.programs.cv(&self.node, command)?;
            let answered = begun.elapsed();
            // The client's own directory may be there, and the one that was a mount.
            while self.inodes()? > self.inodes + 2 {
                ensure!(begun.elapsed() < GONE_DEADLINE, "{what}: the tree does not go");
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(answered)
        };
        let (answered, pauses) = beside(self.node.master()?, delete)?;
        let (answered, gone) = (answered.as_secs_f64(), begun.elapsed().as_secs_f64());
        report.add(Row::new(
            "trees",
            format!("{what}: until it is answered"),
            answered,
            "s",
        ));
        report.add(Row::new("trees", format!("{what}: until all is gone"), gone, "s"));
        let compared = |which: &str, ms: f64, alone: f64| {
            Row::new("trees", format!("{what}: {which} change meanwhile"), ms, "ms")
                .beside(format!("quiet, {alone:.1} ms"), alone / ms)
        };
        let longest = compared("longest", pauses.longest_ms, self.quiet.longest_ms);
        report.add(longest.target(Target::ValueAtMost(LONGEST_MS_MAX)));
        report.add(compared("slowest hundredth of", pauses.p99_ms, self.quiet.p99_ms));
        Ok(())
    }
}

/// What a client of its own waits for its changes while something is done.
fn beside<T>(master: &str, work: impl FnOnce() -> Result<T>) -> Result<(T, Pauses)> {
    let is_over = AtomicBool::new(false);
    let (tell, ready) = sync_channel(1);
    std::thread::scope(|scope| {
        let changes = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let client = Client::connect([master], ClientOptions::default()).await?;
                tell.send(())?;
                let took = changes(&client, &is_over).await;
                client.close().await;
                took
            })
        });
        // Where it cannot connect, it says so when it is joined.
        let done = match ready.recv() {
            Ok(()) => work(),
            Err(error) => Err(error.into()),
        };
        is_over.store(true, Ordering::Release);
        let mut took = changes.join().expect("no panic")?;
        took.sort_unstable();
        let at = |index: usize| took.get(index).map(|took| took.as_secs_f64() * 1e3);
        let (longest, p99) = (at(took.len().saturating_sub(1)), at(took.len() * 99 / 100));
        let pauses = Pauses {
            longest_ms: longest.context("no change was made")?,
            p99_ms: p99.context("no change was made")?,
        };
        Ok((done?, pauses))
    })
}

/// Makes and removes a directory until it is over; what each change took.
async fn changes(client: &Client, is_over: &AtomicBool) -> Result<Vec<Duration>> {
    let mut took = Vec::new();
    let place = Place::from(&CurvinePath::parse("/beside")?);
    while !is_over.load(Ordering::Acquire) {
        let begun = Instant::now();
        client.make_dir(place.clone(), 0o755, false).await?;
        took.push(begun.elapsed());
        let begun = Instant::now();
        client.remove_dir(place.clone()).await?;
        took.push(begun.elapsed());
    }
    Ok(took)
}

/// Seconds that a long listing of a directory takes.
pub fn long_listing(directory: &Path) -> Result<f64> {
    let begun = Instant::now();
    let listed = Command::new("ls")
        .arg("-l")
        .arg(directory)
        .stdout(Stdio::null())
        .status()?;
    ensure!(listed.success(), "ls -l {}: {listed}", directory.display());
    Ok(begun.elapsed().as_secs_f64())
}
