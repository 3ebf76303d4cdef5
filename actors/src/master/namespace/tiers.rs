//! In which tier the blocks of files are wished to be: one record in `meta` for each inode that has a rule.
//!
//! A file goes by its own rule, or that of the nearest directory above: so it is looked up whenever a layout is asked for,
//! and nothing has to be changed below a directory that has one, or that moves.

use curvine_protocol::cluster::Tier;
use curvine_protocol::master::TierRule;
use curvine_protocol::{Error, ErrorKind, InodeId, Node, Result};
use heed::{RoTxn, RwTxn};

use super::resolve::{path_of, resolve};
use super::store::{Dbs, Store, broken, get, put};

const RULE: &[u8] = b"tier ";
/// Rules that one call lists.
const LISTED_MAX: usize = 10_000;

fn key(inode: InodeId) -> Vec<u8> {
    [RULE, &inode.0.to_be_bytes()].concat()
}

impl Dbs {
    pub fn put_tier(&self, txn: &mut RwTxn, inode: InodeId, tier: Tier) -> Result<()> {
        put(&self.meta, txn, &key(inode), &tier)
    }

    /// The inode goes, or its rule does.
    pub fn forget_tier(&self, txn: &mut RwTxn, inode: InodeId) -> Result<()> {
        self.meta.delete(txn, &key(inode)).map_err(broken)?;
        Ok(())
    }

    /// The nearest rule of an inode, its own or that of a directory above, and what has it.
    pub fn tier_of(&self, txn: &RoTxn, inode: InodeId) -> Result<Option<(InodeId, Tier)>> {
        if self.noted_inodes(txn, RULE, 1)?.is_empty() {
            return Ok(None);
        }
        self.nearest(txn, inode, |at| get(&self.meta, txn, &key(at)))
    }
}

impl Store {
    /// The rule by which a node goes, or all rules.
    ///
    /// # Errors
    /// `NoAttribute` for a node without one; `NotFound`, `Corrupt`.
    pub fn tier_rules(&self, node: Option<&Node>) -> Result<Vec<TierRule>> {
        let txn = self.read()?;
        let rule = |holder: InodeId, tier: Tier| -> Result<TierRule> {
            Ok(TierRule {
                path: path_of(&self.dbs, &txn, holder)?,
                tier,
            })
        };
        let Some(node) = node else {
            let mut rules = Vec::new();
            for holder in self.dbs.noted_inodes(&txn, RULE, LISTED_MAX)? {
                // Those in trees that were cut off have no path any more.
                if let Some(tier) = get(&self.dbs.meta, &txn, &key(holder))?
                    && let Ok(rule) = rule(holder, tier)
                {
                    rules.push(rule);
                }
            }
            return Ok(rules);
        };
        let (inode, _) = resolve(&self.dbs, &txn, node, true)?.existing(node)?;
        let Some((holder, tier)) = self.dbs.tier_of(&txn, inode)? else {
            let message =
                format!("{node} may be in any tier: neither it nor a directory above it has a rule");
            return Err(Error::new(ErrorKind::NoAttribute, message));
        };
        Ok(vec![rule(holder, tier)?])
    }
}
