//! The order of a writer's changes of one block: which come too late, and which build on what is gone. Pure.
//!
//! A request may be held up on its way and arrive when its repeat was answered long ago, and the same writer has
//! written over it since. So each names its number, and below which number all have ended: the block keeps the highest
//! such *floor*, and refuses what is below. One number is enough, because a writer that writes over bytes which are
//! under way waits for them first.
//!
//! What a writer was told to be there may go with the machine's power, in the next *life* of the disk. A change names
//! the life in which its writer was answered last; in another one it is taken only if the block has been sealed since
//! with everything that was acknowledged, for what is sealed is verified after a power cut.

use curvine_protocol::worker::WriteOrder;
use curvine_protocol::{BlockId, Error, ErrorKind, Result};

use crate::planted::{Bug, is_planted};

/// How far the changes of a block's generation have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// All below have ended.
    pub floor: u64,
    /// The last seal: all up to it are there, in every life in which its record is.
    pub sealed: u64,
}

impl Numbers {
    /// Takes note of a change that is about to be made.
    ///
    /// # Errors
    /// `Stale` if it comes too late, `Lost` if something is gone that its writer thinks to be there. Nothing is noted
    /// then.
    pub fn admit(&mut self, block: BlockId, order: &WriteOrder, life: u64) -> Result<()> {
        if order.number == 0 {
            return Ok(());
        }
        if order.number < self.floor && !is_planted(Bug::LateWritesAreTaken) {
            return Err(Error::new(
                ErrorKind::Stale,
                format!(
                    "block {block}: change {} comes late, when all below {} have ended; it is not made",
                    order.number, self.floor
                ),
            ));
        }
        let is_of_this_life = order.life == 0 || order.life == life;
        if !is_of_this_life && order.has > self.sealed && !is_planted(Bug::LostWritesAreSealed) {
            return Err(lost(block));
        }
        self.floor = self.floor.max(order.floor);
        Ok(())
    }

    /// Everything up to this change is sealed. True if that is new.
    pub fn seal(&mut self, order: &WriteOrder) -> bool {
        let before = *self;
        self.floor = self.floor.max(order.number);
        self.sealed = self.sealed.max(order.number);
        *self != before
    }

    /// After a power cut, of a block whose bytes are not all verified.
    pub fn unsealed(self) -> Self {
        Numbers { sealed: 0, ..self }
    }
}

/// What a writer was told to be there is not.
pub fn lost(block: BlockId) -> Error {
    Error::new(
        ErrorKind::Lost,
        format!(
            "block {block}: the worker's machine lost its power, or the disk its content, since it took bytes that were \
             not synced; write them again"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: BlockId = BlockId(1);

    fn order(number: u64, floor: u64, has: u64, life: u64) -> WriteOrder {
        WriteOrder {
            number,
            floor,
            has,
            life,
        }
    }

    fn admitted(numbers: &mut Numbers, order: WriteOrder, life: u64) -> Option<ErrorKind> {
        numbers.admit(BLOCK, &order, life).err().map(|error| error.kind)
    }

    #[test]
    fn what_is_below_the_floor_comes_late_and_what_is_under_way_comes_in_any_order() {
        let mut numbers = Numbers::default();
        assert_eq!(admitted(&mut numbers, order(3, 1, 0, 0), 7), None);
        assert_eq!(admitted(&mut numbers, order(2, 1, 0, 0), 7), None);
        assert_eq!(admitted(&mut numbers, order(3, 1, 0, 0), 7), None, "a repeat");
        assert_eq!(admitted(&mut numbers, order(4, 4, 3, 7), 7), None);
        assert_eq!(
            admitted(&mut numbers, order(3, 1, 0, 0), 7),
            Some(ErrorKind::Stale)
        );
        assert!(numbers.seal(&order(6, 6, 4, 7)));
        assert_eq!(
            admitted(&mut numbers, order(5, 4, 3, 7), 7),
            Some(ErrorKind::Stale)
        );
        assert_eq!(
            admitted(&mut numbers, order(0, 0, 0, 0), 7),
            None,
            "of another age"
        );
    }

    #[test]
    fn in_another_life_what_was_acknowledged_must_have_been_sealed() {
        let mut numbers = Numbers::default();
        assert!(numbers.seal(&order(4, 4, 3, 7)));
        assert!(!numbers.seal(&order(4, 4, 4, 7)));
        assert_eq!(admitted(&mut numbers, order(5, 5, 4, 7), 8), None);
        assert_eq!(
            admitted(&mut numbers, order(6, 5, 5, 7), 8),
            Some(ErrorKind::Lost),
            "the fifth was acknowledged in the life before, and not sealed"
        );
        assert_eq!(admitted(&mut numbers, order(6, 5, 5, 8), 8), None);
        let mut numbers = numbers.unsealed();
        assert_eq!(
            admitted(&mut numbers, order(6, 6, 4, 7), 8),
            Some(ErrorKind::Lost)
        );
    }
}
