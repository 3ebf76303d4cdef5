//! Open files: reading, writing, making it visible, making it durable.

use std::sync::Arc;

use bytes::Bytes;
use curvine_actors::client::{CreateOptions, OpenFile};
use curvine_protocol::master::IfExists;
use curvine_protocol::{InodeId, Node};
use fuser::{FileAttr, FileHandle};

use super::{Core, User};
use crate::convert::{Refusal, Result};
use crate::files::{Access, Handle, Slot, release};

/// Zeros are written in pieces of this.
const ZERO_BYTES: u64 = 1 << 20;

/// An opened file, for the kernel.
pub struct Opened {
    pub handle: FileHandle,
    /// The pages that the kernel has are of this version.
    pub keep_pages: bool,
    /// Closing it needs no flush.
    pub no_flush: bool,
}

/// What `fallocate(2)` is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocate {
    /// Make the file at least this long, with space behind it.
    Extend,
    /// Make a range read as zeros; the file stays as long as it is.
    Zero,
    /// As `Zero`, and make the file as long as the range.
    ZeroAndExtend,
}

impl Allocate {
    /// # Errors
    /// `EOPNOTSUPP` for what cannot be had: programs then do without.
    pub fn of_mode(mode: i32) -> Result<Self> {
        use libc::{
            FALLOC_FL_KEEP_SIZE as KEEP, FALLOC_FL_PUNCH_HOLE as PUNCH, FALLOC_FL_ZERO_RANGE as ZERO,
        };
        match mode {
            0 => Ok(Allocate::Extend),
            _ if mode == PUNCH | KEEP || mode == ZERO | KEEP => Ok(Allocate::Zero),
            _ if mode == ZERO => Ok(Allocate::ZeroAndExtend),
            _ => Err(Refusal::of(libc::EOPNOTSUPP)),
        }
    }
}

impl Core {
    pub async fn open(&self, user: User, inode: InodeId, access: Access, truncate: bool) -> Result<Opened> {
        let slot = self.files.enter(inode);
        let opened = match access {
            Access::Read => self.open_for_read(&slot).await,
            Access::Write => self.open_for_write(user, &slot, truncate).await,
        };
        match opened {
            Ok(file) => Ok(self.opened(slot, &file, access).await),
            Err(refusal) => {
                release(&self.client, self.files.abandon(&slot)).await;
                Err(refusal)
            }
        }
    }

    /// As it is now, unless it is being written here: then as it will be.
    async fn open_for_read(&self, slot: &Slot) -> Result<OpenFile> {
        let writers = slot.writers.lock().await;
        if *writers > 0 {
            return slot.file();
        }
        let file = self.client.open(slot.inode).await?;
        slot.use_file(file.clone());
        Ok(file)
    }

    async fn open_for_write(&self, user: User, slot: &Slot, truncate: bool) -> Result<OpenFile> {
        let mut writers = slot.writers.lock().await;
        let file = match *writers {
            0 => {
                let file = self.client_of(user).open_for_write(slot.inode, truncate).await?;
                slot.use_file(file.clone());
                file
            }
            _ => {
                let file = slot.file()?;
                if truncate {
                    file.truncate(0).await?;
                }
                file
            }
        };
        *writers += 1;
        slot.note_writers(*writers);
        Ok(file)
    }

    async fn opened(&self, slot: Arc<Slot>, file: &OpenFile, access: Access) -> Opened {
        let inode = slot.inode;
        let fresh = self.known.opened(inode, file.attr().await.content_version);
        if fresh.drop_attributes {
            self.drop_attributes(inode);
        }
        Opened {
            handle: self.files.opened(slot, access),
            keep_pages: fresh.keep_pages,
            no_flush: access == Access::Read,
        }
    }

    pub async fn create(
        &self,
        user: User,
        parent: InodeId,
        name: String,
        mode: u32,
        if_exists: IfExists,
    ) -> Result<(FileAttr, Opened)> {
        let options = CreateOptions {
            mode: mode & 0o7777,
            if_exists,
            ..CreateOptions::default()
        };
        let client = self.client_of(user);
        let file = client.create(Node::child(parent, name), options).await?;
        let inode = file.inode();
        let slot = self.files.enter(inode);
        let file = {
            let mut writers = slot.writers.lock().await;
            // Another handle may have been opened since, or before by another name: it has the bytes that count.
            let file = match slot.file_if_open() {
                Some(shared) if *writers > 0 => shared,
                _ => file,
            };
            slot.use_file(file.clone());
            *writers += 1;
            slot.note_writers(*writers);
            file
        };
        let attr = self.shown(file.attr().await);
        Ok((attr, self.opened(slot, &file, Access::Write).await))
    }

    pub async fn read(&self, handle: FileHandle, offset_bytes: u64, len_bytes: u32) -> Result<Bytes> {
        let slot = self.files.handle(handle)?.slot;
        Ok(slot.file()?.read_at(offset_bytes, len_bytes.into()).await?)
    }

    pub async fn write(&self, handle: FileHandle, offset_bytes: u64, bytes: Bytes) -> Result<u32> {
        let written = bytes.len() as u32;
        self.writable(handle)?.write_at(offset_bytes, bytes).await?;
        Ok(written)
    }

    fn writable(&self, handle: FileHandle) -> Result<OpenFile> {
        match self.files.handle(handle)? {
            Handle {
                slot,
                access: Access::Write,
            } => slot.file(),
            _ => Err(Refusal::of(libc::EBADF)),
        }
    }

    /// A descriptor of the handle is being closed: what it wrote is visible to whoever opens the file afterwards.
    pub async fn flush(&self, handle: FileHandle) -> Result<()> {
        let Handle { slot, access } = self.files.handle(handle)?;
        if access == Access::Read {
            return Ok(());
        }
        let writers = slot.writers.lock().await;
        let file = slot.file()?;
        // The lease goes with the last writer. A duplicate of the descriptor that writes on gets it again.
        let attr = match *writers {
            1 => file.close().await?,
            _ => file.flush().await?,
        };
        self.known.written(slot.inode, attr.content_version);
        Ok(())
    }

    /// The kernel closes the handle.
    pub async fn release(&self, handle: FileHandle) -> Result<()> {
        let Handle { slot, access } = self.files.handle(handle)?;
        let closed = match access {
            Access::Read => Ok(()),
            Access::Write => self.writer_left(&slot).await,
        };
        release(&self.client, self.files.closed(handle)).await;
        closed
    }

    async fn writer_left(&self, slot: &Slot) -> Result<()> {
        let mut writers = slot.writers.lock().await;
        *writers -= 1;
        let closed = match (*writers, slot.file_if_open()) {
            (0, Some(file)) => file.close().await.map(Some),
            _ => Ok(None),
        };
        slot.note_writers(*writers);
        if let Some(attr) = closed? {
            self.known.written(slot.inode, attr.content_version);
        }
        Ok(())
    }

    pub async fn fsync(&self, handle: FileHandle) -> Result<()> {
        let Handle { slot, access } = self.files.handle(handle)?;
        if access == Access::Write || slot.has_writers() {
            let attr = slot.file()?.sync().await?;
            self.known.written(slot.inode, attr.content_version);
        }
        Ok(())
    }

    pub async fn fallocate(
        &self,
        handle: FileHandle,
        offset_bytes: u64,
        len_bytes: u64,
        what: Allocate,
    ) -> Result<()> {
        let file = self.writable(handle)?;
        let size_bytes = file.size_now();
        let end = offset_bytes
            .checked_add(len_bytes)
            .filter(|end| *end <= i64::MAX as u64)
            .ok_or(Refusal::of(libc::EFBIG))?;
        let (mut at, end) = match what {
            // Zeros that are written have space behind them; a hole has not.
            Allocate::Extend => (size_bytes, end),
            Allocate::Zero => (offset_bytes, end.min(size_bytes)),
            Allocate::ZeroAndExtend => (offset_bytes, end),
        };
        let zeros = Bytes::from(vec![0; ZERO_BYTES.min(end.saturating_sub(at)) as usize]);
        while at < end {
            let piece = zeros.slice(..ZERO_BYTES.min(end - at) as usize);
            let piece_bytes = piece.len() as u64;
            file.write_at(at, piece).await?;
            at += piece_bytes;
        }
        Ok(())
    }

    /// Makes everything written here visible: the mount is going away.
    pub async fn close_all(&self) {
        for slot in self.files.written() {
            if let Some(file) = slot.file_if_open()
                && let Err(error) = file.close().await
            {
                tracing::error!(%error, "inode {} was written and could not be closed", slot.inode);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fallocate_cannot_do_is_said_to_be_unsupported() {
        let of = |mode| Allocate::of_mode(mode).map_err(|refusal| refusal.errno);
        assert_eq!(of(0), Ok(Allocate::Extend));
        assert_eq!(
            of(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE),
            Ok(Allocate::Zero)
        );
        assert_eq!(of(libc::FALLOC_FL_ZERO_RANGE), Ok(Allocate::ZeroAndExtend));
        assert_eq!(of(libc::FALLOC_FL_COLLAPSE_RANGE), Err(libc::EOPNOTSUPP));
        assert_eq!(of(libc::FALLOC_FL_KEEP_SIZE), Err(libc::EOPNOTSUPP));
    }
}
