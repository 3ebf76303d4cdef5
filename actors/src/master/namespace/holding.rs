//! Who has open what a change takes names from.

use std::sync::Arc;

use curvine_protocol::master::{Delete, Holders, Rename, RenameMode, Unlink};
use curvine_protocol::op::Op;
use curvine_protocol::{InodeId, Result};

use super::opens::{Opens, Removal};
use super::resolve::{is_within, resolve};
use super::store::Store;
use crate::kit::Clock;
use crate::master::contract::Keeping;
use crate::planted::{Bug, is_planted};

/// Knows it from the leader's table of open files.
pub struct Holding {
    pub store: Store,
    pub opens: Arc<Opens>,
    pub clock: Arc<dyn Clock>,
}

impl Keeping for Holding {
    fn note_holders(&self, op: &mut Op) -> Result<Option<Removal<'_>>> {
        let (node, holders) = match op {
            Op::Unlink(Unlink { node, holders, .. }) | Op::Delete(Delete { node, holders, .. }) => {
                (&*node, holders)
            }
            Op::Rename(Rename {
                to, mode, holders, ..
            }) if *mode == RenameMode::Replace => (&*to, holders),
            _ => return Ok(None),
        };
        *holders = None;
        let now = self.clock.now();
        let txn = self.store.read()?;
        let dbs = &self.store.dbs;
        let found = resolve(dbs, &txn, node, false).ok().and_then(|place| place.found);
        let Some((inode, record)) = found else {
            // What is wrong with the name, the op itself will say. But it may be made, and opened, before this is applied:
            // then whoever has it is not known here.
            *holders = Some(Holders {
                of: InodeId(0),
                files: Vec::new(),
                unsure: true,
            });
            return Ok(None);
        };
        let (removal, files, unsure, of) = match record.is_dir() {
            false => {
                let (removal, files, unsure) = self.opens.remove(inode, now);
                (removal, files, unsure, inode)
            }
            true => {
                let is_in_it = |file: InodeId| {
                    let above = dbs.inode(&txn, file).ok().flatten();
                    above.is_some_and(|file| is_within(dbs, &txn, file.parent, inode).unwrap_or(true))
                };
                let (removal, files, unsure) = self.opens.remove_tree(is_in_it, now);
                (removal, files, unsure, InodeId(0))
            }
        };
        if !is_planted(Bug::ForgetsOtherHolders) {
            *holders = Some(Holders { of, files, unsure });
        }
        Ok(Some(removal))
    }

    fn close_off(&self, inode: InodeId) -> (Removal<'_>, bool) {
        let (removal, files, _) = self.opens.remove(inode, self.clock.now());
        (removal, !files.is_empty())
    }
}
