//! Open files: reading, writing, making it visible, making it durable.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use curvine_actors::client::{CreateOptions, OpenFile};
use curvine_actors::planted::{Bug, is_planted};
use curvine_protocol::acl::WantedMode;
use curvine_protocol::master::IfExists;
use curvine_protocol::number::to_u32;
use curvine_protocol::{Attr, ErrorKind, FILE_BYTES_MAX, InodeId, Node};
use fuser::{FileAttr, FileHandle};

use super::{Core, User};
use crate::convert::{Refusal, Result};
use crate::files::{Access, Handle, Slot};
use crate::inodes::Pages;
use crate::reads::Reading;

/// A name may come and go while a file of that name is being made: so often it is looked at again.
const CREATE_TRIES: u32 = 8;

/// An opened file, for the kernel.
pub struct Opened {
    pub handle: FileHandle,
    /// The pages that the kernel has are of this version.
    pub keep_pages: bool,
    /// Closing it needs no flush.
    pub no_flush: bool,
    /// What goes through it passes by the kernel's pages.
    pub direct: bool,
}

/// What is read, for the kernel.
pub struct Answer {
    pub bytes: Bytes,
    /// The inode, if the kernel's pages of it are to go once it has the bytes.
    pub old_pages: Option<InodeId>,
    /// To be dropped then, too.
    pub reading: Reading,
}

/// How `open(2)` is to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    pub access: Access,
    /// It may read, which a handle that writes may not always.
    pub reads: bool,
    pub truncate: bool,
    /// Only if it makes the file.
    pub exclusive: bool,
}

impl How {
    /// The bits of `access(2)` that it takes.
    fn permissions(self) -> u32 {
        let writes = self.access.writes() || self.truncate;
        u32::from(self.reads) * READ_BIT + u32::from(writes) * WRITE_BIT
    }
}

/// Which file an open is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// That of a name: one that has lost its last one is not it.
    Named,
    /// Also one that has no name any more.
    Any,
}

const READ_BIT: u32 = 4;
const WRITE_BIT: u32 = 2;

/// How a request writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteHow {
    /// Past the kernel's pages.
    pub direct: bool,
    /// From a page that was mapped, at some time after it was changed, through some handle that may write.
    pub from_pages: bool,
    /// Whoever writes may not leave the set-user-id and set-group-id bits.
    pub clears_privileges: bool,
}

impl User {
    /// Whether the mode of a file allows this to a user, whose other groups the system knows.
    fn may(&self, wanted: u32, mode: u32, owner: u32, group: u32) -> bool {
        let shift = match self.uid {
            0 => return true,
            uid if uid == owner => 6,
            _ if self.gid == group || self.groups().contains(&group) => 3,
            _ => 0,
        };
        (mode >> shift) & wanted == wanted
    }

    /// The other groups of the process that asks; none if it is gone.
    fn groups(&self) -> Vec<u32> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        groups_in(&status)
    }
}

/// # Errors
/// `EBADF` for a handle that only reads.
fn writable(handle: &Handle) -> Result<OpenFile> {
    match handle.access.writes() {
        true => handle.file(),
        false => Err(Refusal::of(libc::EBADF)),
    }
}

/// From the text of `/proc/PID/status` (proc(5)).
fn groups_in(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    let groups = line.unwrap_or_default().split_whitespace();
    groups.filter_map(|group| group.parse().ok()).collect()
}

/// Cuts a file, or extends it, on behalf of a user.
pub(super) async fn cut(file: &OpenFile, size_bytes: u64, user: User) -> Result<Attr> {
    Ok(match user.uid {
        0 => file.truncate_keeping_privileges(size_bytes).await?,
        _ => file.truncate(size_bytes).await?,
    })
}

/// What `fallocate(2)` is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocate {
    /// There shall be space behind a range. Extends the file, unless it shall keep its size.
    Room { keep_size: bool },
    /// As `Room`, and the range reads as zeros.
    Zeros { keep_size: bool },
    /// The range reads as zeros, and nothing is behind it.
    Hole,
}

impl Allocate {
    /// # Errors
    /// `EOPNOTSUPP` for what cannot be had: programs then do without.
    pub fn of_mode(mode: i32) -> Result<Self> {
        use libc::{
            FALLOC_FL_KEEP_SIZE as KEEP, FALLOC_FL_PUNCH_HOLE as PUNCH, FALLOC_FL_ZERO_RANGE as ZERO,
        };
        let keep_size = mode & KEEP != 0;
        match mode & !KEEP {
            0 => Ok(Allocate::Room { keep_size }),
            ZERO => Ok(Allocate::Zeros { keep_size }),
            PUNCH if keep_size => Ok(Allocate::Hole),
            _ => Err(Refusal::of(libc::EOPNOTSUPP)),
        }
    }

    fn takes_space(self) -> bool {
        self != Allocate::Hole
    }

    fn zeroes(self) -> bool {
        matches!(self, Allocate::Hole | Allocate::Zeros { .. })
    }

    fn extends(self) -> bool {
        matches!(
            self,
            Allocate::Room { keep_size: false } | Allocate::Zeros { keep_size: false }
        )
    }
}

impl Core {
    /// Opens what the kernel takes for the file of a name, or has open already.
    pub async fn open(&self, user: User, inode: InodeId, how: How) -> Result<Opened> {
        let (is_meant, kept) = self.walks.arrived(user.pid, inode, self.clock.now());
        let which = match is_meant {
            true => Which::Any,
            false => Which::Named,
        };
        let opened = self.open_which(user, inode, how, which).await;
        drop(kept);
        self.walks_again(user, inode, is_meant, opened)
    }

    async fn open_which(&self, user: User, inode: InodeId, how: How, which: Which) -> Result<Opened> {
        let slot = self.files.enter(inode);
        let opened = match how.access.writes() {
            false => self.open_for_read(&slot, which).await,
            true => self.open_for_write(user, &slot, how.truncate, which).await,
        };
        let opened = match opened {
            Ok(file) => self.unless_behind(&slot, file, how, which).await,
            Err(refusal) => Err(refusal),
        };
        match opened {
            Ok(file) => Ok(self.opened(slot, &file, how.access).await),
            Err(refusal) => {
                self.files.abandon(&slot);
                Err(refusal)
            }
        }
    }

    /// The kernel reads no further than where it thinks that a file ends, and up to there it would read zeros. If it knows an
    /// older content, the open is refused: the kernel then looks the file up again, and takes over its size.
    ///
    /// # Errors
    /// `ESTALE`.
    async fn unless_behind(&self, slot: &Slot, file: OpenFile, how: How, which: Which) -> Result<OpenFile> {
        let sees_the_end = !how.truncate && how.access != Access::Append;
        let version = file.attr().await.content_version;
        if which == Which::Any || !sees_the_end || !self.inodes.is_behind(slot.inode, version) {
            return Ok(file);
        }
        // All pages, which may be of an open before; and now: while they are dropped, the kernel does not take over what it
        // is told.
        let _ = self.inodes.moved(slot.inode, version, file.lineage());
        self.drop_pages(slot.inode, 0, 0).await;
        if how.access.writes() {
            self.writer_left(slot).await?;
        }
        Err(Refusal::of(libc::ESTALE))
    }

    /// As it is now, unless it is being written here: then as it will be.
    async fn open_for_read(&self, slot: &Slot, which: Which) -> Result<OpenFile> {
        let writers = slot.writers.lock().await;
        if *writers > 0 {
            self.check_name(slot, which).await?;
            return self.refreshed(slot).await;
        }
        let file = match which {
            Which::Any => self.client.open(slot.inode).await?,
            Which::Named => self.client.open_named(slot.inode).await?,
        };
        file.keep_privileges();
        slot.use_file(file.clone());
        Ok(file)
    }

    /// # Errors
    /// `ESTALE` if it has no name, and that is asked for.
    async fn check_name(&self, slot: &Slot, which: Which) -> Result<()> {
        if which == Which::Named && self.client.lookup(slot.inode, false).await?.attr.nlink == 0 {
            return Err(Refusal::of(libc::ESTALE));
        }
        Ok(())
    }

    /// What the writers share. While another client has the lease, it is what the masters say.
    async fn refreshed(&self, slot: &Slot) -> Result<OpenFile> {
        let file = slot.file()?;
        if !file.holds_lease() {
            // All handles of this client see what one of them is told.
            self.client.open(slot.inode).await?;
        }
        Ok(file)
    }

    async fn open_for_write(
        &self,
        user: User,
        slot: &Slot,
        truncate: bool,
        which: Which,
    ) -> Result<OpenFile> {
        let mut writers = slot.writers.lock().await;
        let file = match *writers {
            0 => {
                let client = self.client_of(user);
                let file = match which {
                    Which::Any => client.open_for_write(slot.inode, truncate).await?,
                    Which::Named => client.open_named_for_write(slot.inode, truncate).await?,
                };
                file.keep_privileges();
                slot.use_file(file.clone());
                file
            }
            _ => {
                self.check_name(slot, which).await?;
                let file = self.refreshed(slot).await?;
                if truncate {
                    cut(&file, 0, user).await?;
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
        let lineage = file.lineage();
        slot.lineage.store(lineage, Ordering::Release);
        let fresh = self
            .inodes
            .opened(inode, file.attr().await.content_version, lineage);
        if fresh.keep_pages {
            slot.paged.store(true, Ordering::Release);
        }
        if fresh.drop_attributes {
            self.drop_attributes(inode);
        }
        Opened {
            handle: self.files.opened(slot, access),
            keep_pages: fresh.keep_pages,
            no_flush: !access.writes(),
            // The kernel's own end of the file may be an old one: what is appended must not go through its pages.
            direct: access == Access::Append,
        }
    }

    pub async fn create(
        &self,
        user: User,
        parent: InodeId,
        name: String,
        mode: WantedMode,
        how: How,
    ) -> Result<(FileAttr, Opened)> {
        for _ in 0..CREATE_TRIES {
            let options = CreateOptions {
                mode: mode.masked,
                unmasked: mode.unmasked,
                if_exists: IfExists::Fail,
                ..CreateOptions::default()
            };
            let node = Node::child(parent, name.clone());
            match self.client_of(user).create(node.clone(), options).await {
                Ok(file) => return Ok(self.created(file, how).await),
                Err(error) if error.kind == ErrorKind::AlreadyExists && !how.exclusive => {}
                outcome => {
                    self.in_directory(parent, outcome)?;
                }
            }
            // Somebody else has made it since the kernel looked, which will not ask whether this user may open it.
            let attr = match self.client.lookup(node, false).await {
                Ok(found) => found.attr,
                Err(error) if error.kind == ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            if !attr.is_file() {
                // The kernel looks again, and knows what to do with it.
                return Err(Refusal::of(libc::ESTALE));
            }
            let wanted = how.permissions();
            if !is_planted(Bug::OpensWhatItDidNotMake) && !user.may(wanted, attr.mode, attr.uid, attr.gid) {
                return Err(Refusal::of(libc::EACCES));
            }
            match self.open_which(user, attr.inode, how, Which::Named).await {
                Ok(opened) => return Ok((self.shown(attr).await, opened)),
                // Gone again meanwhile.
                Err(refusal) if refusal.errno == libc::ESTALE => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Err(Refusal::of(libc::ESTALE))
    }

    /// A file that was made for a handle.
    async fn created(&self, file: OpenFile, how: How) -> (FileAttr, Opened) {
        let slot = self.files.enter(file.inode());
        let access = match how.access {
            // It has the lease, which a handle that writes gives back.
            Access::Read => Access::Write,
            access => access,
        };
        let file = {
            let mut writers = slot.writers.lock().await;
            // Another handle may have been opened since: it has the bytes that count.
            let file = match slot.file_if_open() {
                Some(shared) if *writers > 0 => shared,
                _ => file,
            };
            file.keep_privileges();
            slot.use_file(file.clone());
            *writers += 1;
            slot.note_writers(*writers);
            file
        };
        let attr = self.shown(file.attr().await).await;
        (attr, self.opened(slot, &file, access).await)
    }

    pub async fn read(
        &self,
        handle: FileHandle,
        offset_bytes: u64,
        len_bytes: u32,
        direct: bool,
    ) -> Result<Answer> {
        let slot = self.files.handle(handle)?.slot;
        let reading = slot.reads.begin();
        let file = slot.file()?;
        if !direct {
            slot.paged.store(true, Ordering::Release);
        }
        let bytes = file.read_at(offset_bytes, len_bytes.into()).await?;
        if bytes.is_empty() {
            reading.after_those_before().await;
        }
        Ok(Answer {
            bytes,
            old_pages: self.moved(&slot, &file).then_some(slot.inode),
            reading,
        })
    }

    /// How much was written, and whether the kernel's pages are to go once it knows.
    pub async fn write(
        &self,
        handle: FileHandle,
        offset_bytes: u64,
        bytes: Bytes,
        how: WriteHow,
    ) -> Result<(u32, Option<InodeId>)> {
        let handle = self.files.handle(handle)?;
        let file = writable(&handle)?;
        handle.writes();
        let Handle { slot, access, .. } = handle;
        let written = to_u32(bytes.len());
        if how.clears_privileges {
            file.clear_privileges();
            self.drop_attributes(slot.inode);
        }
        let appends = access == Access::Append && !how.from_pages;
        let at = match appends {
            true => file.append(bytes).await?,
            false => {
                file.write_at(offset_bytes, bytes).await?;
                offset_bytes
            }
        };
        let direct = how.direct || appends;
        if slot.wrote(direct) == Pages::Drop {
            self.drop_pages(slot.inode, at, written.into()).await;
        }
        // The kernel has put it elsewhere, and its end of the file is another one.
        let elsewhere = at != offset_bytes;
        if elsewhere {
            self.inodes.misled(slot.inode);
            self.drop_attributes(slot.inode);
        }
        let moved = self.moved(&slot, &file) || elsewhere && !direct;
        Ok((written, moved.then_some(slot.inode)))
    }

    /// A descriptor of the handle is being closed: what it wrote is visible to whoever opens the file afterwards.
    pub async fn flush(&self, handle: FileHandle) -> Result<()> {
        let handle = self.files.handle(handle)?;
        if !handle.access.writes() {
            return Ok(());
        }
        let slot = &handle.slot;
        let _alone = slot.writers.lock().await;
        let file = handle.file()?;
        // The lease goes with the last that wrote. Whoever writes on, by a duplicate of the descriptor or another one, gets
        // it again.
        let attr = match handle.flushes() {
            true => file.close().await?,
            false => file.flush().await?,
        };
        self.committed(slot, &file, &attr).await;
        Ok(())
    }

    /// The masters have what was written here.
    pub(super) async fn committed(&self, slot: &Slot, file: &OpenFile, attr: &Attr) {
        let pages = self
            .inodes
            .moved(slot.inode, attr.content_version, file.lineage());
        self.drop_if(pages, slot).await;
        // How much of what is sealed is in holes, the workers have said just now.
        let told = self.inodes.shown(slot.inode);
        if told.is_some_and(|told| told.hole_bytes != attr.hole_bytes) {
            self.drop_attributes(slot.inode);
        }
    }

    /// The kernel closes the handle.
    pub async fn release(&self, handle: FileHandle) -> Result<()> {
        let leaving = self.files.handle(handle)?;
        let closed = match leaving.access.writes() {
            false => Ok(()),
            true => {
                leaving.flushes();
                self.writer_left(&leaving.slot).await
            }
        };
        self.files.closed(handle);
        closed
    }

    async fn writer_left(&self, slot: &Slot) -> Result<()> {
        let mut writers = slot.writers.lock().await;
        *writers -= 1;
        let file = slot.file_if_open();
        let closed = match (*writers, &file) {
            (0, Some(file)) => file.close().await.map(Some),
            _ => Ok(None),
        };
        slot.note_writers(*writers);
        if let (Some(attr), Some(file)) = (closed?, file) {
            self.committed(slot, &file, &attr).await;
        }
        Ok(())
    }

    /// Whoever asks, and whoever wrote: the file is on disk as it is.
    pub async fn fsync(&self, handle: FileHandle) -> Result<()> {
        let handle = self.files.handle(handle)?;
        let Handle { slot, access, .. } = &handle;
        if !access.writes() && !slot.has_writers() && is_planted(Bug::ReadersSyncNothing) {
            return Ok(());
        }
        let file = handle.file()?;
        let attr = file.sync().await?;
        self.committed(slot, &file, &attr).await;
        Ok(())
    }

    /// Nothing is reserved: where there is no room now for what is to have space, that is said, and that is all.
    pub async fn fallocate(
        &self,
        handle: FileHandle,
        offset_bytes: u64,
        len_bytes: u64,
        what: Allocate,
        user: User,
    ) -> Result<()> {
        let handle = self.files.handle(handle)?;
        let file = writable(&handle)?;
        handle.writes();
        let slot = handle.slot;
        self.refreshed(&slot).await?;
        let end = offset_bytes
            .checked_add(len_bytes)
            .filter(|end| *end <= FILE_BYTES_MAX)
            .ok_or(Refusal::of(libc::EFBIG))?;
        if what.takes_space() {
            self.make_sure_of_room(&file, offset_bytes..end).await?;
        }
        if user.uid != 0 {
            file.clear_privileges();
            self.drop_attributes(file.inode());
        }
        if what.zeroes() {
            file.punch(offset_bytes, len_bytes).await?;
            self.committed(&slot, &file, &file.attr().await).await;
        }
        if what.extends() {
            file.extend(end).await?;
        }
        Ok(())
    }

    /// # Errors
    /// `ENOSPC` where the workers have less room than a range would take that is in no block yet.
    async fn make_sure_of_room(&self, file: &OpenFile, range: Range<u64>) -> Result<()> {
        let replicas = u64::from(file.attr().await.replicas.max(1));
        let missing_bytes = (range.end - range.start).saturating_sub(file.held_in(range).await);
        let space = self.client.statfs().await?;
        // Without capacity, no worker has registered yet: then nobody knows.
        let is_known = space.capacity_bytes > 0;
        match is_known && missing_bytes.saturating_mul(replicas) > space.available_bytes {
            true => Err(Refusal::of(libc::ENOSPC)),
            false => Ok(()),
        }
    }

    /// Of `lseek(2)` with `SEEK_DATA` or `SEEK_HOLE`.
    ///
    /// # Errors
    /// `ENXIO` behind the end, and where only a hole follows when data is looked for.
    pub async fn seek(&self, handle: FileHandle, offset: i64, whence: i32) -> Result<i64> {
        let slot = self.files.handle(handle)?.slot;
        let file = slot.file()?;
        let offset_bytes = u64::try_from(offset).map_err(|_| Refusal::of(libc::ENXIO))?;
        if slot.has_writers() && slot.paged.load(Ordering::Acquire) {
            // What was written through a mapping may be in the kernel's pages alone.
            self.drop_pages(slot.inode, offset_bytes, 0).await;
        }
        let found = match whence {
            libc::SEEK_DATA => file.next_data(offset_bytes).await?,
            libc::SEEK_HOLE => file.next_hole(offset_bytes).await?,
            _ => return Err(Refusal::of(libc::EINVAL)),
        };
        let found = found.and_then(|found| i64::try_from(found).ok());
        found.ok_or(Refusal::of(libc::ENXIO))
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
    fn a_file_that_somebody_else_made_is_opened_as_its_mode_allows() {
        let may = |uid, gid, wanted, mode| User { uid, gid, pid: 0 }.may(wanted, mode, 1, 2);
        let both = READ_BIT | WRITE_BIT;
        assert!(!may(2000, 2000, READ_BIT, 0o600));
        assert!(may(1, 2000, both, 0o600));
        assert!(!may(1, 2, READ_BIT, 0o060), "the owner's bits alone count");
        assert!(may(2000, 2, READ_BIT, 0o040));
        assert!(!may(2000, 2, WRITE_BIT, 0o646), "so do the group's");
        assert!(may(0, 0, both, 0));
        assert_eq!(groups_in("Uid:\t1\nGroups:\t4 24 1000 \nX:\t9\n"), [4, 24, 1000]);
    }

    #[test]
    fn what_fallocate_cannot_do_is_said_to_be_unsupported() {
        let of = |mode| Allocate::of_mode(mode).map_err(|refusal| refusal.errno);
        let keep = libc::FALLOC_FL_KEEP_SIZE;
        assert_eq!(of(0), Ok(Allocate::Room { keep_size: false }));
        assert_eq!(of(keep), Ok(Allocate::Room { keep_size: true }));
        assert_eq!(of(libc::FALLOC_FL_PUNCH_HOLE | keep), Ok(Allocate::Hole));
        assert_eq!(
            of(libc::FALLOC_FL_ZERO_RANGE),
            Ok(Allocate::Zeros { keep_size: false })
        );
        for unsupported in [
            libc::FALLOC_FL_PUNCH_HOLE,
            libc::FALLOC_FL_COLLAPSE_RANGE,
            libc::FALLOC_FL_INSERT_RANGE,
            libc::FALLOC_FL_UNSHARE_RANGE,
            libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE | keep,
        ] {
            assert_eq!(of(unsupported), Err(libc::EOPNOTSUPP), "{unsupported}");
        }
    }
}
