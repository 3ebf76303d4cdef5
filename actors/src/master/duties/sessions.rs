//! Ends the sessions of clients that were not heard of: their leases and nameless files are given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use curvine_protocol::Result;
use curvine_protocol::master::SESSION_EXPIRE_MS;
use curvine_protocol::op::Op;

use super::Duty;
use crate::kit::Clock;
use crate::master::contract::{NamespaceView, ProposeOp};

/// How often expired sessions are looked for.
const EVERY: Duration = Duration::from_secs(5);

pub struct Sessions {
    view: Arc<dyn NamespaceView>,
    propose: Arc<dyn ProposeOp>,
    clock: Arc<dyn Clock>,
    leads_since_ns: AtomicI64,
}

impl Sessions {
    pub fn new(view: Arc<dyn NamespaceView>, propose: Arc<dyn ProposeOp>, clock: Arc<dyn Clock>) -> Self {
        Sessions {
            view,
            propose,
            clock,
            leads_since_ns: AtomicI64::new(0),
        }
    }
}

#[async_trait]
impl Duty for Sessions {
    fn name(&self) -> &'static str {
        "sessions"
    }

    fn begin(&self, _term: u64) -> Result<()> {
        self.leads_since_ns.store(self.clock.wall_ns(), Ordering::Relaxed);
        Ok(())
    }

    async fn due(&self) {
        tokio::time::sleep(EVERY).await;
    }

    async fn tick(&self) -> Result<()> {
        let before_ns = self.clock.wall_ns() - SESSION_EXPIRE_MS as i64 * 1_000_000;
        // Clients could not renew while there was no leader: they get a whole period first.
        if before_ns < self.leads_since_ns.load(Ordering::Relaxed)
            || !self.view.has_session_before(before_ns)?
        {
            return Ok(());
        }
        self.propose
            .propose_op(Op::ExpireSessions { before_ns })
            .await
            .map(|_| ())
    }

    fn end(&self) {}

    fn status(&self) -> String {
        match self.view.session_count() {
            Ok(count) => format!("{count} known"),
            Err(error) => error.message,
        }
    }
}
