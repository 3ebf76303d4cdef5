//! Which disk a new block goes to: the fastest tier that has room, and in it the disk with the most. Where none has, cached
//! blocks make room for it.

use curvine_protocol::cluster::DiskStatus;

/// The disk for a block that needs `need_bytes` now and may become `hint_bytes` long. None if nothing has room.
pub fn choose_disk(disks: &[DiskStatus], need_bytes: u64, hint_bytes: u64) -> Option<usize> {
    let best = |bytes: u64, room: fn(&DiskStatus) -> u64| {
        disks
            .iter()
            .enumerate()
            .filter(|(_, disk)| disk.failure.is_none() && room(disk) >= bytes)
            .min_by_key(|(_, disk)| (disk.tier, std::cmp::Reverse(room(disk))))
            .map(|(number, _)| number)
    };
    let wished_bytes = need_bytes.max(hint_bytes);
    best(wished_bytes, |disk| disk.available_bytes)
        .or_else(|| best(wished_bytes, DiskStatus::room_bytes))
        .or_else(|| best(need_bytes, DiskStatus::room_bytes))
}

#[cfg(test)]
mod tests {
    use curvine_protocol::cluster::Tier;

    use super::*;

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
        assert_eq!(choose_disk(&disks, 10, 10), Some(3));
        assert_eq!(choose_disk(&disks, 60, 60), Some(2));
        assert_eq!(choose_disk(&disks, 500, 500), Some(0));
        assert_eq!(choose_disk(&disks, 901, 0), None);
    }

    #[test]
    fn the_hint_is_wished_for_and_not_required() {
        let disks = [disk(Tier::Mem, 50), disk(Tier::Ssd, 300)];
        assert_eq!(choose_disk(&disks, 10, 200), Some(1));
        assert_eq!(choose_disk(&disks, 10, 2_000), Some(0));
    }

    #[test]
    fn cached_blocks_make_room_where_no_disk_has_any_left() {
        let full = DiskStatus {
            cached_bytes: 800,
            ..disk(Tier::Mem, 50)
        };
        let disks = [full, disk(Tier::Ssd, 300)];
        assert_eq!(choose_disk(&disks, 200, 200), Some(1), "it is free");
        assert_eq!(choose_disk(&disks, 400, 400), Some(0));
        assert_eq!(choose_disk(&disks, 851, 851), None);
    }

    #[test]
    fn a_failed_disk_gets_nothing() {
        let failed = DiskStatus {
            failure: Some("Input/output error".to_owned()),
            ..disk(Tier::Mem, 500)
        };
        assert_eq!(choose_disk(&[failed, disk(Tier::Hdd, 5)], 1, 1), Some(1));
    }
}
