//! Exports whose outcome nobody was told: the object may be written all the same.
//!
//! What is written carries a mark, so the store knows. Until it has said, the export is not over: a deletion or a rename that
//! took the file for one without an object would leave it behind, and the next listing would show it again.

use std::time::Duration;

use curvine_protocol::{EffectId, Error, ErrorKind, Result, UfsVersion};
use tokio::time::sleep;

use super::{Exports, REST_MIN};
use crate::master::namespace::effects::{EffectRecord, Export};

/// How long a rest between two questions is at most.
const QUESTION_REST_MAX: Duration = Duration::from_secs(10);

impl Exports {
    /// After a try that failed: the version of the object, if it was written all the same. Asks until the store answers.
    pub(super) async fn written_all_the_same(
        &self,
        effect: EffectId,
        record: &EffectRecord,
        export: &Export,
        failure: &Error,
    ) -> Result<Option<UfsVersion>> {
        if !may_be_written(failure.kind) {
            return Ok(None);
        }
        let mark = self.mark(export)?;
        let mut rest = REST_MIN;
        loop {
            let asked = match self.mirror.store(record.mount).await {
                Ok(store) => store.written_as(&record.key, &mark).await,
                Err(error) => Err(error),
            };
            let Err(error) = asked else { return asked };
            if !may_be_written(error.kind) {
                return Ok(None);
            }
            // Whoever waits for the file hears of it now, and not when the store is there again.
            self.note_failure(export.inode, failure);
            sleep(rest).await;
            rest = (rest * 2).min(QUESTION_REST_MAX);
            if !self.consensus.is_leader() || self.view.effect(effect)?.is_none() {
                return Err(Error::new(
                    ErrorKind::Stale,
                    "the export is another leader's, or over",
                ));
            }
        }
    }
}

/// Whether a try that ended so may have reached the store: not if that, or somebody before it, has refused.
fn may_be_written(failure: ErrorKind) -> bool {
    use ErrorKind::*;
    matches!(
        failure,
        Ufs | Timeout | Unreachable | Overloaded | Stopping | Protocol | Internal
    )
}
