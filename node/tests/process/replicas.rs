//! Files of several replicas, whose workers stop, die and come back.

use bytes::Bytes;
use curvine_actors::client::{Client, ClientOptions, CreateOptions};
use curvine_protocol::master::AttrChange;
use curvine_protocol::number::to_usize;
use curvine_protocol::{CurvinePath, WorkerId};

use super::group::*;
use super::support::*;

const MIB: u64 = 1 << 20;

struct Cluster {
    // Dropped in this order.
    workers: Vec<Node>,
    _masters: Masters,
    client: Client,
}

impl Cluster {
    async fn start(workers: u32) -> Cluster {
        let masters = Masters::start(1);
        let client = masters.client().await;
        Cluster {
            workers: (1..=workers).map(|number| masters.worker(number)).collect(),
            _masters: masters,
            client,
        }
    }

    /// The process of a worker.
    async fn at(&self, id: WorkerId) -> usize {
        let status = self.client.status().await.expect("a master leads");
        let known = status.workers.iter().find(|worker| worker.id == id);
        let address = &known.expect("it is registered").address;
        let found = self
            .workers
            .iter()
            .position(|node| node.said("worker") == address);
        found.expect("it is ours")
    }

    /// Who has the only block of a file.
    async fn holders(&self) -> Vec<WorkerId> {
        let layout = self.client.locate(&path()).await.expect("it is there");
        layout.blocks[0].workers.clone()
    }
}

fn path() -> CurvinePath {
    CurvinePath::parse("/file").expect("a valid path")
}

fn path_of(number: u64) -> CurvinePath {
    CurvinePath::parse(&format!("/f{number}")).expect("a valid path")
}

fn content(seed: u64, len: u64) -> Bytes {
    (0..to_usize(len))
        .map(|at| (at as u64 * 31 + seed * 7 + (at as u64 >> 8)).to_le_bytes()[0])
        .collect()
}

#[test]
fn a_file_is_written_on_without_a_worker_that_stopped_and_its_replica_is_made_again_elsewhere() {
    run(async {
        let mut cluster = Cluster::start(3).await;
        let options = CreateOptions {
            replicas: 2,
            ..CreateOptions::default()
        };
        let file = cluster.client.create(&path(), options).await.expect("created");
        file.append(content(1, 4 * MIB)).await.expect("taken");
        file.sync().await.expect("on two disks");
        let before = cluster.holders().await;
        let [stopped, other] = before[..] else {
            panic!("two have it: {before:?}");
        };
        let (stopped, other) = (cluster.at(stopped).await, cluster.at(other).await);
        cluster.workers[stopped].signal(Signal::STOP);
        // Over what both have, and behind it.
        file.write_at(MIB, content(2, 5 * MIB)).await.expect("taken");
        file.sync().await.expect("on one disk");
        file.close().await.expect("closed");
        let mut expected = content(1, 4 * MIB)[..to_usize(MIB)].to_vec();
        expected.extend_from_slice(&content(2, 5 * MIB));
        let read = cluster.client.read(&path()).await.expect("read");
        assert!(read == expected, "as it was written");
        let third = 3 - stopped - other;
        until("another worker has it", async || {
            let holders = cluster.holders().await;
            let mut at = Vec::new();
            for holder in holders {
                at.push(cluster.at(holder).await);
            }
            at.contains(&third).then_some(())
        })
        .await;
        cluster.workers[other].kill();
        let read = cluster.client.read(&path()).await.expect("of the new replica");
        assert!(read == expected, "as it was written");
        // What the one that was stopped has is older, and served to nobody.
        cluster.workers[stopped].signal(Signal::CONT);
        for _ in 0..10 {
            let read = cluster.client.read(&path()).await.expect("read");
            assert!(read == expected, "as it was written");
        }
    });
}

#[test]
fn replicas_are_made_and_shed_until_there_are_as_many_as_the_file_is_given() {
    run(async {
        let cluster = Cluster::start(3).await;
        let file = cluster
            .client
            .create(&path(), CreateOptions::default())
            .await
            .expect("created");
        file.append(content(1, 2 * MIB)).await.expect("taken");
        file.close().await.expect("closed");
        for replicas in [2, 3, 1] {
            let change = AttrChange {
                replicas: Some(replicas),
                ..AttrChange::default()
            };
            cluster.client.set_attr(&path(), true, change).await.expect("set");
            until("there are as many", async || {
                let holders = cluster.holders().await;
                (holders.len() == usize::from(replicas)).then_some(())
            })
            .await;
            let read = cluster.client.read(&path()).await.expect("read");
            assert!(read == content(1, 2 * MIB), "as it was written");
        }
    });
}

#[test]
fn replicas_go_to_different_racks_also_when_they_are_made_again_or_are_too_many() {
    run(async {
        let masters = Masters::start(1);
        let client = masters.client().await;
        let mut workers = vec![masters.worker_at(1, "rack=a"), masters.worker_at(2, "rack=a")];
        let put = async |number: u64, replicas| {
            let path = path_of(number);
            let options = CreateOptions {
                replicas,
                ..CreateOptions::default()
            };
            let file = client.create(&path, options).await.expect("created");
            file.append(content(number, 100_000)).await.expect("taken");
            file.close().await.expect("closed");
        };
        // In which racks a file is, sorted.
        let racks = async |number: u64| {
            let layout = client.locate(&path_of(number)).await.expect("it is there");
            let status = client.status().await.expect("a master leads");
            let rack = |id: &WorkerId| {
                let worker = status.workers.iter().find(|worker| worker.id == *id);
                worker.expect("it is registered").labels.rack.clone()
            };
            let mut racks: Vec<String> = layout.blocks[0].workers.iter().map(rack).collect();
            racks.sort();
            racks
        };
        let until_in = async |number, expected: &[&str]| {
            until("it is in these racks", async || {
                (racks(number).await == expected).then_some(())
            })
            .await;
        };
        put(1, 2).await;
        assert_eq!(racks(1).await, ["a", "a"], "there is no other");
        workers.push(masters.worker_at(3, "rack=b"));
        for number in 2..8 {
            put(number, 2).await;
            assert_eq!(racks(number).await, ["a", "b"], "file {number}");
        }
        let set = async |number, replicas| {
            let change = AttrChange {
                replicas: Some(replicas),
                ..AttrChange::default()
            };
            client
                .set_attr(&path_of(number), true, change)
                .await
                .expect("set");
        };
        set(1, 3).await;
        until_in(1, &["a", "a", "b"]).await;
        set(1, 2).await;
        until_in(1, &["a", "b"]).await;
        put(9, 1).await;
        let first = racks(9).await;
        set(9, 2).await;
        until_in(9, &["a", "b"]).await;
        assert_eq!(first.len(), 1);
        workers.iter_mut().for_each(|worker| worker.stop());
    });
}

#[test]
fn what_is_written_goes_to_the_host_of_its_writer_and_is_read_on_that_of_its_reader() {
    run(async {
        let masters = Masters::start(1);
        let on_host = async |host: &str| {
            let options = ClientOptions::on_host(host);
            let connected = Client::connect(masters.addresses.clone(), options).await;
            connected.expect("a master leads")
        };
        let _workers: Vec<Node> = ["a", "b", "c"]
            .iter()
            .zip(1..)
            .map(|(host, number)| masters.worker_at(number, &format!("host={host}")))
            .collect();
        for (host, elsewhere) in [("a", "b"), ("b", "c"), ("c", "a")] {
            let (writer, reader) = (on_host(host).await, on_host(elsewhere).await);
            let status = writer.status().await.expect("a master leads");
            let named = |id: &WorkerId| {
                let worker = status.workers.iter().find(|worker| worker.id == *id);
                worker.expect("it is registered").labels.host.clone()
            };
            for number in 0..6 {
                let path = CurvinePath::parse(&format!("/{host}-{number}")).expect("a valid path");
                let replicated = CreateOptions {
                    replicas: 3,
                    ..CreateOptions::default()
                };
                let written = content(number, 1_000);
                let file = writer.create(&path, replicated).await.expect("created");
                file.append(written.clone()).await.expect("taken");
                file.close().await.expect("closed");
                for (client, at) in [(&writer, host), (&reader, elsewhere)] {
                    let layout = client.locate(&path).await.expect("it is there");
                    let hosts: Vec<String> = layout.blocks[0].workers.iter().map(named).collect();
                    assert_eq!((hosts.len(), &*hosts[0]), (3, at));
                    assert!(client.read(&path).await.expect("read") == written);
                }
                let path = CurvinePath::parse(&format!("/alone-{host}-{number}")).expect("a valid path");
                writer
                    .write(&path, content(number, 1_000))
                    .await
                    .expect("written");
                let layout = reader.locate(&path).await.expect("it is there");
                let hosts: Vec<String> = layout.blocks[0].workers.iter().map(named).collect();
                assert_eq!(hosts, [host]);
            }
        }
    });
}
