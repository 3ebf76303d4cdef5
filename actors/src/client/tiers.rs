//! In which tier blocks are wished to be.

use curvine_protocol::cluster::Tier;
use curvine_protocol::master::{ListTiers, SetTier, TierRule};
use curvine_protocol::{Node, Result};

use super::Client;

impl Client {
    /// Has the blocks of a tree be in a tier, or takes the rule away that this node has itself.
    ///
    /// # Errors
    /// See [`SetTier`].
    pub async fn set_tier(&self, node: impl Into<Node>, tier: Option<Tier>) -> Result<()> {
        let node = node.into();
        self.change(SetTier { node, tier }).await?;
        Ok(())
    }

    /// The rule by which a node goes, or all rules.
    ///
    /// # Errors
    /// `NoAttribute` for a node without one.
    pub async fn tier_rules(&self, node: Option<Node>) -> Result<Vec<TierRule>> {
        Ok(self.call(ListTiers { node }).await?.rules)
    }
}
