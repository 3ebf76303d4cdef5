//! Quotas of directories.

use curvine_protocol::master::{ListQuotas, Quota, QuotaLimits, SetQuota};
use curvine_protocol::{Node, Result};

use super::Client;

impl Client {
    /// Sets or changes the quota of a directory; none takes it away.
    ///
    /// # Errors
    /// See [`SetQuota`].
    pub async fn set_quota(&self, node: impl Into<Node>, limits: Option<QuotaLimits>) -> Result<()> {
        let node = node.into();
        self.change(SetQuota { node, limits }).await?;
        Ok(())
    }

    /// The quota of a directory, or all.
    ///
    /// # Errors
    /// `NoAttribute` for a directory without one.
    pub async fn quotas(&self, node: Option<Node>) -> Result<Vec<Quota>> {
        Ok(self.call(ListQuotas { node }).await?.quotas)
    }
}
