//! The reference model of objects in an under file system that others change: a read is of one version, and that was
//! the newest at some time that the mount's staleness allows.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::files::{END, bytes};
use crate::store;

/// Below this path of the cluster.
pub const MOUNT: &str = "/u";
/// A name may be as old as the mount's staleness (5 s), and a question to the store takes its time.
const STALE: Duration = Duration::from_secs(30);
/// All objects are so long: one block, in chunks of which the last is short.
pub const UNITS: u64 = 300;

#[derive(Default)]
pub struct Objects {
    /// By key: versions by stamp, and since when each was there.
    versions: BTreeMap<String, Vec<(u64, Duration)>>,
}

impl Objects {
    /// Somebody writes an object with a stamp of its own.
    pub fn change(&mut self, key: &str, stamp: u64, now: Duration) {
        store::put(key, bytes(stamp, 0..UNITS));
        self.versions
            .entry(key.to_owned())
            .or_default()
            .push((stamp, now));
    }

    pub fn keys(&self) -> Vec<String> {
        self.versions.keys().cloned().collect()
    }

    /// Whether these units from the first on may have been read of what was opened then.
    pub fn check(&self, key: &str, opened: Duration, values: &[u64]) -> Result<(), String> {
        let Some(first) = values.first() else {
            return Ok(());
        };
        if let Some((unit, other)) = (0..).zip(values).find(|(_, value)| *value != first) {
            return Err(format!(
                "object {key}: unit {unit} is of {other}, and the first is of {first}: two versions are mixed"
            ));
        }
        let versions = self.versions.get(key).map_or(&[][..], Vec::as_slice);
        let at = versions.iter().position(|(stamp, _)| stamp == first);
        let replaced = at.and_then(|at| versions.get(at + 1)).map(|(_, since)| *since);
        match at {
            None if *first == END => Err(format!("object {key} is empty")),
            None => Err(format!("object {key} never was {first}")),
            Some(_) if replaced.is_some_and(|since| since + STALE < opened) => Err(format!(
                "object {key} was opened at {:.3} and is still {first}, which was replaced at {:.3}",
                opened.as_secs_f64(),
                replaced.unwrap_or_default().as_secs_f64()
            )),
            Some(_) => Ok(()),
        }
    }
}
