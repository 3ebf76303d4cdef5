//! Changes that are refused at the door because of keys: those that would make a name which stands for another key or for
//! none, and those that would touch what is not shown.

use curvine_protocol::master::{Delete, RemoveDir, Rename, Unlink};
use curvine_protocol::op::Op;
use curvine_protocol::{Error, ErrorKind, InodeId, MountId, Node, Result};

use super::mirror::Mirror;
use crate::ufs::names::fate;

impl Mirror {
    /// # Errors
    /// `InvalidArgument` for a name that no key can have; `NotPermitted` for one of something that is not shown;
    /// `DirectoryNotEmpty` for a directory with keys that are not shown.
    pub async fn refuse_keys(&self, op: &Op, places: &[Node]) -> Result<()> {
        // Where the names are: a link on the way leads elsewhere.
        let Some(place) = places.first() else {
            return Ok(());
        };
        match op {
            Op::MakeDir(_) => self.refuse_name(place, true).await,
            Op::CreateFile(_) | Op::MakeNode(_) => self.refuse_name(place, false).await,
            Op::Rename(Rename { from, to, .. }) => {
                let moved = self.view.lookup(from, false);
                let is_dir = moved.is_ok_and(|entry| entry.attr.is_dir());
                self.refuse_name(places.get(1).unwrap_or(to), is_dir).await?;
                self.refuse_hidden(from).await
            }
            Op::Unlink(Unlink { node, .. })
            | Op::RemoveDir(RemoveDir { node })
            | Op::Delete(Delete { node, .. }) => self.refuse_hidden(node).await,
            _ => Ok(()),
        }
    }

    async fn refuse_name(&self, node: &Node, is_dir: bool) -> Result<()> {
        let Some(spot) = self.spot_of(node).await? else {
            return Ok(());
        };
        let mut names = spot.key.split('/').rev().filter(|name| !name.is_empty());
        let last = names.next().map(|name| (name, is_dir));
        for (name, is_dir) in last.into_iter().chain(names.map(|name| (name, true))) {
            if let Err(why) = fate(name, is_dir, spot.ufs.spelling()) {
                return Err(Error::invalid(format!(
                    "{node}: {} cannot store it under this name: `{}` {}",
                    spot.mount.uri,
                    name.escape_debug(),
                    why.why()
                )));
            }
        }
        match spot.ufs.hidden_at(&spot.key).await? {
            None => Ok(()),
            Some(key) => Err(Error::new(
                ErrorKind::NotPermitted,
                format!(
                    "{node}: {} has something at `{key}` that is not shown (a FIFO, a socket, a device, a mount of Curvine), \
                     and it stays; choose another name",
                    spot.mount.uri
                ),
            )),
        }
    }

    /// Refuses to delete or move what takes keys with it that nobody has been shown.
    async fn refuse_hidden(&self, node: &Node) -> Result<()> {
        let Ok(entry) = self.view.lookup(node, false) else {
            return Ok(());
        };
        let inode = entry.attr.inode;
        let Some((mount, key)) = self.view.mounted(inode)? else {
            return Ok(());
        };
        if entry.attr.is_dir() && !key.is_empty() {
            self.fresh_tree(inode).await?;
            self.refuse_hidden_below(node, mount, inode)?;
        }
        Ok(())
    }

    fn refuse_hidden_below(&self, node: &Node, mount: MountId, top: InodeId) -> Result<()> {
        // The listing may have found that it is gone.
        let Ok(hidden) = self.hidden_below(mount, top) else {
            return Ok(());
        };
        match hidden.is_empty() {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::DirectoryNotEmpty,
                format!(
                    "{node}: has keys that are not shown and would be touched: {}",
                    hidden.told()
                ),
            )),
        }
    }
}
