//! How long files live.

use curvine_protocol::master::{ListTtls, SetTtl, Ttl, TtlInfo};
use curvine_protocol::{Node, Result};

use super::Client;

impl Client {
    /// Gives the files of a tree a time to live, or takes the rule away that this node has itself.
    ///
    /// # Errors
    /// See [`SetTtl`].
    pub async fn set_ttl(&self, node: impl Into<Node>, ttl: Option<Ttl>) -> Result<()> {
        let node = node.into();
        self.change(SetTtl { node, ttl }).await?;
        Ok(())
    }

    /// The rule by which a node goes, or all rules.
    ///
    /// # Errors
    /// `NoAttribute` for a node without one.
    pub async fn ttls(&self, node: Option<Node>) -> Result<Vec<TtlInfo>> {
        Ok(self.call(ListTtls { node }).await?.ttls)
    }
}
