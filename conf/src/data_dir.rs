//! Data directories of a worker: `[TIER:CAPACITY]PATH`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use curvine_protocol::cluster::Tier;
use serde::{Deserialize, Serialize};

use crate::units::Size;

/// One data directory: `"[MEM:1GB]/dev/shm/curvine"`, `"[SSD:100GB]/data/ssd"`, `"[HDD]/data/hdd"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DataDir {
    pub tier: Tier,
    /// None = the free space of the device, less the reserve.
    pub capacity: Option<Size>,
    pub path: PathBuf,
}

impl FromStr for DataDir {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((inside, path)) = text
            .trim()
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'))
        else {
            return Err(format!(
                "`{text}` does not start with a tier; write for instance \"[SSD:100GB]{}\"",
                text.trim()
            ));
        };
        let (tier, capacity) = match inside.split_once(':') {
            Some((tier, capacity)) => (tier, Some(capacity)),
            None => (inside, None),
        };
        let tier = match tier.trim().to_ascii_uppercase().as_str() {
            "MEM" => Tier::Mem,
            "SSD" => Tier::Ssd,
            "HDD" => Tier::Hdd,
            other => return Err(format!("the tier `{other}` in `{text}` is none of MEM, SSD, HDD")),
        };
        let capacity = capacity
            .map(|capacity| {
                capacity
                    .parse::<Size>()
                    .map_err(|e| format!("the capacity in `{text}`: {e}"))
            })
            .transpose()?;
        if capacity == Some(Size(0)) {
            return Err(format!(
                "the capacity in `{text}` is 0; leave it out to use the device's free space"
            ));
        }
        if path.trim().is_empty() {
            return Err(format!("`{text}` names no directory after the `]`"));
        }
        Ok(DataDir {
            tier,
            capacity,
            path: PathBuf::from(path.trim()),
        })
    }
}

impl fmt::Display for DataDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.capacity {
            Some(capacity) => write!(f, "[{}:{capacity}]{}", self.tier, self.path.display()),
            None => write!(f, "[{}]{}", self.tier, self.path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tier_capacity_and_path_are_read() {
        let dir: DataDir = "[MEM:1GB]/dev/shm/c".parse().expect("valid");
        assert_eq!(dir.tier, Tier::Mem);
        assert_eq!(dir.capacity, Some(Size(1_000_000_000)));
        assert_eq!(dir.path, PathBuf::from("/dev/shm/c"));
        let dir: DataDir = "[hdd] data/x ".parse().expect("valid");
        assert_eq!((dir.tier, dir.capacity), (Tier::Hdd, None));
        assert_eq!(dir.to_string(), "[HDD]data/x");
    }

    #[test]
    fn each_mistake_is_named() {
        let error = |text: &str| text.parse::<DataDir>().expect_err(text);
        assert_eq!(
            error("/data"),
            "`/data` does not start with a tier; write for instance \"[SSD:100GB]/data\""
        );
        assert_eq!(
            error("[NVME]/data"),
            "the tier `NVME` in `[NVME]/data` is none of MEM, SSD, HDD"
        );
        assert_eq!(
            error("[SSD:100]/data"),
            "the capacity in `[SSD:100]/data`: `100` has no unit; write for instance \"100MiB\""
        );
        assert_eq!(error("[SSD]"), "`[SSD]` names no directory after the `]`");
        assert_eq!(
            error("[SSD:0]/d"),
            "the capacity in `[SSD:0]/d` is 0; leave it out to use the device's free space"
        );
    }
}
