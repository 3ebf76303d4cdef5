//! Writes the attributes of files to their objects, where they changed after the content was written.
//!
//! They wait in the log as content does (`unkept`), and take turns with it: a file whose content is to be written gets
//! them with that.

use std::time::Duration;

use curvine_protocol::mount::MountRecord;
use curvine_protocol::op::{ExportOutcome, Op, OpReply};
use curvine_protocol::{EffectId, Error, ErrorKind, InodeId, KeptAttributes, MountId, Result};
use tokio::time::Instant;

use super::{AT_ONCE, Due, Exports, PAGE, What};
use crate::master::namespace::effects::Work;

/// How long after the last change of its attributes a file's object gets them: programs make several, one after the
/// other.
const ATTRIBUTES_REST: Duration = Duration::from_secs(1);

impl Exports {
    /// Files whose attributes alone are to be written, and were not changed for a moment.
    pub(super) fn attributes_due(&self, mount: &MountRecord, now: Instant, due: &mut Vec<Due>) -> Result<()> {
        let (wall_ns, rest_ns) = (self.clock.wall_ns(), ATTRIBUTES_REST.as_nanos());
        let mut room = {
            let state = self.queue.state();
            let begun = due.iter().filter(|due| due.mount == mount.id).count();
            AT_ONCE.saturating_sub(begun + state.running.values().filter(|of| **of == mount.id).count())
        };
        let mut after = InodeId(0);
        while room > 0 {
            let page = self.view.unkept(mount.id, after, PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = *last;
            for (inode, unkept) in page {
                let (is_asked, is_free) = self.state_of(inode, now);
                // A clock that was set back is no reason to wait.
                let has_rested = u128::from(wall_ns.abs_diff(unkept.changed_ns)) >= rest_ns;
                if room > 0
                    && is_free
                    && (is_asked || (has_rested && self.view.lease_holder(inode)?.is_none()))
                    && self.view.needs_attributes(inode)?
                    && !self.view.needs_export(inode)?
                {
                    due.push(Due {
                        inode,
                        mount: mount.id,
                        what: What::Attributes,
                    });
                    room -= 1;
                }
            }
        }
        Ok(())
    }

    /// Writes the attributes of a file to its object.
    pub(super) async fn try_attributes(&self, inode: InodeId) -> Result<Option<u64>> {
        let begun = self.propose.propose_op(Op::BeginAttributes { inode }).await;
        let effect = match begun {
            Ok(OpReply::Noted(effect)) => effect,
            Ok(other) => {
                return Err(Error::internal(format!(
                    "the reply to BeginAttributes is {other:?}"
                )));
            }
            Err(error) if matches!(error.kind, ErrorKind::UnderWay | ErrorKind::Stale) => {
                return self.wait_for_others(&error).await;
            }
            Err(error) => return Err(error),
        };
        let (outcome, written) = match self.write_attributes(effect).await {
            Ok(outcome) => (outcome, Ok(None)),
            Err(error) => (ExportOutcome::Failed, Err(error)),
        };
        self.propose.propose_op(Op::EndExport { effect, outcome }).await?;
        if written.is_ok() {
            self.queue.state().failed.remove(&inode);
        }
        written
    }

    async fn write_attributes(&self, effect: EffectId) -> Result<ExportOutcome> {
        let Some(record) = self.view.effect(effect)? else {
            return Ok(ExportOutcome::Failed);
        };
        let Work::Attributes(write) = &record.work else {
            return Err(Error::internal(format!(
                "effect {effect} is not about attributes"
            )));
        };
        let mount = self.view.mount(record.mount)?;
        if !mount.is_some_and(|mount| mount.writes_attributes()) {
            // It was changed since: they stay in the namespace.
            return Ok(ExportOutcome::Conflict(None));
        }
        let store = self.mirror.store(record.mount).await?;
        let kept = self.view.kept_attributes(write.inode)?;
        // Whoever does not lead any more must not put older attributes over those that its successor writes.
        self.consensus.read_barrier().await?;
        match store.set_attributes(&record.key, &write.object, &kept).await? {
            Some(version) => Ok(ExportOutcome::Stored(version)),
            None => {
                self.mirror
                    .forget_keys(record.mount, std::iter::once(record.key.as_str()))
                    .await?;
                Ok(ExportOutcome::Conflict(None))
            }
        }
    }

    /// What the object is to keep of a file's attributes, where the mount wants that.
    pub(super) fn attributes(&self, mount: MountId, inode: InodeId) -> Result<Option<KeptAttributes>> {
        match self.view.mount(mount)? {
            Some(mount) if mount.settings.keeps_attributes() => self.view.kept_attributes(inode).map(Some),
            _ => Ok(None),
        }
    }
}
