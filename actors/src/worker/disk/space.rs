//! How much a disk may still take.

use curvine_protocol::{Error, ErrorKind, Result};

/// The space of one disk. Bytes are taken before they are written and given back when a block goes.
#[derive(Clone, Debug)]
pub struct Space {
    /// Most bytes of block data here.
    capacity_bytes: u64,
    /// Free bytes of the device that are never used.
    reserve_bytes: u64,
    used_bytes: u64,
    /// Free bytes of the device when last measured.
    device_free_bytes: u64,
    /// Taken since then, which the measurement may not show.
    taken_since_bytes: u64,
}

impl Space {
    pub fn new(capacity_bytes: u64, reserve_bytes: u64, used_bytes: u64, device_free_bytes: u64) -> Self {
        Space {
            capacity_bytes,
            reserve_bytes,
            used_bytes,
            device_free_bytes,
            taken_since_bytes: 0,
        }
    }

    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    pub fn available_bytes(&self) -> u64 {
        let of_capacity = self.capacity_bytes.saturating_sub(self.used_bytes);
        let of_device = self
            .device_free_bytes
            .saturating_sub(self.reserve_bytes)
            .saturating_sub(self.taken_since_bytes);
        of_capacity.min(of_device)
    }

    /// Sets bytes aside.
    ///
    /// # Errors
    /// `NoSpace`: nothing is taken.
    pub fn take(&mut self, bytes: u64, disk: &str) -> Result<()> {
        if bytes > self.available_bytes() {
            return Err(Error::new(
                ErrorKind::NoSpace,
                format!(
                    "disk {disk} has {} bytes left of {} and {bytes} more are needed; free cached data with `cv free` \
                     or add a data directory",
                    self.available_bytes(),
                    self.capacity_bytes
                ),
            ));
        }
        self.used_bytes += bytes;
        self.taken_since_bytes += bytes;
        Ok(())
    }

    pub fn give_back(&mut self, bytes: u64) {
        self.used_bytes = self.used_bytes.saturating_sub(bytes);
        self.taken_since_bytes = self.taken_since_bytes.saturating_sub(bytes);
    }

    /// A new measurement of the device.
    pub fn measured(&mut self, device_free_bytes: u64) {
        self.device_free_bytes = device_free_bytes;
        self.taken_since_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_of_capacity_and_device_counts() {
        assert_eq!(Space::new(100, 10, 30, 1_000).available_bytes(), 70);
        assert_eq!(Space::new(100, 10, 30, 50).available_bytes(), 40);
        assert_eq!(Space::new(100, 60, 30, 50).available_bytes(), 0);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_takes_nothing() {
        let mut space = Space::new(100, 0, 0, 1_000);
        assert_eq!(space.take(60, "d"), Ok(()));
        assert_eq!(space.take(41, "d").map_err(|e| e.kind), Err(ErrorKind::NoSpace));
        assert_eq!(space.take(40, "d"), Ok(()));
        space.give_back(60);
        assert_eq!((space.used_bytes(), space.available_bytes()), (40, 60));
    }

    #[test]
    fn a_measurement_replaces_the_estimate() {
        let mut space = Space::new(1_000, 0, 0, 100);
        assert_eq!(space.take(80, "d"), Ok(()));
        assert_eq!(space.available_bytes(), 20);
        space.measured(90);
        assert_eq!(space.available_bytes(), 90);
    }
}
