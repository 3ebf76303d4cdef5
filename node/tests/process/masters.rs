//! Three masters as processes: killed, restarted, wiped, while a client goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use curvine_actors::client::{Client, ClientOptions, CreateOptions};
use curvine_actors::kit::peer::Peer;
use curvine_actors::kit::{Ports, call};
use curvine_protocol::master::Lookup;
use curvine_protocol::{CallContext, ErrorKind, Node as At, NodeId};

use super::group::*;
use super::support::*;

/// A client that makes one directory after the other until it is told to stop. Every one must be made.
pub struct Making {
    stop: Arc<AtomicBool>,
    pub made: Arc<AtomicU32>,
    task: tokio::task::JoinHandle<Duration>,
}

impl Making {
    pub fn begin(client: Client, prefix: &'static str) -> Making {
        let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (told, count) = (stop.clone(), made.clone());
        let task = tokio::spawn(async move {
            let mut longest = Duration::ZERO;
            while !told.load(Ordering::Acquire) {
                let begun = Instant::now();
                let number = count.load(Ordering::Acquire);
                let made = client
                    .make_dir(path(&format!("{prefix}{number}")), 0o755, false)
                    .await;
                made.unwrap_or_else(|error| panic!("{prefix}{number}: {error}"));
                longest = longest.max(begun.elapsed());
                count.fetch_add(1, Ordering::AcqRel);
            }
            longest
        });
        Making { stop, made, task }
    }

    pub async fn more(&self) {
        let upto = self.made.load(Ordering::Acquire) + 20;
        until("more is made", async || {
            assert!(!self.task.is_finished(), "a change was refused");
            (self.made.load(Ordering::Acquire) >= upto).then_some(())
        })
        .await;
    }

    /// How many were made, and the longest that one took.
    pub async fn end(self) -> (u32, Duration) {
        self.stop.store(true, Ordering::Release);
        let longest = self.task.await.expect("no change was refused");
        (self.made.load(Ordering::Acquire), longest)
    }
}

pub async fn all_there(client: &Client, prefix: &str, count: u32) {
    for number in 0..count {
        let name = format!("{prefix}{number}");
        let found = client.lookup(&path(&name), false).await;
        found.unwrap_or_else(|error| panic!("{name} was acknowledged and is not there: {error}"));
    }
}

/// How often the leader is killed or stopped; `CURVINE_KILLS` says more for a longer run.
fn rounds() -> u32 {
    std::env::var("CURVINE_KILLS").map_or(3, |count| count.parse().expect("CURVINE_KILLS is a number"))
}

#[test]
fn leaders_are_stopped_in_order_and_hand_over_first() {
    run(async {
        let mut masters = Masters::start(3);
        let client = masters.client().await;
        let mut longest = Vec::new();
        for _ in 0..rounds() {
            let making = Making::begin(client.clone(), "d");
            making.more().await;
            let leads = leader(&client).await;
            let mut node = masters.nodes[leads].take().expect("it runs");
            node.stop();
            making.more().await;
            let (made, stall) = making.end().await;
            longest.push(stall);
            masters.start_again(leads);
            all_in_step(&client).await;
            all_there(&client, "d", made).await;
            delete_all(&client, "d", made).await;
        }
        percentiles("the leader was stopped: the longest change took", longest);
    });
}

async fn delete_all(client: &Client, prefix: &str, count: u32) {
    for number in 0..count {
        client
            .remove_dir(path(&format!("{prefix}{number}")))
            .await
            .expect("it is there");
    }
}

#[test]
fn leaders_are_killed_and_nothing_that_was_acknowledged_is_lost_and_no_client_sees_an_error() {
    run(async {
        let mut masters = Masters::start(3);
        let client = masters.client().await;
        let (mut longest, mut made) = (Vec::new(), 0);
        for round in 0..rounds() {
            if round > 0 {
                delete_all(&client, "d", made).await;
            }
            let making = Making::begin(client.clone(), "d");
            making.more().await;
            let leads = leader(&client).await;
            masters.kill(leads);
            making.more().await;
            masters.start_again(leads);
            all_in_step(&client).await;
            let stall;
            (made, stall) = making.end().await;
            longest.push(stall);
            all_there(&client, "d", made).await;
        }
        percentiles("the leader was killed: the longest change took", longest);
        // Any one of them has it all: it leads when the others follow it.
        let leads = leader(&client).await;
        masters.kill(leads);
        all_there(&client, "d", made).await;
    });
}

/// Whether a master says itself that a name is not there.
async fn denies(master: actix::Addr<Peer>, name: &'static str) -> bool {
    let lookup = Lookup {
        node: At::Path(path(name)),
        follow: false,
    };
    let context = CallContext {
        deadline_ms: 1_000,
        ..CallContext::default()
    };
    matches!(call(&master, lookup, context).await, Err(error) if error.kind == ErrorKind::NotFound)
}

/// How many connections to a port of this machine have brought something that the program did not read yet.
fn unread_connections(address: &str) -> usize {
    let (_, port) = address.rsplit_once(':').expect("it has a port");
    let local = format!(":{:04X}", port.parse::<u16>().expect("a number"));
    let sockets = std::fs::read_to_string("/proc/net/tcp").expect("it is there");
    let is_unread = |line: &&str| {
        // sl, local address, remote address, state, tx_queue:rx_queue
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1].ends_with(&local) && fields[3] == "01" && !fields[4].ends_with(":00000000")
    };
    sockets.lines().skip(1).filter(is_unread).count()
}

#[test]
fn a_leader_that_hangs_is_replaced_and_says_nothing_stale_when_it_goes_on() {
    actix_rt::System::new().block_on(async {
        let masters = Masters::start(3);
        let client = masters.client().await;
        let making = Making::begin(client.clone(), "d");
        making.more().await;
        let hung = leader(&client).await;
        let node = masters.nodes[hung].as_ref().expect("it runs");
        node.signal(Signal::STOP);
        making.more().await;
        client
            .make_dir(path("since"), 0o755, false)
            .await
            .expect("another leads");
        // What waits in its sockets is what it answers first.
        let peer = || {
            let address = masters.addresses[hung].clone();
            Peer::start(&actix_rt::Arbiter::current(), address, &Ports::system())
        };
        let waiting = unread_connections(&masters.addresses[hung]);
        let asked = actix_rt::spawn(futures::future::join_all(
            (0..20).map(|_| denies(peer(), "since")),
        ));
        until("the questions wait", async || {
            (unread_connections(&masters.addresses[hung]) >= waiting + 20).then_some(())
        })
        .await;
        node.signal(Signal::CONT);
        assert!(
            !asked.await.expect("answered").contains(&true),
            "it answered from a state of before"
        );
        let one = peer();
        let mut in_step = std::pin::pin!(all_in_step(&client));
        loop {
            tokio::select! {
                () = &mut in_step => break,
                denied = denies(one.clone(), "since") => {
                    assert!(!denied, "it answered from a state of before");
                }
            }
        }
        let (made, longest) = making.end().await;
        eprintln!("{made} directories over a hang of the leader; the longest took {longest:?}");
        all_there(&client, "d", made).await;
    });
}

#[test]
fn files_are_written_and_read_over_the_death_of_a_leader() {
    run(async {
        let mut masters = Masters::start(3);
        let worker = masters.scratch.path().join("worker");
        // Whoever follows is named alone: it says who leads.
        let follower = (leader(&masters.client().await).await + 1) % 3;
        let one = &masters.addresses[follower..=follower];
        let named = Client::connect(one.to_vec(), ClientOptions::default()).await;
        let named = named.expect("it says who leads");
        named
            .make_dir(path("named"), 0o755, false)
            .await
            .expect("the leader makes it");
        let _worker = Node::start(&[
            "--role",
            "worker",
            "--master",
            &one[0],
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            text(&worker),
        ]);
        let client = masters.client().await;
        let content = |number: u32| Bytes::from(vec![number.to_le_bytes()[0] + 1; 100_000]);
        let mut longest = Duration::ZERO;
        for number in 0..60 {
            if number == 20 {
                let leads = leader(&client).await;
                masters.kill(leads);
            }
            let begun = Instant::now();
            let name = path(&format!("f{number}"));
            let file = client
                .create(&name, CreateOptions::default())
                .await
                .expect("created");
            file.append(content(number)).await.expect("taken");
            file.close().await.expect("closed");
            longest = longest.max(begun.elapsed());
        }
        eprintln!("60 files over the death of a leader; the longest took {longest:?}");
        for number in 0..60 {
            let name = path(&format!("f{number}"));
            assert_eq!(
                client.read(name).await.expect("read"),
                content(number),
                "f{number}"
            );
        }
    });
}

#[test]
fn a_group_grows_from_one_master_and_shrinks_again_while_a_client_goes_on() {
    run(async {
        let mut masters = Masters::named(3);
        masters.nodes[0] = Some(masters.starting_among(0, 1).ready());
        let client = masters.client().await;
        let making = Making::begin(client.clone(), "d");
        making.more().await;
        client.take_snapshot().await.expect("taken");

        let stranger = client.add_master(NodeId(2), &masters.addresses[1]).await;
        let error = stranger.expect_err("nobody is there");
        assert!(error.message.contains("start it first"), "{error}");
        for number in 1..3 {
            masters.join(&client, number, 3).await;
            making.more().await;
        }
        let again = client.add_master(NodeId(2), &masters.addresses[1]).await;
        assert_eq!(again.expect_err("it is there").kind, ErrorKind::AlreadyExists);
        all_in_step(&client).await;
        for to in [1, 3, 2] {
            client
                .transfer_leadership(Some(NodeId(to)))
                .await
                .expect("it leads");
            making.more().await;
            assert_eq!(leader(&client).await as u64 + 1, to);
        }

        // Two of three go on without the first.
        masters.kill(0);
        making.more().await;
        client.remove_master(NodeId(1)).await.expect("it does not lead");
        let refused = client.remove_master(NodeId(2)).await.expect_err("it leads");
        assert!(refused.message.contains("transfer-leader"), "{refused}");
        assert_eq!(
            client.remove_master(NodeId(9)).await.expect_err("unknown").kind,
            ErrorKind::NotFound
        );
        making.more().await;
        let left: Vec<u64> = statuses(&client).await.iter().map(|master| master.id.0).collect();
        assert_eq!(left, [2, 3]);
        let (made, _) = making.end().await;
        all_there(&client, "d", made).await;
    });
}

#[test]
fn the_master_that_was_asked_for_leads_at_once_also_where_nothing_happens() {
    run(async {
        let masters = Masters::start(3);
        let client = masters.client().await;
        let mut longest = Vec::new();
        for round in 0..6 {
            for to in [1, 2, 1, 3, 2, 3] {
                let begun = Instant::now();
                client
                    .transfer_leadership(Some(NodeId(to)))
                    .await
                    .expect("it is in step");
                assert_eq!(leader(&client).await as u64 + 1, to, "round {round}");
                longest.push(begun.elapsed());
            }
        }
        let worst = longest.iter().max().copied();
        percentiles("another master was asked to lead: it took", longest);
        assert!(worst < Some(Duration::from_secs(2)), "{worst:?}");
    });
}

#[test]
fn a_master_that_lost_its_disk_catches_up_before_it_votes() {
    run(async {
        let mut masters = Masters::start(3);
        let client = masters.client().await;
        let making = Making::begin(client.clone(), "d");
        making.more().await;
        let wiped = (leader(&client).await + 1) % 3;
        masters.kill(wiped);
        std::fs::remove_dir_all(masters.directory(wiped)).expect("its directory goes");
        making.more().await;
        masters.start_again(wiped);
        all_in_step(&client).await;
        let (made, _) = making.end().await;
        let leads = leader(&client).await;
        masters.kill(leads);
        all_there(&client, "d", made).await;
        client
            .make_dir(path("after"), 0o755, false)
            .await
            .expect("two of three are a majority");
    });
}

#[test]
fn a_master_that_is_left_alone_answers_only_who_asks_for_stale_reads() {
    run(async {
        let mut masters = Masters::named(4);
        let starting: Vec<_> = (0..3).map(|number| masters.starting_among(number, 3)).collect();
        for (number, node) in starting.into_iter().enumerate() {
            masters.nodes[number] = Some(node.ready());
        }
        let patience = |stale_reads| ClientOptions {
            retry_for: Duration::from_secs(2),
            stale_reads,
            ..ClientOptions::default()
        };
        let connect = |addresses: &[String], stale| Client::connect(addresses.to_vec(), patience(stale));
        let client = connect(&masters.addresses[..3], false)
            .await
            .expect("a master leads");
        client.make_dir(path("d"), 0o755, false).await.expect("made");
        client
            .set_xattr(path("d"), "user.x", b"y", false, false)
            .await
            .expect("set");
        let made = client.stat(path("d")).await.expect("there");
        all_in_step(&client).await;
        let leads = leader(&client).await;
        masters.kill(leads);
        masters.kill((leads + 1) % 3);

        let begun = Instant::now();
        let error = client.stat(path("d")).await.expect_err("nobody leads");
        let kinds = [ErrorKind::NotLeader, ErrorKind::Unreachable, ErrorKind::Timeout];
        assert!(kinds.contains(&error.kind), "{:?}: {error}", error.kind);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());

        let stale = connect(&masters.addresses[..3], true).await.expect("one answers");
        for _ in 0..10 {
            assert_eq!(stale.stat(path("d")).await.as_ref(), Ok(&made));
        }
        assert_eq!(stale.xattr(path("d"), "user.x").await.as_deref(), Ok(&b"y"[..]));
        assert_eq!(stale.path(made.inode).await, Ok(path("d")));
        let listing = stale.list_page(path(""), None, 10).await;
        let names: Vec<_> = listing
            .expect("listed")
            .entries
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        assert_eq!(names, ["d"]);
        let none = stale.stat(path("nothing")).await.expect_err("it never was");
        assert_eq!(none.kind, ErrorKind::NotFound);
        let refused = stale
            .make_dir(path("e"), 0o755, false)
            .await
            .expect_err("nobody leads");
        assert!(kinds.contains(&refused.kind), "{:?}: {refused}", refused.kind);

        // One that no leader has ever brought up has nothing to say.
        let _empty = masters.starting_among(3, 4);
        let one = &masters.addresses[3..];
        until("it says that it knows nothing", async || {
            let error = connect(one, true)
                .await
                .map(|_| ())
                .expect_err("it knows nothing");
            (error.kind == ErrorKind::NotLeader).then_some(())
        })
        .await;
    });
}
