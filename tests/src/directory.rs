//! A directory of this machine, local or mounted, as what the model is: with the system calls a program would make.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, XattrFlags};

use crate::model::{Access, Errno, FileSystem, Kind, Op, Outcome, RenameHow, Stat, XattrHow};
use curvine_protocol::number::to_usize;

/// The directory. Nothing in it is removed when this is dropped.
pub struct Directory<R: FnMut(bool)> {
    root: PathBuf,
    handles: BTreeMap<u8, (File, Access)>,
    /// Stops (true: kills) what serves the directory, and starts it again.
    restart: R,
}

impl<R: FnMut(bool)> Directory<R> {
    /// Sets the process's umask to 0: modes are compared.
    pub fn new(root: &Path, restart: R) -> Self {
        rustix::process::umask(Mode::empty());
        Directory {
            root: root.to_owned(),
            handles: BTreeMap::new(),
            restart,
        }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn file(&self, slot: u8) -> Result<&File, Errno> {
        self.handles.get(&slot).map(|(file, _)| file).ok_or(Errno::BADF)
    }
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

fn kind(kind: FileType) -> Kind {
    match kind {
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::File,
    }
}

fn stat(stat: &fs::Stat) -> Outcome {
    let kind = kind(FileType::from_raw_mode(stat.st_mode));
    Outcome::Stat(Stat {
        kind,
        mode: stat.st_mode & 0o7777,
        links: stat.st_nlink.try_into().expect("there are few names"),
        size: (kind != Kind::Directory).then_some(stat.st_size.unsigned_abs()),
    })
}

fn read(file: &File, offset: u64, len: u64) -> Result<Outcome, Errno> {
    let mut bytes = vec![0; to_usize(len)];
    let mut got = 0;
    while got < bytes.len() {
        match file
            .read_at(&mut bytes[got..], offset + got as u64)
            .map_err(errno)?
        {
            0 => break,
            n => got += n,
        }
    }
    bytes.truncate(got);
    Ok(Outcome::Bytes(bytes))
}

impl<R: FnMut(bool)> FileSystem for Directory<R> {
    fn apply(&mut self, op: &Op) -> Result<Outcome, Errno> {
        match op {
            Op::MakeDir { path, mode } => fs::mkdir(self.at(path), Mode::from_raw_mode(*mode))?,
            Op::Symlink { path, target } => fs::symlink(target.as_str(), self.at(path))?,
            Op::Link { from, to } => {
                fs::linkat(CWD, self.at(from), CWD, self.at(to), AtFlags::empty())?;
            }
            Op::Unlink { path } => fs::unlink(self.at(path))?,
            Op::RemoveDir { path } => fs::rmdir(self.at(path))?,
            Op::Rename { from, to, how } => {
                let flags = match how {
                    RenameHow::Replace => RenameFlags::empty(),
                    RenameHow::NoReplace => RenameFlags::NOREPLACE,
                    RenameHow::Exchange => RenameFlags::EXCHANGE,
                };
                fs::renameat_with(CWD, self.at(from), CWD, self.at(to), flags)?;
            }
            Op::Stat { path, follow: true } => return Ok(stat(&fs::stat(self.at(path))?)),
            Op::Stat { path, follow: false } => return Ok(stat(&fs::lstat(self.at(path))?)),
            Op::List { path } => {
                let mut names = Vec::new();
                for entry in std::fs::read_dir(self.at(path)).map_err(errno)? {
                    let entry = entry.map_err(errno)?;
                    let kind = kind(FileType::from_raw_mode(fs::lstat(entry.path())?.st_mode));
                    names.push((entry.file_name().to_string_lossy().into_owned(), Some(kind)));
                }
                names.sort_by(|a, b| a.0.cmp(&b.0));
                return Ok(Outcome::Names(names));
            }
            Op::ReadLink { path } => {
                let target = fs::readlink(self.at(path), Vec::new())?;
                return Ok(Outcome::Target(target.to_string_lossy().into_owned()));
            }
            Op::SetMode { path, mode } => fs::chmod(self.at(path), Mode::from_raw_mode(*mode))?,
            Op::Truncate { path, size } => {
                let file = fs::open(self.at(path), OFlags::WRONLY, Mode::empty())?;
                fs::ftruncate(file, *size)?;
            }
            Op::ReadFile { path } => {
                let file = File::from(fs::open(self.at(path), OFlags::RDONLY, Mode::empty())?);
                return read(&file, 0, file.metadata().map_err(errno)?.len().max(1));
            }
            Op::SetXattr {
                path,
                name,
                value,
                how,
            } => {
                let flags = match how {
                    XattrHow::Set => XattrFlags::empty(),
                    XattrHow::Create => XattrFlags::CREATE,
                    XattrHow::Replace => XattrFlags::REPLACE,
                };
                fs::setxattr(self.at(path), name.as_str(), value, flags)?;
            }
            Op::GetXattr { path, name } => {
                let mut value = vec![0; 1_000];
                let len = fs::getxattr(self.at(path), name.as_str(), &mut value)?;
                value.truncate(len);
                return Ok(Outcome::Bytes(value));
            }
            Op::ListXattrs { path } => {
                let mut names: Vec<_> = xattr::list_deref(self.at(path))
                    .map_err(errno)?
                    .map(|name| name.to_string_lossy().into_owned())
                    .filter(|name| name.starts_with("user."))
                    .map(|name| (name, None))
                    .collect();
                names.sort_by(|a, b| a.0.cmp(&b.0));
                return Ok(Outcome::Names(names));
            }
            Op::RemoveXattr { path, name } => fs::removexattr(self.at(path), name.as_str())?,
            Op::Open {
                slot,
                path,
                access,
                create,
                exclusive,
                truncate,
            } => {
                self.handles.remove(slot);
                let mut flags = match access {
                    Access::Read => OFlags::RDONLY,
                    Access::Write => OFlags::RDWR,
                };
                flags.set(OFlags::CREATE, *create);
                flags.set(OFlags::EXCL, *create && *exclusive);
                flags.set(OFlags::TRUNC, *truncate && *access == Access::Write);
                let file = File::from(fs::open(self.at(path), flags, Mode::from_raw_mode(0o644))?);
                if file.metadata().map_err(errno)?.is_dir() {
                    return Err(Errno::ISDIR);
                }
                self.handles.insert(*slot, (file, *access));
            }
            Op::Close { slot } => drop(self.handles.remove(slot).ok_or(Errno::BADF)?),
            Op::Read { slot, offset, len } => return read(self.file(*slot)?, *offset, *len),
            Op::Write { slot, offset, bytes } => {
                let file = self.file(*slot)?;
                file.write_all_at(&bytes.make(), *offset).map_err(errno)?;
                // A write of nothing is not made by `write_all_at`; the access is checked all the same.
                if bytes.len == 0 {
                    rustix::io::pwrite(file, &[], *offset)?;
                }
            }
            Op::Append { slot, bytes } => {
                let file = self.file(*slot)?;
                let end = file.metadata().map_err(errno)?.len();
                rustix::io::pwrite(file, &[], end)?;
                file.write_all_at(&bytes.make(), end).map_err(errno)?;
                return Ok(Outcome::Position(end));
            }
            Op::TruncateHandle { slot, size } => fs::ftruncate(self.file(*slot)?, *size)?,
            Op::StatHandle { slot } => return Ok(stat(&fs::fstat(self.file(*slot)?)?)),
            // A descriptor is closed: what was written is there for others.
            Op::Flush { slot } => drop(rustix::io::dup(self.file(*slot)?)?),
            Op::Sync { slot } => fs::fsync(self.file(*slot)?)?,
            Op::Restart { kill } => (self.restart)(*kill),
        }
        Ok(Outcome::Done)
    }
}
