//! What files are made of: units, each filled with the stamp of who wrote it.

use curvine_protocol::number::to_usize;

/// Bytes of one unit: not a divisor of anything that matters to workers.
pub const UNIT: u64 = 512;
/// No file is longer.
pub const UNITS_MAX: u64 = 400;
pub const HOLE: u64 = 0;
pub const END: u64 = u64::MAX;
/// What no write leaves: bytes of several, or of none.
const TORN: u64 = u64::MAX - 1;

pub fn name_of(value: u64) -> String {
    match value {
        HOLE => "a hole".to_owned(),
        END => "beyond the end".to_owned(),
        TORN => "torn or nobody's".to_owned(),
        stamp => format!("write {stamp}"),
    }
}

/// The bytes of units from one on.
pub fn bytes(stamp: u64, units: std::ops::Range<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for unit in units {
        bytes.extend_from_slice(&pattern(stamp, unit).repeat(to_usize(UNIT) / PATTERN_BYTES));
    }
    bytes
}

const PATTERN_BYTES: usize = 16;

fn pattern(stamp: u64, unit: u64) -> [u8; PATTERN_BYTES] {
    (u128::from(stamp) << 64 | u128::from(unit)).to_le_bytes()
}

/// The stamps in what was read from a unit on, and the end if it is among what was asked for.
pub fn stamps(from: u64, asked: u64, content: &[u8]) -> Vec<u64> {
    let mut stamps: Vec<u64> = (from..)
        .zip(content.chunks(to_usize(UNIT)))
        .map(|(unit, bytes)| stamp_of(unit, bytes))
        .collect();
    if (stamps.len() as u64) < asked {
        stamps.resize(to_usize(asked), END);
    }
    stamps
}

fn stamp_of(unit: u64, found: &[u8]) -> u64 {
    if found.len() as u64 != UNIT {
        return TORN;
    }
    if found == [0; to_usize(UNIT)] {
        return HOLE;
    }
    let stamp = u64::from_le_bytes(found[8..16].try_into().expect("eight bytes"));
    match found == pattern(stamp, unit).repeat(to_usize(UNIT) / PATTERN_BYTES) {
        true => stamp,
        false => TORN,
    }
}
