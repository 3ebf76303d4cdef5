//! Which version of each file the kernel knows, in its attributes and in its page cache.
//!
//! The kernel believes attributes for the mount's `ttl` and pages until they are dropped. An open must be fresh
//! nevertheless: it compares the version it opens with what is noted here.

use curvine_protocol::InodeId;
use quick_cache::sync::Cache;

/// Files remembered. One that is forgotten costs a dropped page cache at its next open, nothing else.
const FILES: usize = 200_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Versions {
    /// The version of the attributes that the kernel was given last.
    attributes: Option<u64>,
    /// The version that the kernel's pages are of.
    pages: Option<u64>,
}

/// What an open must tell the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// Its pages are of this version: it may keep them.
    pub keep_pages: bool,
    /// Its attributes may be of another version: it must ask again.
    pub drop_attributes: bool,
}

pub struct Known {
    versions: Cache<InodeId, Versions>,
}

impl Known {
    pub fn new() -> Self {
        Known {
            versions: Cache::new(FILES),
        }
    }

    fn get(&self, inode: InodeId) -> Versions {
        self.versions.get(&inode).unwrap_or_default()
    }

    /// The kernel is given attributes of this version.
    pub fn told(&self, inode: InodeId, version: u64) {
        let attributes = Some(version);
        let known = self.get(inode);
        if known.attributes != attributes {
            self.versions.insert(inode, Versions { attributes, ..known });
        }
    }

    /// A file is opened at this version.
    pub fn opened(&self, inode: InodeId, version: u64) -> Freshness {
        let known = self.get(inode);
        let now = Versions {
            attributes: Some(version),
            pages: Some(version),
        };
        if known != now {
            self.versions.insert(inode, now);
        }
        Freshness {
            keep_pages: known.pages == now.pages,
            drop_attributes: known.attributes != now.attributes,
        }
    }

    /// This mount, which alone could, has made the version that the kernel's pages were of into this one.
    pub fn written(&self, inode: InodeId, version: u64) {
        let pages = Some(version);
        self.versions.insert(
            inode,
            Versions {
                attributes: self.get(inode).attributes,
                pages,
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: InodeId = InodeId(7);

    #[test]
    fn pages_are_kept_only_while_the_version_stays() {
        let known = Known::new();
        known.told(FILE, 1);
        let fresh = |keep_pages, drop_attributes| Freshness {
            keep_pages,
            drop_attributes,
        };
        assert_eq!(known.opened(FILE, 1), fresh(false, false), "no pages yet");
        assert_eq!(known.opened(FILE, 1), fresh(true, false));
        assert_eq!(known.opened(FILE, 2), fresh(false, true), "changed elsewhere");
        known.written(FILE, 3);
        known.told(FILE, 3);
        assert_eq!(known.opened(FILE, 3), fresh(true, false), "changed here");
    }

    #[test]
    fn new_attributes_do_not_make_old_pages_new() {
        let known = Known::new();
        known.opened(FILE, 1);
        known.told(FILE, 2);
        assert!(!known.opened(FILE, 2).keep_pages);
    }
}
