//! What each policy makes of traces, beside Belady's optimum, which knows the future.

use std::collections::{BTreeSet, HashMap};

use curvine_conf::EvictionPolicy::{self, Lfu, Lru, S3Fifo};
use curvine_protocol::BlockId;
use proptest::prelude::*;

use super::lists::Entry;
use super::{BYTES_A_BLOCK, GHOSTS_MAX, Owner, Policy};

const MIB: u64 = 1 << 20;

/// A disk with room for so many blocks of 1 MiB.
struct Disk {
    policy: Policy,
    room: u64,
    hits: usize,
}

impl Disk {
    fn new(order: EvictionPolicy, blocks: u64) -> Self {
        Disk {
            policy: Policy::new(order),
            room: blocks * MIB,
            hits: 0,
        }
    }

    fn read(&mut self, block: u64) {
        let block = BlockId(block);
        if self.policy.has(block) {
            self.hits += 1;
            return self.policy.used(block);
        }
        let over = (self.policy.bytes() + MIB).saturating_sub(self.room);
        if over > 0 {
            let chosen: u64 = self
                .policy
                .choose(over, |_| true)
                .iter()
                .map(|(_, bytes)| bytes)
                .sum();
            assert!(chosen >= over, "there are enough");
        }
        self.policy.came(block, MIB, Owner::default());
    }

    /// Hits of this trace.
    fn hits_of(&mut self, trace: &[u64]) -> usize {
        let before = self.hits;
        trace.iter().for_each(|block| self.read(*block));
        self.hits - before
    }
}

fn hits(order: EvictionPolicy, blocks: u64, trace: &[u64]) -> usize {
    Disk::new(order, blocks).hits_of(trace)
}

/// What goes is what is needed last.
fn optimal_hits(blocks: usize, trace: &[u64]) -> usize {
    let mut next = vec![usize::MAX; trace.len()];
    let mut seen = HashMap::new();
    for (at, block) in trace.iter().enumerate().rev() {
        next[at] = seen.insert(*block, at).unwrap_or(usize::MAX);
    }
    let (mut here, mut needed, mut hits) = (HashMap::new(), BTreeSet::new(), 0);
    for (at, block) in trace.iter().enumerate() {
        match here.remove(block) {
            Some(now) => {
                hits += 1;
                needed.remove(&(now, *block));
            }
            None if here.len() == blocks => {
                let (_, last) = needed.pop_last().expect("as many as are here");
                here.remove(&last);
            }
            None => {}
        }
        here.insert(*block, next[at]);
        needed.insert((next[at], *block));
    }
    hits
}

/// Numbers that look random: splitmix64.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Reads of so many blocks, the nth of which is read in proportion to 1/n.
fn zipf(blocks: u64, reads: usize, seed: u64) -> Vec<u64> {
    let mut sums = Vec::new();
    let mut sum = 0;
    for rank in 1..=blocks {
        sum += 1_000_000_000 / rank;
        sums.push(sum);
    }
    let mut numbers = Numbers(seed);
    let mut read = || {
        let drawn = numbers.below(sum);
        sums.partition_point(|sum| *sum <= drawn) as u64
    };
    (0..reads).map(|_| read()).collect()
}

fn epochs(blocks: u64, times: usize) -> Vec<u64> {
    (0..times).flat_map(|_| 0..blocks).collect()
}

#[test]
fn a_popular_few_are_hit_nearly_as_often_as_can_be() {
    let trace = zipf(10_000, 100_000, 1);
    let optimal = optimal_hits(1_000, &trace);
    let [s3, lru, lfu] = [S3Fifo, Lru, Lfu].map(|order| hits(order, 1_000, &trace));
    println!(
        "zipf: s3-fifo {s3}, lru {lru}, lfu {lfu}, optimal {optimal} of {}",
        trace.len()
    );
    assert!(s3 > lru + lru / 20, "{s3} and {lru} with LRU");
    assert!(s3 * 100 >= optimal * 85, "{s3} of {optimal} that can be");
    assert!(lfu > lru && lfu <= optimal && s3 <= optimal);
}

#[test]
fn data_that_is_read_over_and_over_and_does_not_fit_keeps_a_part_that_is_hit_each_time() {
    for (room, blocks) in [(1_000, 1_500), (20, 30), (200, 210), (100, 280)] {
        let epoch = epochs(blocks, 1);
        let mut disk = Disk::new(S3Fifo, room);
        disk.hits_of(&epochs(blocks, 3));
        for _ in 0..5 {
            let hits = disk.hits_of(&epoch) as u64;
            assert!(
                hits * 10 >= room * 9,
                "{hits} of {room} that are here, of {blocks}"
            );
        }
        let trace = epochs(blocks, 6);
        assert_eq!(hits(Lru, room, &trace), 0);
        let optimal = optimal_hits(usize::try_from(room).expect("small"), &trace);
        println!("{blocks} in {room}: {} of {optimal}", hits(S3Fifo, room, &trace));
    }
}

#[test]
fn epochs_in_a_new_order_each_time_are_hit_more_often_than_with_lru() {
    let mut numbers = Numbers(11);
    let mut trace = Vec::new();
    for _ in 0..10 {
        let mut epoch: Vec<u64> = (0..1_500).collect();
        for at in 0..epoch.len() {
            let other = numbers.below(epoch.len() as u64);
            epoch.swap(at, usize::try_from(other).expect("small"));
        }
        trace.extend(epoch);
    }
    let [s3, lru] = [S3Fifo, Lru].map(|order| hits(order, 1_000, &trace));
    println!(
        "shuffled epochs: s3-fifo {s3}, lru {lru}, optimal {} of {}",
        optimal_hits(1_000, &trace),
        trace.len()
    );
    assert!(s3 > lru);
}

#[test]
fn epochs_of_other_data_get_the_room_of_those_before() {
    let mut disk = Disk::new(S3Fifo, 1_000);
    disk.hits_of(&epochs(1_500, 5));
    let other: Vec<u64> = (10_000..11_500).collect();
    let hits: Vec<usize> = (0..6).map(|_| disk.hits_of(&other)).collect();
    println!("epochs of other data: {hits:?}");
    assert!(hits[5] >= 900, "{hits:?}");
}

#[test]
fn what_follows_epochs_is_cached_as_ever() {
    let mut disk = Disk::new(S3Fifo, 1_000);
    disk.hits_of(&epochs(1_500, 5));
    let trace: Vec<u64> = zipf(10_000, 100_000, 2)
        .iter()
        .map(|block| block + 50_000)
        .collect();
    let (hits, fresh) = (disk.hits_of(&trace), hits(S3Fifo, 1_000, &trace));
    println!("after epochs: {hits}, without them: {fresh}");
    assert!(hits * 100 >= fresh * 95);
}

#[test]
fn a_scan_does_not_drive_out_what_is_read_often() {
    let mut numbers = Numbers(7);
    let mut scanned = 1_000_000;
    // Half of all reads are of blocks that nobody reads again.
    let trace: Vec<u64> = zipf(10_000, 100_000, 3)
        .into_iter()
        .flat_map(|block| {
            scanned += 1;
            match numbers.below(2) {
                0 => vec![block, scanned],
                _ => vec![scanned, block],
            }
        })
        .collect();
    let optimal = optimal_hits(1_000, &trace);
    let [s3, lru] = [S3Fifo, Lru].map(|order| hits(order, 1_000, &trace));
    println!(
        "zipf and a scan: s3-fifo {s3}, lru {lru}, optimal {optimal} of {}",
        trace.len()
    );
    assert!(s3 > lru + lru / 8, "{s3} and {lru} with LRU");
    assert!(s3 * 100 >= optimal * 80, "{s3} of {optimal} that can be");
}

#[test]
fn what_is_in_use_stays_and_the_rest_goes_however_much_is_needed() {
    for order in [S3Fifo, Lru, Lfu] {
        let mut policy = Policy::new(order);
        (0..10).for_each(|block| policy.came(BlockId(block), MIB, Owner::default()));
        let chosen = policy.choose(u64::MAX, |block| block.0 % 2 == 0);
        let mut gone: Vec<u64> = chosen.iter().map(|(block, _)| block.0).collect();
        gone.sort_unstable();
        assert_eq!(gone, [0, 2, 4, 6, 8], "{order}");
        assert_eq!((policy.blocks(), policy.bytes()), (5, 5 * MIB));
        policy.stays(BlockId(4), MIB, Owner::default());
        assert!(policy.has(BlockId(4)) && !policy.has(BlockId(6)));
    }
}

#[test]
fn many_reads_of_one_block_in_a_row_are_one_use() {
    let mut policy = Policy::new(Lfu);
    (0..100).for_each(|block| policy.came(BlockId(block), MIB, Owner::default()));
    (0..50).for_each(|_| policy.used(BlockId(0)));
    for block in (1..20).chain([1]) {
        policy.used(BlockId(block));
    }
    let chosen = policy.choose(99 * MIB, |_| true);
    assert!(
        chosen.iter().all(|(block, _)| *block != BlockId(1)),
        "it was used twice"
    );
}

#[test]
fn memory_is_bounded() {
    assert_eq!(size_of::<Entry>(), 32);
    for blocks in [1_000u64, 50_000, 150_000] {
        let mut disk = Disk::new(S3Fifo, blocks);
        (0..blocks * 4).for_each(|block| disk.read(block));
        let remembered = disk.policy.lists.all_blocks();
        let ghosts = remembered - disk.policy.blocks();
        assert!(ghosts <= GHOSTS_MAX && ghosts <= 2 * disk.policy.blocks());
        let bytes = disk.policy.lists.memory_bytes();
        println!("{} bytes for each of {remembered}", bytes / remembered);
        assert!(bytes <= BYTES_A_BLOCK * (remembered + 1_000));
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Came(u64, u64),
    Used(u64),
    Removed(u64),
    Choose(u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..40u64, 0..5u64).prop_map(|(block, bytes)| Step::Came(block, bytes * 4_096)),
        (0..40u64).prop_map(Step::Used),
        (0..40u64).prop_map(Step::Removed),
        (0..60_000u64, 0..40u64).prop_map(|(bytes, in_use)| Step::Choose(bytes, in_use)),
    ]
}

const OWNERS: u64 = 3;

fn owner(block: u64) -> Owner {
    Owner(u16::try_from(block % OWNERS).expect("there are few"))
}

proptest! {
    /// Against a plain map: what is known, what it takes, and that as much goes as may, and no more than is needed.
    #[test]
    fn each_policy_knows_its_blocks(
        order in prop_oneof![Just(S3Fifo), Just(Lru), Just(Lfu)],
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let (mut policy, mut here) = (Policy::new(order), HashMap::new());
        for step in steps {
            match step {
                Step::Came(block, bytes) => {
                    policy.came(BlockId(block), bytes, owner(block));
                    here.insert(block, bytes);
                }
                Step::Used(block) => policy.used(BlockId(block)),
                Step::Removed(block) => {
                    policy.removed(BlockId(block));
                    here.remove(&block);
                }
                Step::Choose(need, in_use) => {
                    let may_go: u64 = here.iter().filter(|(block, _)| **block != in_use).map(|(_, bytes)| bytes).sum();
                    let chosen = policy.choose(need, |block| block.0 != in_use);
                    let mut bytes = 0;
                    for (at, (block, of_block)) in chosen.iter().enumerate() {
                        prop_assert!(bytes < need, "block {at} goes for nothing");
                        prop_assert_ne!(block.0, in_use);
                        prop_assert_eq!(here.remove(&block.0), Some(*of_block));
                        bytes += of_block;
                    }
                    prop_assert!(bytes >= need.min(may_go), "{bytes} of {need}, and {may_go} may go");
                }
            }
            prop_assert_eq!(policy.blocks(), here.len());
            prop_assert_eq!(policy.bytes(), here.values().sum::<u64>());
            prop_assert!(here.keys().all(|block| policy.has(BlockId(*block))));
            for of in (0..OWNERS).map(owner) {
                let its: HashMap<_, _> = here.iter().filter(|(block, _)| owner(**block) == of).collect();
                prop_assert_eq!(policy.owned_bytes(of), its.values().copied().sum::<u64>());
                let listed: HashMap<_, _> = policy.owned_by(of).into_iter().collect();
                prop_assert_eq!(listed.len(), its.len());
                prop_assert!(its.iter().all(|(block, bytes)| listed.get(&BlockId(**block)) == Some(*bytes)));
            }
        }
    }
}
