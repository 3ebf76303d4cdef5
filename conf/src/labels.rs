//! Where a worker stands: `host=NAME,rack=NAME`.

use std::fmt;
use std::str::FromStr;

use curvine_protocol::cluster::Labels;
use serde::{Deserialize, Serialize};

/// Most bytes of a name.
const NAME_BYTES_MAX: usize = 255;

/// `"rack=r7"`, `"host=gpu-3,rack=r7"`; empty says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkerLabels(pub Labels);

impl FromStr for WorkerLabels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut labels = Labels::default();
        for label in text.split(',').filter(|label| !label.trim().is_empty()) {
            let Some((key, name)) = label.split_once('=') else {
                return Err(format!(
                    "`{}` is no label; write for instance \"rack=r7\"",
                    label.trim()
                ));
            };
            let (key, name) = (key.trim(), name.trim());
            let place = match key {
                "host" => &mut labels.host,
                "rack" => &mut labels.rack,
                other => return Err(format!("the label `{other}` is neither host nor rack")),
            };
            if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
                return Err(format!(
                    "the label `{key}` is a name of 1 to {NAME_BYTES_MAX} bytes, not `{name}`"
                ));
            }
            if !place.is_empty() {
                return Err(format!("the label `{key}` is given twice"));
            }
            *place = name.to_owned();
        }
        Ok(WorkerLabels(labels))
    }
}

impl fmt::Display for WorkerLabels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_host_and_rack_in_any_order_each_once() {
        let of = |text: &str| text.parse::<WorkerLabels>();
        let labels = |host: &str, rack: &str| {
            Ok(WorkerLabels(Labels {
                host: host.to_owned(),
                rack: rack.to_owned(),
            }))
        };
        assert_eq!(of(""), labels("", ""));
        assert_eq!(of("rack=r7"), labels("", "r7"));
        assert_eq!(of(" rack = r7 , host=gpu-3"), labels("gpu-3", "r7"));
        let written = of("rack=r7,host=gpu-3").map(|labels| labels.to_string());
        assert_eq!(written.as_deref(), Ok("host=gpu-3,rack=r7"));
        for (wrong, why) in [
            ("r7", "is no label"),
            ("zone=z1", "neither host nor rack"),
            ("rack=", "1 to 255 bytes"),
            ("rack=a\u{7}", "1 to 255 bytes"),
            ("rack=a,rack=b", "twice"),
        ] {
            let said = of(wrong).expect_err(wrong);
            assert!(said.contains(why), "{wrong}: {said}");
        }
    }
}
