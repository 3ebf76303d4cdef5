//! Mounting and unmounting.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use curvine_actors::client::Client;
use curvine_actors::kit::ports::SystemClock;
use curvine_protocol::{ClientId, Error, ErrorKind, Result};
use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};
use rustix::mount::{MountFlags, UnmountFlags, unmount};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;

use crate::core::Core;
use crate::filesystem::CurvineFs;
use crate::runner::Runner;

/// What the kernel reads ahead, where its default would be 128 KiB.
const READ_AHEAD_KIB: u32 = 4096;
/// Threads for work that the kernel's threads do not end by themselves.
const RUNTIME_THREADS: usize = 2;
/// The source that the mount table names; the client's session follows, so that whoever mounts over what a killed
/// process left can end it.
const SOURCE_PREFIX: &str = "curvine-";
/// How long the kernel's threads may take to see that they are no longer mounted.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// How a mount behaves.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// The directory to mount on; made if it is missing, which must be empty.
    pub mount_point: PathBuf,
    /// How long the kernel may believe names and attributes.
    pub ttl: Duration,
    /// Threads that serve the kernel.
    pub threads: usize,
    /// Let users other than the one who mounts in.
    pub allow_other: bool,
    /// Have locks of programs (`flock`, `fcntl`) hold in all mounts of the cluster.
    pub locks: bool,
}

/// A file system that is mounted.
pub struct Mounted {
    mount_point: PathBuf,
    /// Which of all mounts it is; none if the kernel does not say.
    identity: Option<Identity>,
    core: Arc<Core>,
    session: BackgroundSession,
    runtime: Work,
    ended: watch::Receiver<bool>,
}

/// The runtime of the mount's work. Wherever it is dropped, nobody waits for what it still does: to wait is forbidden where
/// a mount is given up.
struct Work(Option<Runtime>);

impl Work {
    fn handle(&self) -> &Handle {
        self.0.as_ref().expect("it is there until it is dropped").handle()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What tells one mount from every other, also from one at the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity(u64);

impl Identity {
    /// Of whatever is mounted at a path, on top; asks the kernel alone.
    fn at(path: &Path) -> Option<Identity> {
        use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
        /// The number is never used again (`STATX_MNT_ID_UNIQUE`, Linux 6.8).
        const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
        let flags = AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
        let found = statx(CWD, path, flags, StatxFlags::MNT_ID | UNIQUE).ok()?;
        let said = StatxFlags::from_bits_retain(found.stx_mask);
        said.intersects(StatxFlags::MNT_ID | UNIQUE)
            .then_some(Identity(found.stx_mnt_id))
    }
}

/// How a mount is made known to the kernel.
const FS_TYPE: &str = "fuse.curvine";

/// Mounts the namespace that the client reaches. A mount that a killed process left at the mount point is replaced,
/// and the leases of its session are given back.
///
/// # Errors
/// `Busy` if something is mounted there, `DirectoryNotEmpty`, `NotADirectory`, `Unsupported` without FUSE,
/// `NotPermitted`; the message names the mount point and the next step.
pub async fn mount(client: Client, options: MountOptions) -> Result<Mounted> {
    let at = options.mount_point.display().to_string();
    let mount_point = prepare(&client, &options.mount_point)
        .await
        .map_err(|e| e.while_doing(format_args!("mounting on {at}")))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .thread_name("fuse-work")
        .enable_all()
        .build()
        .map_err(|e| Error::from(e).while_doing("starting the mount's threads"))?;
    let runtime = Work(Some(runtime));
    let core = Arc::new(Core::new(client.clone(), options.ttl, Arc::new(SystemClock)));
    let runner = Runner::new(runtime.handle().clone(), Arc::new(SystemClock));
    let (end, ended) = watch::channel(false);
    let filesystem = CurvineFs::new(core.clone(), runner, options.locks, end);
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(format!("{SOURCE_PREFIX}{:016x}", session_of(&client).await.0)),
        MountOption::Subtype("curvine".to_owned()),
        MountOption::DefaultPermissions,
        MountOption::NoAtime,
        // As a local file system that root mounts.
        MountOption::Suid,
        MountOption::Dev,
    ];
    config.acl = match options.allow_other {
        true => SessionACL::All,
        false => SessionACL::Owner,
    };
    config.n_threads = Some(options.threads.max(1));
    config.clone_fd = true;
    let point = mount_point.clone();
    let (session, identity) = tokio::task::spawn_blocking(move || {
        let session = attach(filesystem, &point, config)?.spawn()?;
        Ok((session, Identity::at(&point)))
    })
    .await
    .map_err(|_| Error::internal("the mount was interrupted"))?
    .map_err(|e| refused(&at, &e))?;
    let (changing, work) = (Arc::downgrade(&core), runtime.handle().clone());
    client.on_change(move |inode, content_version| {
        if let Some(core) = changing.upgrade() {
            work.spawn(async move { core.changed(inode, content_version).await });
        }
    });
    // Set once, here.
    let _ = core.notifier.set(session.notifier());
    let mounted = Mounted {
        mount_point: mount_point.clone(),
        identity,
        core,
        session,
        runtime,
        ended,
    };
    let raised = tokio::task::spawn_blocking(move || raise_read_ahead(&mount_point)).await;
    if let Ok(Err(error)) = raised {
        tracing::warn!(%error, "cannot raise the read-ahead of {at}; large reads are slower");
    }
    Ok(mounted)
}

/// Mounts, and answers the kernel's first request. What this process mounts itself, nobody but [`Mounted`] unmounts.
fn attach(filesystem: CurvineFs, point: &Path, config: Config) -> io::Result<Session<CurvineFs>> {
    let device = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
    let mode = fs::metadata(point)?.mode();
    let mut options = format!(
        "fd={},rootmode={mode:o},user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw()
    );
    if config.acl == SessionACL::All {
        options.push_str(",allow_other");
    }
    let options = CString::new(options).map_err(|_| io::ErrorKind::InvalidInput)?;
    let source = config.mount_options.iter().find_map(|option| match option {
        MountOption::FSName(name) => Some(name.as_str()),
        _ => None,
    });
    // As a local file system that root mounts: with device nodes, and set-user-id programs.
    match rustix::mount::mount(
        source.unwrap_or_default(),
        point,
        FS_TYPE,
        MountFlags::NOATIME,
        options.as_c_str(),
    ) {
        Ok(()) => Session::from_fd(filesystem, device.into(), config.acl, config),
        // Through `fusermount3`, which may do it for others than root.
        Err(rustix::io::Errno::PERM) => {
            drop(device);
            Session::new(filesystem, point, &config)
        }
        Err(error) => Err(error.into()),
    }
}

fn refused(at: &str, error: &io::Error) -> Error {
    let what = format!("mounting on {at}: {error}");
    match error.kind() {
        io::ErrorKind::NotFound => Error::new(
            ErrorKind::Unsupported,
            format!("{what}. Is /dev/fuse there? `modprobe fuse`, or in a container `--device /dev/fuse`"),
        ),
        io::ErrorKind::PermissionDenied => Error::new(
            ErrorKind::NotPermitted,
            format!("{what}. Mount as root, or install fusermount3 (package fuse3)"),
        ),
        _ => Error::new(ErrorKind::Io, what),
    }
}

impl Mounted {
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// Resolves when it is mounted no longer: somebody else has unmounted it, and the last program has left it.
    pub fn ended(&self) -> impl Future<Output = ()> + use<> {
        let mut ended = self.ended.clone();
        async move {
            // Whoever tells so is gone if it cannot be told any more.
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }

    /// Makes what was written visible, then unmounts; nothing but this mount, whatever is at its place by now. Programs
    /// that still use it get errors afterwards.
    pub async fn unmount(self) {
        let Mounted {
            mount_point,
            identity,
            core,
            session,
            runtime,
            ended,
        } = self;
        let at = mount_point.display().to_string();
        let left = match *ended.borrow() {
            true => Left::Gone,
            // Without new requests first; if it is in use, from the tree only.
            false => tokio::task::spawn_blocking(move || leave(&mount_point, identity))
                .await
                .unwrap_or(Left::InUse),
        };
        match left {
            Left::InUse => tracing::warn!(
                "{at} is in use; what programs wrote to it is kept, what they do from now on fails"
            ),
            Left::Elsewhere => tracing::warn!("{at} is another file system by now, which is left alone"),
            Left::Unmounted | Left::Gone => {}
        }
        let closing = core.clone();
        // The files' tasks live in the mount's runtime.
        let closed = runtime.handle().spawn(async move { closing.close_all().await });
        let _ = closed.await;
        if matches!(left, Left::Unmounted | Left::Gone) {
            let stopped = tokio::task::spawn_blocking(move || session.join());
            if tokio::time::timeout(STOP_PATIENCE, stopped).await.is_err() {
                tracing::debug!("the kernel's threads go with the process");
            }
            drop(runtime);
        } else {
            // Dropped, it would unmount by its path. Its threads refuse what programs still ask, until the process ends.
            std::mem::forget(session);
            std::mem::forget(runtime);
        }
    }
}

/// How a mount was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Unmounted,
    /// Out of the tree, with programs in it.
    InUse,
    /// Somebody else had unmounted it.
    Gone,
    /// Something else is at its place.
    Elsewhere,
}

/// Unmounts this mount, if it is what is at its place.
fn leave(mount_point: &Path, identity: Option<Identity>) -> Left {
    if identity.is_none() || Identity::at(mount_point) != identity {
        return Left::Elsewhere;
    }
    match unmount(mount_point, UnmountFlags::empty()) {
        Ok(()) => Left::Unmounted,
        Err(rustix::io::Errno::BUSY) => match unmount(mount_point, UnmountFlags::DETACH) {
            Ok(()) => Left::InUse,
            Err(_) => Left::Gone,
        },
        Err(rustix::io::Errno::PERM) => match unmount_by_helper(mount_point) {
            true => Left::Unmounted,
            false => Left::InUse,
        },
        Err(_) => Left::Gone,
    }
}

/// For others than root, who had it mounted by the same program.
fn unmount_by_helper(mount_point: &Path) -> bool {
    let helper = std::process::Command::new("fusermount3")
        .arg("-uzq")
        .arg(mount_point)
        .status();
    helper.is_ok_and(|status| status.success())
}

/// Makes the mount point ready: there, empty, with nothing mounted on it. Its absolute path.
async fn prepare(client: &Client, mount_point: &Path) -> Result<PathBuf> {
    let wanted = mount_point.to_owned();
    let (absolute, predecessor) = tokio::task::spawn_blocking(move || {
        let predecessor = clear_stale(&wanted)?;
        fs::create_dir_all(&wanted).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => Error::new(
                ErrorKind::NotADirectory,
                "it, or something above it, is there and is not a directory; choose another",
            ),
            _ => error.into(),
        })?;
        Ok::<_, Error>((fs::canonicalize(&wanted)?, predecessor))
    })
    .await
    .map_err(|_| Error::internal("interrupted"))??;
    if let Some(session) = predecessor.filter(|session| *session != ClientId(0)) {
        tracing::info!(
            "{} was left mounted by a process that is gone: unmounted, and its open files closed",
            mount_point.display()
        );
        client.end_session_of(session).await?;
    }
    let metadata = fs::metadata(&absolute)?;
    if !metadata.is_dir() {
        return Err(Error::new(
            ErrorKind::NotADirectory,
            "it is not a directory; choose another",
        ));
    }
    if let Some(parent) = absolute.parent()
        && fs::metadata(parent)?.dev() != metadata.dev()
    {
        return Err(Error::new(
            ErrorKind::Busy,
            "something is mounted there already; unmount it, or choose another directory",
        ));
    }
    if fs::read_dir(&absolute)?.next().is_some() {
        return Err(Error::new(
            ErrorKind::DirectoryNotEmpty,
            "the directory is not empty, and a mount would hide what it has; choose another",
        ));
    }
    Ok(absolute)
}

/// Unmounts what a killed process left, and says whose it was if it was one of ours.
fn clear_stale(mount_point: &Path) -> Result<Option<ClientId>> {
    // Attributes the kernel may still believe for a while; this it has to ask.
    use rustix::io::Errno;
    match rustix::fs::statvfs(mount_point) {
        Err(Errno::NOTCONN | Errno::CONNABORTED) => {}
        _ => return Ok(None),
    }
    // The mount point cannot be looked at, but its parent can.
    let parent = match mount_point.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => fs::canonicalize(parent)?,
        _ => std::env::current_dir()?,
    };
    let absolute = match mount_point.file_name() {
        Some(name) => parent.join(name),
        None => mount_point.to_owned(),
    };
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let session = session_at(&table, &absolute.to_string_lossy());
    unmount(&absolute, UnmountFlags::DETACH)
        .map_err(|e| Error::from(io::Error::from(e)).while_doing("unmounting what a killed process left"))?;
    Ok(session)
}

/// The session that the mount's source names; 0 if there is none because no master leads.
async fn session_of(client: &Client) -> ClientId {
    client.session().await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the mount begins without a session");
        ClientId(0)
    })
}

/// The session whose mount is at a path, from the text of `/proc/self/mountinfo` (proc(5)).
fn session_at(table: &str, path: &str) -> Option<ClientId> {
    let escaped = path
        .replace('\\', "\\134")
        .replace(' ', "\\040")
        .replace('\t', "\\011");
    table.lines().rev().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let source = after.split(' ').nth(1)?.strip_prefix(SOURCE_PREFIX)?;
        match before.split(' ').nth(4) == Some(escaped.as_str()) {
            true => u64::from_str_radix(source, 16).ok().map(ClientId),
            false => None,
        }
    })
}

/// The kernel's default asks for 128 KiB at a time.
fn raise_read_ahead(mount_point: &Path) -> io::Result<()> {
    let device = fs::metadata(mount_point)?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    fs::write(
        format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"),
        READ_AHEAD_KIB.to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mount_is_told_from_another_and_only_the_own_one_is_unmounted() {
        let root = Identity::at(Path::new("/")).expect("Linux 5.8 or later");
        assert_eq!(Identity::at(Path::new("/")), Some(root));
        assert_ne!(Identity::at(Path::new("/proc")), Some(root));
        assert_eq!(leave(Path::new("/proc"), Some(root)), Left::Elsewhere);
        assert_eq!(leave(Path::new("/proc"), None), Left::Elsewhere);
        assert!(Path::new("/proc/self").exists());
    }

    #[test]
    fn the_mount_table_names_the_session_of_a_mount() {
        let table = "\
            29 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            41 29 0:52 / /mnt/other rw - fuse.curvine curvine-0000000000000001 rw\n\
            42 29 0:53 / /mnt/a\\040b rw,noatime shared:7 - fuse.curvine curvine-00000000deadbeef rw,user_id=0\n\
            43 29 0:54 / /mnt/sshfs rw - fuse.sshfs host: rw\n";
        assert_eq!(session_at(table, "/mnt/a b"), Some(ClientId(0xdead_beef)));
        assert_eq!(session_at(table, "/mnt/other"), Some(ClientId(1)));
        assert_eq!(session_at(table, "/mnt/sshfs"), None);
        assert_eq!(session_at(table, "/mnt"), None);
    }
}
