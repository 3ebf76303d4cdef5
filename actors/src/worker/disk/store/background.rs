//! What a disk does by itself: measuring, syncing, reporting.

use std::fs::File;

use curvine_protocol::cluster::BlockReplica;
use curvine_protocol::{BlockId, Error, ErrorKind, Result};

use super::super::device::sync_file_system;
use super::super::index::Change;
use super::super::record::BlockFlags;
use super::unsynced::Todo;
use super::{Store, lock};

/// Replicas, and what their flags are; the last id looked at, none at the end.
pub type ReplicaPage = (Vec<(BlockReplica, BlockFlags)>, Option<BlockId>);

impl Store {
    /// Measures the device.
    ///
    /// # Errors
    /// `Io`.
    pub fn measure(&self) -> Result<()> {
        let device = rustix::fs::statvfs(&self.directory.path).map_err(|e| {
            Error::from(std::io::Error::from(e)).while_doing(format_args!("measuring {}", self.name))
        })?;
        self.space().measured(device.f_bavail * device.f_frsize);
        self.measure_small()
    }

    /// Puts on disk what was sealed without a sync, and the index.
    ///
    /// # Errors
    /// `Io`.
    pub fn sync_background(&self) -> Result<()> {
        let todo = lock(&self.unsynced).begin();
        let Some((todo, round)) = todo else {
            return self.index.sync();
        };
        let outcome = match todo {
            Todo::Everything => self.sync_everything(),
            // One that fails keeps no other from the disk.
            Todo::Blocks(blocks) => (blocks.into_iter())
                .map(|block| self.sync_block(block))
                .fold(Ok(()), Result::and),
        };
        lock(&self.unsynced).ended(outcome.is_ok());
        outcome?;
        self.index.submit_and_wait(vec![Change::Synced(round)], true)
    }

    /// Gives back to the device what the index no longer uses.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub fn shorten_index(&self) -> Result<()> {
        self.index.compact()
    }

    fn sync_block(&self, block: BlockId) -> Result<()> {
        match self.file(block) {
            Ok(file) => file.sync_data().map_err(|e| self.sync_failed(e, block)),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A failed one is the disk's end, as [`Store::sync_failed`] says.
    fn sync_everything(&self) -> Result<()> {
        let directory = File::open(&self.directory.path).map_err(Error::from)?;
        sync_file_system(&directory).map_err(|e| {
            let error = Error::from(e).while_doing(format_args!("syncing {}", self.name));
            self.give_up(&error);
            error
        })
    }

    /// Everything on disk, and noted so that the next start need not verify. The last thing a disk does.
    ///
    /// # Errors
    /// `Io`.
    pub fn finish(&self) -> Result<()> {
        self.sync_everything()?;
        self.index.stop()
    }

    /// Up to `limit` blocks that are wholly here, after one; not what are copies of what another disk of the worker has, nor
    /// what is cached and endangered.
    ///
    /// # Errors
    /// `Io`.
    pub fn replicas(&self, after: Option<BlockId>, limit: usize) -> Result<ReplicaPage> {
        let mut replicas = Vec::new();
        if self.has_vanished() {
            return Ok((replicas, None));
        }
        let last = self.index.page(after, limit, |id, record| {
            if let Ok(record) = record
                && !record.is_filling()
                && !record.is_guest()
                && !self.is_given_up(id, &record)
            {
                let replica = BlockReplica {
                    id,
                    generation: record.generation(),
                    len_bytes: record.len_bytes(),
                };
                replicas.push((replica, record.flags()));
            }
        })?;
        Ok((replicas, last))
    }
}
