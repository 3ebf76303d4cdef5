use std::cell::{Cell, RefCell};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use curvine_actors::client::OpenFile;
use curvine_protocol::acl::whole_acl;
use curvine_protocol::master::{AclChange, AttrChange, CreateFile, IfExists, RenameMode, SetTime};
use curvine_protocol::{Attr, CurvinePath, Error, ErrorKind, InodeId, Result};
use indicatif::ProgressBar;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::shell::{Shell, naming, no_directory, usage};
use crate::transfer::{self, PIECE_BYTES, Partial};

/// Copy local files and directories into Curvine
///
/// Directories are copied with all they hold. Modes are kept. What cannot be copied (a FIFO, a socket, a name that is not
/// UTF-8, a file that may not be read) is left out and listed at the end, with exit code 1. A file that fails half-way is
/// removed; with -f, what it was to replace stays as it was: the new file is written under a temporary name beside it and
/// takes its place, and that of a link, only when it is whole. So there must be room for both. JSON: files, bytes, failed.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cv put *.csv /data\n  cv put -f dataset /data\n  tar c dir | cv put - /backup/dir.tar"
)]
pub struct Args {
    /// Local files or directories (- for standard input), then where to
    #[arg(value_name = "PATH", required = true, num_args = 2..)]
    paths: Vec<String>,
    /// Replace existing files
    #[arg(short, long)]
    force: bool,
    /// Keep modification times
    #[arg(short, long)]
    preserve: bool,
    /// Directories are always copied with all they hold; accepted as a habit of cp
    #[arg(short, long, visible_short_alias = 'R')]
    recursive: bool,
    /// Files at the same time
    #[arg(short, long, value_name = "N", default_value_t = 8, value_parser = transfer::threads())]
    threads: usize,
    /// On how many workers the files are to be (those that are replaced keep theirs, others have the masters' default)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    replicas: Option<u8>,
}

struct Job {
    from: PathBuf,
    to: CurvinePath,
    mode: u32,
    mtime_ns: i64,
}

/// Writes files of one command.
struct Writer<'a> {
    shell: &'a Shell,
    force: bool,
    bar: &'a ProgressBar,
    partial: &'a Partial<CurvinePath>,
    replicas: Option<u8>,
    /// Temporary names given so far.
    temporaries: Cell<u64>,
}

/// What there is to copy.
#[derive(Default)]
struct Plan {
    directories: Vec<(CurvinePath, u32)>,
    links: Vec<(CurvinePath, String)>,
    files: Vec<Job>,
    bytes: u64,
    /// What cannot be copied, and why.
    failed: Vec<Error>,
}

impl Args {
    pub async fn run(mut self, shell: &Shell) -> Result<()> {
        let target = self.paths.pop().ok_or_else(|| usage("say where to"))?;
        let says_directory = target.ends_with('/');
        let target = CurvinePath::parse(&target)?;
        let into = matches!(shell.client.stat(&target).await, Ok(attr) if attr.is_dir());
        if self.paths.len() > 1 && !into {
            return Err(Error::new(
                ErrorKind::NotADirectory,
                format!("{target} is not a directory, and there are {} things to copy", self.paths.len()),
            ));
        }
        if says_directory && !into && !self.paths.iter().all(|source| Path::new(source).is_dir()) {
            return Err(no_directory(&target));
        }
        if self.paths == ["-"] {
            return self.put_stdin(shell, &target).await;
        }
        let mut plan = Plan::default();
        for source in &self.paths {
            let source = Path::new(source);
            match destination(source, &target, into) {
                Ok(to) => plan.add(source, to),
                Err(error) => plan.failed.push(naming(error, source.display())),
            }
        }
        plan.make_directories(shell).await;
        for (path, target) in &plan.links {
            if let Err(error) = shell.client.symlink(path, target).await {
                plan.failed.push(naming(error, path));
            }
        }
        let (bar, partial) = (&transfer::bar(shell, plan.bytes), &Partial::new());
        let writer = &self.writer(shell, bar, partial);
        let (preserve, done) = (self.preserve, &Cell::new((0_u64, 0_u64)));
        let failed = &RefCell::new(plan.failed);
        transfer::run(shell, plan.files, self.threads, bar, |job| async move {
            let put = async {
                let source = tokio::fs::File::open(&job.from).await?;
                let mtime = preserve.then_some(SetTime::At(job.mtime_ns));
                writer.write(source, &job.to, Some(job.mode), mtime).await
            };
            match put.await {
                Ok(bytes) => {
                    let (files, all_bytes) = done.get();
                    done.set((files + 1, all_bytes + bytes));
                }
                Err(error) => failed.borrow_mut().push(naming(error, job.from.display())),
            }
            Ok(())
        })
        .await;
        remove(shell, partial.take()).await;
        let failed = failed.take();
        failed.iter().for_each(|error| shell.failed(error));
        if shell.json {
            let (files, bytes) = done.get();
            shell.json_line(&json!({"files": files, "bytes": bytes, "failed": failed.len()}));
        }
        Ok(())
    }

    fn writer<'a>(
        &self,
        shell: &'a Shell,
        bar: &'a ProgressBar,
        partial: &'a Partial<CurvinePath>,
    ) -> Writer<'a> {
        Writer {
            shell,
            force: self.force,
            bar,
            partial,
            replicas: self.replicas,
            temporaries: Cell::new(0),
        }
    }

    async fn put_stdin(&self, shell: &Shell, to: &CurvinePath) -> Result<()> {
        let (bar, partial) = (&ProgressBar::hidden(), &Partial::new());
        let writer = &self.writer(shell, bar, partial);
        let copied = &Cell::new(None);
        transfer::run(shell, vec![()], 1, bar, |()| async move {
            copied.set(Some(writer.write(tokio::io::stdin(), to, None, None).await?));
            Ok(())
        })
        .await;
        remove(shell, partial.take()).await;
        if shell.json {
            let (files, bytes) = copied.get().map_or((0, 0), |bytes| (1, bytes));
            shell.json_line(&json!({"files": files, "bytes": bytes}));
        }
        Ok(())
    }
}

impl Writer<'_> {
    /// Makes a file of this content; its length. Without a mode it keeps that of what it replaces.
    ///
    /// What is there already is touched only by the rename at the end.
    async fn write(
        &self,
        source: impl AsyncRead + Unpin,
        to: &CurvinePath,
        mode: Option<u32>,
        mtime: Option<SetTime>,
    ) -> Result<u64> {
        const MODE: u32 = 0o644;
        let error = match self.make(to, mode.unwrap_or(MODE), self.replicas.unwrap_or(0)).await {
            Ok(inode) => {
                let written = async {
                    let (bytes, _) = self.fill(source, inode).await?;
                    let change = AttrChange {
                        mtime,
                        ..AttrChange::default()
                    };
                    self.change(inode, change).await?;
                    Ok(bytes)
                };
                return self.whole_or_gone(to, written.await, to).await;
            }
            Err(error) => error,
        };
        if !self.force || error.kind != ErrorKind::AlreadyExists {
            return Err(naming(error, to));
        }
        let old = (self.shell.client.lookup(to, false).await)
            .map_err(|error| naming(error, to))?
            .attr;
        if old.is_dir() {
            return Err(Error::new(
                ErrorKind::IsADirectory,
                format!("{to} is a directory"),
            ));
        }
        let temporary = self.temporary(to).await?;
        self.partial.begin(&temporary);
        // Who writes a file anew takes its privileges away.
        let mode = mode.unwrap_or(match old.is_file() {
            true => old.mode & 0o777,
            false => MODE,
        });
        let inode = (self.make(&temporary, mode, self.replicas.unwrap_or(old.replicas)).await)
            .map_err(|error| naming(as_of(error, &temporary, to), to))?;
        let written = self.replace(source, (inode, &temporary), (&old, to), mode, mtime);
        self.whole_or_gone(&temporary, written.await, to).await
    }

    /// Makes an empty file of a name that nothing has. Without a block, since that could fail, with the file made.
    async fn make(&self, path: &CurvinePath, mode: u32, replicas: u8) -> Result<InodeId> {
        let call = CreateFile {
            node: path.into(),
            mode,
            if_exists: IfExists::Fail,
            parents: false,
            block_bytes: 0,
            replicas,
            first_block: false,
            open: 0,
            unmasked: None,
        };
        let made = self.shell.client.change(call).await?;
        self.partial.begin(path);
        Ok(made.attr.inode)
    }

    /// Writes the content of a new file; its length and attributes.
    async fn fill(&self, source: impl AsyncRead + Unpin, inode: InodeId) -> Result<(u64, Attr)> {
        let file = self.shell.client.open_for_write(inode, false).await?;
        let bytes = copy(source, &file, self.bar).await?;
        Ok((bytes, file.close().await?))
    }

    async fn change(&self, inode: InodeId, change: AttrChange) -> Result<()> {
        if change != AttrChange::default() {
            self.shell.client.set_attr(inode, false, change).await?;
        }
        Ok(())
    }

    /// Fills a new file, gives it what the old one had beside its content, and then its name.
    async fn replace(
        &self,
        source: impl AsyncRead + Unpin,
        (inode, temporary): (InodeId, &CurvinePath),
        (old, to): (&Attr, &CurvinePath),
        mode: u32,
        mtime: Option<SetTime>,
    ) -> Result<u64> {
        let client = &self.shell.client;
        // Open until it has its name: what a killed session leaves open under a name of its own goes with the session, also if
        // an object is stored by then.
        let file = client.open_for_write(inode, false).await?;
        let bytes = copy(source, &file, self.bar).await?;
        let new = file.sync().await?;
        let change = match old.is_file() {
            true => AttrChange {
                uid: (old.uid != new.uid).then_some(old.uid),
                gid: (old.gid != new.gid).then_some(old.gid),
                // A change of the owner takes privileges away.
                mode: ((old.uid, old.gid) != (new.uid, new.gid)).then_some(mode),
                mtime,
                ..AttrChange::default()
            },
            false => AttrChange {
                mtime,
                ..AttrChange::default()
            },
        };
        self.change(inode, change).await?;
        if old.is_file() {
            if old.has_acl || new.has_acl {
                let found = client.acl(old.inode).await?;
                let whole = whole_acl(found.attr.mode, &found.entries);
                client.change_acl(inode, AclChange::Set(whole)).await?;
            }
            for name in client.xattr_names(old.inode).await? {
                let value = client.xattr(old.inode, &name).await?;
                client.set_xattr(inode, &name, &value, false, false).await?;
            }
        }
        client.rename(temporary, to, RenameMode::Replace, false).await?;
        file.close().await?;
        Ok(bytes)
    }

    /// Passes a result on. What failed goes at once: the others have need of its room.
    async fn whole_or_gone(&self, path: &CurvinePath, written: Result<u64>, to: &CurvinePath) -> Result<u64> {
        if written.is_err() {
            remove(self.shell, [path.clone()]).await;
        }
        self.partial.done(path);
        written.map_err(|error| naming(as_of(error, path, to), to))
    }

    /// A name that no other session gives, and that does not grow with the destination's.
    async fn temporary(&self, to: &CurvinePath) -> Result<CurvinePath> {
        let number = self.temporaries.replace(self.temporaries.get() + 1);
        let name = format!("{}{number}", self.shell.client.session().await?.partial_prefix());
        to.parent().ok_or_else(|| usage("/ is a directory"))?.join(&name)
    }
}

/// The same error, about the name that the user knows.
fn as_of(mut error: Error, temporary: &CurvinePath, to: &CurvinePath) -> Error {
    error.message = error.message.replace(temporary.as_str(), to.as_str());
    error
}

async fn remove(shell: &Shell, partial: impl IntoIterator<Item = CurvinePath>) {
    for path in partial {
        if let Err(error) = shell.client.delete(&path, false).await
            && error.kind != ErrorKind::NotFound
        {
            shell.failed(&error.while_doing(format!("removing the partial {path}")));
        }
    }
}

async fn copy(mut source: impl AsyncRead + Unpin, file: &OpenFile, bar: &ProgressBar) -> Result<u64> {
    let mut copied = 0;
    loop {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        while piece.len() < PIECE_BYTES && source.read_buf(&mut piece).await? > 0 {}
        if piece.is_empty() {
            return Ok(copied);
        }
        let len = piece.len() as u64;
        file.append(piece.freeze()).await?;
        copied += len;
        bar.inc(len);
    }
}

fn destination(source: &Path, target: &CurvinePath, into: bool) -> Result<CurvinePath> {
    if !into {
        return Ok(target.clone());
    }
    let whole = std::fs::canonicalize(source)?;
    let name = source.file_name().or(whole.file_name());
    target.join(text(Path::new(
        name.ok_or_else(|| usage("/ has no name to copy it under"))?,
    ))?)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::new(
            ErrorKind::Unsupported,
            format!("the name {} is not UTF-8; rename it to copy it", path.display()),
        )
    })
}

impl Plan {
    /// What is to be done for something that the user named, which is followed; links below are copied as links.
    fn add(&mut self, source: &Path, to: CurvinePath) {
        let added = std::fs::metadata(source)
            .map_err(Error::from)
            .and_then(|metadata| self.add_as(source, to, &metadata));
        self.keep(source, added);
    }

    /// Keeps what failed for the end.
    fn keep(&mut self, source: &Path, added: Result<()>) {
        self.failed
            .extend(added.err().map(|error| naming(error, source.display())));
    }

    fn add_as(&mut self, source: &Path, to: CurvinePath, metadata: &std::fs::Metadata) -> Result<()> {
        let mode = metadata.permissions().mode() & 0o7777;
        if metadata.is_dir() {
            let mut entries = std::fs::read_dir(source)?.collect::<std::io::Result<Vec<_>>>()?;
            entries.sort_by_key(std::fs::DirEntry::file_name);
            self.directories.push((to.clone(), mode));
            for entry in entries {
                let added = self.add_entry(&entry, &to);
                self.keep(&entry.path(), added);
            }
        } else if metadata.is_symlink() {
            self.links
                .push((to, text(&std::fs::read_link(source)?)?.to_owned()));
        } else if metadata.is_file() {
            self.bytes += metadata.len();
            self.files.push(Job {
                from: source.to_owned(),
                to,
                mode,
                mtime_ns: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
            });
        } else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "it is neither a file nor a directory nor a link",
            ));
        }
        Ok(())
    }

    fn add_entry(&mut self, entry: &std::fs::DirEntry, directory: &CurvinePath) -> Result<()> {
        let to = directory.join(text(Path::new(&entry.file_name()))?)?;
        self.add_as(&entry.path(), to, &entry.metadata()?)
    }

    /// Makes the directories. What was to be in one that cannot be made is not tried.
    async fn make_directories(&mut self, shell: &Shell) {
        let mut missing: Vec<CurvinePath> = Vec::new();
        let is_in_vain = |missing: &[CurvinePath], path: &CurvinePath| missing.iter().any(|top| top.contains(path));
        for (path, mode) in &self.directories {
            if is_in_vain(&missing, path) {
                continue;
            }
            match shell.client.make_dir(path, *mode, false).await {
                Err(error) if error.kind != ErrorKind::AlreadyExists => {
                    self.failed.push(naming(error, path));
                    missing.push(path.clone());
                }
                _ => {}
            }
        }
        self.links.retain(|(path, _)| !is_in_vain(&missing, path));
        self.files.retain(|job| !is_in_vain(&missing, &job.to));
    }
}
