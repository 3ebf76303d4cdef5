//! What a client is to know without having asked for it: which leases others want.

use std::sync::Arc;
use std::time::Duration;

use curvine_protocol::master::{AwaitNews, News};
use curvine_protocol::{CallContext, Error, Result};
use tokio::time::timeout;

use super::Answers;
use crate::kit::Clock;
use crate::master::contract::Consensus;
use crate::master::duties::sessions::Hearing;
use crate::master::recalls::Recalls;

/// How long an answer is held back while there are no news. Who asks is heard of: often enough that a client which does
/// not get through for some seconds keeps its leases.
const HELD: Duration = Duration::from_secs(5);

pub struct NewsAnswers {
    pub consensus: Arc<dyn Consensus>,
    pub recalls: Arc<Recalls>,
    pub hearing: Arc<Hearing>,
    pub clock: Arc<dyn Clock>,
}

impl Answers<AwaitNews> for NewsAnswers {
    async fn answer(self: Arc<Self>, _call: AwaitNews, context: CallContext) -> Result<News> {
        self.consensus.read_barrier().await?;
        self.hearing.heard(context.client);
        let poll = self.recalls.poll(context.client)?;
        let news = async {
            loop {
                match poll.recalled(self.clock.now()) {
                    _ if !self.consensus.is_leader() => return Err(Error::not_leader(None)),
                    Some(recalls) if recalls.is_empty() => poll.come().await,
                    recalls => {
                        return Ok(News {
                            recalls: recalls.unwrap_or_default(),
                        });
                    }
                }
            }
        };
        timeout(HELD, news).await.unwrap_or_else(|_| Ok(News::default()))
    }
}
