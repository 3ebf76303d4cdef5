use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use curvine_actors::client::{CreateOptions, OpenFile};
use curvine_protocol::master::{AttrChange, IfExists, SetTime};
use curvine_protocol::{CurvinePath, Error, ErrorKind, Result};
use indicatif::ProgressBar;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::shell::{Shell, naming, usage};
use crate::transfer::{self, PIECE_BYTES, Partial};

/// Copy local files and directories into Curvine
///
/// Directories are copied with all they hold. Modes are kept. A file that fails half-way is removed. JSON: files, bytes.
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
    #[arg(short, long, value_name = "N", default_value_t = 8)]
    threads: usize,
}

struct Job {
    from: PathBuf,
    to: CurvinePath,
    mode: u32,
    mtime_ns: i64,
}

/// What there is to copy.
#[derive(Default)]
struct Plan {
    directories: Vec<(CurvinePath, u32)>,
    links: Vec<(CurvinePath, String)>,
    files: Vec<Job>,
    bytes: u64,
}

impl Args {
    pub async fn run(mut self, shell: &Shell) -> Result<()> {
        let target = self.paths.pop().ok_or_else(|| usage("say where to"))?;
        let target = CurvinePath::parse(&target)?;
        let into = matches!(shell.client.stat(&target).await, Ok(attr) if attr.is_dir());
        if self.paths.len() > 1 && !into {
            return Err(Error::new(
                ErrorKind::NotADirectory,
                format!("{target} is not a directory, and there are {} things to copy", self.paths.len()),
            ));
        }
        if self.paths == ["-"] {
            return self.put_stdin(shell, &target).await;
        }
        let mut plan = Plan::default();
        for source in &self.paths {
            let source = Path::new(source);
            if let Err(error) = destination(source, &target, into).and_then(|to| plan.add(source, to)) {
                shell.failed(&naming(error, source.display()));
            }
        }
        for (path, mode) in &plan.directories {
            match shell.client.make_dir(path, *mode, false).await {
                Err(error) if error.kind == ErrorKind::AlreadyExists => {}
                made => drop(made.map_err(|error| naming(error, path))?),
            }
        }
        for (path, target) in &plan.links {
            if let Err(error) = shell.client.symlink(path, target).await {
                shell.failed(&naming(error, path));
            }
        }
        let (bar, partial) = (&transfer::bar(shell, plan.bytes), &Partial::new());
        let (args, done) = (&self, &std::cell::Cell::new((0_u64, 0_u64)));
        transfer::run(shell, plan.files, self.threads, bar, |job| async move {
            let bytes = args.put(shell, &job, bar, partial).await;
            let bytes = bytes.map_err(|error| naming(error, job.from.display()))?;
            let (files, all_bytes) = done.get();
            done.set((files + 1, all_bytes + bytes));
            Ok(())
        })
        .await;
        remove(shell, partial).await;
        if shell.json {
            let (files, bytes) = done.get();
            shell.json_line(&json!({"files": files, "bytes": bytes}));
        }
        Ok(())
    }

    fn options(&self, mode: u32) -> CreateOptions {
        let if_exists = if self.force {
            IfExists::Truncate
        } else {
            IfExists::Fail
        };
        CreateOptions {
            mode,
            if_exists,
            ..CreateOptions::default()
        }
    }

    async fn put_stdin(&self, shell: &Shell, to: &CurvinePath) -> Result<()> {
        let partial = &Partial::new();
        let (bar, copied) = (&ProgressBar::hidden(), &std::cell::Cell::new(0));
        transfer::run(shell, vec![()], 1, bar, |()| async move {
            let file = shell.client.create(to, self.options(0o644)).await;
            let file = file.map_err(|error| naming(error, to))?;
            partial.begin(to);
            copied.set(copy(tokio::io::stdin(), &file, bar).await?);
            file.close().await?;
            partial.done(to);
            Ok(())
        })
        .await;
        remove(shell, partial).await;
        if shell.json {
            shell.json_line(&json!({"files": 1, "bytes": copied.get()}));
        }
        Ok(())
    }

    async fn put(
        &self,
        shell: &Shell,
        job: &Job,
        bar: &ProgressBar,
        partial: &Partial<CurvinePath>,
    ) -> Result<u64> {
        let source = tokio::fs::File::open(&job.from).await?;
        let file = shell
            .client
            .create(&job.to, self.options(job.mode))
            .await
            .map_err(|error| naming(error, &job.to))?;
        partial.begin(&job.to);
        let bytes = copy(source, &file, bar).await?;
        file.close().await?;
        partial.done(&job.to);
        let change = AttrChange {
            mode: self.force.then_some(job.mode),
            mtime: self.preserve.then_some(SetTime::At(job.mtime_ns)),
            ..AttrChange::default()
        };
        if change != AttrChange::default() {
            shell.client.set_attr(&job.to, true, change).await?;
        }
        Ok(bytes)
    }
}

async fn remove(shell: &Shell, partial: &Partial<CurvinePath>) {
    for path in partial.take() {
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
        Error::invalid(format!(
            "the name {} is not UTF-8; rename it to copy it",
            path.display()
        ))
    })
}

impl Plan {
    fn add(&mut self, source: &Path, to: CurvinePath) -> Result<()> {
        // What the user named is followed; links below are copied as links.
        let metadata = std::fs::metadata(source)?;
        self.add_as(source, to, &metadata)
    }

    fn add_as(&mut self, source: &Path, to: CurvinePath, metadata: &std::fs::Metadata) -> Result<()> {
        let mode = metadata.permissions().mode() & 0o7777;
        if metadata.is_dir() {
            self.directories.push((to.clone(), mode));
            let mut entries = std::fs::read_dir(source)?.collect::<std::io::Result<Vec<_>>>()?;
            entries.sort_by_key(std::fs::DirEntry::file_name);
            for entry in entries {
                let path = entry.path();
                let below = to.join(text(Path::new(&entry.file_name()))?)?;
                let metadata = entry.metadata()?;
                self.add_as(&path, below, &metadata)
                    .map_err(|error| naming(error, path.display()))?;
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
            return Err(Error::invalid(format!(
                "{} is neither a file nor a directory",
                source.display()
            )));
        }
        Ok(())
    }
}
