//! The thin shell: takes a request apart, lets `core` work on it, puts the reply together.
//!
//! - this file: each request of the kernel, one method each.
//! - `answers`: how a request's work is run, and how what came of it is put into the kernel's words.
//! - `locks`: `flock(2)` and `fcntl(2)`.
//! - `negotiation`: what is agreed with the kernel when it mounts.
//!
//! Invariant: every request is answered once, whatever becomes of its work.

mod answers;
mod locks;
mod negotiation;

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use curvine_actors::kit::metrics::FuseOp;
use curvine_protocol::acl::WantedMode;
use curvine_protocol::master::AttrChange;
use fuser::{
    BsdFileFlags, FileHandle, Filesystem, FopenFlags, INodeNo, IoctlFlags, KernelConfig, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use tokio::sync::watch;

use self::answers::GENERATION;
use self::locks::{Asked, SharedHolders, closed_by, released};
use crate::convert::{self, inode, name};
use crate::core::{Allocate, Core, User, WriteHow};
use crate::runner::Runner;

pub struct CurvineFs {
    core: Arc<Core>,
    runner: Runner,
    /// Whether locks hold in all mounts, not just in this one.
    locks: bool,
    holders: SharedHolders,
    /// Told when the kernel asks no more.
    end: watch::Sender<bool>,
}

impl CurvineFs {
    pub fn new(core: Arc<Core>, runner: Runner, locks: bool, end: watch::Sender<bool>) -> Self {
        CurvineFs {
            core,
            runner,
            locks,
            holders: SharedHolders::default(),
            end,
        }
    }
}

fn user(request: &Request) -> User {
    User {
        uid: request.uid(),
        gid: request.gid(),
        pid: request.pid(),
    }
}

/// The kernel leaves the umask to us; one that does not has taken it off already, and it comes off once more.
fn wanted(mode: u32, umask: u32) -> WantedMode {
    WantedMode::with_umask(mode & 0o7777, umask)
}

impl Filesystem for CurvineFs {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        negotiation::agree(config, self.locks);
        Ok(())
    }

    fn destroy(&mut self) {
        self.end.send_replace(true);
    }

    fn lookup(&self, request: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEntry) {
        let (core, child, user) = (self.core.clone(), name(child), user(request));
        self.serve_entry(FuseOp::Lookup, reply, async move {
            core.lookup(user, inode(parent), child?).await
        });
    }

    fn forget(&self, _request: &Request, _inode: INodeNo, _lookups: u64) {}

    fn getattr(&self, _request: &Request, number: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        let (core, ttl) = (self.core.clone(), self.core.ttl);
        self.serve(
            FuseOp::GetAttr,
            reply,
            async move { core.getattr(inode(number)).await },
            move |reply, attr| reply.attr(&ttl, &attr),
        );
    }

    fn setattr(
        &self,
        request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = AttrChange {
            mode: mode.map(|mode| mode & 0o7777),
            uid,
            gid,
            size_bytes: size,
            atime: atime.map(convert::set_time),
            mtime: mtime.map(convert::set_time),
            ..AttrChange::default()
        };
        let (core, ttl, user) = (self.core.clone(), self.core.ttl, user(request));
        self.serve(
            FuseOp::SetAttr,
            reply,
            async move { core.setattr(user, inode(number), change).await },
            move |reply, attr| reply.attr(&ttl, &attr),
        );
    }

    fn readlink(&self, _request: &Request, number: INodeNo, reply: ReplyData) {
        let core = self.core.clone();
        self.serve(
            FuseOp::ReadLink,
            reply,
            async move { core.readlink(inode(number)).await },
            |reply, target| reply.data(target.as_bytes()),
        );
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        child: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let (core, child, user) = (self.core.clone(), name(child), user(request));
        self.serve_entry(FuseOp::MakeNode, reply, async move {
            let kind = convert::kind_of_mode(mode)?;
            core.mknod(user, inode(parent), child?, kind, wanted(mode, umask), rdev)
                .await
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        child: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let (core, child, user) = (self.core.clone(), name(child), user(request));
        self.serve_entry(FuseOp::MakeDir, reply, async move {
            core.mkdir(user, inode(parent), child?, wanted(mode, umask)).await
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEmpty) {
        let (core, child, user) = (self.core.clone(), name(child), user(request));
        self.serve_done(FuseOp::Unlink, reply, async move {
            core.unlink(user, inode(parent), child?).await
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEmpty) {
        let (core, child, user) = (self.core.clone(), name(child), user(request));
        self.serve_done(FuseOp::RemoveDir, reply, async move {
            core.rmdir(user, inode(parent), child?).await
        });
    }

    fn symlink(&self, request: &Request, parent: INodeNo, child: &OsStr, target: &Path, reply: ReplyEntry) {
        let (core, child, user) = (self.core.clone(), name(child), user(request));
        let target = convert::target(target.as_os_str());
        self.serve_entry(FuseOp::Symlink, reply, async move {
            core.symlink(user, inode(parent), child?, target?).await
        });
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        child: &OsStr,
        new_parent: INodeNo,
        new_child: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (core, user) = (self.core.clone(), user(request));
        let (child, new_child) = (name(child), name(new_child));
        self.serve_done(FuseOp::Rename, reply, async move {
            let mode = convert::rename_mode(flags)?;
            let (from, to) = ((inode(parent), child?), (inode(new_parent), new_child?));
            core.rename(user, from, to, mode).await
        });
    }

    fn link(
        &self,
        request: &Request,
        number: INodeNo,
        new_parent: INodeNo,
        new_child: &OsStr,
        reply: ReplyEntry,
    ) {
        let (core, child, user) = (self.core.clone(), name(new_child), user(request));
        self.serve_entry(FuseOp::Link, reply, async move {
            core.link(user, inode(number), inode(new_parent), child?).await
        });
    }

    fn open(&self, request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (core, user) = (self.core.clone(), user(request));
        let how = convert::how(flags.0);
        self.serve(
            FuseOp::Open,
            reply,
            async move { core.open(user, inode(number), how).await },
            |reply, opened| reply.opened(opened.handle, answers::open_flags(&opened)),
        );
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        child: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (core, ttl) = (self.core.clone(), self.core.ttl);
        let (child, user) = (name(child), user(request));
        let how = convert::how(flags);
        self.serve(
            FuseOp::Create,
            reply,
            async move {
                core.create(user, inode(parent), child?, wanted(mode, umask), how)
                    .await
            },
            move |reply, (attr, opened)| {
                reply.created(
                    &ttl,
                    &attr,
                    GENERATION,
                    opened.handle,
                    answers::open_flags(&opened),
                );
            },
        );
    }

    fn read(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (core, after) = (self.core.clone(), self.core.clone());
        let direct = flags.0 & libc::O_DIRECT != 0;
        self.serve(
            FuseOp::Read,
            reply,
            async move { core.read(handle, offset, size, direct).await },
            move |reply, answer| {
                reply.data(&answer.bytes);
                drop(answer.reading);
                after.drop_pages_later(answer.old_pages);
            },
        );
    }

    fn write(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (core, data) = (self.core.clone(), Bytes::copy_from_slice(data));
        let after = self.core.clone();
        let how = WriteHow {
            direct: flags.0 & libc::O_DIRECT != 0,
            from_pages: write_flags.contains(WriteFlags::FUSE_WRITE_CACHE),
            clears_privileges: write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
        };
        self.serve(
            FuseOp::Write,
            reply,
            async move { core.write(handle, offset, data, how).await },
            move |reply, (written, old)| {
                reply.written(written);
                after.drop_pages_later(old);
            },
        );
    }

    fn flush(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let (core, holders) = (self.core.clone(), self.holders.clone());
        self.serve_done(FuseOp::Flush, reply, async move {
            let flushed = core.flush(handle).await;
            closed_by(&core, &holders, number, owner).await;
            flushed
        });
    }

    fn setlk(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        let asked = Asked {
            inode,
            handle,
            owner,
            range: (start, end),
            kind,
            pid,
            waits: sleep.then(|| request.pid()),
        };
        self.set_lock(asked, reply);
    }

    fn getlk(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        let asked = Asked {
            inode,
            handle,
            owner,
            range: (start, end),
            kind,
            pid,
            waits: None,
        };
        self.get_lock(asked, reply);
    }

    fn release(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let (core, holders) = (self.core.clone(), self.holders.clone());
        self.serve_done(FuseOp::Release, reply, async move {
            let closed = core.release(handle).await;
            released(&core, &holders, number, handle).await;
            closed
        });
    }

    fn fsync(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let core = self.core.clone();
        self.serve_done(FuseOp::Sync, reply, async move { core.fsync(handle).await });
    }

    fn opendir(&self, _request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(self.core.directories.open(inode(number)), FopenFlags::empty());
    }

    fn readdir(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let core = self.core.clone();
        self.serve(
            FuseOp::ReadDir,
            reply,
            async move { core.list(handle, offset).await },
            answers::entries,
        );
    }

    fn readdirplus(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let (core, ttl) = (self.core.clone(), self.core.ttl);
        self.serve(
            FuseOp::ReadDirPlus,
            reply,
            async move { core.list(handle, offset).await },
            move |reply, entries| answers::entries_with_attributes(reply, entries, ttl),
        );
    }

    fn releasedir(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.core.directories.close(handle);
        reply.ok();
    }

    /// Every acknowledged change of a directory is durable already.
    fn fsyncdir(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn statfs(&self, _request: &Request, number: INodeNo, reply: ReplyStatfs) {
        let core = self.core.clone();
        self.serve(
            FuseOp::StatFs,
            reply,
            async move { core.statfs(inode(number)).await },
            answers::statfs,
        );
    }

    fn setxattr(
        &self,
        request: &Request,
        number: INodeNo,
        attribute: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (core, attribute, user) = (self.core.clone(), convert::text(attribute), user(request));
        let value = value.to_vec();
        self.serve_done(FuseOp::SetXattr, reply, async move {
            core.setxattr(user, inode(number), attribute?, value, flags).await
        });
    }

    fn getxattr(&self, _request: &Request, number: INodeNo, attribute: &OsStr, size: u32, reply: ReplyXattr) {
        let (core, attribute) = (self.core.clone(), convert::text(attribute));
        self.serve(
            FuseOp::GetXattr,
            reply,
            async move { core.getxattr(inode(number), attribute?).await },
            move |reply, value| answers::value(reply, &value, size),
        );
    }

    fn listxattr(&self, _request: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let core = self.core.clone();
        self.serve(
            FuseOp::ListXattrs,
            reply,
            async move { core.listxattr(inode(number)).await },
            move |reply, names| answers::value(reply, &names, size),
        );
    }

    fn removexattr(&self, request: &Request, number: INodeNo, attribute: &OsStr, reply: ReplyEmpty) {
        let (core, attribute, user) = (self.core.clone(), convert::text(attribute), user(request));
        self.serve_done(FuseOp::RemoveXattr, reply, async move {
            core.removexattr(user, inode(number), attribute?).await
        });
    }

    fn fallocate(
        &self,
        request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let (core, user) = (self.core.clone(), user(request));
        self.serve_done(FuseOp::Allocate, reply, async move {
            core.fallocate(handle, offset, length, Allocate::of_mode(mode)?, user)
                .await
        });
    }

    fn lseek(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let core = self.core.clone();
        self.serve(
            FuseOp::Seek,
            reply,
            async move { core.seek(handle, offset, whence).await },
            |reply, found| reply.offset(found),
        );
    }

    fn ioctl(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _data: &[u8],
        _room: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(fuser::Errno::ENOTTY);
    }

    /// The kernel then copies by reading and writing.
    fn copy_file_range(
        &self,
        _request: &Request,
        _from: INodeNo,
        _from_handle: FileHandle,
        _from_offset: u64,
        _to: INodeNo,
        _to_handle: FileHandle,
        _to_offset: u64,
        _len: u64,
        _flags: fuser::CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(fuser::Errno::ENOSYS);
    }
}
