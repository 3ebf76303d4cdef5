//! The client against masters and workers that fail, under virtual time.

#![expect(
    clippy::disallowed_methods,
    reason = "a test measures, and starts what it needs where it is"
)]

mod world;

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use curvine_protocol::number::to_usize;
use curvine_protocol::{CurvinePath, Error, ErrorKind, FILE_BYTES_MAX, Node, Result};
use tokio::time::{Instant, timeout};

use super::file::PIECE_BYTES;
use super::file::WINDOW;
use super::{Client, ClientOptions, CreateOptions, OpenFile};
use crate::kit::until::until;
use world::{BLOCK_BYTES, FILE, Fate, World, run};

fn path(text: &str) -> CurvinePath {
    CurvinePath::parse(text).expect("a valid path")
}

fn refuse(kind: ErrorKind) -> Fate {
    Fate::Refuse(Error::new(kind, format!("{kind:?} for the test")))
}

/// Neither zero nor the same everywhere.
fn content(len: usize) -> Bytes {
    (0..len).map(|i| 1 + (i % 251).to_le_bytes()[0]).collect()
}

async fn create(client: &Client, replicas: u8) -> OpenFile {
    let options = CreateOptions {
        replicas,
        ..CreateOptions::default()
    };
    client.create(path("/f"), options).await.expect("created")
}

/// A file with this content, closed.
async fn written(client: &Client, replicas: u8, bytes: Bytes) {
    let file = create(client, replicas).await;
    file.append(bytes).await.expect("taken");
    file.close().await.expect("closed");
}

// ------------------------------------------------------------------------------------------------------- masters

#[test]
fn a_lost_reply_is_asked_for_again_under_the_same_sequence_and_takes_effect_once() {
    run(|world| async move {
        let client = world.client();
        world.fate("MakeDir", [Fate::LoseReply, Fate::Pass]);
        client.make_dir(path("/d"), 0o755, false).await.expect("made");
        client.make_dir(path("/e"), 0o755, false).await.expect("made");
        assert_eq!(world.state().directories_made, 2);
        let sequences: Vec<u64> = world.seen("MakeDir").iter().map(|seen| seen.sequence).collect();
        assert_eq!(sequences, [1, 1, 2]);
    });
}

#[test]
fn the_leader_that_a_refusal_names_is_asked_next_and_from_then_on() {
    run(|world| async move {
        let client = world.client_of(&["m1", "m2", "m3"]);
        world.fate(
            "MakeDir",
            [
                Fate::Refuse(Error::not_leader(Some("m3".to_owned()))),
                Fate::Refuse(Error::not_leader(None)),
            ],
        );
        let lifting = async {
            until("two were asked", || world.seen("MakeDir").len() >= 2).await;
            world.state().fates.clear();
        };
        let made = client.make_dir(path("/d"), 0o755, false);
        let (made, ()) = tokio::join!(made, lifting);
        made.expect("made");
        client.make_dir(path("/e"), 0o755, false).await.expect("made");
        let asked: Vec<&str> = world.seen("MakeDir").iter().map(|seen| seen.at).collect();
        assert_eq!(
            asked,
            ["m1", "m3", "m2", "m3", "m3"],
            "m3 and m2 named nobody: after a pause the next in turn, who then leads"
        );
    });
}

#[test]
fn an_operation_that_nobody_answers_ends_within_the_retry_time_and_one_deadline() {
    run(|world| async move {
        let client = world.client();
        world.fate("MakeDir", [Fate::LoseReply]);
        let begun = Instant::now();
        let error = client
            .make_dir(path("/d"), 0o755, false)
            .await
            .expect_err("no answer");
        assert_eq!(error.kind, ErrorKind::Timeout);
        // And the pause between two tries.
        let limit = ClientOptions::default().retry_for + Duration::from_secs(31);
        assert!(begun.elapsed() <= limit, "{:?}", begun.elapsed());
    });
}

#[test]
fn a_commit_that_nobody_answered_is_asked_for_again_under_its_number() {
    run(|world| async move {
        let client = world.client();
        let file = create(&client, 1).await;
        file.append(content(100_000)).await.expect("taken");
        world.fate("CommitFile", [Fate::LoseReply]);
        let error = file.flush().await.expect_err("nobody answers");
        assert_eq!(error.kind, ErrorKind::Timeout);
        world.state().fates.clear();
        file.flush().await.expect("it was made");
        let mut numbers: Vec<u64> = world
            .seen("CommitFile")
            .iter()
            .map(|seen| seen.sequence)
            .collect();
        numbers.dedup();
        assert_eq!(numbers.len(), 1, "{numbers:?}");
        file.append(content(5)).await.expect("taken");
        file.close().await.expect("closed");
        assert_eq!(world.committed().len(), 100_005);
    });
}

#[test]
fn a_definite_refusal_is_the_answer_at_once() {
    run(|world| async move {
        let client = world.client();
        world.fate("MakeDir", [refuse(ErrorKind::AlreadyExists)]);
        let error = client
            .make_dir(path("/d"), 0o755, false)
            .await
            .expect_err("refused");
        assert_eq!(error.kind, ErrorKind::AlreadyExists);
        assert_eq!(world.seen("MakeDir").len(), 1);
    });
}

// --------------------------------------------------------------------------------------------------------- reads

#[test]
fn bytes_that_cannot_be_trusted_are_taken_from_another_replica() {
    for fate in [
        Fate::Damage,
        Fate::TooMany,
        Fate::Unsummed,
        refuse(ErrorKind::Unreachable),
    ] {
        run(|world| async move {
            let client = world.client();
            let bytes = content(200_000);
            written(&client, 2, bytes.clone()).await;
            world.fate_at(1, "ReadBlock", [fate.clone()]);
            assert_eq!(client.read(FILE).await.expect("read"), bytes, "{fate:?}");
            let asked: Vec<&str> = world.seen("ReadBlock").iter().map(|seen| seen.at).collect();
            assert_eq!(asked, ["worker 1", "worker 2"], "{fate:?}");
        });
    }
}

#[test]
fn a_worker_whose_bytes_are_wrong_is_told_and_asked_again_when_nobody_else_has_them() {
    run(|world| async move {
        let client = world.client();
        written(&client, 1, content(200_000)).await;
        world.fate_at(1, "ReadBlock", [Fate::Damage, Fate::Pass]);
        assert_eq!(client.read(FILE).await.expect("read"), content(200_000));
        let asked = world
            .state()
            .seen
            .iter()
            .map(|seen| seen.call)
            .collect::<Vec<_>>();
        assert!(
            asked.ends_with(&["ReadBlock", "SuspectBlock", "ReadBlock"]),
            "{asked:?}"
        );
    });
}

#[test]
fn a_worker_that_does_not_answer_is_asked_after_one_that_has_the_same_bytes() {
    run(|world| async move {
        let client = world.client();
        let bytes = content(200_000);
        written(&client, 2, bytes.clone()).await;
        world.fate_at(1, "ReadBlock", [Fate::LoseReply]);
        let begun = Instant::now();
        assert_eq!(client.read(path("/f")).await.expect("the other has it"), bytes);
        assert_eq!(client.read(path("/f")).await.expect("and is asked first"), bytes);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    });
}

#[test]
fn bytes_that_every_replica_has_wrong_are_an_error_and_nothing_else() {
    run(|world| async move {
        let client = world.client();
        written(&client, 2, content(200_000)).await;
        world.fate_at(1, "ReadBlock", [Fate::Damage]);
        world.fate_at(2, "ReadBlock", [Fate::Damage]);
        let error = client.read(FILE).await.expect_err("nothing to trust");
        assert_eq!(error.kind, ErrorKind::Corrupt);
        assert_eq!(
            error.message,
            "block 1 from worker 2: the chunk at offset 0 fails its checksum"
        );
    });
}

#[test]
fn a_block_that_nobody_serves_is_an_error_within_the_retry_time() {
    run(|world| async move {
        let client = world.client();
        written(&client, 1, content(1_000)).await;
        world.fate_at(1, "ReadBlock", [refuse(ErrorKind::NotFound)]);
        let begun = Instant::now();
        let error = client.read(FILE).await.expect_err("nobody has it");
        assert_eq!(error.kind, ErrorKind::Lost);
        assert!(begun.elapsed() <= ClientOptions::default().retry_for + Duration::from_secs(2));
    });
}

#[test]
fn a_reader_that_stays_open_follows_what_others_write() {
    run(|world| async move {
        let (reader, writer) = (world.client(), world.client());
        written(&writer, 1, content(1_000)).await;
        let open = reader.open(FILE).await.expect("open");
        assert_eq!(open.read_at(0, 10_000).await.expect("read"), content(1_000));
        // The file is replaced: its old blocks are gone from workers.
        written(&writer, 1, content(3_000)).await;
        world.state().blocks.retain(|(_, id), _| id.0 != 1);
        assert_eq!(open.read_at(0, 10_000).await.expect("read"), content(3_000));
        assert_eq!(open.size_now(), 3_000);
    });
}

#[test]
fn a_long_read_asks_for_a_bounded_part_at_a_time() {
    run(|world| async move {
        let client = world.client();
        let bytes = content(100 << 20);
        written(&client, 1, bytes.clone()).await;
        world.state().in_flight_max = 0;
        assert_eq!(client.read(FILE).await.expect("read"), bytes);
        let seen = world.state().in_flight_max;
        assert!(seen <= 16, "{seen} reads at once");
    });
}

// -------------------------------------------------------------------------------------------------------- writes

#[test]
fn a_long_write_has_a_bounded_part_on_its_way() {
    run(|world| async move {
        let client = world.client();
        let file = create(&client, 1).await;
        world.open.send_replace(false);
        world.state().in_flight_max = 0;
        let bytes = content(40 << 20);
        let stuck = timeout(Duration::from_secs(10), file.append(bytes.clone())).await;
        assert!(stuck.is_err(), "workers do not answer, so the write waits");
        assert_eq!(world.state().in_flight_max, WINDOW);
        let largest = world.seen("WriteBlock").iter().map(|seen| seen.body_bytes).max();
        assert_eq!(largest, Some(PIECE_BYTES));
        // It was given up in the middle: what was taken is a prefix.
        world.open.send_replace(true);
        let attr = file.close().await.expect("closed");
        let taken = world.committed();
        assert_eq!(attr.size_bytes, taken.len() as u64);
        assert_eq!(taken, bytes[..taken.len()]);
    });
}

#[test]
fn a_worker_that_comes_back_in_time_has_it_all() {
    run(|world| async move {
        let client = world.client();
        let file = create(&client, 1).await;
        let bytes = content(20 << 20);
        world.fate_at(1, "WriteBlock", [refuse(ErrorKind::Unreachable)]);
        world.fate_at(1, "SealBlock", [Fate::LoseReply, Fate::Pass]);
        let lifting = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            world.state().fates.remove(&("WriteBlock", 1));
        };
        let writing = async {
            file.append(bytes.clone()).await?;
            file.close().await
        };
        let (closed, ()) = tokio::join!(writing, lifting);
        closed.expect("closed");
        assert_eq!(world.committed(), bytes);
    });
}

#[test]
fn a_worker_that_stays_away_fails_the_file_until_it_is_closed_and_nothing_is_committed() {
    run(|world| async move {
        let client = world.client();
        written(&client, 1, content(1_000)).await;
        let file = client.open_for_write(FILE, false).await.expect("open");
        world.fate_at(1, "WriteBlock", [refuse(ErrorKind::Unreachable)]);
        file.append(content(500)).await.expect("taken");
        let first = file.flush().await.expect_err("the worker is away");
        assert_eq!(
            first.message,
            "writing to worker 1: Unreachable for the test; the file has 1000 bytes now"
        );
        world.state().fates.clear();
        let committed = file.read_at(0, 2_000).await;
        assert_eq!(committed, Ok(content(1_000)), "what is lost is behind the end");
        for again in [
            file.append(content(1)).await.map(drop),
            file.flush().await.map(drop),
            file.sync().await.map(drop),
            file.close().await.map(drop),
        ] {
            assert_eq!(
                again,
                Err(first.clone()),
                "workers answer again, but bytes were lost"
            );
        }
        assert_eq!(world.committed(), content(1_000));
        assert!(
            !world.state().file.as_ref().expect("there").leased,
            "closed all the same"
        );
        assert_eq!((file.size_now(), file.close().await.map(drop)), (1_000, Ok(())));
        file.append(content(500)).await.expect("a new lease");
        file.close().await.expect("closed");
        assert_eq!(
            world.committed(),
            [&content(1_000)[..], &content(500)[..]].concat()
        );
    });
}

#[test]
fn what_is_kept_of_a_write_that_fails_is_read_before_its_writer_closes_the_file() {
    run(|world| async move {
        let client = world.client();
        written(&client, 1, content(1_000)).await;
        let file = client.open_for_write(FILE, false).await.expect("open");
        let reader = client.open(FILE).await.expect("open");
        let pieces = [Fate::Pass, refuse(ErrorKind::NoSpace)];
        world.fate_at(1, "WriteBlock", pieces.into_iter().chain([Fate::Pass]));
        file.append(content(PIECE_BYTES)).await.expect("taken");
        let _ = file.append(content(PIECE_BYTES)).await;
        let early = reader.read_at(0, 10).await.map_err(|error| error.kind);
        assert_eq!(early, Err(ErrorKind::NoSpace), "its writer does not know yet");
        let lineage = file.lineage();
        let error = file.flush().await.expect_err("no room");
        assert_eq!(error.kind, ErrorKind::NoSpace);
        let kept = [content(1_000), content(PIECE_BYTES)].concat();
        let read = reader.read_at(0, kept.len() as u64 + 10).await;
        assert_eq!(read.expect("readable"), kept);
        assert_eq!(world.committed(), kept);
        assert_eq!(reader.size_now(), kept.len() as u64);
        assert!(
            file.lineage() > lineage,
            "pages of what was lost are not the file's"
        );
        assert_eq!(file.close().await.map(drop), Err(error));
    });
}

#[test]
fn bytes_that_a_failed_write_may_have_replaced_are_not_read_before_the_file_is_closed() {
    run(|world| async move {
        let client = world.client();
        written(&client, 1, content(1_000)).await;
        let file = client.open_for_write(FILE, false).await.expect("open");
        let reader = client.open(FILE).await.expect("open");
        world.fate_at(1, "WriteBlock", [refuse(ErrorKind::NoSpace)]);
        file.write_at(400, content(100)).await.expect("taken");
        let error = file.flush().await.expect_err("no room");
        assert_eq!(error.kind, ErrorKind::NoSpace);
        for (offset_bytes, len_bytes) in [(0, 1_000), (399, 2), (499, 1)] {
            assert_eq!(reader.read_at(offset_bytes, len_bytes).await, Err(error.clone()));
        }
        assert_eq!(
            reader.read_at(0, 400).await.expect("as it was"),
            content(1_000)[..400]
        );
        assert_eq!(
            reader.read_at(500, 500).await.expect("as it was"),
            content(1_000)[500..]
        );
        assert_eq!(file.close().await.map(drop), Err(error));
        assert_eq!(reader.read_at(0, 1_000).await.expect("as it was"), content(1_000));
    });
}

#[test]
fn a_small_file_that_a_full_worker_refuses_is_an_error_and_not_empty_by_surprise() {
    run(|world| async move {
        let client = world.client();
        let file = create(&client, 1).await;
        world.fate_at(1, "PutBlock", [refuse(ErrorKind::NoSpace)]);
        file.append(content(10)).await.expect("taken");
        let error = file.close().await.expect_err("no room");
        assert_eq!(error.kind, ErrorKind::NoSpace);
        assert_eq!(world.seen("PutBlock").len(), 1, "a full disk is not asked again");
        assert_eq!(world.committed(), b"");
    });
}

#[test]
fn a_write_that_fails_leaves_what_was_committed_before_readable() {
    for call in ["WriteBlock", "SealBlock"] {
        run(|world| async move {
            let (client, reader) = (world.client(), world.client());
            written(&client, 2, content(1_000)).await;
            let file = client.open_for_write(FILE, false).await.expect("open");
            for worker in [1, 2] {
                world.fate_at(worker, call, [refuse(ErrorKind::NoSpace)]);
            }
            file.append(content(500)).await.expect("taken");
            let error = file.close().await.expect_err("no room");
            assert_eq!(error.kind, ErrorKind::NoSpace);
            assert!(
                error.message.ends_with("; the file has 1000 bytes now"),
                "{error}"
            );
            world.state().fates.clear();
            assert_eq!(reader.read(FILE).await.expect("readable"), content(1_000));
            assert_eq!(client.read(FILE).await.expect("readable"), content(1_000));
            // What workers have of it never shows, not even in a hole.
            let file = client.open_for_write(FILE, false).await.expect("open");
            file.write_at(2_000, content(10)).await.expect("taken");
            file.close().await.expect("closed");
            let expected = [&content(1_000)[..], &[0; 1_000], &content(10)].concat();
            assert_eq!(reader.read(FILE).await.expect("readable"), expected);
        });
    }
}

#[test]
fn what_workers_have_of_a_write_that_all_refuse_is_kept_up_to_the_first_byte_that_is_not_there() {
    let mib = |count: usize| count * PIECE_BYTES;
    // Which pieces of 20 are refused, and how much is kept. Blocks have 16.
    for (refused, kept) in [(3, mib(3)), (0, 0), (15, mib(15)), (16, mib(16)), (18, mib(18))] {
        run(|world| async move {
            let client = world.client();
            let file = create(&client, 2).await;
            let fates = (0..20).map(|piece| match piece == refused {
                true => refuse(ErrorKind::NoSpace),
                false => Fate::Pass,
            });
            for worker in [1, 2] {
                world.fate_at(worker, "WriteBlock", fates.clone().chain([Fate::Pass]));
            }
            let bytes = content(mib(20));
            let _ = file.append(bytes.clone()).await;
            let error = file.sync().await.expect_err("no room");
            assert_eq!(error.kind, ErrorKind::NoSpace);
            let says = format!("; the file has {kept} bytes now");
            assert!(error.message.ends_with(&says), "{error}");
            assert_eq!(world.committed(), bytes[..kept], "piece {refused}");
            assert_eq!(file.size_now(), kept as u64);
            assert_eq!(file.close().await.map(drop), Err(error));
            world.state().fates.clear();
            // It goes on where it ended.
            file.append(content(7)).await.expect("a new lease");
            file.close().await.expect("closed");
            assert_eq!(world.committed(), [&bytes[..kept], &content(7)].concat());
        });
    }
}

#[test]
fn a_write_over_the_end_that_full_workers_refuse_leaves_the_replicas_alike_and_what_was_appended_before() {
    run(|world| async move {
        let client = world.client();
        written(&client, 2, content(1_000)).await;
        let file = client.open_for_write(FILE, false).await.expect("open");
        file.append(content(500)).await.expect("taken");
        // Reading sends it.
        file.read_at(0, 1).await.expect("read");
        let over = Bytes::from(vec![9; 1_600]);
        for worker in [1, 2] {
            let fates = [Fate::Pass, refuse(ErrorKind::NoSpace), Fate::Pass];
            world.fate_at(worker, "WriteBlock", fates);
        }
        file.write_at(400, over).await.expect("taken");
        let error = file.close().await.expect_err("no room for its end");
        assert!(
            error.message.ends_with("; the file has 1500 bytes now"),
            "{error}"
        );
        let expected = [&content(400)[..], &[9; 1_100]].concat();
        assert_eq!(world.committed(), expected);
        let state = world.state();
        for ((worker, _), (_, bytes)) in &state.blocks {
            assert_eq!(bytes[..1_500], expected, "worker {worker}");
        }
    });
}

#[test]
fn what_was_appended_before_a_hole_is_kept_when_full_workers_refuse_what_is_behind_it() {
    run(|world| async move {
        let client = world.client();
        written(&client, 2, content(1_000)).await;
        let file = client.open_for_write(FILE, false).await.expect("open");
        file.append(content(500)).await.expect("taken");
        // Reading sends it.
        file.read_at(0, 1).await.expect("read");
        for worker in [1, 2] {
            world.fate_at(worker, "WriteBlock", [refuse(ErrorKind::NoSpace)]);
        }
        file.write_at(2_000, content(500)).await.expect("taken");
        let error = file.close().await.expect_err("no room");
        assert!(
            error.message.ends_with("; the file has 1500 bytes now"),
            "{error}"
        );
        assert_eq!(world.committed(), [&content(1_000)[..], &content(500)].concat());
    });
}

/// What each worker has of the first block: its generation, and how long it is.
fn replicas(world: &World) -> Vec<(u32, u32, usize)> {
    let state = world.state();
    let block = state.file.as_ref().expect("there is a file").blocks[&0].id;
    let has = |worker| {
        let (generation, bytes) = state.blocks.get(&(worker, block))?;
        Some((worker, *generation, bytes.len()))
    };
    [1, 2].into_iter().filter_map(has).collect()
}

#[test]
fn a_worker_that_refuses_or_stalls_is_left_behind_with_an_older_generation() {
    let says = |kind| [Fate::Pass, refuse(kind)];
    let cases = [
        ("WriteBlock", says(ErrorKind::NoSpace)),
        ("WriteBlock", says(ErrorKind::Io)),
        ("WriteBlock", [Fate::Pass, Fate::LoseReply]),
        ("WriteBlock", [Fate::Pass, Fate::Late(Duration::from_secs(40))]),
        ("SealBlock", says(ErrorKind::NoSpace)),
        ("SealBlock", [Fate::Pass, Fate::LoseReply]),
    ];
    for (call, fates) in cases {
        for syncs in [false, true] {
            let fates = fates.clone();
            run(|world| async move {
                let client = world.client();
                written(&client, 2, content(1_000)).await;
                let file = client.open_for_write(FILE, false).await.expect("open");
                world.fate_at(2, call, fates);
                let begun = tokio::time::Instant::now();
                for number in 0..3u8 {
                    let bytes = Bytes::from(vec![number; 1_500]);
                    file.write_at(0, bytes).await.expect("taken");
                    match syncs {
                        true => file.sync().await,
                        false => file.flush().await,
                    }
                    .expect("the other worker has it");
                }
                let took = begun.elapsed();
                assert!(took < Duration::from_secs(7), "{call}: {took:?}");
                file.close().await.expect("closed");
                assert_eq!(world.committed(), [2; 1_500]);
                let known = world.state().file.clone().expect("there").blocks[&0];
                let [(1, newer, _), (2, older, _)] = replicas(&world)[..] else {
                    panic!("both have something");
                };
                assert_eq!(newer, known.generation);
                assert!(older < newer, "{call}: {older} and {newer}");
            });
        }
    }
}

#[test]
fn a_small_file_is_written_though_one_of_its_workers_does_not_take_it() {
    for fate in [refuse(ErrorKind::NoSpace), Fate::LoseReply] {
        run(|world| async move {
            let client = world.client();
            let file = create(&client, 2).await;
            world.fate_at(2, "PutBlock", [fate]);
            file.append(content(10)).await.expect("taken");
            file.close().await.expect("the other worker has it");
            assert_eq!(world.committed(), content(10));
            let known = world.state().file.clone().expect("there").blocks[&0];
            let replicas = replicas(&world);
            assert_eq!(replicas[0], (1, known.generation, 10));
            assert!(
                replicas[1..]
                    .iter()
                    .all(|(_, older, _)| *older < known.generation)
            );
        });
    }
}

#[test]
fn a_worker_that_has_less_than_it_acknowledged_makes_a_flush_fail() {
    run(|world| async move {
        let client = world.client();
        let file = create(&client, 1).await;
        file.append(content(3 << 20)).await.expect("taken");
        // Reading sends it.
        file.read_at(0, 1).await.expect("read");
        let lost_some = |state: &mut world::State| {
            for (_, bytes) in state.blocks.values_mut() {
                bytes.truncate(1_000);
            }
        };
        lost_some(&mut world.state());
        let error = file.sync().await.expect_err("it is not there");
        assert_eq!(error.kind, ErrorKind::Corrupt);
        assert_eq!(world.committed(), b"");
    });
}

#[test]
fn what_went_with_a_workers_power_before_its_flush_makes_the_flush_fail_and_is_not_committed() {
    run(|world| async move {
        let client = world.client();
        world.state().life = 7;
        let file = create(&client, 2).await;
        file.append(content(PIECE_BYTES)).await.expect("taken");
        file.flush().await.expect("it is there");
        file.append(content(1_000)).await.expect("taken");
        // Reading sends it.
        file.read_at(0, 1).await.expect("read");
        world.state().life = 8;
        let error = file.flush().await.expect_err("it is gone");
        assert_eq!(error.kind, ErrorKind::Lost);
        let says = format!("; the file has {PIECE_BYTES} bytes now");
        assert!(error.message.ends_with(&says), "{error}");
        assert_eq!(world.committed(), content(PIECE_BYTES));
        assert_eq!(file.close().await.map(drop), Err(error));
        file.append(content(7)).await.expect("a new lease");
        file.close().await.expect("closed");
        assert_eq!(
            world.committed(),
            [&content(PIECE_BYTES)[..], &content(7)].concat()
        );
    });
}

#[test]
fn a_write_over_what_was_sent_says_that_it_has_ended_and_a_seal_that_all_has() {
    run(|world| async move {
        let client = world.client();
        world.state().life = 7;
        let file = create(&client, 1).await;
        file.append(content(2 * PIECE_BYTES)).await.expect("taken");
        file.write_at(10, content(PIECE_BYTES)).await.expect("taken");
        file.flush().await.expect("it is there");
        file.sync().await.expect("it is there");
        let orders = std::mem::take(&mut world.state().orders);
        let said: Vec<_> = (orders.iter())
            .map(|(call, order)| (*call, order.number, order.floor, order.has))
            .collect();
        assert_eq!(
            said,
            [
                ("WriteBlock", 1, 1, 0),
                ("WriteBlock", 2, 1, 0),
                ("WriteBlock", 3, 3, 2),
                ("SealBlock", 4, 4, 3),
                ("SealBlock", 4, 4, 4),
            ]
        );
    });
}

#[test]
fn a_sync_of_bytes_that_nobody_has_is_an_error() {
    run(|world| async move {
        let client = world.client();
        written(&client, 1, content(1_000)).await;
        let reader = world.client().open(FILE).await.expect("open");
        reader.sync().await.expect("it is there");
        let reader = world.client().open(FILE).await.expect("open");
        world.state().nobody_has_it = true;
        assert_eq!(
            reader.sync().await.map(drop).map_err(|e| e.kind),
            Ok(()),
            "the holder that was known has it still"
        );
        let reader = world.client().open(FILE).await.expect("open");
        let error = reader.sync().await.expect_err("nobody is known to have it");
        assert_eq!(error.kind, ErrorKind::BlockUnavailable);
    });
}

#[test]
fn what_has_rotted_everywhere_is_said_at_once_with_where_the_bytes_are() {
    run(|world| async move {
        let client = world.client();
        written(&client, 1, content(1_000)).await;
        let block = world.state().file.as_ref().expect("there").blocks[&0].id;
        world.state().nobody_has_it = true;
        world.state().damaged = vec![block];
        let reader = client.open(FILE).await.expect("open");
        let begun = Instant::now();
        world.fate_at(1, "ReadBlock", [refuse(ErrorKind::Corrupt), Fate::Pass]);
        let error = reader.read_at(0, 100).await.expect_err("it has rotted");
        assert_eq!(error.kind, ErrorKind::Corrupt);
        assert!(begun.elapsed() < Duration::from_secs(1), "nobody is waited for");
        let block = format!("every replica of block {block} ");
        for part in [block.as_str(), "on worker 1", "quarantine/", "cv fsck"] {
            assert!(error.message.contains(part), "{error}");
        }
        let right = reader.read_at(0, 100).await;
        assert_eq!(
            right,
            Ok(content(1_000).slice(..100)),
            "what is right of it is read"
        );
        world.state().damaged = Vec::new();
        let error = reader.read_at(0, 100).await.expect_err("it may come back");
        assert_eq!(error.kind, ErrorKind::BlockUnavailable);
        assert!(begun.elapsed() > Duration::from_secs(10), "it was waited for");
    });
}

#[test]
fn a_writer_of_a_block_whose_holders_are_away_waits_for_them() {
    run(|world| async move {
        let client = world.client();
        written(&client, 1, content(1_000)).await;
        world.state().nobody_has_it = true;
        let file = client.open_for_write(FILE, false).await.expect("open");
        file.append(content(500)).await.expect("taken");
        let coming_back = async {
            until("it was asked for again", || {
                world.seen("AllocateBlocks").len() >= 3
            })
            .await;
            world.state().nobody_has_it = false;
        };
        let (closed, ()) = tokio::join!(file.close(), coming_back);
        closed.expect("closed");
        assert_eq!(
            world.committed(),
            [&content(1_000)[..], &content(500)[..]].concat()
        );
    });
}

#[test]
fn a_writer_follows_a_worker_into_another_epoch_only_with_its_lease() {
    for has_lease in [true, false] {
        run(|world| async move {
            let client = world.client();
            let file = create(&client, 1).await;
            file.append(content(3 << 20)).await.expect("taken");
            file.flush().await.expect("flushed");
            world.state().epoch = 2;
            file.append(content(3 << 20)).await.expect("taken");
            if !has_lease {
                let mut state = world.state();
                let file = state.file.as_mut().expect("there");
                file.leased = false;
                file.content_version += 1;
            }
            let outcome = file.close().await.map(drop);
            match has_lease {
                true => {
                    assert_eq!(outcome, Ok(()));
                    let questions = world.seen("GetRoutes").len();
                    assert!(
                        (1..=6).contains(&questions),
                        "once for each piece on its way at most"
                    );
                }
                false => assert_eq!(outcome.expect_err("lost").kind, ErrorKind::Stale),
            }
            let written = if has_lease { 2 } else { 1 };
            assert_eq!(world.committed(), content(3 << 20).repeat(written));
        });
    }
}

#[test]
fn a_flush_that_its_caller_gave_up_is_not_followed_by_a_commit_without_the_bytes() {
    run(|world| async move {
        let client = world.client();
        let file = create(&client, 1).await;
        file.append(content(10)).await.expect("taken");
        world.open.send_replace(false);
        let flushing = timeout(Duration::from_secs(1), file.flush()).await;
        assert!(flushing.is_err(), "given up");
        world.open.send_replace(true);
        let error = file.close().await.expect_err("nobody knows what arrived");
        assert_eq!(error.kind, ErrorKind::Cancelled);
        assert_eq!(world.committed(), b"");
    });
}

#[test]
fn masters_that_do_not_answer_a_commit_may_be_asked_again() {
    run(|world| async move {
        let client = world.client();
        let file = create(&client, 1).await;
        file.append(content(10)).await.expect("taken");
        world.fate("CommitFile", [refuse(ErrorKind::Unreachable)]);
        assert_eq!(
            file.flush().await.map(drop).map_err(|e| e.kind),
            Err(ErrorKind::Unreachable)
        );
        world.state().fates.clear();
        file.close().await.expect("closed");
        assert_eq!(world.committed(), content(10));
    });
}

#[test]
fn later_bytes_win_wherever_they_overlap() {
    run(|world| async move {
        let client = world.client();
        let file = create(&client, 1).await;
        let mut expected = vec![0; 3_000_000];
        for (i, start) in [0, 2_000_000, 1_999_000, 500, 1_000_000, 999_999]
            .into_iter()
            .enumerate()
        {
            let bytes = Bytes::from(vec![i.to_le_bytes()[0] + 1; 1_000_000]);
            expected[start..start + 1_000_000].copy_from_slice(&bytes);
            file.write_at(start as u64, bytes).await.expect("taken");
        }
        assert_eq!(file.read_at(0, 5_000_000).await.expect("read"), expected);
        file.close().await.expect("closed");
        assert_eq!(world.committed(), expected);
    });
}

#[test]
fn bytes_that_overlap_what_is_still_gathered_arrive_after_it() {
    run(|world| async move {
        let client = world.client();
        let file = create(&client, 1).await;
        world.fate_at(1, "WriteBlock", [Fate::Late(Duration::from_secs(1)), Fate::Pass]);
        file.write_at(93, Bytes::from(vec![1; 44])).await.expect("taken");
        file.write_at(127, Bytes::from(vec![2; 62])).await.expect("taken");
        file.close().await.expect("closed");
        let expected = [vec![0; 93], vec![1; 34], vec![2; 62]].concat();
        assert_eq!(world.committed(), expected);
    });
}

// -------------------------------------------------------------------------------------------------------- leases

#[test]
fn handles_of_one_client_share_the_lease_until_the_last_is_closed() {
    run(|world| async move {
        let client = world.client();
        let first = create(&client, 1).await;
        let second = client.open_for_write(FILE, false).await.expect("open");
        let reader = client.open(Node::Inode(FILE)).await.expect("open");
        first.append(content(10)).await.expect("taken");
        assert_eq!(second.append(content(5)).await.expect("taken"), 10);
        assert_eq!(reader.read_at(8, 4).await.expect("read"), [9, 10, 1, 2][..]);
        first.close().await.expect("closed");
        assert!(world.state().file.as_ref().expect("there").leased);
        second.append(content(3)).await.expect("still leased");
        second.close().await.expect("closed");
        assert!(!world.state().file.as_ref().expect("there").leased);
        assert_eq!(world.committed().len(), 18);
        assert_eq!(world.seen("OpenForWrite").len(), 1);
    });
}

#[test]
fn a_handle_dropped_without_a_close_gives_its_lease_back_and_commits_nothing() {
    run(|world| async move {
        let client = world.client();
        let file = create(&client, 1).await;
        file.append(content(10)).await.expect("taken");
        file.flush().await.expect("flushed");
        file.append(content(10)).await.expect("taken");
        drop(file);
        until("the lease is back", || {
            !world.state().file.as_ref().expect("there").leased
        })
        .await;
        assert_eq!(world.committed(), content(10));
    });
}

#[test]
fn a_truncation_that_nobody_answered_stays_when_the_lease_is_given_back() {
    run(|world| async move {
        let client = world.client();
        written(&client, 1, content(10)).await;
        let file = client.open_for_write(FILE, false).await.expect("open");
        world.fate("SetAttr", [Fate::LoseReply]);
        let error = file.truncate(4).await.expect_err("nobody answers");
        assert_eq!(error.kind, ErrorKind::Timeout);
        file.close().await.expect_err("nobody knows how long it is");
        assert!(!world.state().file.as_ref().expect("there").leased);
        assert_eq!(world.committed(), content(4));
        assert_eq!(file.read_at(0, 20).await.expect("it is asked for"), content(4));
    });
}

#[test]
fn a_file_that_was_opened_before_a_close_and_entered_after_it_is_as_it_was_closed() {
    for (call, writes) in [("OpenFile", false), ("OpenForWrite", true)] {
        run(|world| async move {
            let client = world.client();
            written(&client, 1, content(10)).await;
            let file = client.open_for_write(FILE, false).await.expect("open");
            world.fate(call, [Fate::LateReply(Duration::from_secs(3)), Fate::Pass]);
            let opening = async {
                match writes {
                    false => client.open(Node::Inode(FILE)).await,
                    true => client.open_for_write(FILE, false).await,
                }
            };
            let closing = async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                file.append(content(5)).await.expect("taken");
                file.close().await.expect("closed");
                drop(file);
            };
            let (opened, ()) = tokio::join!(opening, closing);
            let file = opened.expect("open");
            let expected = [content(10), content(5)].concat();
            assert_eq!(file.read_at(0, 100).await.expect("read"), expected);
            assert_eq!(world.state().file.as_ref().expect("there").leased, writes);
            file.append(content(2)).await.expect("taken");
            file.close().await.expect("closed");
            assert_eq!(world.committed(), [&expected[..], &content(2)[..]].concat());
        });
    }
}

#[test]
fn a_lease_that_was_lost_is_taken_again_only_if_nobody_wrote_meanwhile() {
    // The end of the lease is a version of its own, and so is what another client writes.
    for (versions, another_wrote) in [(0, false), (1, false), (2, true)] {
        run(|world| async move {
            let client = world.client();
            written(&client, 1, content(10)).await;
            let file = client.open_for_write(FILE, false).await.expect("open");
            file.append(content(5)).await.expect("taken");
            {
                let mut state = world.state();
                let file = state.file.as_mut().expect("there");
                file.leased = false;
                file.content_version += versions;
            }
            let closed = file.close().await;
            match another_wrote {
                false => {
                    assert_eq!(closed.expect("nobody was hurt").size_bytes, 15);
                    file.append(content(5)).await.expect("taken");
                    file.close().await.expect("closed");
                    let expected = [content(10), content(5), content(5)].concat();
                    assert_eq!(world.committed(), expected);
                }
                true => {
                    assert_eq!(closed.expect_err("lost").kind, ErrorKind::Stale);
                    assert_eq!(world.committed(), content(10));
                }
            }
            assert!(!world.state().file.as_ref().expect("there").leased);
        });
    }
}

#[test]
fn a_lease_that_another_client_wants_is_given_back_with_what_was_written_and_got_again_to_write_on() {
    run(|world| async move {
        let client = world.client();
        let file = create(&client, 1).await;
        file.append(content(10)).await.expect("taken");
        world.state().wanted = true;
        until("the lease is given back", || {
            !world.state().file.as_ref().expect("there").leased
        })
        .await;
        assert_eq!(world.committed(), content(10));
        assert_eq!(file.append(content(5)).await.expect("taken"), 10);
        file.flush().await.expect("flushed");
        assert!(world.state().file.as_ref().expect("there").leased);
        world.fate("CommitFile", [refuse(ErrorKind::Io), Fate::Pass]);
        file.append(content(5)).await.expect("taken");
        world.state().wanted = true;
        until("the lease is given back all the same", || {
            !world.state().file.as_ref().expect("there").leased
        })
        .await;
        let error = file.append(content(1)).await.expect_err("something was lost");
        assert_eq!(error.kind, ErrorKind::Io);
        assert_eq!(
            file.close().await.map(drop).map_err(|e| e.kind),
            Err(ErrorKind::Io)
        );
        assert_eq!(world.committed().len(), 20, "what the workers have is kept");
    });
}

#[test]
fn nothing_is_written_under_a_lease_that_may_be_on_its_way_back() {
    run(|world| async move {
        let client = world.client();
        let file = create(&client, 1).await;
        file.append(content(10)).await.expect("taken");
        world.fate("CommitFile", [refuse(ErrorKind::Timeout)]);
        world.state().wanted = true;
        until("the client has given up to hear whether it is given back", || {
            world.state().in_flight == 0 && world.seen("CommitFile").len() > 1
        })
        .await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let error = file
            .append(content(5))
            .await
            .expect_err("nobody knows whose the lease is");
        assert_eq!(error.kind, ErrorKind::Timeout);
        world.fate("CommitFile", [Fate::Pass]);
        let got = world.seen("OpenForWrite").len();
        assert_eq!(file.append(content(5)).await.expect("taken"), 10);
        assert_eq!(world.committed(), content(10), "it was given back first");
        assert_eq!(world.seen("OpenForWrite").len(), got + 1, "and got again");
        file.close().await.expect("closed");
        assert_eq!(world.committed(), [content(10), content(5)].concat());
    });
}

#[test]
fn a_commit_that_was_made_after_all_is_not_made_again_over_what_others_may_have_written() {
    run(|world| async move {
        let client = world.impatient_client();
        let file = create(&client, 1).await;
        file.append(content(10)).await.expect("taken");
        world.fate("CommitFile", [refuse(ErrorKind::Timeout), Fate::Pass]);
        let error = file.close().await.expect_err("nobody answered in time");
        assert_eq!(error.kind, ErrorKind::Timeout);
        let commits = world.seen("CommitFile");
        assert!(
            commits.iter().all(|seen| seen.sequence == commits[0].sequence),
            "{commits:?}"
        );
        assert_eq!(world.committed(), content(10));
        assert!(!world.state().file.as_ref().expect("there").leased);
    });
}

#[test]
fn what_became_of_a_commit_is_asked_before_workers_ask_for_the_lease_that_it_gave_back() {
    run(|world| async move {
        let client = world.impatient_client();
        let file = create(&client, 1).await;
        file.append(content(10)).await.expect("taken");
        world.fate("CommitFile", [Fate::LoseReply, Fate::Pass]);
        world.state().wanted = true;
        until("it is given back, and nobody has said so", || {
            let state = world.state();
            state.in_flight == 0 && !state.file.as_ref().expect("there").leased
        })
        .await;
        // The worker has restarted: it wants to see the lease.
        world.state().epoch += 1;
        file.sync().await.expect("all of it was committed");
        assert_eq!(world.committed(), content(10));
    });
}

/// As after the lease on the file was broken and another client changed it so many times.
fn overtake(world: &World, changes: u64) {
    let mut state = world.state();
    let file = state.file.as_mut().expect("there");
    (file.leased, file.content_version) = (false, file.content_version + 1 + changes);
}

fn stale<T>(outcome: Result<T>) {
    assert_eq!(outcome.map(drop).map_err(|e| e.kind), Err(ErrorKind::Stale));
}

/// The handles that wrote under the lost lease, and others of before and after the loss.
async fn the_writer_alone_hears_of_it(world: &World, client: &Client, writer: &OpenFile, other: &OpenFile) {
    let reader = client.open(FILE).await.expect("open");
    assert_eq!(reader.read_at(0, 100).await.expect("as it is"), content(10));
    stale(writer.append(content(1)).await);
    stale(writer.flush().await);
    let later = client.open_for_write(FILE, false).await.expect("open");
    assert_eq!(later.append(content(2)).await.expect("under another lease"), 10);
    assert_eq!(other.append(content(3)).await.expect("it has lost nothing"), 12);
    stale(writer.sync().await);
    stale(writer.truncate(3).await);
    later.close().await.expect("closed");
    stale(writer.close().await);
    assert_eq!(other.close().await.expect("closed").size_bytes, 15);
    assert!(!world.state().file.as_ref().expect("there").leased);
    let expected = [content(10), content(2), content(3)].concat();
    assert_eq!(world.committed(), expected);
    assert_eq!(reader.read_at(0, 100).await.expect("read"), expected);
    assert_eq!(writer.append(content(1)).await.expect("a new start"), 15);
    writer.close().await.expect("closed");
}

#[test]
fn a_lease_that_is_found_lost_when_it_is_asked_back_is_a_loss_to_its_writer_alone() {
    run(|world| async move {
        let client = world.client();
        written(&client, 1, content(10)).await;
        let file = client.open_for_write(FILE, false).await.expect("open");
        let other = client.open_for_write(FILE, false).await.expect("open");
        file.append(content(5)).await.expect("taken");
        overtake(&world, 1);
        world.state().wanted = true;
        until("the lease of now is given back", || {
            !world.seen("ReleaseLease").is_empty()
        })
        .await;
        the_writer_alone_hears_of_it(&world, &client, &file, &other).await;
    });
}

#[test]
fn a_lease_that_is_found_lost_by_a_flush_is_a_loss_to_its_writer_alone() {
    run(|world| async move {
        let client = world.client();
        written(&client, 1, content(10)).await;
        let file = client.open_for_write(FILE, false).await.expect("open");
        let other = client.open_for_write(FILE, false).await.expect("open");
        file.append(content(5)).await.expect("taken");
        overtake(&world, 1);
        stale(file.flush().await);
        assert_eq!(file.size_now(), 10);
        the_writer_alone_hears_of_it(&world, &client, &file, &other).await;
    });
}

#[test]
fn a_lease_that_is_found_lost_by_another_open_is_a_loss_to_its_writer_alone() {
    run(|world| async move {
        let client = world.client();
        written(&client, 1, content(10)).await;
        let file = client.open_for_write(FILE, false).await.expect("open");
        file.append(content(5)).await.expect("taken");
        overtake(&world, 1);
        let other = client.open_for_write(FILE, false).await.expect("open");
        other.flush().await.expect("nothing of it is lost");
        the_writer_alone_hears_of_it(&world, &client, &file, &other).await;
    });
}

#[test]
fn a_reader_is_not_told_that_a_worker_refuses_what_was_written_under_a_lost_lease() {
    run(|world| async move {
        let client = world.client();
        written(&client, 1, content(10)).await;
        let file = client.open_for_write(FILE, false).await.expect("open");
        let other = client.open_for_write(FILE, false).await.expect("open");
        file.append(content(5)).await.expect("taken");
        overtake(&world, 1);
        world.fate_at(1, "WriteBlock", [refuse(ErrorKind::Stale)]);
        let reader = client.open(FILE).await.expect("open");
        assert_eq!(reader.read_at(0, 100).await.expect("as it is"), content(10));
        world.fate_at(1, "WriteBlock", [Fate::Pass]);
        the_writer_alone_hears_of_it(&world, &client, &file, &other).await;
    });
}

#[test]
fn a_lease_that_ended_and_is_got_by_another_open_loses_nothing_if_nobody_wrote_meanwhile() {
    run(|world| async move {
        let client = world.client();
        written(&client, 1, content(10)).await;
        let file = client.open_for_write(FILE, false).await.expect("open");
        file.append(content(5)).await.expect("taken");
        overtake(&world, 0);
        let other = client.open_for_write(FILE, false).await.expect("open");
        assert_eq!(other.append(content(2)).await.expect("taken"), 15);
        file.close().await.expect("closed");
        other.close().await.expect("closed");
        assert_eq!(world.committed(), [content(10), content(5), content(2)].concat());
    });
}

#[test]
fn a_writer_of_whom_the_masters_did_not_hear_for_long_looks_whether_it_has_its_lease_before_it_writes() {
    run(|world| async move {
        let client = world.client();
        written(&client, 1, content(10)).await;
        let file = client.open_for_write(FILE, false).await.expect("open");
        // They are not heard of when they are asked again, either.
        world.fate("RenewSession", [refuse(ErrorKind::Io)]);
        tokio::time::sleep(Duration::from_secs(20)).await;
        overtake(&world, 1);
        assert_eq!(file.append(content(5)).await.expect("under another lease"), 10);
        file.close().await.expect("closed");
        assert_eq!(world.committed(), [content(10), content(5)].concat());
    });
}

#[test]
fn a_lease_that_is_lost_without_anything_written_under_it_is_no_error_of_its_close() {
    run(|world| async move {
        let client = world.client();
        written(&client, 1, content(10)).await;
        let file = client.open_for_write(FILE, false).await.expect("open");
        overtake(&world, 1);
        file.close().await.expect("nothing is lost");
        assert!(!world.state().file.as_ref().expect("there").leased);
        assert_eq!(file.append(content(5)).await.expect("taken"), 10);
        file.close().await.expect("closed");
        assert_eq!(world.committed().len(), 15);
    });
}

// ------------------------------------------------------------------------------------------------------ sessions

#[test]
fn a_session_that_ended_is_followed_by_another_and_only_what_was_not_flushed_is_lost() {
    for is_dirty in [false, true] {
        run(|world| async move {
            let client = world.client();
            let file = create(&client, 1).await;
            file.append(content(10)).await.expect("taken");
            file.flush().await.expect("flushed");
            if is_dirty {
                file.append(content(5)).await.expect("taken");
            }
            let first = client.session().await.expect("there is one");
            world.fate("RenewSession", [refuse(ErrorKind::SessionEnded), Fate::Pass]);
            {
                let mut state = world.state();
                let file = state.file.as_mut().expect("there");
                (file.leased, file.content_version) = (false, file.content_version + 1);
            }
            tokio::time::sleep(Duration::from_secs(40)).await;
            client.make_dir(path("/d"), 0o755, false).await.expect("made");
            assert_ne!(client.session().await.expect("another"), first);
            let numbers: Vec<u64> = world.seen("MakeDir").iter().map(|seen| seen.sequence).collect();
            assert_eq!(numbers, [1], "a new session begins anew");
            let appended = file.append(content(3)).await;
            match is_dirty {
                false => assert_eq!(appended.expect("the lease is got again"), 10),
                true => assert_eq!(appended.expect_err("loud").kind, ErrorKind::SessionEnded),
            }
            let closed = file.close().await.map(|attr| attr.size_bytes);
            match is_dirty {
                false => assert_eq!(closed, Ok(13)),
                true => assert_eq!(closed.expect_err("loud again").kind, ErrorKind::SessionEnded),
            }
            file.append(content(1)).await.expect("a new start");
            file.close().await.expect("closed");
            assert_eq!(world.committed()[..10], content(10));
        });
    }
}

#[test]
fn a_client_that_was_away_asks_whether_its_session_lasts_before_it_changes_something() {
    run(|world| async move {
        let client = world.client();
        client.make_dir(path("/d"), 0o755, false).await.expect("made");
        // It hears nothing for a while. A renewal that failed is tried again each second.
        const TRIES: usize = 26;
        let refused = (0..TRIES).map(|_| refuse(ErrorKind::Io));
        world.fate("RenewSession", refused.chain([Fate::Pass]));
        tokio::time::sleep(Duration::from_millis(35_500)).await;
        assert_eq!(world.seen("RenewSession").len(), TRIES);
        let asked = world.seen("RenewSession").len();
        client.make_dir(path("/e"), 0o755, false).await.expect("made");
        assert_eq!(world.seen("RenewSession").len(), asked + 1);
        assert_eq!(world.seen("OpenSession").len(), 1, "it lasted");
    });
}

// ---------------------------------------------------------------------------------------------------------- sizes

#[test]
fn a_file_costs_what_it_holds_however_far_apart_that_is() {
    run(|world| async move {
        const FAR: u64 = (100 << 40) + 5;
        let client = world.client();
        let file = create(&client, 1).await;
        file.append(content(10)).await.expect("taken");
        file.write_at(FAR, content(7)).await.expect("taken");
        // The second block begins five bytes before its first byte.
        let (size_bytes, hole_bytes) = (FAR + 7, FAR + 7 - 22);
        let attr = file.attr().await;
        assert_eq!((attr.size_bytes, attr.hole_bytes), (size_bytes, hole_bytes));
        let attr = file.flush().await.expect("flushed");
        assert_eq!((attr.size_bytes, attr.hole_bytes), (size_bytes, hole_bytes));
        let held = |world: &World| world.state().file.clone().expect("made").blocks.len();
        assert_eq!((held(&world), world.seen("AllocateBlocks").len()), (2, 1));
        let reads = world.seen("ReadBlock").len();
        assert_eq!(
            file.read_at(50 << 40, 1 << 20).await.expect("zeros"),
            vec![0; 1 << 20]
        );
        assert_eq!(world.seen("ReadBlock").len(), reads, "nobody is asked for zeros");
        assert_eq!(
            file.read_at(FAR - 1, 100).await.expect("there"),
            [&[0], &content(7)[..]].concat()
        );
        assert_eq!(file.next_data(10).await, Ok(Some(FAR - 5)));
        assert_eq!(file.next_hole(0).await, Ok(Some(10)));
        assert_eq!(file.next_hole(FAR).await, Ok(Some(FAR + 7)));
        assert_eq!(file.next_data(FAR + 7).await, Ok(None));
        // Another client finds the same by its own layout.
        let other = client.open(FILE).await.expect("opened");
        assert_eq!(other.read_at(FAR, 100).await.expect("there"), content(7));
        file.truncate(FAR + (1 << 40)).await.expect("longer");
        file.truncate(4).await.expect("shorter");
        assert_eq!(held(&world), 1);
        file.close().await.expect("closed");
        assert_eq!(world.committed(), content(4));
    });
}

#[test]
fn a_hole_is_made_without_zeros_and_costs_nothing() {
    run(|world| async move {
        let client = world.client();
        let file = create(&client, 2).await;
        let mut expected = content(to_usize(4 * BLOCK_BYTES)).to_vec();
        file.append(expected.clone().into()).await.expect("taken");
        file.flush().await.expect("flushed");
        let (written, mib) = (world.seen("WriteBlock").len(), 1 << 20);
        let mut punch = async |range: std::ops::Range<u64>| {
            file.punch(range.start, range.end - range.start)
                .await
                .expect("punched");
            expected[to_usize(range.start)..to_usize(range.end)].fill(0);
            assert_eq!(file.read_at(0, u64::MAX).await.expect("there"), expected);
        };
        // In one block; from within a block into another one; up to the end of a block; and what is a hole already.
        punch(mib..2 * mib).await;
        punch(3 * mib..2 * BLOCK_BYTES + mib).await;
        punch(3 * BLOCK_BYTES - mib..3 * BLOCK_BYTES).await;
        punch(3 * mib..BLOCK_BYTES).await;
        assert_eq!(world.seen("WriteBlock").len(), written, "no zeros are written");
        assert_eq!(
            world.seen("PunchHole").len(),
            2,
            "what stays as it is for the masters is not theirs"
        );
        let attr = file.close().await.expect("closed");
        assert_eq!(attr.hole_bytes, 2 * BLOCK_BYTES - 3 * mib + mib);
        assert_eq!(world.committed(), expected);
        let state = world.state();
        let held = |worker| {
            let lengths = state.blocks.iter().filter(|((at, _), _)| *at == worker);
            lengths
                .map(|((_, block), (_, bytes))| (*block, bytes.len()))
                .collect::<HashMap<_, _>>()
        };
        let blocks = &state.file.as_ref().expect("made").blocks;
        for block in blocks.values().filter(|block| block.len_bytes == 3 * mib) {
            assert_eq!(
                held(1)[&block.id],
                to_usize(3 * mib),
                "a block that was cut is cut on its workers too"
            );
        }
        assert_eq!(held(1), held(2));
    });
}

#[test]
fn space_that_is_allocated_is_a_hole_until_it_is_written() {
    run(|world| async move {
        let client = world.client();
        let file = create(&client, 1).await;
        file.append(content(10)).await.expect("taken");
        file.extend(1 << 40).await.expect("longer");
        file.extend(5).await.expect("it is longer already");
        assert_eq!(file.held_in(0..1 << 40).await, 0, "nothing is sent yet");
        let attr = file.close().await.expect("closed");
        assert_eq!((attr.size_bytes, attr.hole_bytes), (1 << 40, (1 << 40) - 10));
        assert_eq!(file.held_in(4..1 << 40).await, 6);
        assert_eq!(world.seen("WriteBlock").len() + world.seen("PutBlock").len(), 1);
    });
}

#[test]
fn a_byte_beyond_the_largest_file_is_refused_and_costs_nothing() {
    run(|world| async move {
        let client = world.client();
        let file = create(&client, 1).await;
        file.append(content(10)).await.expect("taken");
        for offset_bytes in [FILE_BYTES_MAX, 1 << 59, (1 << 63) - 2, u64::MAX] {
            let error = file
                .write_at(offset_bytes, content(1))
                .await
                .expect_err("too far");
            assert_eq!(error.kind, ErrorKind::FileTooLarge, "{offset_bytes}");
        }
        let error = file.extend(FILE_BYTES_MAX + 1).await.expect_err("too long");
        assert_eq!(error.kind, ErrorKind::FileTooLarge);
        assert_eq!(file.close().await.expect("nothing failed").size_bytes, 10);
        assert_eq!(world.committed(), content(10));
    });
}
