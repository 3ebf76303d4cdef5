//! Removes trees that were cut off, some inodes with each command, so that other changes come in between.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use curvine_protocol::Result;
use curvine_protocol::op::Op;

use super::Duty;
use crate::kit::Clock;
use crate::master::contract::{NamespaceView, ProposeOp};
use crate::master::namespace::opens::Opens;

/// How often it is looked for such trees.
const EVERY: Duration = Duration::from_millis(500);

pub struct Reclaim {
    view: Arc<dyn NamespaceView>,
    propose: Arc<dyn ProposeOp>,
    opens: Arc<Opens>,
    clock: Arc<dyn Clock>,
}

impl Reclaim {
    pub fn new(
        view: Arc<dyn NamespaceView>,
        propose: Arc<dyn ProposeOp>,
        opens: Arc<Opens>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Reclaim {
            view,
            propose,
            opens,
            clock,
        }
    }
}

#[async_trait]
impl Duty for Reclaim {
    fn name(&self) -> &'static str {
        "reclaim"
    }

    fn begin(&self, _term: u64) -> Result<()> {
        Ok(())
    }

    async fn due(&self) {
        tokio::time::sleep(EVERY).await;
    }

    async fn tick(&self) -> Result<()> {
        while let Some(inode) = self.view.detached()?.first().copied() {
            // Whoever has a file of it open keeps that.
            let holders = Some(self.opens.everything(self.clock.now()));
            self.propose.propose_op(Op::Reclaim { inode, holders }).await?;
        }
        Ok(())
    }

    fn end(&self) {}

    fn status(&self) -> String {
        match self.view.detached() {
            Ok(trees) if trees.is_empty() => "nothing to remove".to_owned(),
            Ok(trees) => format!("removing {} deleted trees", trees.len()),
            Err(error) => error.message,
        }
    }
}
