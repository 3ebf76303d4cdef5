//! What happens in a run, told line by line. All lines together are its fingerprint: two runs of one seed tell the same.

use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

pub struct Story {
    fingerprint: DefaultHasher,
    is_printed: bool,
    has_messages: bool,
}

impl Story {
    pub fn new(is_printed: bool) -> Story {
        Story {
            fingerprint: DefaultHasher::new(),
            is_printed,
            has_messages: is_printed && std::env::var_os("CURVINE_MESSAGES").is_some(),
        }
    }

    pub fn tell(&mut self, now: Duration, what: impl Display) {
        let line = format!("{:>9.3} {what}", now.as_secs_f64());
        line.hash(&mut self.fingerprint);
        if self.is_printed {
            println!("{line}");
        }
    }

    /// Whether every message is told, too.
    pub fn has_messages(&self) -> bool {
        self.has_messages
    }

    pub fn with_messages(&mut self, has: bool) {
        self.has_messages = has;
    }

    pub fn fingerprint(&self) -> u64 {
        self.fingerprint.finish()
    }
}
