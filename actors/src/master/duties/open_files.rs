//! Begins and ends a leader's knowledge of who has which file open, and forgets clients that went silent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use curvine_protocol::{ClientId, Result};

use super::Duty;
use crate::kit::Clock;
use crate::master::contract::NamespaceView;
use crate::master::namespace::opens::Opens;

/// How often clients that went silent are looked for.
const EVERY: Duration = Duration::from_secs(5);

pub struct OpenFiles {
    view: Arc<dyn NamespaceView>,
    opens: Arc<Opens>,
    clock: Arc<dyn Clock>,
}

impl OpenFiles {
    pub fn new(view: Arc<dyn NamespaceView>, opens: Arc<Opens>, clock: Arc<dyn Clock>) -> Self {
        OpenFiles { view, opens, clock }
    }

    /// Those that have not ended.
    fn sessions(&self) -> Result<Vec<ClientId>> {
        let all = self.view.sessions()?.into_iter();
        Ok(all
            .filter(|(_, session)| !session.is_ended)
            .map(|(client, _)| client)
            .collect())
    }
}

#[async_trait]
impl Duty for OpenFiles {
    fn name(&self) -> &'static str {
        "open files"
    }

    fn begin(&self, term: u64) -> Result<()> {
        self.opens.begin(term, self.sessions()?, self.clock.now());
        Ok(())
    }

    async fn due(&self) {
        tokio::time::sleep(EVERY).await;
    }

    async fn tick(&self) -> Result<()> {
        let known: BTreeSet<ClientId> = self.sessions()?.into_iter().collect();
        self.opens
            .expire(|client| known.contains(&client), self.clock.now());
        Ok(())
    }

    fn end(&self) {
        self.opens.end();
    }

    fn status(&self) -> String {
        self.opens.status(self.clock.now())
    }
}
