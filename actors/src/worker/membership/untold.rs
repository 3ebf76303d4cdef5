//! What the master was not told yet: pure.
//!
//! Invariant: news are kept only while no full report is due. A disk commits a change to its index before it tells it,
//! so a report that begins later has it. News from before must not be told after that report: of the same block, later
//! ones may be among those that found no room.

use std::collections::HashMap;

use curvine_protocol::BlockId;

use crate::worker::disk::BlockNews;

/// The last news of each block, or that they are too many.
#[derive(Debug, PartialEq, Eq)]
pub enum Untold {
    /// A full report is due.
    Everything,
    Changes(HashMap<BlockId, BlockNews>),
}

/// What became of news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// There was nothing to tell before.
    First,
    Kept,
    /// They found no room: a full report is due from now on.
    NoRoom,
    /// A full report is due anyway.
    InReport,
}

impl Untold {
    pub fn nothing() -> Self {
        Untold::Changes(HashMap::new())
    }

    pub fn is_nothing(&self) -> bool {
        matches!(self, Untold::Changes(changes) if changes.is_empty())
    }

    /// Adds news, unless there are those of `max` other blocks already.
    pub fn note(&mut self, news: BlockNews, max: usize) -> Noted {
        let Untold::Changes(changes) = self else {
            return Noted::InReport;
        };
        let Some(block) = news.block() else {
            let was_nothing = changes.is_empty();
            *self = Untold::Everything;
            return if was_nothing { Noted::First } else { Noted::Kept };
        };
        if changes.len() >= max && !changes.contains_key(&block) {
            *self = Untold::Everything;
            return Noted::NoRoom;
        }
        changes.insert(block, news);
        match changes.len() {
            1 => Noted::First,
            _ => Noted::Kept,
        }
    }

    /// What was taken from here and could not be told. What came since is newer.
    pub fn put_back(&mut self, older: Untold, max: usize) {
        match (older, &mut *self) {
            (_, Untold::Everything) => {}
            (Untold::Everything, _) => *self = Untold::Everything,
            (Untold::Changes(mut older), Untold::Changes(newer)) => {
                older.extend(newer.drain());
                *self = match older.len() <= max {
                    true => Untold::Changes(older),
                    false => Untold::Everything,
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use curvine_protocol::cluster::BlockReplica;

    use super::*;

    fn stored(id: u64) -> BlockNews {
        BlockNews::Stored(BlockReplica {
            id: BlockId(id),
            generation: 1,
            len_bytes: 10,
        })
    }

    fn removed(id: u64) -> BlockNews {
        BlockNews::Removed(BlockId(id))
    }

    fn changes(news: &[BlockNews]) -> Untold {
        Untold::Changes(
            news.iter()
                .filter_map(|&news| Some((news.block()?, news)))
                .collect(),
        )
    }

    #[test]
    fn the_last_news_of_a_block_are_kept() {
        let mut untold = Untold::nothing();
        assert!(untold.is_nothing());
        assert_eq!(untold.note(stored(1), 2), Noted::First);
        assert_eq!(untold.note(stored(2), 2), Noted::Kept);
        assert_eq!(
            untold.note(removed(1), 2),
            Noted::Kept,
            "of a block that has room"
        );
        assert_eq!(untold, changes(&[removed(1), stored(2)]));
    }

    #[test]
    fn news_that_find_no_room_make_a_full_report_due_and_take_the_others_along() {
        let mut untold = changes(&[stored(1), stored(2)]);
        assert_eq!(untold.note(removed(3), 2), Noted::NoRoom);
        assert_eq!(untold, Untold::Everything);
        assert_eq!(untold.note(stored(4), 2), Noted::InReport);
        assert_eq!(untold, Untold::Everything);
        assert!(!untold.is_nothing());
    }

    #[test]
    fn what_could_not_be_told_gives_way_to_what_came_since() {
        let mut untold = changes(&[removed(1)]);
        untold.put_back(changes(&[stored(1), stored(2)]), 2);
        assert_eq!(untold, changes(&[removed(1), stored(2)]));
        untold.put_back(changes(&[stored(3)]), 2);
        assert_eq!(untold, Untold::Everything);
    }

    #[test]
    fn nothing_older_than_a_full_report_is_told_after_it() {
        let mut untold = Untold::Everything;
        untold.put_back(changes(&[stored(1)]), 2);
        assert_eq!(untold, Untold::Everything, "its removal may have found no room");
        let mut untold = changes(&[stored(1)]);
        untold.put_back(Untold::Everything, 2);
        assert_eq!(untold, Untold::Everything);
    }
}
