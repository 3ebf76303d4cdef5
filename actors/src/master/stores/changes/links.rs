//! Symbolic links of a local directory: they have no object, and are known by where they point.

use curvine_protocol::{Attr, FileKind, InodeId, Node, Result, UfsVersion};

use super::Task;
use crate::crash_points::{Point, crash_point};

impl Task<'_> {
    /// Where a link points; none if it is something else, or is no more.
    fn target(&self, inode: InodeId) -> Option<String> {
        let found = self.changes.view.lookup(&Node::Inode(inode), false).ok()?;
        found.target
    }

    /// Copies a link that a rename moves. False if it is something else.
    pub(super) async fn copy_link(&self, from: &str, to: &str, attr: &Attr) -> Result<bool> {
        let Some(target) = self.link(attr) else {
            return Ok(false);
        };
        let replaces: Option<&UfsVersion> = match attr.inode == self.change.inode {
            true => self.change.replaces.as_ref(),
            false => None,
        };
        self.ufs.copy_link((from, &target), (to, replaces)).await?;
        crash_point(Point::ObjectCopied);
        self.changes.outcomes.progress.did(self.id, 1);
        Ok(true)
    }

    fn link(&self, attr: &Attr) -> Option<String> {
        match attr.kind {
            FileKind::Symlink => self.target(attr.inode),
            _ => None,
        }
    }

    /// Deletes a link if it points where it is known to; nothing where there is none.
    pub(super) async fn delete_link(&self, inode: InodeId, key: &str) -> Result<()> {
        let Some(target) = self.target(inode) else {
            return Ok(());
        };
        if !self.ufs.delete_link(key, &target).await? {
            tracing::warn!(
                mount = %self.record.mount, key,
                "another link than was meant, or something else, is there: it stays, and will be seen as new"
            );
        }
        crash_point(Point::ObjectDeleted);
        self.changes.outcomes.progress.did(self.id, 1);
        Ok(())
    }

    pub(super) async fn delete_links(&self, links: Vec<(String, InodeId)>) -> Result<()> {
        for (key, inode) in links {
            self.delete_link(inode, &key).await?;
        }
        Ok(())
    }

    /// Whether the name that a rename was refused has the same link: no copy can be told from it.
    pub(super) fn is_kept_there(&self, inode: InodeId, to: &Node) -> bool {
        let there = self.changes.view.lookup(to, false);
        there.is_ok_and(|entry| entry.target.is_some() && entry.target == self.target(inode))
    }
}
