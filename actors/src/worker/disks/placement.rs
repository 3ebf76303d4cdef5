//! Which disk a block goes to: pure.
//!
//! What is cached goes to the fastest tier that has room, and in it to the disk with the most; where no disk has any left,
//! to the one where the most can make room. What is kept does not go to memory, which forgets what it has when the machine
//! goes down. A wish for a tier comes before speed: that tier, else a slower one, else a faster one.

use curvine_protocol::cluster::{DiskStatus, Tier};

use crate::planted::{Bug, is_planted};

/// Of a disk, at most one in so many bytes is wished to be left for what a block may become.
const HINTED_SHARE: u64 = 8;

/// What is to be placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// It is, or becomes, the only copy.
    pub kept: bool,
    pub tier: Option<Tier>,
}

impl Wanted {
    pub fn kept(tier: Option<Tier>) -> Self {
        Wanted { kept: true, tier }
    }

    pub fn cached(tier: Option<Tier>) -> Self {
        Wanted { kept: false, tier }
    }

    /// Whether it may be on a disk of this tier.
    pub fn may_be_in(self, tier: Tier) -> bool {
        !self.kept || may_be_kept_in(tier)
    }

    /// The lower the better.
    fn rank(self, tier: Tier) -> (bool, Tier) {
        (self.tier.is_some_and(|wished| tier < wished), tier)
    }
}

/// Whether a disk of this tier may have the only copy of something.
pub fn may_be_kept_in(tier: Tier) -> bool {
    tier.lasts() || is_planted(Bug::KeptInMemory)
}

/// The disk for a block that needs `need_bytes` now and may become `hint_bytes` long. None if nothing has room.
pub fn choose_disk(disks: &[DiskStatus], wanted: Wanted, need_bytes: u64, hint_bytes: u64) -> Option<usize> {
    let fitting = |hint_bytes: u64, room: fn(&DiskStatus) -> u64| {
        disks.iter().enumerate().filter(move |(_, disk)| {
            // A small disk is not too small for all that may become long.
            let bytes = need_bytes.max(hint_bytes.min(disk.capacity_bytes / HINTED_SHARE));
            disk.failure.is_none() && wanted.may_be_in(disk.tier) && room(disk) >= bytes
        })
    };
    let free = |bytes: u64| {
        fitting(bytes, |disk| disk.available_bytes)
            .min_by_key(|(_, disk)| (wanted.rank(disk.tier), std::cmp::Reverse(disk.available_bytes)))
    };
    let made_free = |bytes: u64| {
        fitting(bytes, DiskStatus::room_bytes).min_by_key(|(_, disk)| {
            let is_wished = wanted.tier == Some(disk.tier);
            (!is_wished, std::cmp::Reverse(disk.room_bytes()), disk.tier)
        })
    };
    free(hint_bytes)
        .or_else(|| made_free(hint_bytes))
        .or_else(|| free(0))
        .or_else(|| made_free(0))
        .map(|(number, _)| number)
}

/// Slower disks for a block that is to leave one of this tier, the best first: the next tier, the emptiest disk. Only those
/// that have room without letting anything go.
pub fn below(disks: &[DiskStatus], tier: Tier, wanted: Wanted, bytes: u64) -> Vec<usize> {
    let slower =
        |disk: &DiskStatus| disk.tier > tier && disk.failure.is_none() && disk.available_bytes >= bytes;
    let mut found: Vec<_> = disks
        .iter()
        .enumerate()
        .filter(|(_, disk)| slower(disk))
        .collect();
    found.sort_by_key(|(_, disk)| (wanted.rank(disk.tier), std::cmp::Reverse(disk.available_bytes)));
    found.into_iter().map(|(number, _)| number).collect()
}

/// Faster disks for a block that is hot, the fastest first: none faster than what is wished for.
pub fn above(disks: &[DiskStatus], tier: Tier, wanted: Wanted) -> Vec<usize> {
    let is_allowed = |disk: &DiskStatus| wanted.tier.is_none_or(|wished| disk.tier >= wished);
    let faster = |disk: &DiskStatus| disk.tier < tier && disk.failure.is_none() && is_allowed(disk);
    let mut found: Vec<_> = disks
        .iter()
        .enumerate()
        .filter(|(_, disk)| faster(disk))
        .collect();
    found.sort_by_key(|(_, disk)| (disk.tier, std::cmp::Reverse(disk.available_bytes)));
    found.into_iter().map(|(number, _)| number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CACHED: Wanted = Wanted {
        kept: false,
        tier: None,
    };

    fn disk(tier: Tier, available_bytes: u64) -> DiskStatus {
        DiskStatus {
            tier,
            path: "d".to_owned(),
            capacity_bytes: 1_000,
            used_bytes: 0,
            available_bytes,
            blocks: 0,
            failure: None,
            cached_bytes: 0,
            pinned_bytes: 0,
        }
    }

    #[test]
    fn the_fastest_tier_with_room_wins_then_the_emptiest_disk() {
        let disks = [
            disk(Tier::Hdd, 900),
            disk(Tier::Ssd, 300),
            disk(Tier::Ssd, 400),
            disk(Tier::Mem, 50),
        ];
        assert_eq!(choose_disk(&disks, CACHED, 10, 10), Some(3));
        assert_eq!(choose_disk(&disks, CACHED, 60, 60), Some(2));
        assert_eq!(choose_disk(&disks, CACHED, 500, 500), Some(0));
        assert_eq!(choose_disk(&disks, CACHED, 901, 0), None);
    }

    #[test]
    fn the_hint_is_wished_for_and_not_required() {
        let disks = [disk(Tier::Mem, 50), disk(Tier::Ssd, 300)];
        assert_eq!(choose_disk(&disks, CACHED, 10, 200), Some(1));
        assert_eq!(choose_disk(&disks, CACHED, 10, 2_000), Some(1), "an eighth of it");
        assert_eq!(choose_disk(&disks[..1], CACHED, 10, 200), Some(0));
    }

    #[test]
    fn cached_blocks_make_room_where_no_disk_has_any_left() {
        let full = DiskStatus {
            cached_bytes: 800,
            ..disk(Tier::Mem, 50)
        };
        let disks = [full, disk(Tier::Ssd, 300)];
        assert_eq!(choose_disk(&disks, CACHED, 200, 200), Some(1), "it is free");
        assert_eq!(choose_disk(&disks, CACHED, 400, 400), Some(0));
        assert_eq!(choose_disk(&disks, CACHED, 851, 851), None);
    }

    #[test]
    fn a_failed_disk_gets_nothing() {
        let failed = DiskStatus {
            failure: Some("Input/output error".to_owned()),
            ..disk(Tier::Mem, 500)
        };
        assert_eq!(choose_disk(&[failed, disk(Tier::Hdd, 5)], CACHED, 1, 1), Some(1));
    }

    #[test]
    fn what_is_kept_is_never_in_memory_whatever_is_wished() {
        let disks = [disk(Tier::Mem, 900), disk(Tier::Hdd, 50)];
        for tier in [None, Some(Tier::Mem), Some(Tier::Ssd), Some(Tier::Hdd)] {
            assert_eq!(choose_disk(&disks, Wanted::kept(tier), 10, 10), Some(1));
            assert_eq!(choose_disk(&disks, Wanted::kept(tier), 51, 51), None);
        }
    }

    #[test]
    fn a_tier_that_is_wished_for_comes_first_then_slower_ones_then_faster_ones() {
        let disks = [disk(Tier::Mem, 100), disk(Tier::Ssd, 30), disk(Tier::Hdd, 60)];
        let chosen = |tier, bytes| choose_disk(&disks, Wanted::cached(Some(tier)), bytes, bytes);
        assert_eq!(chosen(Tier::Hdd, 10), Some(2));
        assert_eq!(chosen(Tier::Ssd, 10), Some(1));
        assert_eq!(chosen(Tier::Ssd, 50), Some(2));
        assert_eq!(chosen(Tier::Ssd, 90), Some(0));
        assert_eq!(chosen(Tier::Mem, 10), Some(0));
    }

    #[test]
    fn where_all_are_full_the_one_that_can_make_most_room_does() {
        let cached = |tier, bytes| DiskStatus {
            cached_bytes: bytes,
            ..disk(tier, 0)
        };
        let disks = [
            cached(Tier::Mem, 100),
            cached(Tier::Ssd, 500),
            cached(Tier::Hdd, 200),
        ];
        assert_eq!(choose_disk(&disks, CACHED, 10, 10), Some(1));
        let in_memory = Wanted::cached(Some(Tier::Mem));
        assert_eq!(choose_disk(&disks, in_memory, 10, 10), Some(0));
    }

    #[test]
    fn blocks_sink_to_the_next_tier_with_room_and_rise_to_the_fastest_that_is_wished_for() {
        let disks = [disk(Tier::Mem, 100), disk(Tier::Ssd, 30), disk(Tier::Hdd, 60)];
        assert_eq!(below(&disks, Tier::Mem, CACHED, 10), [1, 2]);
        assert_eq!(below(&disks, Tier::Mem, CACHED, 40), [2]);
        assert_eq!(below(&disks, Tier::Hdd, CACHED, 1), [0usize; 0]);
        let on_hdd = Wanted::cached(Some(Tier::Hdd));
        assert_eq!(below(&disks, Tier::Mem, on_hdd, 10), [2, 1]);
        assert_eq!(above(&disks, Tier::Hdd, CACHED), [0, 1]);
        assert_eq!(above(&disks, Tier::Hdd, Wanted::cached(Some(Tier::Ssd))), [1]);
        assert_eq!(above(&disks, Tier::Hdd, on_hdd), [0usize; 0]);
    }
}
