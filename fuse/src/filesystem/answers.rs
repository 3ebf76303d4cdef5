//! How the work of a request is run, and how what came of it is put into the kernel's words.

use std::future::Future;
use std::time::Duration;

use curvine_actors::kit::metrics::{self, FuseOp, Outcome, Timing};
use curvine_protocol::master::FsStats;
use curvine_protocol::number::to_u32;
use fuser::{
    FileAttr, FopenFlags, Generation, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyLock, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
};

use super::CurvineFs;
use crate::convert::{Refusal, Result};
use crate::core::{Listed, Opened};

/// Unit of `statfs`.
const STATFS_BLOCK_BYTES: u32 = 4096;
/// Inodes are never used again, so one generation is enough.
pub(super) const GENERATION: Generation = Generation(0);

impl CurvineFs {
    /// Runs the work of a request and replies with what came of it.
    pub(super) fn serve<T, R>(
        &self,
        op: FuseOp,
        reply: R,
        work: impl Future<Output = Result<T>> + Send + 'static,
        send: impl FnOnce(R, T) + Send + 'static,
    ) where
        T: Send + 'static,
        R: Refuse + Send + 'static,
    {
        let timing = Timing::begin();
        self.runner.run(async move {
            match work.await {
                Ok(done) => send(reply, done),
                Err(refusal) => {
                    log(op.name(), &refusal);
                    count(op, &refusal);
                    reply.refuse(refusal.to_kernel());
                }
            }
            metrics::FUSE_REQUEST_SECONDS.observe(op as usize, timing.took());
        });
    }

    /// As [`CurvineFs::serve`] for requests that are answered with an entry.
    pub(super) fn serve_entry(
        &self,
        op: FuseOp,
        reply: ReplyEntry,
        work: impl Future<Output = Result<FileAttr>> + Send + 'static,
    ) {
        let ttl = self.core.ttl;
        self.serve(op, reply, work, move |reply, attr| {
            reply.entry(&ttl, &attr, GENERATION)
        });
    }

    /// As [`CurvineFs::serve`] for requests that are done or not.
    pub(super) fn serve_done(
        &self,
        op: FuseOp,
        reply: ReplyEmpty,
        work: impl Future<Output = Result<()>> + Send + 'static,
    ) {
        self.serve(op, reply, work, |reply, ()| reply.ok());
    }
}

/// Faults are worth a line; the file system's ordinary answers are not.
fn log(op: &str, refusal: &Refusal) {
    use curvine_protocol::ErrorKind::*;
    let Some(error) = &refusal.error else { return };
    match error.kind {
        Corrupt | BlockUnavailable | Ufs | UfsDenied | UfsChanged | NotLeader | Unreachable | Timeout
        | Overloaded | Protocol | WrongCluster | Io | Internal | NoSpace => {
            tracing::warn!("{op}: {error}");
        }
        _ => tracing::debug!("{op}: {error}"),
    }
}

/// An error, by whose business it is. A bare number is what the kernel or its program did wrong.
fn count(op: FuseOp, refusal: &Refusal) {
    let outcome = refusal.error.as_ref().map_or(Outcome::Refused, Outcome::of);
    metrics::FUSE_REQUEST_ERRORS.add_error(op as usize, outcome);
}

/// A reply that can be a number instead.
pub(super) trait Refuse {
    fn refuse(self, errno: fuser::Errno);
}

macro_rules! refuse {
    ($($reply:ty),*) => {$(
        impl Refuse for $reply {
            fn refuse(self, errno: fuser::Errno) { self.error(errno) }
        }
    )*};
}

refuse!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyLock,
    ReplyLseek,
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr
);

pub(super) fn open_flags(opened: &Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_pages);
    flags.set(FopenFlags::FOPEN_NOFLUSH, opened.no_flush);
    flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct);
    flags
}

/// As `getxattr(2)`: the size alone if that is asked, `ERANGE` if the value does not fit.
pub(super) fn value(reply: ReplyXattr, value: &[u8], room: u32) {
    match room {
        0 => reply.size(to_u32(value.len())),
        _ if value.len() > room as usize => reply.error(fuser::Errno::ERANGE),
        _ => reply.data(value),
    }
}

/// As many entries as the kernel has room for; it asks on from there.
pub(super) fn entries(mut reply: ReplyDirectory, entries: Vec<Listed>) {
    for entry in entries {
        if reply.add(entry.attr.ino, entry.next, entry.attr.kind, &entry.name) {
            break;
        }
    }
    reply.ok();
}

/// As [`entries`], which the kernel then knows as if it had looked them up.
pub(super) fn entries_with_attributes(mut reply: ReplyDirectoryPlus, entries: Vec<Listed>, ttl: Duration) {
    for entry in entries {
        let attr = &entry.attr;
        if reply.add(attr.ino, entry.next, &entry.name, &ttl, attr, GENERATION) {
            break;
        }
    }
    reply.ok();
}

/// As `statfs(2)`, in blocks.
pub(super) fn statfs(reply: ReplyStatfs, stats: FsStats) {
    let blocks = |bytes: u64| bytes / u64::from(STATFS_BLOCK_BYTES);
    // Cached blocks make room.
    let kept_bytes = stats.used_bytes.saturating_sub(stats.cached_bytes);
    let free = stats.capacity_bytes.saturating_sub(kept_bytes);
    reply.statfs(
        blocks(stats.capacity_bytes),
        blocks(free),
        blocks(stats.available_bytes),
        stats.inodes.saturating_add(1 << 32),
        1 << 32,
        STATFS_BLOCK_BYTES,
        to_u32(curvine_protocol::path::NAME_BYTES_MAX),
        STATFS_BLOCK_BYTES,
    );
}
