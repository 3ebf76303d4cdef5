//! The Rust client against a real node: its examples, and what two clients see of each other.

#[path = "../../actors/examples/tour.rs"]
#[allow(dead_code, reason = "the example has a main of its own")]
mod tour;

use std::collections::BTreeMap;

use curvine_actors::client::{Client, ClientOptions, CreateOptions, OpenFile};
use curvine_protocol::master::{AttrChange, IfExists};
use curvine_protocol::mount::{MountSettings, WriteMode};
use curvine_protocol::{CurvinePath, ErrorKind, Result};
use curvine_tests::process::Node;
use curvine_tests::wait::until;
use tempfile::TempDir;

struct Cluster {
    node: Node,
    _scratch: TempDir,
}

impl Cluster {
    fn start() -> Cluster {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let node = Node::start_all(scratch.path(), &[]);
        Cluster {
            node,
            _scratch: scratch,
        }
    }

    async fn client(&self) -> Client {
        let client = Client::connect([self.node.master()], ClientOptions::default()).await;
        client.expect("the node is ready")
    }
}

fn path(text: &str) -> CurvinePath {
    CurvinePath::parse(text).expect("a valid path")
}

/// Blocks small enough that a test crosses many.
async fn create(client: &Client, at: &str) -> OpenFile {
    let options = CreateOptions {
        block_bytes: 64 << 10,
        if_exists: IfExists::Open,
        ..CreateOptions::default()
    };
    client.create(path(at), options).await.expect("created")
}

fn kind<T>(outcome: Result<T>) -> Option<ErrorKind> {
    outcome.err().map(|error| error.kind)
}

#[tokio::test]
async fn the_tour_of_the_documentation_runs() {
    let cluster = Cluster::start();
    let bucket = tempfile::tempdir().expect("a scratch directory");
    tour::tour(cluster.node.master(), bucket.path())
        .await
        .expect("a good tour");
}

#[tokio::test]
async fn a_second_writer_gets_the_file_with_what_the_first_has_written_and_both_go_on() {
    let cluster = Cluster::start();
    let (first, second) = (cluster.client().await, cluster.client().await);
    let file = create(&first, "/f").await;
    file.append("mine".into()).await.expect("taken");
    let other = second
        .open_for_write(path("/f"), false)
        .await
        .expect("it is asked back");
    assert_eq!(other.append(" and yours".into()).await.expect("taken"), 4);
    assert_eq!(file.append(" and mine".into()).await.expect("taken"), 14);
    second.set_len(path("/f"), 4).await;
    assert_eq!(file.append("!".into()).await.expect("taken"), 4);
    file.close().await.expect("closed");
    other.close().await.expect("closed");
    assert_eq!(&second.read(path("/f")).await.expect("read")[..], b"mine!");
    let file = second.open_for_write(path("/f"), false).await.expect("free");
    file.append(" never told".into()).await.expect("taken");
    second.close().await;
    let file = first.open_for_write(path("/f"), false).await.expect("free again");
    assert_eq!(file.size_now(), 5);
}

/// What a truncation by path does.
trait SetLen {
    async fn set_len(&self, at: CurvinePath, size_bytes: u64);
}

impl SetLen for Client {
    async fn set_len(&self, at: CurvinePath, size_bytes: u64) {
        let change = AttrChange {
            size_bytes: Some(size_bytes),
            ..AttrChange::default()
        };
        self.set_attr(at, true, change).await.expect("cut");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_of_two_clients_are_all_there_each_at_the_end_that_the_cluster_knows() {
    const APPENDS: usize = 40;
    let cluster = Cluster::start();
    create(&cluster.client().await, "/log")
        .await
        .close()
        .await
        .expect("an empty file");
    let appending = ["a", "b"].map(|name| {
        let client = Client::connect([cluster.node.master().to_owned()], ClientOptions::default());
        tokio::spawn(async move {
            let client = client.await.expect("the node is ready");
            let file = client.open(path("/log")).await.expect("open");
            let mut written = Vec::new();
            for number in 0..APPENDS {
                let line = format!("{name}{number:03}\n");
                let at = file.append(line.clone().into()).await.expect("taken");
                file.flush().await.expect("flushed, or given back before");
                written.push((at, line));
            }
            file.close().await.expect("closed");
            written
        })
    });
    let mut written = Vec::new();
    for appends in appending {
        written.extend(appends.await.expect("no panic"));
    }
    written.sort();
    let expected: String = written.iter().map(|(_, line)| line.as_str()).collect();
    let seen = cluster.client().await.read(path("/log")).await.expect("read");
    assert_eq!(String::from_utf8_lossy(&seen), expected);
    assert!(
        written
            .iter()
            .enumerate()
            .all(|(index, (at, _))| *at == index as u64 * 5),
        "each is where its writer was told"
    );
}

#[tokio::test]
async fn what_a_dead_writer_committed_is_readable_and_what_it_did_not_never_shows() {
    let cluster = Cluster::start();
    let (dying, living) = (cluster.client().await, cluster.client().await);
    let committed = vec![b'c'; 150_000];
    let file = create(&dying, "/f").await;
    file.append(committed.clone().into()).await.expect("taken");
    file.flush().await.expect("flushed");
    // Over what is committed, and behind it: read back here, so that it has arrived at the worker.
    file.write_at(140_000, vec![b'x'; 30_000].into())
        .await
        .expect("taken");
    assert_eq!(file.read_at(169_999, 10).await.expect("arrived"), "x");
    dying.close().await;

    let seen = living.read(path("/f")).await.expect("read");
    assert_eq!(seen.len(), 150_000);
    assert_eq!(seen[..140_000], committed[..140_000]);
    // The next writer leaves a gap behind the end; nothing of the dead one's shows in it.
    let file = living.open_for_write(path("/f"), false).await.expect("free");
    file.write_at(180_000, "end".into()).await.expect("taken");
    file.close().await.expect("closed");
    let seen = living.read(path("/f")).await.expect("read");
    assert_eq!(seen.len(), 180_003);
    assert!(seen[150_000..180_000].iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn a_file_is_taken_from_a_writer_that_lives_with_what_it_has_flushed_and_nothing_of_it_comes_later() {
    let cluster = Cluster::start();
    let (writer, other) = (cluster.client().await, cluster.client().await);
    let file = create(&writer, "/f").await;
    file.append("flushed".into()).await.expect("taken");
    file.flush().await.expect("flushed");
    assert!(!other.is_closed(path("/f")).await.expect("there"));
    file.append(" and not".into()).await.expect("taken");
    if !other.revoke_lease(path("/f")).await.expect("there") {
        until("the file is closed", || async {
            let is_closed = other.is_closed(path("/f")).await.expect("there");
            is_closed.then_some(())
        })
        .await;
    }
    assert_eq!(kind(file.flush().await), Some(ErrorKind::Stale));
    let closed = kind(file.close().await);
    assert_eq!(closed, Some(ErrorKind::Stale), "the loss is told to who wrote");
    assert_eq!(&other.read(path("/f")).await.expect("read")[..], b"flushed");
    assert!(
        other.revoke_lease(path("/f")).await.expect("there"),
        "twice is once"
    );
    // It may be opened again, also by who lost it.
    let again = writer.open_for_write(path("/f"), false).await.expect("free");
    assert_eq!(again.append(" again".into()).await.expect("taken"), 7);
    again.close().await.expect("closed");
    assert!(other.is_closed(path("/f")).await.expect("there"));
    other.make_dir(path("/d"), 0o755, false).await.expect("made");
    assert_eq!(
        kind(other.revoke_lease(path("/d")).await),
        Some(ErrorKind::IsADirectory)
    );
    assert_eq!(
        kind(other.is_closed(path("/none")).await),
        Some(ErrorKind::NotFound)
    );
}

#[tokio::test]
async fn a_writer_whose_file_was_taken_away_keeps_it_from_nobody() {
    let cluster = Cluster::start();
    let (writer, other) = (cluster.client().await, cluster.client().await);
    let file = create(&writer, "/f").await;
    file.append("flushed".into()).await.expect("taken");
    file.flush().await.expect("flushed");
    file.append(" and not".into()).await.expect("taken");
    other.revoke_lease(path("/f")).await.expect("there");
    assert_eq!(kind(file.flush().await), Some(ErrorKind::Stale));
    // Another handle of the same client writes under a lease of its own, before the one that lost is closed.
    let second = writer.open_for_write(path("/f"), false).await.expect("free");
    second.append(" one".into()).await.expect("taken");
    second.flush().await.expect("flushed");
    assert_eq!(kind(file.close().await), Some(ErrorKind::Stale));
    second.append(" two".into()).await.expect("taken");
    second.close().await.expect("closed");
    until("nobody has it", || async {
        let is_closed = other.is_closed(path("/f")).await.expect("there");
        is_closed.then_some(())
    })
    .await;
    assert_eq!(
        &other.read(path("/f")).await.expect("read")[..],
        b"flushed one two"
    );
}

#[tokio::test]
async fn a_client_that_takes_a_file_from_itself_writes_no_more_by_the_handles_it_had() {
    let cluster = Cluster::start();
    let (writer, other) = (cluster.client().await, cluster.client().await);
    for (name, unflushed) in [("/clean", ""), ("/dirty", " and not")] {
        let file = create(&writer, name).await;
        file.append("flushed".into()).await.expect("taken");
        file.flush().await.expect("flushed");
        file.append(unflushed.into()).await.expect("taken");
        writer.revoke_lease(path(name)).await.expect("there");
        until("the file is closed", || async {
            let is_closed = other.is_closed(path(name)).await.expect("there");
            is_closed.then_some(())
        })
        .await;
        let written = file.append(" late".into()).await.map(drop);
        let late = written.and(file.flush().await.map(drop));
        assert_eq!(kind(late), Some(ErrorKind::Stale));
        assert_eq!(kind(file.close().await), Some(ErrorKind::Stale));
        assert!(other.is_closed(path(name)).await.expect("there"));
        assert_eq!(&other.read(path(name)).await.expect("read")[..], b"flushed");
        let again = writer.open_for_write(path(name), false).await.expect("free");
        again.append(" again".into()).await.expect("taken");
        again.close().await.expect("closed");
        assert_eq!(&other.read(path(name)).await.expect("read")[..], b"flushed again");
    }
}

#[tokio::test]
async fn a_gap_in_a_new_block_of_a_dead_writer_is_zeros() {
    let cluster = Cluster::start();
    let (dying, living) = (cluster.client().await, cluster.client().await);
    let file = create(&dying, "/f").await;
    file.append(vec![b'x'; 50_000].into()).await.expect("taken");
    assert_eq!(file.read_at(49_999, 10).await.expect("arrived"), "x");
    dying.close().await;
    let file = create(&living, "/f").await;
    assert_eq!(file.size_now(), 0);
    file.write_at(60_000, "end".into()).await.expect("taken");
    file.close().await.expect("closed");
    let seen = living.read(path("/f")).await.expect("read");
    assert!(seen[..60_000].iter().all(|byte| *byte == 0));
    assert_eq!(&seen[60_000..], b"end");
}

#[tokio::test]
async fn what_a_dead_writer_left_over_an_object_that_is_cached_is_not_the_objects() {
    let cluster = Cluster::start();
    let (dying, living) = (cluster.client().await, cluster.client().await);
    let bucket = tempfile::tempdir().expect("a scratch directory");
    let object = vec![b'o'; 300_000];
    std::fs::write(bucket.path().join("object"), &object).expect("an object");
    let uri = format!("file://{}", bucket.path().display());
    let settings = MountSettings {
        writable: true,
        ..MountSettings::default()
    };
    let mounted = living.mount(&path("/m"), &uri, BTreeMap::new(), settings).await;
    mounted.expect("mounted");
    let at = path("/m/object");
    assert_eq!(living.read(&at).await.expect("cached"), object);
    let file = dying.open_for_write(&at, false).await.expect("opened");
    file.write_at(1_000, vec![b'x'; 200_000].into())
        .await
        .expect("taken");
    assert_eq!(file.read_at(999, 2).await.expect("arrived"), "ox");
    dying.close().await;
    until("what it left is gone", async || {
        let seen = living.read(&at).await.expect("readable");
        (seen == object).then_some(())
    })
    .await;
    let next = living.open_for_write(&at, false).await.expect("opened");
    next.write_at(0, "n".into()).await.expect("taken");
    next.close().await.expect("closed");
    let seen = living.read(&at).await.expect("readable");
    assert_eq!((seen[0], &seen[1..]), (b'n', &object[1..]));
    let stored = std::fs::read(bucket.path().join("object")).expect("there");
    assert_eq!(stored, seen);
}

#[tokio::test]
async fn who_waits_for_the_store_does_not_hear_of_files_that_are_removed_or_written_anew_meanwhile() {
    const FILES: u32 = 60;
    let cluster = Cluster::start();
    let (writing, waiting) = (cluster.client().await, cluster.client().await);
    let bucket = tempfile::tempdir().expect("a scratch directory");
    let uri = format!("file://{}", bucket.path().display());
    let settings = MountSettings {
        writable: true,
        write_mode: WriteMode::Back,
        ..MountSettings::default()
    };
    let mounted = writing.mount(&path("/m"), &uri, BTreeMap::new(), settings).await;
    mounted.expect("mounted");
    let all = path("/m");
    let at = |file: u32| path(&format!("/m/{file:02}"));
    let write = async |file: u32, content: u8| {
        let open = create(&writing, at(file).as_str()).await;
        open.write_at(0, vec![content; 200_000].into())
            .await
            .expect("taken");
        open.close().await.expect("closed");
    };
    for file in 0..FILES {
        write(file, b'a').await;
    }
    let changes = async {
        for file in (2..FILES).rev() {
            match file % 2 {
                0 => drop(writing.delete(at(file), false).await.expect("removed")),
                _ => write(file, b'b').await,
            }
        }
    };
    let (persisted, ()) = tokio::join!(waiting.persist(&all), changes);
    persisted.expect("nothing is refused");
    waiting.persist(&all).await.expect("nothing is refused");
    let listed = writing
        .list_page(all, None, FILES)
        .await
        .expect("a directory")
        .entries;
    let names: Vec<_> = listed.iter().map(|entry| entry.name.as_str()).collect();
    let kept: Vec<_> = (0..FILES).filter(|file| *file == 0 || file % 2 == 1).collect();
    assert_eq!(
        names,
        kept.iter().map(|file| format!("{file:02}")).collect::<Vec<_>>()
    );
    assert_eq!(
        (0..FILES)
            .filter(|file| bucket.path().join(format!("{file:02}")).exists())
            .count(),
        kept.len()
    );
    for entry in listed {
        let here = writing
            .read(&path(&format!("/m/{}", entry.name)))
            .await
            .expect("readable");
        let below = std::fs::read(bucket.path().join(&entry.name)).expect("stored");
        assert!(here == below, "{}", entry.name);
    }
}

#[tokio::test]
async fn what_readers_get_of_a_mount_is_counted_and_told() {
    let cluster = Cluster::start();
    let (first, second) = (cluster.client().await, cluster.client().await);
    let bucket = tempfile::tempdir().expect("a scratch directory");
    std::fs::write(bucket.path().join("object"), vec![b'o'; 300_000]).expect("an object");
    let uri = format!("file://{}", bucket.path().display());
    let at = path("/m");
    let mounted = first.mount(&at, &uri, BTreeMap::new(), MountSettings::default());
    mounted.await.expect("mounted");
    for client in [&first, &second] {
        let content = client.read(&path("/m/object")).await.expect("readable");
        assert_eq!(content.len(), 300_000);
    }
    let told = until("the worker has said it", async || {
        let mounts = first.mounts().await.expect("answered");
        mounts[0]
            .traffic
            .filter(|traffic| traffic.hits + traffic.misses > 1)
    })
    .await;
    assert_eq!((told.hit_bytes, told.miss_bytes), (300_000, 300_000));
    assert_eq!(told.fetched_bytes, 300_000);
    assert_eq!(told.hit_ratio(), Some(0.5));
}

#[tokio::test]
async fn an_unlinked_file_stays_for_the_client_that_has_it_open() {
    let cluster = Cluster::start();
    let client = cluster.client().await;
    let file = create(&client, "/f").await;
    file.append("still here".into()).await.expect("taken");
    client.unlink(path("/f"), true).await.expect("unlinked");
    assert_eq!(kind(client.stat(path("/f")).await), Some(ErrorKind::NotFound));
    file.append(", and longer".into()).await.expect("taken");
    file.close().await.expect("closed");
    assert_eq!(
        &file.read_at(0, 100).await.expect("read")[..],
        b"still here, and longer"
    );
    let inode = file.inode();
    client.release_inode(inode).await.expect("taken note of");
    file.read_at(0, 100).await.expect("it has a handle still");
    drop(file);
    client.release_inode(inode).await.expect("released");
    assert_eq!(kind(client.stat(inode).await), Some(ErrorKind::Stale));
}

#[tokio::test]
async fn files_that_are_joined_have_the_bytes_of_all_wherever_their_blocks_end() {
    let cluster = Cluster::start();
    let (client, other) = (cluster.client().await, cluster.client().await);
    let bytes = |seed: u8, length: usize| -> Vec<u8> {
        (0..251)
            .map(|at| seed.wrapping_add(at))
            .cycle()
            .take(length)
            .collect()
    };
    // In blocks of 64 KiB: those that fit, one that ends within a block, and what has to be copied.
    let lengths = [2 << 16, 1 << 16, 0, (1 << 16) + 7, 100_000, 3];
    let names: Vec<CurvinePath> = (0..lengths.len()).map(|at| path(&format!("/{at}"))).collect();
    let mut whole = Vec::new();
    for (name, (seed, length)) in names.iter().zip((0..).zip(lengths)) {
        let part = bytes(seed, length);
        let file = create(&client, name.as_str()).await;
        file.append(part.clone().into()).await.expect("taken");
        file.close().await.expect("closed");
        whole.extend(part);
    }
    let readers = [
        client.open(names[0].clone()).await.expect("open"),
        other.open(names[0].clone()).await.expect("open"),
    ];
    let source = other.open(names[1].clone()).await.expect("open");
    let joined = client.concat(&names[0], &names[1..]).await.expect("joined");
    assert_eq!(joined.size_bytes, whole.len() as u64);
    assert_eq!(
        (joined.nlink, joined.block_bytes, joined.hole_bytes),
        (1, 64 << 10, 0)
    );
    let read = other.read(names[0].clone()).await.expect("read");
    assert!(read == whole, "read by another client");
    let read = readers[0].read_at(0, 1 << 20).await.expect("read");
    assert!(read == whole, "read through a handle that was open here");
    until("the other client hears of it", || async {
        (readers[1].read_at(0, 1 << 20).await.expect("read") == whole).then_some(())
    })
    .await;
    let read = source.read_at(0, 1 << 16).await.expect("its blocks are there");
    assert!(read == bytes(1, 1 << 16));
    let listing = client.list_page(path("/"), None, 10).await.expect("listed");
    assert_eq!(listing.entries.len(), 1, "nothing is left beside it");
    // What it became can be written on.
    let file = create(&other, "/0").await;
    file.append("more".into()).await.expect("taken");
    file.close().await.expect("closed");
    whole.extend(b"more");
    assert!(client.read(names[0].clone()).await.expect("read") == whole);
}

#[tokio::test]
async fn where_nobody_listens_the_error_names_the_address_and_what_to_check() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("an address").to_string();
    drop(free);
    let error = Client::connect([address.clone()], ClientOptions::default()).await;
    let error = error.err().expect("nobody is there");
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(
        error
            .message
            .starts_with(&format!("no master answers at {address}: "))
            && error
                .message
                .ends_with("Is `curvine-node` running there, and is --master (or CURVINE_MASTER) right?"),
        "{error}"
    );
}
