//! Power cuts in a group of three masters, each with a disk of its own: of one, of two, of all at once, while clients go on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use curvine_actors::client::{Client, ClientOptions};
use curvine_protocol::master::RenameMode;
use curvine_protocol::{CurvinePath, Error, ErrorKind, NodeId, Result};
use futures::TryStreamExt;
use tokio::task::JoinHandle;

use super::group::*;
use super::loop_disk::*;
use super::masters::{Making, all_there};
use super::support::*;

const MASTERS: usize = 3;
const CLIENTS: usize = 6;
const XATTR: &str = "user.value";
/// Names that a client keeps, about.
const KEPT: usize = 24;

/// The directories in a client's own, each with or without a value.
type Names = BTreeMap<String, Option<u64>>;

#[derive(Debug)]
enum Change {
    Make(String),
    Set(String, u64),
    /// The other is replaced if it is there.
    Rename(String, String),
    Remove(String),
}

/// What a client knows of its directory, which nobody else changes.
#[derive(Clone, Debug, Default)]
struct Known {
    names: Names,
    changes: u64,
    unanswered: u64,
}

impl Known {
    /// The next change, and the names after it.
    fn next(&mut self) -> (Change, Names) {
        self.changes += 1;
        let (number, mut after) = (self.changes, self.names.clone());
        let nth = |nth: usize| self.names.keys().nth(nth).cloned();
        let (first, last) = (nth(0), self.names.keys().next_back().cloned());
        let change = match (number % 4, first, last) {
            (1, _, Some(last)) => {
                after.insert(last.clone(), Some(number));
                Change::Set(last, number)
            }
            (2, Some(first), Some(last)) if first != last => {
                let to = match number % 8 {
                    2 => last,
                    _ => format!("{number:08}-renamed"),
                };
                let moved = after.remove(&first).expect("it is the first");
                after.insert(to.clone(), moved);
                Change::Rename(first, to)
            }
            (3, Some(first), _) if self.names.len() > KEPT => {
                after.remove(&first);
                Change::Remove(first)
            }
            _ => {
                let name = format!("{number:08}");
                after.insert(name.clone(), None);
                Change::Make(name)
            }
        };
        (change, after)
    }
}

/// The directory of a client, or a name in it.
fn place(client: usize, name: &str) -> CurvinePath {
    path(&format!("c{client}/{name}"))
}

async fn carry_out(client: &Client, number: usize, change: &Change) -> Result<()> {
    let place = |name: &str| place(number, name);
    match change {
        Change::Make(name) => client.make_dir(place(name), 0o755, false).await.map(|_| ()),
        Change::Set(name, value) => {
            let value = value.to_be_bytes();
            client.set_xattr(place(name), XATTR, &value, false, false).await
        }
        Change::Rename(from, to) => {
            let renamed = client.rename(place(from), place(to), RenameMode::Replace, false);
            renamed.await.map(|_| ())
        }
        Change::Remove(name) => client.remove_dir(place(name)).await,
    }
}

/// Whether it is for want of masters, and says nothing about the change.
fn is_for_want_of_masters(error: &Error) -> bool {
    matches!(
        error.kind,
        ErrorKind::NotLeader
            | ErrorKind::Unreachable
            | ErrorKind::Timeout
            | ErrorKind::Overloaded
            | ErrorKind::Stopping
    )
}

/// Clients that change their directories until they are told to stop. One that has no answer looks what became of it.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Known>>,
}

impl Load {
    fn begin(clients: &[Client], known: &[Known]) -> Load {
        let (stop, acknowledged): (Arc<AtomicBool>, Arc<AtomicU64>) = Default::default();
        let one = |(number, (client, known)): (usize, (&Client, &Known))| {
            let (client, mut known) = (client.clone(), known.clone());
            let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Acquire) {
                    let (change, after) = known.next();
                    match carry_out(&client, number, &change).await {
                        Ok(()) => {
                            known.names = after;
                            acknowledged.fetch_add(1, Ordering::AcqRel);
                        }
                        Err(error) if is_for_want_of_masters(&error) => {
                            let found = until("a master says what there is", async || {
                                names_of(&client, number).await
                            })
                            .await;
                            assert!(
                                found == known.names || found == after,
                                "client {number} did {change:?}, knows {known:?}\nand finds {found:?}"
                            );
                            known.names = found;
                            known.unanswered += 1;
                        }
                        Err(error) => panic!("client {number}: {change:?}: {error}; it knows {known:?}"),
                    }
                }
                known
            })
        };
        let tasks = clients.iter().zip(known).enumerate().map(one).collect();
        Load {
            stop,
            acknowledged,
            tasks,
        }
    }

    /// Waits until so many more changes are acknowledged.
    async fn more(&self, count: u64) {
        let upto = self.acknowledged.load(Ordering::Acquire) + count;
        until("more is acknowledged", async || {
            (self.acknowledged.load(Ordering::Acquire) >= upto).then_some(())
        })
        .await;
    }

    /// What each client knows, and how many changes were acknowledged.
    async fn end(self) -> (Vec<Known>, u64) {
        self.stop.store(true, Ordering::Release);
        let mut known = Vec::new();
        for task in self.tasks {
            known.push(task.await.expect("every answer fits what the client knows"));
        }
        (known, self.acknowledged.load(Ordering::Acquire))
    }
}

/// None for want of masters.
async fn names_of(client: &Client, number: usize) -> Option<Names> {
    let unanswered = |error: Error| {
        assert!(is_for_want_of_masters(&error), "client {number}: {error}");
        None
    };
    let listed = client.list(place(number, "")).try_collect::<Vec<_>>().await;
    let mut names = Names::new();
    let listed: Vec<_> = match listed {
        Ok(listed) => listed,
        Err(error) => return unanswered(error),
    };
    for entry in listed {
        let value = match client.xattr(place(number, &entry.name), XATTR).await {
            Ok(value) => Some(u64::from_be_bytes(
                value.try_into().expect("eight bytes were set"),
            )),
            Err(error) if error.kind == ErrorKind::NoAttribute => None,
            Err(error) => return unanswered(error),
        };
        names.insert(entry.name, value);
    }
    Some(names)
}

/// Every client's directory is what it knows.
async fn check(client: &Client, round: usize, known: &[Known]) {
    for (number, known) in known.iter().enumerate() {
        let found = names_of(client, number).await.expect("a master leads");
        assert!(
            found == known.names,
            "round {round}: client {number} knows {known:?}\nand finds {found:?}"
        );
    }
}

async fn lead(client: &Client, number: usize) {
    let id = NodeId(number as u64 + 1);
    until("it leads", async || {
        client.transfer_leadership(Some(id)).await.ok()?;
        (leader(client).await == number).then_some(())
    })
    .await;
}

/// Whose power goes: of one, of two, of all; with the leader among them, and without.
fn victims(round: usize, leader: usize) -> Vec<usize> {
    let first = leader + usize::from(round / 3 % 2 == 1);
    let count = round % 3 + 1;
    (first..first + count).map(|number| number % MASTERS).collect()
}

/// Half of the clients give up soon, and so do not know; the others go on through a cut.
async fn clients_of(masters: &Masters) -> Vec<Client> {
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let retry_for = match number % 2 {
            0 => Duration::from_millis(300),
            _ => 2 * DEADLINE,
        };
        let options = ClientOptions {
            retry_for,
            ..ClientOptions::default()
        };
        let client = Client::connect(masters.addresses.clone(), options).await;
        clients.push(client.expect("a master leads"));
    }
    clients
}

/// A disk for each master, and the masters, which are to end first. None where there can be no such disks.
fn start_on_disks(scratch: &Path) -> Option<(Vec<Option<LoopDisk>>, Masters)> {
    own_mounts();
    let disk = |id| LoopDisk::new(scratch, &format!("disk-{id}"), "a power cut of masters");
    let disks: Option<Vec<_>> = (1..=MASTERS).map(disk).collect();
    let disks = disks?;
    let mut masters = Masters::named(MASTERS);
    masters.directories = disks.iter().map(|disk| disk.path().join("data")).collect();
    masters.start_all_of(&[0, 1, 2]);
    Some((disks.into_iter().map(Some).collect(), masters))
}

#[test]
fn a_leader_whose_disk_fails_is_replaced_and_no_client_sees_an_error() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let Some((mut disks, mut masters)) = start_on_disks(scratch.path()) else {
        return;
    };
    run(async {
        let client = masters.client().await;
        let making = [
            Making::begin(client.clone(), "a"),
            Making::begin(masters.client().await, "b"),
            Making::begin(masters.client().await, "c"),
        ];
        making[0].more().await;
        let failed = leader(&client).await;
        let disk = disks[failed].take().expect("it is mounted");
        disk.cut_power();
        for one in &making {
            one.more().await;
        }
        // It is asked first, and passes nothing on.
        let mut named = masters.addresses.clone();
        named.rotate_left(failed);
        let asking = Client::connect(named, ClientOptions::default()).await;
        let asking = asking.expect("another leads");
        let made = asking.make_dir(path("d0"), 0o755, false).await;
        made.expect("another leads");
        masters.kill(failed);
        disks[failed] = Some(disk.mounted_again());
        masters.start_again(failed);
        all_in_step(&client).await;
        let mut counts = Vec::new();
        for one in making {
            counts.push(one.end().await.0);
        }
        lead(&client, failed).await;
        for (prefix, count) in ["a", "b", "c", "d"].iter().zip(counts.into_iter().chain([1])) {
            all_there(&client, prefix, count).await;
        }
    });
}

#[test]
fn what_was_acknowledged_is_there_after_power_cuts_of_one_two_and_all_masters() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let Some((mut disks, mut masters)) = start_on_disks(scratch.path()) else {
        return;
    };
    run(async {
        let watching = masters.client().await;
        let clients = clients_of(&masters).await;
        for number in 0..CLIENTS {
            let made = watching.make_dir(place(number, ""), 0o755, false).await;
            made.expect("nothing is there yet");
        }
        let mut known = vec![Known::default(); CLIENTS];
        let (mut acknowledged, mut stalls) = (0, Vec::new());
        for round in 0..rounds() {
            let load = Load::begin(&clients, &known);
            load.more(60 + (round * 37 % 200) as u64).await;
            let victims = victims(round, leader(&watching).await);
            // A log that is cut short while the power goes, now and then.
            let snapshot = (round % 4 == 1).then(|| {
                let client = watching.clone();
                tokio::spawn(async move { client.take_snapshot().await })
            });
            let cut_at = Instant::now();
            for number in &victims {
                disks[*number].as_ref().expect("it is mounted").cut_power();
            }
            for number in &victims {
                masters.kill(*number);
            }
            if victims.len() == 1 {
                load.more(20).await;
            }
            for number in &victims {
                let disk = disks[*number].take().expect("it was mounted");
                disks[*number] = Some(disk.mounted_again());
            }
            masters.start_all_of(&victims);
            load.more(20).await;
            stalls.push(cut_at.elapsed());
            if let Some(snapshot) = snapshot {
                // Whether one was taken does not matter.
                let _ = snapshot.await.expect("no panic");
            }
            let (now, count) = load.end().await;
            known = now;
            acknowledged += count;
            all_in_step(&watching).await;
            // It is one that lost its power that says what there is.
            lead(&watching, victims[round % victims.len()]).await;
            check(&watching, round, &known).await;
        }
        for number in 0..MASTERS {
            lead(&watching, number).await;
            check(&watching, rounds(), &known).await;
        }
        let unanswered: u64 = known.iter().map(|known| known.unanswered).sum();
        eprintln!(
            "{} cuts, {acknowledged} changes acknowledged and kept, {unanswered} without an answer",
            rounds()
        );
        percentiles("the power was cut: restarts and 20 more changes took", stalls);
    });
}
