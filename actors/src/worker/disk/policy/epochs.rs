//! Whether data is read over and over that does not fit: what a training does in each of its epochs. Pure.
//!
//! Whatever goes then for being old is what comes back next, and nothing is ever hit. It is seen by this: for a quarter of
//! what the disk holds, most of what comes is what went lately, and hardly anything that is here is used. From then on the
//! part that is here stays, and the rest passes by. It ends when most of what comes was not here lately.
//!
//! How long an epoch takes is learnt from what comes back: how much passed since it was used. What was not used for longer
//! than that belongs to something earlier, and gives its place up.

/// What comes is judged by each quarter of what is here.
const WINDOWS: u64 = 4;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epochs {
    are_on: bool,
    /// Something had to go since the beginning: before that nothing can be told.
    is_full: bool,
    came_bytes: u64,
    back_bytes: u64,
    hit_bytes: u64,
    /// How much passed between two uses of a block that came back; 0 if none did.
    epoch: u32,
}

impl Epochs {
    pub fn are_on(&self) -> bool {
        self.are_on
    }

    /// A block came, which was used `away` before if it was here lately. Whether epochs begin with that.
    pub fn came(&mut self, bytes: u64, away: Option<u32>, here_bytes: u64) -> bool {
        self.came_bytes += bytes;
        if let Some(away) = away {
            self.back_bytes += bytes;
            self.epoch = match self.epoch {
                0 => away,
                epoch => epoch - epoch / 8 + away / 8,
            };
        }
        if self.came_bytes < here_bytes / WINDOWS || !self.is_full {
            return false;
        }
        let was_on = self.are_on;
        let most_is_back = self.back_bytes * 2 >= self.came_bytes;
        let little_is_hit = self.hit_bytes * 10 <= self.came_bytes;
        self.are_on = most_is_back && (was_on || little_is_hit);
        (self.came_bytes, self.back_bytes, self.hit_bytes) = (0, 0, 0);
        self.are_on && !was_on
    }

    pub fn hit(&mut self, bytes: u64) {
        self.hit_bytes += bytes;
    }

    pub fn evicted(&mut self) {
        self.is_full = true;
    }

    /// Whether a block that was not used for so long is none of those that come back each time.
    pub fn is_over(&self, unused: u32) -> bool {
        self.epoch > 0 && unused > self.epoch.saturating_add(self.epoch / 2)
    }
}
