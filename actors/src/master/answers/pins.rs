//! Pins: setting them, taking them back, listing them.

use std::sync::Arc;

use curvine_protocol::master::*;
use curvine_protocol::op::Op;
use curvine_protocol::{CallContext, CurvinePath, Error, ErrorKind, InodeId, Node, Result};

use super::Answers;
use super::mounts::MountAnswers;

impl MountAnswers {
    /// Refuses to drop what is pinned.
    pub(super) fn refuse_pinned(&self, path: &CurvinePath, inode: InodeId) -> Result<()> {
        let pins = self.pinning.pins()?;
        let above = match self.view.pinned_by(inode)? {
            Some(pin) => Some(self.view.path(pin)?),
            None => None,
        };
        let below = || pins.keys().find(|pin| path.contains(pin)).cloned();
        match above.or_else(below) {
            None => Ok(()),
            Some(pin) => Err(Error::new(
                ErrorKind::Busy,
                format!("{path}: {pin} is pinned; `cv unpin {pin}` first"),
            )),
        }
    }

    async fn pin(&self, call: &SetPin, inode: InodeId) -> Result<PinSet> {
        // Also what nobody has looked at yet counts.
        let pinned = self.pinning.size(inode, Some(self.mirror.clone())).await?;
        let mut pins = self.pinning.pins()?;
        let before = self.pinning.room(&pins).await?;
        pins.insert(self.view.path(inode)?, inode);
        let after = self.pinning.room(&pins).await?;
        let more = after.pinned_bytes.saturating_sub(before.pinned_bytes);
        if more > 0 && after.pinned_bytes > after.limit_bytes {
            return Err(Error::new(
                ErrorKind::NoSpace,
                format!(
                    "{}: {more} bytes more cannot be pinned: {} bytes may be ({} % of the workers' capacity, \
                     `master.pin_limit`), and {} are; `cv pins` lists them",
                    call.path, after.limit_bytes, self.pinning.limit_percent, before.pinned_bytes
                ),
            ));
        }
        let (pin, unpin) = (vec![inode], Vec::new());
        self.propose.propose_op(Op::SetPins { pin, unpin }).await?;
        let untold = self.pinning.tell_all(inode, false).await?;
        let now = self.blocks.now();
        for (inode, _) in &untold {
            self.pinning.due.note(*inode, now);
        }
        match untold.into_iter().next() {
            None => Ok(PinSet { pinned, room: after }),
            Some((_, error)) => Err(Error::new(
                ErrorKind::BlockUnavailable,
                format!(
                    "{}: the pin is noted, but not every worker has it yet, so some may still be evicted; `cv pin {}` \
                     again ({error})",
                    call.path, call.path
                ),
            )),
        }
    }

    async fn unpin(&self, call: &SetPin, inode: InodeId) -> Result<PinSet> {
        let pins = self.pinning.pins()?;
        let path = self.view.path(inode)?;
        let is_meant = |pin: &CurvinePath| *pin == path || (call.recursive && path.contains(pin));
        let meant = pins.iter().filter(|(pin, _)| is_meant(pin));
        let unpin: Vec<InodeId> = meant.map(|(_, inode)| *inode).collect();
        if unpin.is_empty() {
            let why = match self.view.pinned_by(inode)? {
                Some(above) => {
                    let above = self.view.path(above)?;
                    format!("is pinned by {above}; `cv unpin {above}`")
                }
                None => "is not pinned; `cv pins` lists what is".to_owned(),
            };
            return Err(Error::invalid(format!("{}: {why}", call.path)));
        }
        let tops = unpin.clone();
        let pin = Vec::new();
        self.propose.propose_op(Op::SetPins { pin, unpin }).await?;
        for top in tops {
            for (inode, _) in self.pinning.tell_all(top, false).await? {
                self.pinning.due.note(inode, self.blocks.now());
            }
        }
        Ok(PinSet {
            pinned: self.pinning.size(inode, None).await?,
            room: self.pinning.room(&self.pinning.pins()?).await?,
        })
    }
}

impl Answers<SetPin> for MountAnswers {
    async fn answer(self: Arc<Self>, call: SetPin, _context: CallContext) -> Result<PinSet> {
        self.consensus.read_barrier().await?;
        self.blocks.heard_from_all(self.view.last_worker()?).await;
        self.mirror.fresh_path(&call.path).await?;
        let top = self.view.lookup(&Node::Path(call.path.clone()), true)?.attr;
        if !top.is_dir() && !top.is_file() {
            return Err(Error::invalid(format!(
                "{}: is neither a file nor a directory",
                call.path
            )));
        }
        match call.pinned {
            true => self.pin(&call, top.inode).await,
            false => self.unpin(&call, top.inode).await,
        }
    }
}

impl Answers<ListPins> for MountAnswers {
    async fn answer(self: Arc<Self>, call: ListPins, _context: CallContext) -> Result<Pins> {
        self.consensus.read_barrier().await?;
        let known = self.pinning.pins()?;
        let mut pins = Vec::new();
        for (path, inode) in &known {
            let size = match call.sizes {
                true => self.pinning.size(*inode, None).await?,
                false => PinnedSize::default(),
            };
            let path = path.clone();
            pins.push(Pin { path, size });
        }
        let room = match call.sizes {
            true => self.pinning.room(&known).await?,
            false => PinRoom {
                limit_bytes: self.pinning.limit_bytes(),
                pinned_bytes: 0,
            },
        };
        Ok(Pins { pins, room })
    }
}
