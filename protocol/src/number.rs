//! Numbers of one type as another, where nothing may be cut.
//!
//! `as` between integers cuts or wraps in silence, and a length or an index that was cut is another one. So clippy refuses
//! such casts everywhere (`Cargo.toml`). What is left are `u64::from`, `try_from`, and these.

use std::time::Duration;

/// A length or an index in memory.
///
/// Nothing is cut: where addresses are shorter than 64 bits this does not compile.
#[expect(
    clippy::cast_possible_truncation,
    reason = "they are equally long, see the assertion"
)]
pub const fn to_usize(number: u64) -> usize {
    const { assert!(size_of::<usize>() >= size_of::<u64>()) };
    number as usize
}

/// The number, or the greatest `u32` if it is greater.
pub fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// For fields that are left out where they say nothing, at the end of a message or record.
pub fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Whole milliseconds, as deadlines have them on the wire; the greatest number for longer times.
pub fn whole_ms(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// Nanoseconds; the greatest number after 584 years.
pub fn whole_ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_the_greatest_and_never_another_number() {
        assert_eq!(to_u32(7), 7);
        assert_eq!(to_u32(1 << 32), u32::MAX);
        assert_eq!(whole_ms(Duration::from_secs(1 << 32)), u32::MAX);
        assert_eq!(whole_ns(Duration::MAX), u64::MAX);
        assert_eq!(to_usize(u64::MAX), usize::MAX);
    }
}
