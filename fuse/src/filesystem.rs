//! The thin shell: takes a request apart, lets `core` work on it, puts the reply together.

use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use curvine_actors::kit::metrics::{self, FuseOp, Outcome, Timing};
use curvine_protocol::master::{AttrChange, IfExists, RenameMode};
use fuser::{
    BsdFileFlags, FileAttr, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, IoctlFlags,
    KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use crate::convert::{self, Refusal, Result, inode, name};
use crate::core::{Allocate, Core, Opened, User};
use crate::files::Access;
use crate::runner::Runner;

/// The kernel sends no more in one request (FUSE_MAX_MAX_PAGES).
const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// Read-ahead and other requests that nobody waits for yet.
const BACKGROUND_MAX: u16 = 64;
/// Unit of `statfs`.
const STATFS_BLOCK_BYTES: u32 = 4096;
/// Inodes are never used again, so one generation is enough.
const GENERATION: Generation = Generation(0);

pub struct CurvineFs {
    core: Arc<Core>,
    runner: Runner,
}

impl CurvineFs {
    pub fn new(core: Arc<Core>, runner: Runner) -> Self {
        CurvineFs { core, runner }
    }

    /// Runs the work of a request and replies with what came of it.
    fn serve<T, R>(
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
    fn serve_entry(
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
    fn serve_done(
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
trait Refuse {
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
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr
);

fn user(request: &Request) -> User {
    User {
        uid: request.uid(),
        gid: request.gid(),
    }
}

fn open_flags(opened: &Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_pages);
    flags.set(FopenFlags::FOPEN_NOFLUSH, opened.no_flush);
    flags
}

/// As `getxattr(2)`: the size alone if that is asked, `ERANGE` if the value does not fit.
fn reply_value(reply: ReplyXattr, value: &[u8], room: u32) {
    match room {
        0 => reply.size(value.len() as u32),
        _ if value.len() > room as usize => reply.error(fuser::Errno::ERANGE),
        _ => reply.data(value),
    }
}

impl Filesystem for CurvineFs {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = [
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_BIG_WRITES,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_CACHE_SYMLINKS,
            // Without it, the kernel asks for `security.capability` before every write.
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
        ];
        for flag in wanted {
            if config.add_capabilities(flag).is_err() {
                tracing::debug!("the kernel has no {flag:?}");
            }
        }
        let limits = [
            config.set_max_write(REQUEST_BYTES_MAX).is_ok(),
            config.set_max_background(BACKGROUND_MAX).is_ok(),
        ];
        debug_assert_eq!(limits, [true; 2]);
        // The kernel's own limit is what it offers.
        if let Err(nearest) = config.set_max_readahead(REQUEST_BYTES_MAX) {
            let _ = config.set_max_readahead(nearest);
        }
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEntry) {
        let (core, child) = (self.core.clone(), name(child));
        self.serve_entry(FuseOp::Lookup, reply, async move {
            core.lookup(inode(parent), child?).await
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
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let (core, child, user) = (self.core.clone(), name(child), user(request));
        self.serve_entry(FuseOp::MakeNode, reply, async move {
            let kind = convert::kind_of_mode(mode)?;
            core.mknod(user, inode(parent), child?, kind, mode, rdev).await
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        child: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let (core, child, user) = (self.core.clone(), name(child), user(request));
        self.serve_entry(FuseOp::MakeDir, reply, async move {
            core.mkdir(user, inode(parent), child?, mode).await
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
            let mode = match flags {
                none if none.is_empty() => RenameMode::Replace,
                RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
                RenameFlags::RENAME_EXCHANGE => RenameMode::Exchange,
                _ => return Err(Refusal::of(libc::EINVAL)),
            };
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
        let truncate = flags.0 & libc::O_TRUNC != 0;
        let access = match flags.acc_mode() {
            OpenAccMode::O_RDONLY if !truncate => Access::Read,
            _ => Access::Write,
        };
        self.serve(
            FuseOp::Open,
            reply,
            async move { core.open(user, inode(number), access, truncate).await },
            |reply, opened| reply.opened(opened.handle, open_flags(&opened)),
        );
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        child: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (core, ttl) = (self.core.clone(), self.core.ttl);
        let (child, user) = (name(child), user(request));
        let if_exists = match flags {
            _ if flags & libc::O_EXCL != 0 => IfExists::Fail,
            _ if flags & libc::O_TRUNC != 0 => IfExists::Truncate,
            _ => IfExists::Open,
        };
        self.serve(
            FuseOp::Create,
            reply,
            async move { core.create(user, inode(parent), child?, mode, if_exists).await },
            move |reply, (attr, opened)| {
                reply.created(&ttl, &attr, GENERATION, opened.handle, open_flags(&opened));
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
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let core = self.core.clone();
        self.serve(
            FuseOp::Read,
            reply,
            async move { core.read(handle, offset, size).await },
            |reply, bytes| reply.data(&bytes),
        );
    }

    fn write(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (core, data) = (self.core.clone(), Bytes::copy_from_slice(data));
        self.serve(
            FuseOp::Write,
            reply,
            async move { core.write(handle, offset, data).await },
            |reply, written| reply.written(written),
        );
    }

    fn flush(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let core = self.core.clone();
        self.serve_done(FuseOp::Flush, reply, async move { core.flush(handle).await });
    }

    fn release(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let core = self.core.clone();
        self.serve_done(FuseOp::Release, reply, async move { core.release(handle).await });
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
            |mut reply, entries| {
                for entry in entries {
                    if reply.add(entry.attr.ino, entry.next, entry.attr.kind, &entry.name) {
                        break;
                    }
                }
                reply.ok();
            },
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
            move |mut reply, entries| {
                for entry in entries {
                    let attr = &entry.attr;
                    if reply.add(attr.ino, entry.next, &entry.name, &ttl, attr, GENERATION) {
                        break;
                    }
                }
                reply.ok();
            },
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

    fn statfs(&self, _request: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        let core = self.core.clone();
        self.serve(
            FuseOp::StatFs,
            reply,
            async move { core.statfs().await },
            |reply, stats| {
                let blocks = |bytes: u64| bytes / u64::from(STATFS_BLOCK_BYTES);
                let free = stats.capacity_bytes.saturating_sub(stats.used_bytes);
                reply.statfs(
                    blocks(stats.capacity_bytes),
                    blocks(free),
                    blocks(stats.available_bytes),
                    stats.inodes.saturating_add(1 << 32),
                    1 << 32,
                    STATFS_BLOCK_BYTES,
                    curvine_protocol::path::NAME_BYTES_MAX as u32,
                    STATFS_BLOCK_BYTES,
                );
            },
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
            move |reply, value| reply_value(reply, &value, size),
        );
    }

    fn listxattr(&self, _request: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let core = self.core.clone();
        self.serve(
            FuseOp::ListXattrs,
            reply,
            async move { core.listxattr(inode(number)).await },
            move |reply, names| reply_value(reply, &names, size),
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
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let core = self.core.clone();
        self.serve_done(FuseOp::Allocate, reply, async move {
            core.fallocate(handle, offset, length, Allocate::of_mode(mode)?)
                .await
        });
    }

    /// The kernel then seeks by the size alone.
    fn lseek(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _offset: i64,
        _whence: i32,
        reply: ReplyLseek,
    ) {
        reply.error(fuser::Errno::ENOSYS);
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
