//! Changes of a directory of this node. Like looks, they go from directory to directory by descriptors and follow no link: a
//! name that is a link is replaced or removed itself. What is not shown there (a FIFO, a socket, a device) stays.
//!
//! Everything here blocks, except the methods of [`Ufs`].

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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
use crate::kit::deadlines::{LOCAL_STEP, STORE_TRY, local_sync};

/// Copied at once, within [`LOCAL_STEP`].
const COPY_PIECE_BYTES: u64 = 16 << 20;

/// Something that is not complete yet, where nobody sees it. Gone when it is dropped, unless it got a place.
pub(super) struct Beside {
    uploads: OwnedFd,
    name: String,
}

impl Beside {
    /// The directory that it is in, and its name there.
    pub(super) fn at(&self) -> (&OwnedFd, &str) {
        (&self.uploads, &self.name)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = unlinkat(&self.uploads, &*self.name, AtFlags::empty());
    }
}

/// A file that is not complete yet.
struct Unfinished {
    beside: Beside,
    file: File,
}

/// A file that is being copied.
struct Copying {
    source: File,
    copy: Unfinished,
}

/// What something complete has met where it was to go.
pub(super) enum Placed {
    Done,
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

    /// Makes something under a name that nobody sees and nothing has.
    pub(super) fn beside<T>(
        &self,
        make: impl Fn(&OwnedFd, &str) -> rustix::io::Result<T>,
    ) -> io::Result<(Beside, T)> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let uploads = self.make_directory(UPLOADS_DIRECTORY)?;
        loop {
            let number = NEXT.fetch_add(1, Ordering::AcqRel);
            let name = format!("{}.{number}", std::process::id());
            match make(&uploads, &name) {
                Ok(made) => return Ok((Beside { uploads, name }, made)),
                // Left by a process that had the same id, or another node's.
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Begins a file that nobody sees.
    fn begin(&self) -> io::Result<Unfinished> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o666);
        let (beside, file) = self.beside(|uploads, name| openat(uploads, name, flags, mode))?;
        Ok(Unfinished {
            beside,
            file: file.into(),
        })
    }

    /// Gives what is complete its name, in the place of a version, or of a link, or where nothing is.
    pub(super) fn place(
        &self,
        beside: &Beside,
        key: &str,
        replaces: Option<&UfsVersion>,
    ) -> io::Result<Placed> {
        let (above, name) = key.rsplit_once('/').unwrap_or(("", key));
        let above = self.make_directory(above)?;
        let (uploads, unplaced) = beside.at();
        let there = match look(&above, name.as_bytes()) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        match there {
            None if replaces.is_some() => return Ok(Placed::Other(None)),
            None => {
                let flags = RenameFlags::NOREPLACE;
                match renameat_with(uploads, unplaced, &above, name, flags) {
                    // Not every file system knows that.
                    Err(Errno::INVAL) => renameat(uploads, unplaced, &above, name)?,
                    outcome => outcome?,
                }
            }
            Some(Found::File(now)) if Some(&now) != replaces => return Ok(Placed::Other(Some(now))),
            Some(found) if found.is_hidden() => return Err(Refusal::NotShown.into()),
            Some(Found::Link(_)) if replaces.is_some() => return Ok(Placed::Other(None)),
            Some(_) => renameat(uploads, unplaced, &above, name)?,
        }
        Ok(Placed::Done)
    }

    /// Begins to copy one version of a file. None if it is another one by now.
    fn begin_copy(&self, from: &str, meant: &UfsVersion) -> io::Result<Option<Copying>> {
        let Some((source, _)) = self.open(from)?.filter(|(_, now)| now == meant) else {
            return Ok(None);
        };
        let copy = self.begin()?;
        Ok(Some(Copying { source, copy }))
    }

    /// Gives a copy what its source keeps of attributes. None if that is another version by now.
    fn end_copy(&self, copying: Copying, from: &str, meant: &UfsVersion) -> io::Result<Option<Unfinished>> {
        let Copying { source, copy } = copying;
        let kept = self.attributes(from, meant)?;
        if version_of(&source)? != *meant {
            return Ok(None);
        }
        if let Some(kept) = &kept {
            give(&copy.file, kept)?;
        }
        Ok(Some(copy))
    }

    /// Removes what has a name, if it is what is meant. Whether it is gone.
    pub(super) fn remove(&self, key: &str, is_meant: impl Fn(&Found) -> bool) -> io::Result<bool> {
        let found = match self.parent(key) {
            Ok(Some((above, name))) => look(&above, name.as_bytes()).map(|found| (above, name, found)),
            Ok(None) => return Ok(false),
            Err(error) => Err(error),
        };
        match found {
            Ok((above, name, found)) if is_meant(&found) => {
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

impl Copying {
    /// Copies the next piece. False at the end.
    fn piece(mut self) -> io::Result<(Copying, bool)> {
        let copied = io::copy(&mut (&self.source).take(COPY_PIECE_BYTES), &mut self.copy.file)?;
        Ok((self, copied == COPY_PIECE_BYTES))
    }
}

impl Unfinished {
    fn write(mut self, piece: &Bytes) -> io::Result<Unfinished> {
        self.file.write_all(piece)?;
        Ok(self)
    }

    fn sync(self) -> io::Result<Unfinished> {
        self.file.sync_all()?;
        Ok(self)
    }
}

impl Ufs {
    /// Changes a local directory, on a thread that may block, within a time. What takes longer than that may still be done
    /// when the file system behind it answers again; what it gives is dropped then.
    pub(super) async fn change_local<T: Send + 'static>(
        &self,
        local: &Local,
        key: &str,
        limit: Duration,
        work: impl FnOnce(Local) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let local = local.clone();
        match timeout(limit, spawn_blocking(move || work(local))).await {
            Ok(Ok(Ok(done))) => Ok(done),
            Ok(Ok(Err(error))) => Err(self.local_refusal(key, error)),
            Ok(Err(_)) => Err(super::stopping()),
            Err(_) => Err(self.stuck(key, limit)),
        }
    }

    /// What is complete is on the disk before anybody sees it.
    async fn sync_local(
        &self,
        local: &Local,
        key: &str,
        unfinished: Unfinished,
        size_bytes: u64,
    ) -> Result<Unfinished> {
        self.change_local(local, key, local_sync(size_bytes), |_| unfinished.sync())
            .await
    }

    /// Gives a complete file its name. A step of its own: one that was given up before it names nothing later.
    async fn finish_local(
        &self,
        local: &Local,
        key: &str,
        unfinished: Unfinished,
        replaces: Option<&UfsVersion>,
    ) -> Result<Written> {
        let (name, replaces) = (key.to_owned(), replaces.cloned());
        let finish = move |local: Local| {
            Ok(match local.place(&unfinished.beside, &name, replaces.as_ref())? {
                Placed::Done => Written::Stored(version_of(&unfinished.file)?),
                Placed::Other(now) => Written::Conflict(now),
            })
        };
        self.change_local(local, key, STORE_TRY, finish).await
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
        let mut unfinished = self
            .change_local(local, key, STORE_TRY, |local| local.begin())
            .await?;
        let mut size_bytes = 0;
        while let Some(piece) = content.try_next().await? {
            size_bytes += piece.len() as u64;
            unfinished = self
                .change_local(local, key, LOCAL_STEP, move |_| unfinished.write(&piece))
                .await?;
        }
        let kept: Option<KeptAttributes> = how.attributes.cloned();
        let give = move |_| {
            if let Some(kept) = &kept {
                give(&unfinished.file, kept)?;
            }
            Ok(unfinished)
        };
        let unfinished = self.change_local(local, key, STORE_TRY, give).await?;
        let unfinished = self.sync_local(local, key, unfinished, size_bytes).await?;
        may_finish.await?;
        self.finish_local(local, key, unfinished, how.replaces).await
    }

    pub(super) async fn copy_local(
        &self,
        local: &Local,
        (from, meant): (&str, &UfsVersion),
        (to, replaces): (&str, Option<&UfsVersion>),
    ) -> Result<UfsVersion> {
        self.storable(to)?;
        let begin = {
            let (from, meant) = (from.to_owned(), meant.clone());
            move |local: Local| local.begin_copy(&from, &meant)
        };
        let begun = self.change_local(local, to, STORE_TRY, begin).await?;
        let mut copying = begun.ok_or_else(|| self.unexpected(from))?;
        loop {
            let more;
            (copying, more) = self
                .change_local(local, to, LOCAL_STEP, |_| copying.piece())
                .await?;
            if !more {
                break;
            }
        }
        let end = {
            let (from, meant) = (from.to_owned(), meant.clone());
            move |local: Local| local.end_copy(copying, &from, &meant)
        };
        let ended = self.change_local(local, to, STORE_TRY, end).await?;
        let copy = ended.ok_or_else(|| self.unexpected(from))?;
        let copy = self.sync_local(local, to, copy, meant.size_bytes).await?;
        match self.finish_local(local, to, copy, replaces).await? {
            Written::Stored(version) => Ok(version),
            Written::Conflict(_) => Err(self.unexpected(to)),
        }
    }

    pub(super) async fn delete_local(&self, local: &Local, key: &str, meant: &UfsVersion) -> Result<bool> {
        let (name, meant) = (key.to_owned(), Found::File(meant.clone()));
        let remove = move |local: Local| local.remove(&name, |found| *found == meant);
        self.change_local(local, key, STORE_TRY, remove).await
    }

    pub(super) async fn make_local_dir(&self, local: &Local, key: &str) -> Result<()> {
        let name = key.to_owned();
        let make = move |local: Local| local.make_directory(&name).map(drop);
        self.change_local(local, key, STORE_TRY, make).await
    }

    pub(super) async fn delete_local_dir(&self, local: &Local, key: &str) -> Result<()> {
        let name = key.to_owned();
        let remove = move |local: Local| local.remove_directory(&name);
        self.change_local(local, key, STORE_TRY, remove).await
    }

    pub(super) async fn something_in_local(&self, local: &Local, key: &str) -> Result<Option<String>> {
        let name = key.to_owned();
        let first = self
            .change_local(local, key, STORE_TRY, move |local| local.first_name(&name))
            .await?;
        Ok(first.map(|first| joined(key, &first)))
    }

    /// Whether a file can be made. Nothing of it stays.
    pub(super) async fn try_local(&self, local: &Local) -> Result<()> {
        self.change_local(local, "", STORE_TRY, |local| local.begin().map(drop))
            .await
    }
}
