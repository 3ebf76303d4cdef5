//! In which tier the blocks of a tree are wished to be.

use curvine_protocol::master::SetTier;
use curvine_protocol::worker::Done;
use curvine_protocol::{Error, Result};

use super::{Applies, Apply};
use crate::master::namespace::records::InodeBody;

impl Applies<SetTier> for Apply<'_, '_> {
    fn apply(&mut self, call: SetTier) -> Result<Done> {
        let (inode, record) = self.existing(&call.node, true)?;
        if !record.is_dir() && !matches!(record.body, InodeBody::File(_)) {
            let message = format!("{}: only files and directories have blocks in tiers", call.node);
            return Err(Error::invalid(message));
        }
        match call.tier {
            None => self.dbs.forget_tier(self.txn, inode)?,
            Some(tier) => self.dbs.put_tier(self.txn, inode, tier)?,
        }
        self.done()
    }
}
