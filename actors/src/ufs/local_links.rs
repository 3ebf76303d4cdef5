//! Symbolic links of a directory of this node: they go and move with what they are in, and nothing reads through them.

use std::io;

use curvine_protocol::{Error, Result, UfsVersion};
use rustix::fs::{
    AtFlags, Gid, Timespec, Timestamps, UTIME_OMIT, Uid, chownat, statat, symlinkat, utimensat,
};

use super::Ufs;
use super::local::{Found, Local, as_far_as_it_may, is_absent, look};
use super::local_changes::Placed;
use crate::kit::deadlines::STORE_TRY;

/// What came of a copy.
enum Copied {
    Made,
    SourceChanged,
    TargetChanged,
}

impl Local {
    /// Makes a link that points to where another one does, over what is known of a version.
    fn copy_link(
        &self,
        (from, target): (&str, &str),
        (to, replaces): (&str, Option<&UfsVersion>),
    ) -> io::Result<Copied> {
        let Some((above, name)) = self.parent(from)? else {
            return Ok(Copied::SourceChanged);
        };
        let meant = Found::Link(Some(target.to_owned()));
        match look(&above, name.as_bytes()) {
            Ok(found) if found == meant => {}
            Ok(_) => return Ok(Copied::SourceChanged),
            Err(error) if is_absent(&error) => return Ok(Copied::SourceChanged),
            Err(error) => return Err(error),
        }
        // As an earlier try left it.
        if self.find(to)? == Some(meant) {
            return Ok(Copied::Made);
        }
        let stat = statat(&above, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let (beside, ()) = self.beside(|uploads, name| symlinkat(target, uploads, name))?;
        let (at, name) = beside.at();
        let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        as_far_as_it_may(chownat(
            at,
            name,
            Some(owner.0),
            Some(owner.1),
            AtFlags::SYMLINK_NOFOLLOW,
        ))?;
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: stat.st_mtime,
                tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or_default(),
            },
        };
        as_far_as_it_may(utimensat(at, name, &times, AtFlags::SYMLINK_NOFOLLOW))?;
        Ok(match self.place(&beside, to, replaces)? {
            Placed::Done => Copied::Made,
            Placed::Other(_) => Copied::TargetChanged,
        })
    }
}

impl Ufs {
    /// A store of objects shows no links.
    fn with_links(&self) -> Result<&Local> {
        let none = || Error::internal(format!("{}: has no symbolic links", self.uri));
        self.local.as_ref().ok_or_else(none)
    }

    /// Copies a symbolic link that points to `target`, over what is known of an object. One that an earlier try left is
    /// taken.
    ///
    /// # Errors
    /// `UfsChanged` if the link is another one by now, or something else is where it goes.
    pub async fn copy_link(
        &self,
        (from, target): (&str, &str),
        (to, replaces): (&str, Option<&UfsVersion>),
    ) -> Result<()> {
        let local = self.with_links()?;
        let (source, place) = (from.to_owned(), to.to_owned());
        let (meant, replaces) = (target.to_owned(), replaces.cloned());
        let copy = move |local: Local| local.copy_link((&source, &meant), (&place, replaces.as_ref()));
        match self.change_local(local, to, STORE_TRY, copy).await? {
            Copied::Made => Ok(()),
            Copied::SourceChanged => Err(self.unexpected(from)),
            Copied::TargetChanged => Err(self.unexpected(to)),
        }
    }

    /// Removes a symbolic link if it points to `target`. Whether it is gone: another one stays, and so does anything else.
    pub async fn delete_link(&self, key: &str, target: &str) -> Result<bool> {
        let local = self.with_links()?;
        let (name, meant) = (key.to_owned(), Found::Link(Some(target.to_owned())));
        let remove = move |local: Local| local.remove(&name, |found| *found == meant);
        self.change_local(local, key, STORE_TRY, remove).await
    }
}
