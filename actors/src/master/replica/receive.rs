//! What other masters say to this one.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard};

use bytes::Bytes;
use curvine_protocol::checksum::crc32c;
use curvine_protocol::codec::{decode, encode};
use curvine_protocol::master::{RaftAnswer, RaftMessage, RaftMessageKind};
use curvine_protocol::{Error, ErrorKind, NodeId, Result};
use futures::future::BoxFuture;
use openraft::{BasicNode, Snapshot, SnapshotMeta};
use serde::Serialize;
use tokio::time::{Instant, timeout};

use super::network::{PART_BYTES, checksum_of};
use super::types::{SnapshotFile, Standing, Vote};
use super::{CONFIRM_DEADLINE, ReplicaPort, fatal};
use crate::kit::metrics::timed;
use crate::kit::ports::offloaded;
use crate::kit::{Answer, Ask, Body, Endpoint};

impl Endpoint<RaftMessage> for ReplicaPort {
    fn ask(&self, ask: Ask<RaftMessage>) -> BoxFuture<'static, Result<Answer<RaftMessage>>> {
        let replica = self.clone();
        Box::pin(timed::<RaftMessage, _>(async move {
            replica.is_for_us(&ask.call)?;
            let body = replica.heard(ask.call, ask.body).await?;
            Ok(Answer::with_body(RaftAnswer {}, Body::Bytes(body)))
        }))
    }
}

impl ReplicaPort {
    fn is_for_us(&self, message: &RaftMessage) -> Result<()> {
        if let (Some(theirs), Some(ours)) = (message.cluster, self.origin()) {
            let (from, cluster) = (message.from, ours.cluster);
            let wrong = |message: String| Err(Error::new(ErrorKind::WrongCluster, message));
            if theirs != cluster {
                return wrong(format!(
                    "this master belongs to cluster {cluster} and master {from} to {theirs}"
                ));
            }
            if message.restored_ns != ours.restored_ns {
                return wrong(format!(
                    "cluster {cluster} was restored from a backup, and one of master {} and master {from} has what was \
                     before; start that one again with an empty data directory",
                    self.id
                ));
            }
        }
        if message.to != self.id || message.from == self.id {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "this is master {}, called as {} by {}: each master of a group has an id and an address of its own",
                    self.id, message.to, message.from
                ),
            ));
        }
        Ok(())
    }

    async fn heard(&self, message: RaftMessage, body: Bytes) -> Result<Bytes> {
        let RaftMessage { from, kind, .. } = message;
        match kind {
            RaftMessageKind::Append | RaftMessageKind::SnapshotEnd { .. } if !self.franchise.is_decided() => {
                // With a first entry it would look like one that never lost any.
                Err(Error::new(
                    ErrorKind::Busy,
                    format!(
                        "master {} has only just started and asks its group how it stands",
                        self.id
                    ),
                ))
            }
            RaftMessageKind::Append => {
                let appended = self.raft.append_entries(decode(&body)?).await;
                Ok(encoded(&appended.map_err(fatal)?))
            }
            RaftMessageKind::Vote => {
                self.may_vote()?;
                let voted = self.raft.vote(decode(&body)?).await;
                Ok(encoded(&voted.map_err(fatal)?))
            }
            RaftMessageKind::SnapshotPart {
                snapshot,
                offset_bytes,
                checksum,
            } => {
                let path = self.received(from, &snapshot)?;
                let have = offloaded(&*self.receiver, move || {
                    take_part(path, offset_bytes, checksum, &body)
                });
                Ok(encoded(&have.await??))
            }
            RaftMessageKind::SnapshotEnd { snapshot, checksum } => {
                let path = self.received(from, &snapshot)?;
                let (vote, meta): (Vote, SnapshotMeta<u64, BasicNode>) = decode(&body)?;
                let sum = checksum_of(Arc::new(File::open(&path)?), &*self.receiver).await?;
                if sum != checksum {
                    let _ = std::fs::remove_file(&path);
                    return Err(Error::new(
                        ErrorKind::Corrupt,
                        format!(
                            "snapshot {snapshot} of master {from} fails its checksum on arrival; send it again"
                        ),
                    ));
                }
                let snapshot = Snapshot {
                    meta,
                    snapshot: Box::new(SnapshotFile { path }),
                };
                let installed = self.raft.install_full_snapshot(vote, snapshot).await;
                Ok(encoded(&installed.map_err(fatal)?))
            }
            RaftMessageKind::Standing => Ok(encoded(&self.standing().await)),
            RaftMessageKind::Elect { again } => {
                // Who has stood already has no leader.
                let leader = self.raft.current_leader().await;
                if again && leader.is_some_and(|leader| leader != from.0) {
                    // That did it, and the sender has not heard of it yet.
                    return Ok(Bytes::new());
                }
                if leader != Some(from.0) && !again {
                    return Err(Error::new(
                        ErrorKind::Busy,
                        format!("master {from} does not lead, and cannot hand over"),
                    ));
                }
                // The one it could have promised anything gives it back.
                *self.votes_from() = self.ports.clock.now();
                self.may_vote()?;
                self.raft.trigger().elect().await.map_err(fatal)?;
                Ok(Bytes::new())
            }
        }
    }

    fn may_vote(&self) -> Result<()> {
        let wait = match self.franchise.is_full() {
            false => "it has not caught up with its group",
            // What it promised a leader before it was started.
            true if self.ports.clock.now() < *self.votes_from() => "it has only just started",
            true => return Ok(()),
        };
        Err(Error::new(
            ErrorKind::Busy,
            format!("master {} votes for nobody: {wait}", self.id),
        ))
    }

    fn votes_from(&self) -> MutexGuard<'_, Instant> {
        self.votes_from.lock().expect("nobody panics while it holds this")
    }

    /// Where a snapshot of another master arrives.
    fn received(&self, from: NodeId, snapshot: &str) -> Result<PathBuf> {
        let is_name =
            !snapshot.is_empty() && snapshot.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
        match is_name {
            true => Ok(self.state.received(&format!("{from}.{snapshot}"))),
            false => Err(Error::new(
                ErrorKind::Protocol,
                "the name of a snapshot has other characters than letters, digits and dots",
            )),
        }
    }

    /// How this master stands; as a leader, with the word of a majority.
    async fn standing(&self) -> Standing {
        let says_so = self.leadership().borrow().is_some();
        let leads = says_so
            && matches!(
                timeout(CONFIRM_DEADLINE, self.raft.ensure_linearizable()).await,
                Ok(Ok(_))
            );
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        Standing {
            last_log: metrics.last_log_index,
            applied: metrics.last_applied.map_or(0, |last| last.index),
            leads,
            votes: self.franchise.is_full(),
            full: self.full.borrow().is_some(),
            vote: Some(metrics.vote),
            group: Some((*metrics.membership_config).clone()),
        }
    }
}

fn encoded<T: Serialize>(answer: &T) -> Bytes {
    encode(answer).into()
}

/// Writes a part where the file ends; says how long the file is now. A part that belongs elsewhere changes nothing.
pub(super) fn take_part(path: PathBuf, offset_bytes: u64, checksum: u32, part: &[u8]) -> Result<u64> {
    use std::os::unix::fs::FileExt;
    if part.len() > PART_BYTES || crc32c(part) != checksum {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "a part of a snapshot fails its checksum",
        ));
    }
    let take = || -> std::io::Result<u64> {
        let file = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&path)?;
        let have = file.metadata()?.len();
        if have != offset_bytes {
            return Ok(have);
        }
        file.write_all_at(part, have)?;
        Ok(have + part.len() as u64)
    };
    take().map_err(|e| Error::from(e).while_doing(format_args!("writing {}", path.display())))
}
