//! Several ways into one file system, taken in turn: two mounts of one cluster, or a mount and a client beside it.
//!
//! Handles belong to one of them each; whatever names a path goes through the next. What a handle writes is flushed before
//! the next operation, as a program does that wants others to see it: from then on all ways show the same, and together
//! they are what the model is.

use crate::model::{Errno, FileSystem, Op, Outcome};

/// The ways, each a view of the same directory.
pub struct Several {
    ways: Vec<Box<dyn FileSystem>>,
    next: usize,
}

impl Several {
    /// # Panics
    /// Without any.
    pub fn new(ways: Vec<Box<dyn FileSystem>>) -> Self {
        assert!(!ways.is_empty(), "at least one way in");
        Several { ways, next: 0 }
    }

    fn way(&mut self, number: usize) -> &mut dyn FileSystem {
        let count = self.ways.len();
        &mut *self.ways[number % count]
    }

    /// The handle that an operation is about.
    fn slot_of(op: &Op) -> Option<u8> {
        match op {
            Op::Open { slot, .. }
            | Op::Close { slot }
            | Op::Read { slot, .. }
            | Op::Write { slot, .. }
            | Op::Append { slot, .. }
            | Op::TruncateHandle { slot, .. }
            | Op::StatHandle { slot }
            | Op::Flush { slot }
            | Op::Sync { slot } => Some(*slot),
            _ => None,
        }
    }
}

impl FileSystem for Several {
    fn apply(&mut self, op: &Op) -> Result<Outcome, Errno> {
        let Some(slot) = Self::slot_of(op) else {
            self.next += 1;
            let next = self.next;
            return self.way(next).apply(op);
        };
        let way = self.way(slot.into());
        if matches!(op, Op::Read { .. }) {
            // A kernel takes over what another way made of the size by itself within its `ttl`; or with a look at it, but not
            // from an answer that has its pages dropped.
            let _ = way.apply(&Op::StatHandle { slot });
            let _ = way.apply(&Op::StatHandle { slot });
        }
        let outcome = way.apply(op)?;
        if matches!(
            op,
            Op::Write { .. } | Op::Append { .. } | Op::TruncateHandle { .. }
        ) {
            way.apply(&Op::Flush { slot })?;
        }
        Ok(outcome)
    }
}
