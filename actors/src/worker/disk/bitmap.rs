//! Which chunks of a block: a fixed number of bits.

/// A set of chunk indexes below `len`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    bytes: Vec<u8>,
    len: usize,
    ones: usize,
}

impl Bitmap {
    pub fn new(len: usize) -> Self {
        Bitmap {
            bytes: vec![0; len.div_ceil(8)],
            len,
            ones: 0,
        }
    }

    /// From its bytes on disk; none if they are too few or bits beyond `len` are set.
    pub fn from_bytes(bytes: &[u8], len: usize) -> Option<Self> {
        let beyond = bytes
            .last()
            .is_some_and(|&last| !len.is_multiple_of(8) && last >> (len % 8) != 0);
        (bytes.len() == len.div_ceil(8) && !beyond).then(|| Bitmap {
            bytes: bytes.to_vec(),
            len,
            ones: bytes.iter().map(|byte| byte.count_ones() as usize).sum(),
        })
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Bits that are set.
    pub fn ones(&self) -> usize {
        self.ones
    }

    pub fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// False beyond the end.
    pub fn get(&self, index: usize) -> bool {
        index < self.len && self.bytes[index / 8] & (1 << (index % 8)) != 0
    }

    /// Sets a bit; true if it was clear. Beyond the end nothing happens.
    pub fn set(&mut self, index: usize) -> bool {
        if index >= self.len || self.get(index) {
            return false;
        }
        self.bytes[index / 8] |= 1 << (index % 8);
        self.ones += 1;
        true
    }

    /// True if every bit of the range below the end is set.
    pub fn all(&self, range: std::ops::Range<usize>) -> bool {
        (range.start..range.end.min(self.len)).all(|index| self.get(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_is_counted_once() {
        let mut bits = Bitmap::new(10);
        assert!(bits.set(9));
        assert!(!bits.set(9));
        assert!(!bits.set(10), "beyond the end nothing is set");
        assert_eq!((bits.ones(), bits.get(9), bits.get(8)), (1, true, false));
    }

    #[test]
    fn it_is_full_when_every_bit_is_set() {
        let mut bits = Bitmap::new(3);
        (0..3).for_each(|index| assert!(bits.set(index)));
        assert!(bits.is_full() && bits.all(0..100));
        assert!(Bitmap::new(0).is_full());
    }

    #[test]
    fn bytes_of_another_length_or_with_stray_bits_are_refused() {
        assert_eq!(Bitmap::from_bytes(&[0b111], 3).map(|bits| bits.ones()), Some(3));
        assert_eq!(Bitmap::from_bytes(&[0b1111], 3), None);
        assert_eq!(Bitmap::from_bytes(&[0, 0], 3), None);
    }
}
