//! Has the replicas of files agree whose writers went without a word, also where nobody wants to write the file.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use curvine_protocol::Result;
use futures::{StreamExt, stream};

use super::Duty;
use crate::master::namespace::recovery::Recovery;

/// How often it is looked for such files.
const EVERY: Duration = Duration::from_secs(1);
/// Files seen to at the same time.
const AT_ONCE: usize = 16;

pub struct Replicas(Arc<Recovery>);

impl Replicas {
    pub fn new(recovery: Arc<Recovery>) -> Self {
        Replicas(recovery)
    }
}

#[async_trait]
impl Duty for Replicas {
    fn name(&self) -> &'static str {
        "replicas"
    }

    fn begin(&self, _term: u64) -> Result<()> {
        Ok(())
    }

    async fn due(&self) {
        tokio::time::sleep(EVERY).await;
    }

    async fn tick(&self) -> Result<()> {
        let files = self.0.store.disagreeing()?;
        let seen_to = stream::iter(files).map(|inode| self.0.recover(inode));
        let outcomes: Vec<Result<()>> = seen_to.buffer_unordered(AT_ONCE).collect().await;
        // One that cannot be done now keeps no other from it.
        outcomes.into_iter().collect()
    }

    fn end(&self) {}

    fn status(&self) -> String {
        match self.0.store.disagreeing() {
            Ok(files) if files.is_empty() => "all agree, as far as is known".to_owned(),
            Ok(files) => format!("comparing those of {} files whose writers went", files.len()),
            Err(error) => error.message,
        }
    }
}
