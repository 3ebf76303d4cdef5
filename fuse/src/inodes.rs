//! What the kernel has of each inode: one state machine, changed by every answer of the masters and by every change that
//! is made here.
//!
//! The kernel believes attributes for the mount's `ttl` and pages until they are dropped. Its pages are of a *content*:
//! a version, and the *lineage* of the open file they came through, which grows whenever the content of others is taken
//! over. As long as the lineage stays, what is written here turns pages of one version into pages of the next.
//!
//! Invariants: pages of a version are kept at an open only if that version is opened; pages survive a commit only if
//! nobody else wrote between what they were read from and what was committed; what is gone is shown as it was last,
//! without a name, to whoever still has it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use curvine_actors::planted::{Bug, is_planted};
use curvine_protocol::master::{AttrChange, SetTime};
use curvine_protocol::{Attr, InodeId};
use quick_cache::unsync::Cache;
use tokio::time::Instant;

/// Inodes remembered. One that is forgotten costs a dropped page cache at its next open, and is not shown any more
/// once it is gone.
const INODES: usize = 200_000;

/// What the kernel has of one inode. Pure.
#[derive(Clone, Debug, Default)]
struct Inode {
    /// As the kernel was told last.
    shown: Option<Attr>,
    /// The masters do not have it any more.
    gone: bool,
    /// What its pages are of; none if that is not known.
    pages: Option<Content>,
    /// The kernel has moved the end by itself to where it is not.
    is_misled: bool,
    /// Until when it is known to have no extended attribute and no access control list.
    bare_until: Option<Instant>,
    /// It was given one here.
    dressed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Content {
    version: u64,
    lineage: u64,
}

/// What an open must tell the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// Its pages are of this version: it may keep them.
    pub keep_pages: bool,
    /// Its attributes may be of another version: it must ask again.
    pub drop_attributes: bool,
}

/// What becomes of the kernel's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pages {
    Stay,
    /// They are of a content that is not what the file is now.
    Drop,
}

impl Inode {
    /// The kernel is told these attributes. Whether they are of a newer content than its pages.
    fn told(&mut self, attr: &Attr, bare_until: Instant) -> bool {
        let is_bare = attr.bare && !attr.has_acl && !self.dressed;
        self.bare_until = is_bare.then_some(bare_until);
        (self.gone, self.is_misled) = (false, false);
        self.shown = Some(Attr {
            ufs: None,
            ..attr.clone()
        });
        attr.is_file()
            && self
                .pages
                .is_none_or(|pages| pages.version < attr.content_version)
    }

    /// What is written here moves the end that the kernel knows along with the version of its pages.
    fn is_behind(&self, version: u64) -> bool {
        let shown = self.shown.as_ref().map(|shown| shown.content_version);
        let known = shown.max(self.pages.map(|pages| pages.version));
        self.is_misled || known.is_some_and(|known| known != version)
    }

    fn opened(&mut self, now: Content) -> Freshness {
        let fresh = Freshness {
            keep_pages: self.pages.is_some_and(|pages| pages.version == now.version),
            drop_attributes: self
                .shown
                .as_ref()
                .is_some_and(|attr| attr.content_version != now.version),
        };
        self.pages = Some(now);
        fresh
    }

    /// The open file is at this content now: written here, or taken over from others.
    fn moved(&mut self, now: Content) -> Pages {
        let same = self.pages.is_some_and(|pages| pages.lineage == now.lineage);
        self.pages = Some(now);
        match same || is_planted(Bug::PagesOutliveTheLease) {
            true => Pages::Stay,
            false => Pages::Drop,
        }
    }

    /// The masters say that it is gone: what to show of it, if anybody may still have it.
    fn gone(&mut self) -> Option<Attr> {
        self.gone = true;
        let shown = self.shown.as_mut()?;
        shown.nlink = 0;
        Some(shown.clone())
    }

    /// A change of what is gone: it is known here alone.
    fn changed(&mut self, change: &AttrChange, now_ns: i64) -> Option<Attr> {
        let shown = self.shown.as_mut().filter(|_| self.gone)?;
        let at = |time: SetTime| match time {
            SetTime::Now => now_ns,
            SetTime::At(ns) => ns,
        };
        shown.mode = change.mode.unwrap_or(shown.mode);
        shown.uid = change.uid.unwrap_or(shown.uid);
        shown.gid = change.gid.unwrap_or(shown.gid);
        shown.atime_ns = change.atime.map_or(shown.atime_ns, at);
        shown.mtime_ns = change.mtime.map_or(shown.mtime_ns, at);
        shown.ctime_ns = now_ns;
        Some(shown.clone())
    }
}

/// All inodes that the kernel may have.
pub struct Inodes {
    known: Mutex<Cache<InodeId, Inode>>,
    ttl: Duration,
}

impl Inodes {
    pub fn new(ttl: Duration) -> Self {
        Inodes {
            known: Mutex::new(Cache::new(INODES)),
            ttl,
        }
    }

    fn known(&self) -> MutexGuard<'_, Cache<InodeId, Inode>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, inode: InodeId, change: impl FnOnce(&mut Inode) -> T) -> T {
        let mut known = self.known();
        if let Some(mut found) = known.get_mut(&inode) {
            return change(&mut found);
        }
        let mut new = Inode::default();
        let outcome = change(&mut new);
        known.insert(inode, new);
        outcome
    }

    /// The kernel is told these attributes. Whether they are of a newer content than its pages: then, if the file is
    /// open, [`Inodes::moved`] must follow before the kernel hears of it.
    pub fn told(&self, attr: &Attr, now: Instant) -> bool {
        self.change(attr.inode, |known| known.told(attr, now + self.ttl))
    }

    /// A file is opened at this version.
    pub fn opened(&self, inode: InodeId, version: u64, lineage: u64) -> Freshness {
        self.change(inode, |known| known.opened(Content { version, lineage }))
    }

    /// An open file is at this version now.
    pub fn moved(&self, inode: InodeId, version: u64, lineage: u64) -> Pages {
        self.change(inode, |known| known.moved(Content { version, lineage }))
    }

    /// What the kernel was told last.
    pub fn shown(&self, inode: InodeId) -> Option<Attr> {
        self.known().get(&inode)?.shown.clone()
    }

    /// The masters say that an inode is gone. What to show to whoever still has it.
    pub fn gone(&self, inode: InodeId) -> Option<Attr> {
        self.known().get_mut(&inode)?.gone()
    }

    /// Whether the masters have said that an inode is gone.
    pub fn is_gone(&self, inode: InodeId) -> bool {
        self.known().get(&inode).is_some_and(|known| known.gone)
    }

    /// Changes what is gone. None if it is not known here.
    pub fn changed(&self, inode: InodeId, change: &AttrChange, now_ns: i64) -> Option<Attr> {
        self.known().get_mut(&inode)?.changed(change, now_ns)
    }

    /// Whether the size that the kernel knows is that of another content than this version.
    pub fn is_behind(&self, inode: InodeId, version: u64) -> bool {
        let known = self.known();
        known.get(&inode).is_some_and(|known| known.is_behind(version))
    }

    /// The kernel has put what was written behind the end that it knows, which is not where it went.
    pub fn misled(&self, inode: InodeId) {
        self.change(inode, |known| known.is_misled = true);
    }

    /// Whether an inode has no extended attribute and no access control list, as the masters said within the `ttl`.
    pub fn is_bare(&self, inode: InodeId, now: Instant) -> bool {
        let known = self.known();
        let until = known.get(&inode).and_then(|known| known.bare_until);
        until.is_some_and(|until| now < until)
    }

    /// An inode gets an extended attribute or an access control list.
    pub fn dressed(&self, inode: InodeId) {
        self.change(inode, |known| (known.bare_until, known.dressed) = (None, true));
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do")]
mod tests {
    use curvine_protocol::FileKind;

    use super::*;

    const FILE: InodeId = InodeId(7);

    fn attr(content_version: u64) -> Attr {
        Attr {
            inode: FILE,
            kind: FileKind::File,
            mode: 0o644,
            uid: 1000,
            gid: 100,
            nlink: 1,
            size_bytes: 5,
            atime_ns: 1,
            mtime_ns: 1,
            ctime_ns: 1,
            btime_ns: 1,
            rdev: 0,
            block_bytes: 1 << 27,
            replicas: 1,
            content_version,
            ufs: None,
            hole_bytes: 0,
            bare: true,
            has_acl: false,
        }
    }

    fn inodes() -> Inodes {
        Inodes::new(Duration::from_secs(1))
    }

    fn fresh(keep_pages: bool, drop_attributes: bool) -> Freshness {
        Freshness {
            keep_pages,
            drop_attributes,
        }
    }

    #[test]
    fn pages_are_kept_only_while_the_version_stays() {
        let (inodes, now) = (inodes(), Instant::now());
        inodes.told(&attr(1), now);
        assert_eq!(inodes.opened(FILE, 1, 0), fresh(false, false), "no pages yet");
        assert_eq!(inodes.opened(FILE, 1, 0), fresh(true, false));
        assert_eq!(inodes.opened(FILE, 2, 0), fresh(false, true), "changed elsewhere");
        assert_eq!(inodes.moved(FILE, 3, 0), Pages::Stay, "changed here");
        assert!(!inodes.told(&attr(3), now));
        assert_eq!(inodes.opened(FILE, 3, 0), fresh(true, false));
    }

    #[test]
    fn the_kernel_is_behind_what_others_wrote_and_not_behind_what_was_written_through_it() {
        let (inodes, now) = (inodes(), Instant::now());
        assert!(
            !inodes.is_behind(FILE, 1),
            "it is asked about nothing that it was not told"
        );
        inodes.told(&attr(1), now);
        assert!(!inodes.is_behind(FILE, 1) && inodes.is_behind(FILE, 2));
        inodes.opened(FILE, 1, 0);
        assert_eq!(inodes.moved(FILE, 2, 0), Pages::Stay);
        assert!(!inodes.is_behind(FILE, 2) && inodes.is_behind(FILE, 3));
        inodes.misled(FILE);
        assert!(
            inodes.is_behind(FILE, 2),
            "appended elsewhere than the kernel thinks"
        );
        inodes.told(&attr(2), now);
        assert!(!inodes.is_behind(FILE, 2));
    }

    #[test]
    fn attributes_of_a_newer_content_say_that_the_pages_are_old() {
        let (inodes, now) = (inodes(), Instant::now());
        inodes.opened(FILE, 1, 0);
        assert!(!inodes.told(&attr(1), now));
        assert!(inodes.told(&attr(2), now));
        assert!(inodes.told(&attr(2), now), "until the file has moved there");
        assert_eq!(inodes.moved(FILE, 2, 1), Pages::Drop);
        assert!(!inodes.told(&attr(2), now));
        assert!(!inodes.told(&attr(1), now), "a late answer");
    }

    #[test]
    fn pages_of_before_the_lease_was_away_do_not_become_new_by_a_commit() {
        let inodes = inodes();
        inodes.opened(FILE, 1, 0);
        assert_eq!(inodes.moved(FILE, 2, 0), Pages::Stay);
        // Others wrote version 3; the lease came back with it, and then a commit.
        assert_eq!(inodes.moved(FILE, 4, 1), Pages::Drop);
        assert_eq!(inodes.moved(FILE, 5, 1), Pages::Stay);
    }

    #[test]
    fn what_is_gone_is_shown_as_it_was_without_a_name_and_can_be_changed() {
        let (inodes, now) = (inodes(), Instant::now());
        assert_eq!(inodes.gone(FILE), None, "never seen");
        inodes.told(&attr(1), now);
        let change = AttrChange {
            mode: Some(0o600),
            ..AttrChange::default()
        };
        assert_eq!(inodes.changed(FILE, &change, 9), None, "it is there");
        let shown = inodes.gone(FILE).expect("it was seen");
        assert_eq!(shown, Attr { nlink: 0, ..attr(1) });
        let changed = inodes.changed(FILE, &change, 9).expect("it is gone");
        assert_eq!((changed.mode, changed.ctime_ns, changed.nlink), (0o600, 9, 0));
    }

    #[test]
    fn attributes_that_are_absent_are_known_for_as_long_as_others_are() {
        let (inodes, now) = (inodes(), Instant::now());
        inodes.told(&attr(1), now);
        assert!(inodes.is_bare(FILE, now));
        assert!(!inodes.is_bare(FILE, now + Duration::from_secs(1)));
        inodes.dressed(FILE);
        inodes.told(&attr(1), now);
        assert!(!inodes.is_bare(FILE, now), "a late answer");
    }
}
