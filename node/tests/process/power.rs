//! Power cuts: the node's data is on an ext4 of its own that loses what was not synced, as a disk does when the power goes.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use curvine_actors::client::{Client, CreateOptions};
use curvine_protocol::CurvinePath;
use curvine_protocol::number::to_usize;

use super::loop_disk::*;
use super::support::*;

/// What was acknowledged: a file with what was synced to it, one whose second chunk was written over since, a directory, a
/// file that was closed and not synced.
#[derive(Clone, Debug, PartialEq)]
enum Made {
    File(String, Bytes),
    WrittenOver(String, Bytes),
    Dir(String),
    Name(String, u64),
}

/// Bytes under one checksum.
const CHUNK: usize = to_usize(curvine_protocol::checksum::CHUNK_BYTES);
/// A seed whose content has several chunks.
const LARGE: usize = 4;

fn path(text: &str) -> CurvinePath {
    CurvinePath::parse(text).expect("a valid path")
}

fn content(seed: usize) -> Bytes {
    let len = [0, 1, 4_096, 70_000, 300_000][seed % 5];
    (0..len)
        .map(|at| (at * 31 + seed * 7 + (at >> 8)).to_le_bytes()[0])
        .collect()
}

/// Makes directories and files until it fails, and notes what is acknowledged.
async fn work(client: Client, name: String, made: Arc<Mutex<Vec<Made>>>) {
    for number in 0.. {
        let here = format!("/{name}-{number}");
        let done = async {
            match number % 4 {
                0 => {
                    client.make_dir(&path(&here), 0o755, false).await?;
                    Ok(Made::Dir(here.clone()))
                }
                3 => {
                    // Closed and not synced: it may be lost, and must take nothing else along.
                    client.write(&path(&here), content(number)).await?;
                    let found = client.stat(&path(&here)).await?;
                    Ok(Made::Name(here.clone(), found.size_bytes))
                }
                1 => {
                    let file = client.create(&path(&here), CreateOptions::default()).await?;
                    file.append(content(number)).await?;
                    file.sync().await?;
                    file.close().await?;
                    Ok(Made::File(here.clone(), content(number)))
                }
                2 if number % 8 == 2 => {
                    // Closed and synced, then written over in place and not synced: what was not touched stays.
                    let body = content(LARGE);
                    let file = client.create(&path(&here), CreateOptions::default()).await?;
                    file.append(body.clone()).await?;
                    file.sync().await?;
                    file.close().await?;
                    let file = client.open_for_write(&path(&here), false).await?;
                    file.write_at(CHUNK as u64 + 1, content(1)).await?;
                    file.flush().await?;
                    Ok(Made::WrittenOver(here.clone(), body))
                }
                _ => {
                    // Written in place after a first sync, under a name that it did not begin with.
                    let first = format!("{here}.new");
                    let file = client.create(&path(&first), CreateOptions::default()).await?;
                    file.append(content(number + 1)).await?;
                    file.sync().await?;
                    file.write_at(0, content(number)).await?;
                    file.truncate(content(number).len() as u64).await?;
                    file.sync().await?;
                    file.close().await?;
                    let mode = curvine_protocol::master::RenameMode::Replace;
                    client.rename(&path(&first), &path(&here), mode, false).await?;
                    Ok(Made::File(here.clone(), content(number)))
                }
            }
        };
        let done: curvine_protocol::Result<Made> = done.await;
        match done {
            Ok(one) => made.lock().expect("nobody panics").push(one),
            Err(_) => return,
        }
    }
}

#[test]
fn what_was_acknowledged_and_synced_is_there_after_a_power_cut() {
    own_mounts();
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let Some(mut disk) = LoopDisk::new(scratch.path(), "disk", "a power cut") else {
        return;
    };
    let data_dir = disk.path().join("data");
    let made: Arc<Mutex<Vec<Made>>> = Arc::default();
    for round in 0..=rounds() {
        let mut node = Node::start_all(&data_dir, &[]);
        let known = made.lock().expect("nobody panics").clone();
        run(async {
            let client = node.client().await;
            for one in &known {
                match one {
                    Made::Dir(name) => assert!(client.stat(&path(name)).await.expect(name).is_dir()),
                    Made::Name(name, len) => {
                        assert_eq!(client.stat(&path(name)).await.expect(name).size_bytes, *len);
                    }
                    Made::WrittenOver(name, content) => {
                        let read = client.read(&path(name)).await.expect(name);
                        assert!(
                            read[..CHUNK] == content[..CHUNK] && read[2 * CHUNK..] == content[2 * CHUNK..],
                            "round {round}: {name} has other content where nobody wrote"
                        );
                    }
                    Made::File(name, content) => {
                        let read = client.read(&path(name)).await.expect(name);
                        assert!(read == content, "round {round}: {name} has other content");
                    }
                }
            }
            if round == rounds() {
                return;
            }
            let workers: Vec<_> = (0..6)
                .map(|worker| {
                    let name = format!("{round}-{worker}");
                    tokio::spawn(work(client.clone(), name, made.clone()))
                })
                .collect();
            let enough = known.len() + 60 + round * 37 % 200;
            until("there is enough to lose", async || {
                (made.lock().expect("nobody panics").len() >= enough).then_some(())
            })
            .await;
            disk.cut_power();
            node.kill();
            for worker in workers {
                worker.await.expect("no panic");
            }
        });
        if round < rounds() {
            disk = disk.mounted_again();
        }
    }
    let made = made.lock().expect("nobody panics").len();
    eprintln!("{} cuts, {made} acknowledged things kept", rounds());
}
