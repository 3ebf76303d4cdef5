//! Disks that fill up or cannot be written: a clear error for what meets it, and nothing acknowledged is lost.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use curvine_actors::client::{Client, CreateOptions};
use curvine_protocol::number::to_usize;
use curvine_protocol::{CurvinePath, Error, ErrorKind};

use super::group::Masters;
use super::loop_disk::{LoopDisk, own_mounts};
use super::support::*;

fn path(text: &str) -> CurvinePath {
    CurvinePath::parse(text).expect("a valid path")
}

fn content(seed: usize, len: usize) -> Bytes {
    (0..len)
        .map(|at| (at * 31 + seed * 7 + (at >> 8)).to_le_bytes()[0])
        .collect()
}

/// Takes all space of a file system but a little, and gives it back when dropped.
pub struct Filler(std::path::PathBuf);

impl Filler {
    pub fn new(directory: &Path) -> Filler {
        Filler::but(directory, 0)
    }

    /// Leaves so much.
    pub fn but(directory: &Path, left_bytes: u64) -> Filler {
        use std::io::Write;
        let file = directory.join("filler");
        let mut filling = std::fs::File::create(&file).expect("created");
        let piece = vec![1; 64 << 10];
        while filling.write_all(&piece).is_ok() {}
        let len = filling.metadata().expect("it is ours").len();
        filling
            .set_len(len.saturating_sub(left_bytes))
            .expect("it is ours");
        Filler(file)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).expect("it is ours");
    }
}

#[test]
fn a_read_only_data_directory_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let what = "a read-only data directory";
    let Some(mounted) = Mounted::new(
        dir.path().join("ro"),
        what,
        &["-t", "tmpfs", "-o", "ro", "curvine-test"],
    ) else {
        return;
    };
    let data_dir = mounted.path.join("data");
    let (code, said) = refused(&["--data-dir", text(&data_dir), "--listen", "127.0.0.1:0"]);
    assert_eq!(
        (code, said.as_str()),
        (
            Some(1),
            &*format!(
                "curvine-node: cannot use the data directory {}/master; choose another --data-dir or make it writable: \
                 Read-only file system (os error 30)",
                data_dir.display()
            )
        )
    );
}

async fn all_are_there(client: &Client, files: &[(String, Bytes)]) {
    for (name, content) in files {
        let read = client.read(&path(name)).await;
        assert!(
            read.as_ref() == Ok(content),
            "{name} was acknowledged: {:?}",
            read.map(|bytes| bytes.len())
        );
    }
}

/// Writes files until one is refused.
async fn write_until_refused(client: &Client, kept: &mut Vec<(String, Bytes)>, len: usize) -> Error {
    for _ in 0..1_000 {
        let name = format!("/{:04}-{len}", kept.len());
        let content = content(kept.len(), len);
        match client.write(&path(&name), content.clone()).await {
            Ok(_) => kept.push((name, content)),
            Err(error) => return error,
        }
    }
    panic!("the disk is never full");
}

#[test]
fn a_full_disk_of_the_worker_refuses_what_meets_it_and_takes_more_when_there_is_space() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(mounted) = Mounted::tmpfs(dir.path().join("disk"), "a full disk of a worker", 48) else {
        return;
    };
    let config = dir.path().join("curvine.toml");
    let disk = mounted.path.join("blocks");
    let of_worker = format!(
        "[worker]\nreserve = \"0B\"\ndata_dirs = [\"[SSD]{}\"]\n",
        disk.display()
    );
    std::fs::write(&config, of_worker).expect("written");
    let args = [
        "--config",
        text(&config),
        "--data-dir",
        text(dir.path()),
        "--listen",
        "127.0.0.1:0",
        "--worker-listen",
        "127.0.0.1:0",
    ];
    let mut node = Node::start(&args);
    let mut kept = Vec::new();
    run(async {
        let client = node.client().await;
        // By its own data.
        let error = write_until_refused(&client, &mut kept, 1 << 20).await;
        assert_eq!(error.kind, ErrorKind::NoSpace, "{error}");
        assert!(kept.len() > 20, "{} files fit", kept.len());
        all_are_there(&client, &kept).await;
        for (name, _) in kept.drain(10..) {
            client.unlink(&path(&name), false).await.expect("deleted");
        }
        let (name, bytes) = ("/after".to_owned(), content(7, 1 << 20));
        until("a file fits again", async || {
            client.write(&path(&name), bytes.clone()).await.ok()
        })
        .await;
        kept.push((name, bytes));
        // By somebody else's, of which the worker did not know when it took the bytes.
        let filler = Filler::new(&mounted.path);
        for len in [1 << 20, 100_000, 4_096, 100] {
            let error = write_until_refused(&client, &mut kept, len).await;
            assert_eq!(error.kind, ErrorKind::NoSpace, "{len} bytes: {error}");
        }
        all_are_there(&client, &kept).await;
        drop(filler);
        let (name, bytes) = ("/at last".to_owned(), content(8, 1 << 20));
        until("a file fits again", async || {
            client.write(&path(&name), bytes.clone()).await.ok()
        })
        .await;
        kept.push((name, bytes));
        all_are_there(&client, &kept).await;
    });
    node.kill();
    let node = Node::start(&args);
    run(async {
        let client = node.client().await;
        all_are_there(&client, &kept).await;
    });
}

#[test]
fn a_full_disk_of_the_master_refuses_changes_and_takes_them_when_there_is_space() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(mounted) = Mounted::tmpfs(dir.path().join("disk"), "a full disk of a master", 64) else {
        return;
    };
    let data_dir = mounted.path.join("data");
    let args = [
        "--role",
        "master",
        "--data-dir",
        text(&data_dir),
        "--listen",
        "127.0.0.1:0",
    ];
    let mut node = Node::start(&args);
    let made = run(async {
        let client = node.client().await;
        let mut makers = Vec::new();
        let (full, mut told) = tokio::sync::watch::channel(false);
        let count = Arc::new(AtomicU32::new(0));
        for maker in 0..8 {
            let (client, full, count) = (client.clone(), full.clone(), count.clone());
            makers.push(tokio::spawn(async move {
                let mut made = Vec::new();
                for number in 0.. {
                    let name = format!("/{maker}-{number}");
                    match client.make_dir(&path(&name), 0o755, false).await {
                        Ok(_) => {
                            made.push(name);
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => {
                            // In flight when the disk filled: its fate is unknown. Else: refused.
                            let known = matches!(error.kind, ErrorKind::NoSpace | ErrorKind::Timeout);
                            assert!(known, "{:?}: {error}", error.kind);
                            full.send_replace(true);
                            return (made, error.kind);
                        }
                    }
                }
                unreachable!("the loop has no end")
            }));
        }
        // All at once, in the middle of what goes on.
        until("much is made", async || {
            (count.load(Ordering::Relaxed) >= 200).then_some(())
        })
        .await;
        let filler = Filler::new(&mounted.path);
        told.wait_for(|full| *full).await.expect("they run");
        let error = until("changes are refused", async || {
            client.make_dir(&path("/refused"), 0o755, false).await.err()
        })
        .await;
        assert_eq!(error.kind, ErrorKind::NoSpace, "{error}");
        assert!(
            error.message.contains("the master's disk is full") && error.message.contains(text(&data_dir)),
            "{error}"
        );
        assert_eq!(
            client.stat(&path("/")).await.map(|attr| attr.is_dir()),
            Ok(true),
            "reads are answered"
        );
        drop(filler);
        until("changes are taken again", async || {
            client.make_dir(&path("/again"), 0o755, true).await.ok()
        })
        .await;
        let mut all = vec!["/again".to_owned()];
        for maker in makers {
            let (made, _) = maker.await.expect("no panic");
            assert!(!made.is_empty());
            all.extend(made);
        }
        for name in &all {
            client.stat(&path(name)).await.expect("acknowledged, so there");
        }
        assert_eq!(
            client.exists(&path("/refused")).await,
            Ok(false),
            "what was refused did not happen"
        );
        all
    });
    node.kill();
    let node = Node::start(&args);
    run(async {
        let client = node.client().await;
        for name in &made {
            client.stat(&path(name)).await.expect("acknowledged, so there");
        }
    });
}

#[test]
fn a_data_directory_that_vanishes_under_a_worker_has_failed_and_others_make_replicas_of_what_they_have() {
    run(async {
        let masters = Masters::start(1);
        let client = masters.client().await;
        let mut workers: Vec<Node> = (1..=3).map(|number| masters.small_worker(number, 100)).collect();
        let files: Vec<(String, Bytes)> = (0..12)
            .map(|number| (format!("/f{number}"), content(number, 10 + number * 40_000)))
            .collect();
        let replicated = CreateOptions {
            replicas: 2,
            ..CreateOptions::default()
        };
        for (name, content) in &files {
            let file = client.create(&path(name), replicated).await.expect("created");
            file.append(content.clone()).await.expect("taken");
            file.close().await.expect("closed");
        }
        let (there, away) = (masters.blocks_of(1), masters.scratch.path().join("away"));
        let id = workers[0].said("worker").to_owned();
        std::fs::rename(&there, &away).expect("moved away");
        let disk = async || {
            let status = client.status().await.ok()?;
            let worker = status.workers.into_iter().find(|worker| worker.address == id)?;
            Some((worker.id, worker.disks[0].failure.clone()))
        };
        let lost = until("the disk has failed", async || {
            let (worker, failure) = disk().await?;
            failure?.contains("is not there any more").then_some(worker)
        })
        .await;
        let holders = async |name: &str| {
            client.locate(&path(name)).await.expect("it is there").blocks[0]
                .workers
                .clone()
        };
        for (name, _) in &files {
            until("others have it", async || {
                let holders = holders(name).await;
                (holders.len() == 2 && !holders.contains(&lost)).then_some(())
            })
            .await;
        }
        all_are_there(&client, &files).await;
        // A pass that somebody waits for comes to an end.
        let before = client.scrub(lost, None).await.expect("told")[0].passes;
        client.scrub(lost, Some(1 << 30)).await.expect("it begins");
        until("the scrubber gives up", async || {
            let disk = client.scrub(lost, None).await.ok()?.remove(0);
            (!disk.runs && disk.passes > before).then_some(())
        })
        .await;

        workers[0].kill();
        std::fs::rename(&away, &there).expect("moved back");
        workers[0] = masters.small_worker(1, 100);
        for (name, _) in &files {
            until("there are as many replicas as are wanted", async || {
                (holders(name).await.len() == 2).then_some(())
            })
            .await;
        }
        all_are_there(&client, &files).await;
    });
}

#[test]
fn a_disk_that_fails_takes_its_blocks_down_alone_and_replicas_are_made_elsewhere() {
    own_mounts();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(failing) = LoopDisk::new(dir.path(), "failing", "a disk that fails under a worker") else {
        return;
    };
    run(async {
        let masters = Masters::start(1);
        let client = masters.client().await;
        let data_dirs = format!(
            "[SSD:100MiB]{},[SSD:100MiB]{}",
            text(&failing.path().join("blocks")),
            text(&masters.blocks_of(1))
        );
        let mut two_disks = masters.worker_on(1, &data_dirs);
        let _other = masters.small_worker(2, 200);
        let mut files = Vec::new();
        for number in 0..24 {
            let name = format!("/f{number}");
            let content = content(number, 10 + number * 20_000);
            let replicated = CreateOptions {
                replicas: 2,
                ..CreateOptions::default()
            };
            let file = client.create(&path(&name), replicated).await.expect("created");
            file.append(content.clone()).await.expect("taken");
            file.close().await.expect("closed");
            files.push((name, content));
        }
        let disks = async |node: &Node| {
            let status = client.status().await.ok()?;
            let id = node.said("worker").to_owned();
            let worker = status.workers.into_iter().find(|worker| worker.address == id)?;
            Some((worker.id, worker.disks))
        };
        let (holder, before) = until("the master has heard how much is on both", async || {
            let (worker, disks) = disks(&two_disks).await?;
            let blocks: u64 = disks.iter().map(|disk| disk.blocks).sum();
            (blocks == files.len() as u64).then_some((worker, disks))
        })
        .await;
        let lost = to_usize(before[0].blocks);
        assert!((1..files.len()).contains(&lost), "both have some: {before:?}");
        failing.cut_power();
        until("the disk has failed", async || {
            let (_, disks) = disks(&two_disks).await?;
            (disks[0].failure.is_some() && disks[1].failure.is_none()).then_some(())
        })
        .await;
        all_are_there(&client, &files).await;
        until(
            "there are as many replicas as are wanted, on its other disk",
            async || {
                let (_, disks) = disks(&two_disks).await?;
                (disks[1].blocks == files.len() as u64).then_some(())
            },
        )
        .await;
        all_are_there(&client, &files).await;
        // The worker goes on with the other disk, and starts again with it.
        let after = ("/after".to_owned(), content(7, 1 << 20));
        let written = client.write(&path(&after.0), after.1.clone()).await;
        written.expect("taken");
        files.push(after);
        two_disks.kill();
        two_disks = masters.worker_on(1, &data_dirs);
        until("it is the same worker, and says what it is without", async || {
            let (worker, disks) = disks(&two_disks).await?;
            assert_eq!(worker, holder);
            let without = disks.iter().find(|disk| disk.failure.is_some())?;
            assert!(without.path.contains("failing"), "{without:?}");
            (disks.len() == 2).then_some(())
        })
        .await;
        all_are_there(&client, &files).await;
        // The disk is there again, with what others have had made meanwhile.
        two_disks.kill();
        let _again = failing.mounted_again();
        two_disks = masters.worker_on(1, &data_dirs);
        until("it has both again", async || {
            let (worker, disks) = disks(&two_disks).await?;
            let well = disks.iter().all(|disk| disk.failure.is_none());
            (worker == holder && disks.len() == 2 && well).then_some(())
        })
        .await;
        all_are_there(&client, &files).await;
        // Before the file system that it uses.
        drop(two_disks);
    });
}

#[test]
fn directories_of_two_clusters_are_refused_before_anything_is_touched() {
    run(async {
        let (ours, theirs) = (Masters::start(1), Masters::start(1));
        let mut contents = Vec::new();
        for (masters, seed) in [(&ours, 1), (&theirs, 2)] {
            let client = masters.client().await;
            let mut worker = masters.small_worker(1, 100);
            let files: Vec<_> = (0..4)
                .map(|number| (format!("/f{number}"), content(seed * 10 + number, 100_000)))
                .collect();
            for (name, content) in &files {
                client.write(&path(name), content.clone()).await.expect("written");
            }
            worker.stop();
            contents.push(files);
        }
        let directory = |masters: &Masters| format!("[SSD:100MiB]{}", text(&masters.blocks_of(1)));
        for dirs in [[&ours, &theirs], [&theirs, &ours]] {
            let data_dirs = dirs.map(directory).join(",");
            let (code, said) = refused(&[
                "--role",
                "worker",
                "--master",
                &ours.addresses.join(","),
                "--listen",
                "127.0.0.1:0",
                "--data-dir",
                text(&ours.scratch.path().join("worker-1")),
                "--data-dirs",
                &data_dirs,
            ]);
            assert!(
                code != Some(0) && said.contains("a worker has blocks of one cluster"),
                "{said}"
            );
        }
        for (masters, files) in [&ours, &theirs].into_iter().zip(&contents) {
            let _worker = masters.small_worker(1, 100);
            let client = masters.client().await;
            all_are_there(&client, files).await;
        }
    });
}
