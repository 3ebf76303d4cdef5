//! Random operations against the model: generated from a seed, compared one by one, shrunk when they differ.
//!
//! Every failure prints `CURVINE_SEED=...`; a test run with that variable does this one sequence and no other.

use std::fmt::Write as _;

use crate::model::{Access, Errno, FileSystem, Kind, Model, Op, Outcome, Pattern, RenameHow, XattrHow};
use curvine_protocol::number::to_usize;

/// The variable that replays one sequence.
pub const SEED_VARIABLE: &str = "CURVINE_SEED";
/// Handles that sequences use.
pub const SLOTS: u8 = 4;
/// Attempts to make a failing sequence shorter.
const SHRINK_ATTEMPTS_MAX: u32 = 300;

/// SplitMix64: small, and the same for ever, so that a seed means the same sequence in every version.
pub struct Seeded(u64);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Seeded(seed)
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next_u64() % limit
    }

    /// The same for small numbers.
    pub fn byte_below(&mut self, limit: u8) -> u8 {
        self.below(limit.into()).to_le_bytes()[0]
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[to_usize(self.below(choices.len() as u64))]
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What sequences are made of.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    pub ops: usize,
    /// Sizes and offsets gather around multiples of this.
    pub block_bytes: u64,
    /// The largest offset.
    pub file_bytes_max: u64,
    /// One in so many operations is a restart; 0 for none.
    pub restart_every: u64,
    /// What is left out of sequences where this is false.
    pub can: fn(&Op) -> bool,
}

/// The sequence of a seed.
pub fn sequence(seed: u64, mix: Mix) -> Vec<Op> {
    let mut random = Seeded::new(seed);
    let ops = (0..mix.ops).map(|_| one(&mut random, mix));
    ops.filter(mix.can).collect()
}

fn name(random: &mut Seeded) -> &'static str {
    random.one_of(&["a", "b", "c", "ä b"])
}

fn path(random: &mut Seeded) -> String {
    let depth = random.one_of(&[1, 1, 1, 2, 2, 3]);
    (0..depth).fold(String::new(), |path, _| path + "/" + name(random))
}

fn size(random: &mut Seeded, mix: Mix) -> u64 {
    let near = random.below(mix.file_bytes_max / mix.block_bytes + 1) * mix.block_bytes;
    match random.below(4) {
        0 => random.below(mix.file_bytes_max),
        1 => random.below(200),
        2 => near,
        _ => near.saturating_add_signed(random.below(2_000).cast_signed() - 1_000),
    }
    .min(mix.file_bytes_max)
}

fn pattern(random: &mut Seeded, mix: Mix) -> Pattern {
    let len = match random.below(4) {
        0 => random.below(64),
        1 => random.below(mix.block_bytes * 3),
        _ => 1 + random.below(9_000),
    };
    Pattern {
        seed: random.next_u64().to_le_bytes()[0],
        len: u32::try_from(len).expect("it is small"),
    }
}

fn mode(random: &mut Seeded) -> u32 {
    random.one_of(&[0o644, 0o755, 0o600, 0o777, 0o1777, 0o400])
}

fn one(random: &mut Seeded, mix: Mix) -> Op {
    let slot = random.byte_below(SLOTS);
    if mix.restart_every != 0 && random.below(mix.restart_every) == 0 {
        return Op::Restart {
            kill: random.chance(60),
        };
    }
    match random.below(100) {
        0..=39 => content_op(random, mix, slot),
        40..=49 => open(random, slot),
        50..=54 => Op::Close { slot },
        55..=61 => Op::ReadFile { path: path(random) },
        62..=64 => Op::Truncate {
            path: path(random),
            size: size(random, mix),
        },
        _ => name_op(random),
    }
}

fn open(random: &mut Seeded, slot: u8) -> Op {
    let access = if random.chance(75) {
        Access::Write
    } else {
        Access::Read
    };
    Op::Open {
        slot,
        path: path(random),
        access,
        create: access == Access::Write && random.chance(80),
        exclusive: random.chance(15),
        truncate: access == Access::Write && random.chance(15),
    }
}

fn content_op(random: &mut Seeded, mix: Mix, slot: u8) -> Op {
    match random.below(100) {
        0..=29 => Op::Write {
            slot,
            offset: size(random, mix),
            bytes: pattern(random, mix),
        },
        30..=49 => Op::Append {
            slot,
            bytes: pattern(random, mix),
        },
        50..=74 => Op::Read {
            slot,
            offset: size(random, mix),
            len: size(random, mix),
        },
        75..=84 => Op::TruncateHandle {
            slot,
            size: size(random, mix),
        },
        85..=89 => Op::StatHandle { slot },
        90..=96 => Op::Flush { slot },
        _ => Op::Sync { slot },
    }
}

fn name_op(random: &mut Seeded) -> Op {
    match random.below(100) {
        0..=14 => Op::MakeDir {
            path: if random.chance(3) {
                format!("/{}", "n".repeat(254 + to_usize(random.below(3))))
            } else {
                path(random)
            },
            mode: mode(random),
        },
        15..=19 => Op::Symlink {
            path: path(random),
            target: path(random)[1..].to_owned(),
        },
        20..=26 => Op::Link {
            from: path(random),
            to: path(random),
        },
        27..=36 => Op::Unlink { path: path(random) },
        37..=43 => Op::RemoveDir { path: path(random) },
        44..=62 => Op::Rename {
            from: path(random),
            to: path(random),
            how: random.one_of(&[
                RenameHow::Replace,
                RenameHow::Replace,
                RenameHow::Replace,
                RenameHow::NoReplace,
                RenameHow::Exchange,
            ]),
        },
        63..=74 => Op::Stat {
            path: path(random),
            follow: random.chance(50),
        },
        75..=81 => Op::List { path: path(random) },
        82..=84 => Op::ReadLink { path: path(random) },
        85..=88 => Op::SetMode {
            path: path(random),
            mode: mode(random),
        },
        _ => xattr_op(random),
    }
}

fn xattr_op(random: &mut Seeded) -> Op {
    let (path, name) = (path(random), random.one_of(&["user.one", "user.two"]).to_owned());
    match random.below(10) {
        0..=4 => Op::SetXattr {
            path,
            name,
            value: vec![random.next_u64().to_le_bytes()[0]; to_usize(random.below(40))],
            how: random.one_of(&[XattrHow::Set, XattrHow::Create, XattrHow::Replace]),
        },
        5..=6 => Op::GetXattr { path, name },
        7 => Op::ListXattrs { path },
        _ => Op::RemoveXattr { path, name },
    }
}

/// Where a file system first differs from the model.
#[derive(Clone, Debug)]
pub struct Difference {
    pub at: usize,
    pub op: Op,
    pub model: Result<Outcome, Errno>,
    pub other: Result<Outcome, Errno>,
}

/// Runs a sequence on the model and on another, empty file system; at the end compares everything there is.
pub fn compare(ops: &[Op], other: &mut dyn FileSystem) -> Option<Difference> {
    let mut model = Model::default();
    let mut differs = |at: usize, op: &Op, model: &mut Model| {
        let (expected, got) = (model.apply(op), other.apply(op));
        let difference = Difference {
            at,
            op: op.clone(),
            model: expected,
            other: got,
        };
        let comparable =
            |outcome: &Result<Outcome, Errno>| outcome.clone().map(|found| other.comparable(found));
        let same = comparable(&difference.model) == comparable(&difference.other);
        let found = difference.model.clone();
        (found, (!same).then_some(difference))
    };
    for (at, op) in ops.iter().enumerate() {
        if let (_, Some(difference)) = differs(at, op, &mut model) {
            return Some(difference);
        }
    }
    for slot in 0..SLOTS {
        if let (_, Some(difference)) = differs(ops.len(), &Op::Close { slot }, &mut model) {
            return Some(difference);
        }
    }
    let mut todo = vec![(String::new(), Kind::Directory)];
    while let Some((path, kind)) = todo.pop() {
        let shown = if path.is_empty() {
            "/".to_owned()
        } else {
            path.clone()
        };
        let look = match kind {
            Kind::Directory => Op::List { path: shown.clone() },
            Kind::File => Op::ReadFile { path: shown.clone() },
            Kind::Symlink => Op::ReadLink { path: shown.clone() },
        };
        let (found, difference) = differs(ops.len(), &look, &mut model);
        if difference.is_some() {
            return difference;
        }
        if let (Kind::Directory, Ok(Outcome::Names(names))) = (kind, found) {
            let below = names
                .into_iter()
                .map(|(name, kind)| (format!("{path}/{name}"), kind));
            todo.extend(below.filter_map(|(path, kind)| Some((path, kind?))));
        }
        if path.is_empty() {
            continue;
        }
        let stat = Op::Stat {
            path: shown.clone(),
            follow: false,
        };
        let names = Op::ListXattrs { path: shown };
        let looks = [Some(stat), (kind != Kind::Symlink).then_some(names)];
        for look in looks.into_iter().flatten() {
            if let (_, Some(difference)) = differs(ops.len(), &look, &mut model) {
                return Some(difference);
            }
        }
    }
    None
}

/// Compares sequences of `seeds`, or the one that the environment names. `fresh` makes an empty file system.
///
/// # Panics
/// Where a file system differs from the model: with the seed, and the shortest sequence found that differs too.
pub fn check<F: FileSystem>(
    seeds: impl IntoIterator<Item = u64>,
    mix: Mix,
    mut fresh: impl FnMut(u64, u32) -> F,
) {
    let replay = std::env::var(SEED_VARIABLE).ok().map(|seed| {
        seed.parse()
            .unwrap_or_else(|_| panic!("{SEED_VARIABLE} is a number, not {seed}"))
    });
    let seeds: Vec<u64> = match replay {
        Some(seed) => vec![seed],
        None => seeds.into_iter().collect(),
    };
    for seed in seeds {
        let mut attempt = 0;
        let mut differs = |ops: &[Op]| {
            attempt += 1;
            compare(ops, &mut fresh(seed, attempt))
        };
        let ops = sequence(seed, mix);
        if let Some(first) = differs(&ops) {
            eprintln!("seed {seed} differs at {}; making it shorter", first.at);
            let (ops, difference) = shrink(ops, first, &mut differs);
            panic!("{}", report(seed, &ops, &difference));
        }
    }
}

/// Leaves out whatever can be left out so that the rest still differs.
fn shrink(
    mut ops: Vec<Op>,
    mut difference: Difference,
    differs: &mut dyn FnMut(&[Op]) -> Option<Difference>,
) -> (Vec<Op>, Difference) {
    ops.truncate(difference.at + 1);
    let mut attempts = 0;
    let mut step = ops.len() / 2;
    while step > 0 {
        let mut from = 0;
        while from < ops.len() && attempts < SHRINK_ATTEMPTS_MAX {
            attempts += 1;
            let mut fewer = ops.clone();
            fewer.drain(from..(from + step).min(ops.len()));
            match differs(&fewer) {
                Some(found) => {
                    fewer.truncate(found.at + 1);
                    (ops, difference) = (fewer, found);
                }
                None => from += step,
            }
        }
        step /= 2;
    }
    (ops, difference)
}

fn report(seed: u64, ops: &[Op], difference: &Difference) -> String {
    let mut text =
        format!("differs from the model; replay with {SEED_VARIABLE}={seed}\nshortest sequence:\n");
    for (at, op) in ops.iter().enumerate() {
        let _ = writeln!(text, "  {at:>3} {op:?}");
    }
    let Difference {
        at, op, model, other, ..
    } = difference;
    let _ = write!(
        text,
        "at {at}, {op:?}:\n  the model says {model:?}\n  but it was     {other:?}"
    );
    text
}
