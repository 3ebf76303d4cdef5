//! The log beside a model of it: whatever is done to it, and after each restart, it has what it was told.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use curvine_protocol::codec::encode;
use curvine_protocol::op::Command;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{CommittedLeaderId, EntryPayload, RaftLogReader};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::log::LogStore;
use super::tests::make_dir;
use super::types::{Batch, Entry, LogId, Vote};
use crate::kit::ports::Inline;

const STEPS: usize = 120;
const SEEDS: u64 = 2;

#[derive(Default)]
struct Model {
    entries: BTreeMap<u64, (LogId, usize)>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    term: u64,
}

impl Model {
    fn last(&self) -> Option<LogId> {
        let last = self.entries.last_key_value().map(|(_, (id, _))| *id);
        last.or(self.purged)
    }

    fn next(&self) -> u64 {
        self.last().map_or(0, |id| id.index + 1)
    }
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

fn entry(log_id: LogId, commands: usize) -> Entry {
    let command = Command {
        sequence: log_id.index,
        ..make_dir(&"n".repeat(200))
    };
    Entry {
        log_id,
        payload: EntryPayload::Normal(Batch(vec![command; commands])),
    }
}

fn open(directory: &Path) -> LogStore {
    LogStore::open(directory, Arc::new(Inline)).expect("it opens")
}

async fn check(log: &mut LogStore, model: &Model) {
    let state = log.get_log_state().await.expect("readable");
    assert_eq!(
        (state.last_log_id, state.last_purged_log_id),
        (model.last(), model.purged)
    );
    assert_eq!(log.read_vote().await.expect("readable"), model.vote);
    let found = log.try_get_log_entries(..).await.expect("readable");
    let durable = log.durable_from(0).expect("readable");
    for entries in [found, durable] {
        assert_eq!(entries.len(), model.entries.len());
        for (got, (id, len)) in entries.iter().zip(model.entries.values()) {
            assert_eq!(encode(got), encode(&entry(*id, *len)));
        }
    }
}

#[tokio::test]
async fn the_log_has_what_it_was_told_whatever_is_done_to_it_and_over_restarts() {
    for seed in 0..SEEDS {
        let mut chance = StdRng::seed_from_u64(seed);
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let (mut log, mut model) = (open(scratch.path()), Model::default());
        let mut settled = 0;
        for _ in 0..STEPS {
            match chance.random_range(0..100) {
                0..70 => {
                    let entries: Vec<_> = (0..chance.random_range(1..4))
                        .map(|nth| {
                            // A few are longer than the journal, or nearly.
                            let commands = match chance.random_range(0..240) {
                                0 => 20_000,
                                1..3 => 10_000,
                                3..120 => 100,
                                _ => 1,
                            };
                            (log_id(model.term, model.next() + nth), commands)
                        })
                        .collect();
                    let told = entries.iter().map(|(id, commands)| entry(*id, *commands));
                    log.blocking_append(told).await.expect("room");
                    model.entries.extend(
                        entries
                            .into_iter()
                            .map(|(id, commands)| (id.index, (id, commands))),
                    );
                }
                70..76 => {
                    model.term += 1;
                    let vote = Vote::new(model.term, 1);
                    log.save_vote(&vote).await.expect("room");
                    model.vote = Some(vote);
                }
                76..80 => {
                    let Some((_, &(id, _))) = model.entries.iter().nth_back(chance.random_range(0..4)) else {
                        continue;
                    };
                    log.truncate(id).await.expect("room");
                    model.entries.split_off(&id.index);
                }
                80..83 => {
                    let Some((_, &(id, _))) = model.entries.iter().nth(chance.random_range(0..30)) else {
                        continue;
                    };
                    log.purge(id).await.expect("room");
                    model.entries = model.entries.split_off(&(id.index + 1));
                    model.purged = Some(id);
                }
                83..90 => {
                    drop(log);
                    log = open(scratch.path());
                }
                _ => check(&mut log, &model).await,
            }
            settled += usize::from(log.durable_in_journal() == 0);
        }
        check(&mut log, &model).await;
        assert!((10..STEPS - 10).contains(&settled), "both are tried: {settled}");
    }
}
