//! Gathers proposals into entries, and refuses them while the disk is full.
//!
//! Invariant: commands that wait together travel in one entry, at most [`BATCH_MAX`]; [`ENTRIES_IN_FLIGHT`] entries at
//! a time.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use actix::prelude::*;
use curvine_protocol::codec::encode;
use curvine_protocol::op::{Command, Op, OpReply};
use curvine_protocol::{Error, ErrorKind, Result};
use tokio::sync::{oneshot, watch};

use super::full::NobodyElse;
use super::leadership::deposed;
use super::length::LogLength;
use super::log::LogStore;
use super::refused;
use super::types::{Batch, Raft};
use crate::kit::metrics;
use crate::room;

/// Commands in one entry, and their bytes: one more may come on top. An entry travels in one message.
const BATCH_MAX: usize = 512;
const BATCH_BYTES_MAX: usize = 4 << 20;
const ENTRIES_IN_FLIGHT: usize = 2;
/// Commands waiting; one more is `Overloaded`.
const WAITING_MAX: usize = 65_536;
/// Room on the device that is kept back for what was taken in already, and for dropping the log behind a snapshot: this
/// much, or this part of a small device.
const RESERVE_BYTES: u64 = 32 << 20;
const RESERVE_PART: u64 = 20;
const MEASURE_EVERY: Duration = Duration::from_millis(500);

/// The actor: gathers proposals into entries.
pub struct Replica {
    raft: Raft,
    log: LogStore,
    directory: PathBuf,
    waiting: VecDeque<Proposal>,
    in_flight: usize,
    /// Why nothing can be changed now.
    full: watch::Sender<Option<Error>>,
    nobody_else: NobodyElse,
    length: LogLength,
}

impl Replica {
    pub(super) fn new(
        raft: Raft,
        log: LogStore,
        directory: PathBuf,
        full: watch::Sender<Option<Error>>,
        nobody_else: NobodyElse,
        length: LogLength,
    ) -> Self {
        Replica {
            raft,
            log,
            directory,
            waiting: VecDeque::new(),
            in_flight: 0,
            full,
            nobody_else,
            length,
        }
    }

    fn measure(&mut self) {
        let measured = room::of(&self.directory).map(|(free, all)| {
            let reserve = reserve_bytes(all);
            (free < reserve || self.log.is_held_up()).then(|| {
                Error::new(
                    ErrorKind::NoSpace,
                    format!(
                        "the master's disk is full: {free} bytes are left for {} and {reserve} are kept back; it \
                         takes no changes until there is space",
                        self.directory.display()
                    ),
                )
            })
        });
        let full = measured.unwrap_or_else(Some);
        match (&*self.full.borrow(), &full) {
            (None, Some(error)) => tracing::error!("{error}"),
            (Some(_), None) => tracing::info!("the master's disk has space again"),
            _ => {}
        }
        self.full.send_replace(full);
    }
}

/// What is kept back of a device with so many bytes.
pub(super) fn reserve_bytes(all_bytes: u64) -> u64 {
    RESERVE_BYTES.min(all_bytes / RESERVE_PART)
}

pub(super) struct Proposal {
    pub(super) command: Command,
    pub(super) reply: oneshot::Sender<Result<OpReply>>,
}

impl Actor for Replica {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(WAITING_MAX);
        self.measure();
        context.run_interval(MEASURE_EVERY, |replica, context| {
            replica.measure();
            if let Some(step) = replica.length.next_step(&replica.log, &replica.raft) {
                context.spawn(step.take(replica.raft.clone()).into_actor(replica));
            }
        });
    }
}

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Propose(pub(super) Proposal);

impl Handler<Propose> for Replica {
    type Result = ();

    fn handle(&mut self, propose: Propose, context: &mut Self::Context) {
        // Formatting a master that starts is tiny, and what the reserve is for.
        if let Some(full) = &*self.full.borrow()
            && !matches!(propose.0.command.op, Op::Format { .. })
        {
            let refusal = self.nobody_else.refusal(full, &self.raft);
            let _ = propose.0.reply.send(Err(refusal));
            return;
        }
        if self.waiting.len() >= WAITING_MAX {
            let full = Error::new(
                ErrorKind::Overloaded,
                format!("{WAITING_MAX} changes are waiting; try again later"),
            );
            let _ = propose.0.reply.send(Err(full));
            return;
        }
        self.waiting.push_back(propose.0);
        if self.in_flight < ENTRIES_IN_FLIGHT {
            // Whatever else is in the mailbox joins the batch: it is sent after this turn.
            context.notify(Flush);
        }
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Flush;

impl Handler<Flush> for Replica {
    type Result = ();

    fn handle(&mut self, _: Flush, context: &mut Self::Context) {
        if self.in_flight >= ENTRIES_IN_FLIGHT || self.waiting.is_empty() {
            return;
        }
        let mut bytes = 0;
        let fits = |proposal: &&Proposal| {
            let had = bytes;
            bytes += encode(&proposal.command).len();
            had < BATCH_BYTES_MAX
        };
        let count = self.waiting.iter().take(BATCH_MAX).take_while(fits).count();
        let (commands, replies): (Vec<_>, Vec<_>) = self
            .waiting
            .drain(..count)
            .map(|proposal| (proposal.command, proposal.reply))
            .unzip();
        metrics::RAFT_BATCH_COMMANDS.observe_count(count);
        self.in_flight += 1;
        let raft = self.raft.clone();
        let writing = async move {
            let written = tokio::select! {
                written = raft.client_write(Batch(commands)) => written.map_err(|error| refused(error, &raft)),
                // What becomes of the entry is the next leader's to say. Whoever asks it again, under the same
                // sequence, learns that.
                error = deposed(&raft) => Err(error),
            };
            match written {
                Ok(written) => {
                    for (reply, result) in replies.into_iter().zip(written.data.0) {
                        let _ = reply.send(Ok(result));
                    }
                }
                Err(error) => {
                    replies
                        .into_iter()
                        .for_each(|reply| drop(reply.send(Err(error.clone()))));
                }
            }
        };
        context.spawn(writing.into_actor(self).map(|(), replica, context| {
            replica.in_flight -= 1;
            if !replica.waiting.is_empty() {
                context.notify(Flush);
            }
        }));
    }
}
