//! What happens to the masters, and how often: drawn from the seed.

use curvine_protocol::number::to_usize;

use crate::chance::Chance;
use crate::network::Weather;
use crate::troubles::ClusterPlan;

/// Something that goes wrong, or that an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// One master hears nobody, or nobody hears it, or both.
    CutOff,
    /// The masters fall into two parts.
    Split,
    /// Two masters do not reach each other, and all others do.
    Link,
    /// Messages are lost, late, repeated.
    BadWeather,
    Kill,
    /// A process ends and is back at once: before anybody has missed it.
    QuickRestart,
    /// One machine loses its power.
    PowerCut,
    /// All of them do.
    Blackout,
    /// One loses its disk.
    Wipe,
    /// SIGSTOP for a while.
    Stop,
    /// A master that the leader does not reach asks for the vote of one that has just come back, while the leader is cut
    /// off and still trusts what that one told it.
    Usurp,
    /// SIGTERM, and a start later.
    Terminate,
    SlowDisk,
    HandOver,
    Snapshot,
    Grow,
    Shrink,
}

use Fault::*;

const ALL: [Fault; 17] = [
    CutOff,
    Split,
    Link,
    BadWeather,
    Kill,
    QuickRestart,
    PowerCut,
    Blackout,
    Wipe,
    Stop,
    Usurp,
    Terminate,
    SlowDisk,
    HandOver,
    Snapshot,
    Grow,
    Shrink,
];

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub masters: u64,
    pub clients: u64,
    pub cells: usize,
    pub seconds: u64,
    /// Some of them: what always happens together hides what happens alone.
    pub faults: Vec<Fault>,
    /// Between two faults, at most.
    pub pause_ms: u64,
    pub snapshot_every_entries: u64,
    pub snapshot_every_bytes: u64,
    pub kept_entries: u64,
    pub kept_bytes: u64,
    /// None: there are masters alone.
    pub cluster: Option<ClusterPlan>,
}

impl Plan {
    pub fn draw(chance: &Chance) -> Plan {
        let masters = *chance.one_of(&[1, 3, 3, 3, 3, 3, 3, 4, 5]);
        let mut faults: Vec<Fault> = ALL.into_iter().filter(|_| chance.percent(50)).collect();
        if faults.is_empty() {
            faults.push(Kill);
        }
        Plan {
            masters,
            clients: chance.within(3..7),
            cells: to_usize(chance.within(4..9)),
            seconds: chance.within(10..25),
            faults,
            pause_ms: *chance.one_of(&[500, 1_500, 3_000]),
            snapshot_every_entries: chance.within(20..300),
            snapshot_every_bytes: chance.within(10_000..1_000_000),
            kept_entries: chance.within(0..60),
            kept_bytes: chance.within(0..200_000),
            cluster: None,
        }
    }
}

pub fn bad_weather(chance: &Chance) -> Weather {
    let slowest_us = *chance.one_of(&[1_000, 5_000, 20_000, 80_000]);
    Weather {
        loss_percent: *chance.one_of(&[0, 2, 10, 30]),
        repeat_percent: *chance.one_of(&[0, 5, 20]),
        delay_us: 100..slowest_us + 200,
        late_permille: 0,
    }
}
