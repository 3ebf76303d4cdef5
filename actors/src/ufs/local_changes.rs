//! Changes of a directory of this node. Like looks, they go from directory to directory by descriptors and follow no link: a
//! name that is a link is replaced or removed itself. What is not shown there (a FIFO, a socket, a device) stays.
//!
//! Everything here blocks, except the methods of [`Ufs`].

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use curvine_protocol::{KeptAttributes, Result, UfsVersion};
use futures::TryStreamExt;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, mkdirat, openat, renameat, renameat_with, unlinkat};
use rustix::io::Errno;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::changes::{Replacement, Written};
use super::local::{Found, Local, Refusal, give, is_absent, look, version_of};
use super::uri::UPLOADS_DIRECTORY;
use super::{ByteStream, Ufs, joined};
use crate::kit::deadlines::STORE_TRY;

/// A file that is not complete yet. Gone when it is dropped, unless it was finished.
pub(super) struct Unfinished {
    uploads: OwnedFd,
    name: String,
    file: File,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = unlinkat(&self.uploads, &*self.name, AtFlags::empty());
    }
}

/// What a finished file has met.
enum Put {
    Stored(UfsVersion),
    /// Something else than what was to be replaced: a version, or nothing.
    Other(Option<UfsVersion>),
}

fn made(at: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    match mkdirat(at, name, Mode::from_raw_mode(0o777)) {
        Err(Errno::EXIST) => Ok(()),
        outcome => outcome,
    }
}

impl Local {
    /// Makes a directory and those above it, as far as they are not there.
    ///
    /// # Errors
    /// `NotADirectory` where a link or a file is on the way.
    fn make_directory(&self, key: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut at = self.directory("")?;
        for name in key.split('/').filter(|name| !name.is_empty()) {
            if name == "." || name == ".." {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            at = match openat(&at, name, flags, Mode::empty()) {
                Err(Errno::NOENT) => {
                    made(&at, name)?;
                    openat(&at, name, flags, Mode::empty())?
                }
                opened => opened?,
            };
        }
        Ok(at)
    }

    /// Begins a file that nobody sees.
    pub(super) fn begin(&self) -> io::Result<Unfinished> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let uploads = self.make_directory(UPLOADS_DIRECTORY)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let number = NEXT.fetch_add(1, Ordering::AcqRel);
            let name = format!("{}.{number}", std::process::id());
            match openat(&uploads, &*name, flags, Mode::from_raw_mode(0o666)) {
                Ok(file) => {
                    return Ok(Unfinished {
                        uploads,
                        name,
                        file: file.into(),
                    });
                }
                // Left by a process that had the same id, or another node's.
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives a complete file its name, in the place of a version, or of a link, or where nothing is.
    fn finish(&self, file: &Unfinished, key: &str, replaces: Option<&UfsVersion>) -> io::Result<Put> {
        file.file.sync_all()?;
        let (above, name) = key.rsplit_once('/').unwrap_or(("", key));
        let above = self.make_directory(above)?;
        let there = match look(&above, name.as_bytes()) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        match there {
            None if replaces.is_some() => return Ok(Put::Other(None)),
            None => {
                let flags = RenameFlags::NOREPLACE;
                match renameat_with(&file.uploads, &*file.name, &above, name, flags) {
                    // Not every file system knows that.
                    Err(Errno::INVAL) => renameat(&file.uploads, &*file.name, &above, name)?,
                    outcome => outcome?,
                }
            }
            Some(Found::File(now)) if Some(&now) != replaces => return Ok(Put::Other(Some(now))),
            Some(Found::Special) => return Err(Refusal::NotShown.into()),
            Some(Found::Link(_)) if replaces.is_some() => return Ok(Put::Other(None)),
            Some(_) => renameat(&file.uploads, &*file.name, &above, name)?,
        }
        Ok(Put::Stored(version_of(&file.file)?))
    }

    /// Copies one version of a file over what is known of another.
    fn copy(
        &self,
        (from, meant): (&str, &UfsVersion),
        (to, replaces): (&str, Option<&UfsVersion>),
    ) -> io::Result<Copied> {
        let kept = self.attributes(from, meant)?;
        let Some((mut source, _)) = self.open(from)?.filter(|(_, now)| now == meant) else {
            return Ok(Copied::SourceChanged);
        };
        let mut copy = self.begin()?;
        io::copy(&mut source, &mut copy.file)?;
        if version_of(&source)? != *meant {
            return Ok(Copied::SourceChanged);
        }
        if let Some(kept) = &kept {
            give(&copy.file, kept)?;
        }
        Ok(match self.finish(&copy, to, replaces)? {
            Put::Stored(version) => Copied::Made(version),
            Put::Other(_) => Copied::TargetChanged,
        })
    }

    /// Removes a file if it is this version. Whether it is gone.
    fn remove(&self, key: &str, meant: &UfsVersion) -> io::Result<bool> {
        let found = match self.parent(key) {
            Ok(Some((above, name))) => look(&above, name.as_bytes()).map(|found| (above, name, found)),
            Ok(None) => return Ok(false),
            Err(error) => Err(error),
        };
        match found {
            Ok((above, name, Found::File(now))) if now == *meant => {
                unlinkat(&above, name, AtFlags::empty())?;
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(error) if is_absent(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Removes an empty directory. What is no directory stays.
    fn remove_directory(&self, key: &str) -> io::Result<()> {
        let removed = match self.parent(key) {
            Ok(Some((above, name))) => unlinkat(&above, name, AtFlags::REMOVEDIR).map_err(io::Error::from),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if is_absent(&error) => Ok(()),
            outcome => outcome,
        }
    }

    /// The first name in a directory.
    fn first_name(&self, key: &str) -> io::Result<Option<String>> {
        let mut first = None;
        let listed = self.list(key, |name, _| {
            first = Some(name.to_string_lossy().into_owned());
            false
        });
        match listed {
            Err(error) if is_absent(&error) => Ok(None),
            outcome => outcome.map(|()| first),
        }
    }
}

enum Copied {
    Made(UfsVersion),
    SourceChanged,
    TargetChanged,
}

impl Ufs {
    /// Changes a local directory, on a thread that may block, within the time of one try.
    async fn change_local<T: Send + 'static>(
        &self,
        local: &Local,
        key: &str,
        work: impl FnOnce(Local) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let changing = self.change_slowly(local, key, work);
        timeout(STORE_TRY, changing)
            .await
            .unwrap_or_else(|_| Err(self.stuck(key)))
    }

    /// The same, however long it takes: a big file is copied, or its last bytes go to the disk.
    async fn change_slowly<T: Send + 'static>(
        &self,
        local: &Local,
        key: &str,
        work: impl FnOnce(Local) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let local = local.clone();
        match spawn_blocking(move || work(local)).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(self.local_refusal(key, error)),
            Err(_) => Err(super::stopping()),
        }
    }

    pub(super) async fn replace_local(
        &self,
        local: &Local,
        key: &str,
        mut content: ByteStream,
        how: &Replacement<'_>,
        may_finish: impl Future<Output = Result<()>> + Send,
    ) -> Result<Written> {
        self.storable(key)?;
        let mut unfinished = self.change_local(local, key, |local| local.begin()).await?;
        while let Some(piece) = content.try_next().await? {
            unfinished = self
                .change_local(local, key, move |_| written(unfinished, &piece))
                .await?;
        }
        may_finish.await?;
        let (name, replaces) = (key.to_owned(), how.replaces.cloned());
        let kept: Option<KeptAttributes> = how.attributes.cloned();
        let finish = move |local: Local| {
            if let Some(kept) = &kept {
                give(&unfinished.file, kept)?;
            }
            local.finish(&unfinished, &name, replaces.as_ref())
        };
        Ok(match self.change_slowly(local, key, finish).await? {
            Put::Stored(version) => Written::Stored(version),
            Put::Other(now) => Written::Conflict(now),
        })
    }

    pub(super) async fn copy_local(
        &self,
        local: &Local,
        (from, meant): (&str, &UfsVersion),
        (to, replaces): (&str, Option<&UfsVersion>),
    ) -> Result<UfsVersion> {
        self.storable(to)?;
        let (source, target) = (from.to_owned(), to.to_owned());
        let (meant, replaces) = (meant.clone(), replaces.cloned());
        let copy = move |local: Local| local.copy((&source, &meant), (&target, replaces.as_ref()));
        match self.change_slowly(local, to, copy).await? {
            Copied::Made(version) => Ok(version),
            Copied::SourceChanged => Err(self.unexpected(from)),
            Copied::TargetChanged => Err(self.unexpected(to)),
        }
    }

    pub(super) async fn delete_local(&self, local: &Local, key: &str, meant: &UfsVersion) -> Result<bool> {
        let (name, meant) = (key.to_owned(), meant.clone());
        self.change_local(local, key, move |local| local.remove(&name, &meant))
            .await
    }

    pub(super) async fn make_local_dir(&self, local: &Local, key: &str) -> Result<()> {
        let name = key.to_owned();
        self.change_local(local, key, move |local| local.make_directory(&name).map(drop))
            .await
    }

    pub(super) async fn delete_local_dir(&self, local: &Local, key: &str) -> Result<()> {
        let name = key.to_owned();
        self.change_local(local, key, move |local| local.remove_directory(&name))
            .await
    }

    pub(super) async fn something_in_local(&self, local: &Local, key: &str) -> Result<Option<String>> {
        let name = key.to_owned();
        let first = self
            .change_local(local, key, move |local| local.first_name(&name))
            .await?;
        Ok(first.map(|first| joined(key, &first)))
    }

    /// Whether a file can be made. Nothing of it stays.
    pub(super) async fn try_local(&self, local: &Local) -> Result<()> {
        self.change_local(local, "", |local| local.begin().map(drop))
            .await
    }
}

fn written(mut unfinished: Unfinished, piece: &Bytes) -> io::Result<Unfinished> {
    unfinished.file.write_all(piece)?;
    Ok(unfinished)
}
