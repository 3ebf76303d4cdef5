//! Counts what directories hold that have got a quota, where that is much.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use curvine_protocol::Result;
use curvine_protocol::op::Op;

use super::Duty;
use crate::kit::Offload;
use crate::kit::ports::offloaded;
use crate::master::contract::{NamespaceView, ProposeOp};

/// How often it is looked for such directories.
const EVERY: Duration = Duration::from_secs(1);

pub struct Quotas {
    view: Arc<dyn NamespaceView>,
    propose: Arc<dyn ProposeOp>,
    /// For what takes long.
    thread: Arc<dyn Offload>,
}

impl Quotas {
    pub fn new(view: Arc<dyn NamespaceView>, propose: Arc<dyn ProposeOp>, thread: Arc<dyn Offload>) -> Self {
        Quotas {
            view,
            propose,
            thread,
        }
    }
}

#[async_trait]
impl Duty for Quotas {
    fn name(&self) -> &'static str {
        "quotas"
    }

    fn begin(&self, _term: u64) -> Result<()> {
        Ok(())
    }

    async fn due(&self) {
        tokio::time::sleep(EVERY).await;
    }

    async fn tick(&self) -> Result<()> {
        for directory in self.view.uncounted_quotas()? {
            let view = self.view.clone();
            // It may take seconds: not on the thread that serves all.
            let counted = offloaded(&*self.thread, move || view.count_quota(directory)).await??;
            let Some(counted) = counted else { continue };
            let op = Op::QuotaCounted {
                directory,
                round: counted.round,
                bytes: counted.held.bytes,
                inodes: counted.held.inodes,
            };
            self.propose.propose_op(op).await?;
        }
        Ok(())
    }

    fn end(&self) {}

    fn status(&self) -> String {
        match self.view.uncounted_quotas() {
            Ok(directories) if directories.is_empty() => "nothing to count".to_owned(),
            Ok(directories) => format!("counting what {} directories hold", directories.len()),
            Err(error) => error.message,
        }
    }
}
