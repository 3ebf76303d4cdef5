//! Golden files: what every message and record looks like, for people (JSON) and to the byte (hexadecimal).
//!
//! A file has three lines an entry: its name, the value as JSON, the bytes. A test builds the same from samples in code,
//! compares, and reads the stored bytes back. After a change on purpose, `UPDATE_RENDERED=1` renders the files again; it
//! refuses where the bytes of the old file can no longer be read, because then older nodes and disks cannot be either.
//! `UPDATE_RENDERED=replace` does not refuse.
//!
//! `previous/` beside the files has them as of the version before: what older nodes say and disks have can be read. They are
//! replaced when a version is released.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use curvine_protocol::codec::{decode, encode};
use serde::{Serialize, de::DeserializeOwned};

type ReadBack = Box<dyn Fn(&[u8]) -> Result<Vec<u8>, String>>;

struct Entry {
    name: String,
    value: String,
    bytes: Vec<u8>,
    /// Reads bytes of this type and writes them again.
    read_back: ReadBack,
}

/// The entries of one file, in order.
pub struct Golden {
    about: &'static str,
    entries: Vec<Entry>,
}

impl Golden {
    pub fn new(about: &'static str) -> Self {
        Golden {
            about,
            entries: Vec::new(),
        }
    }

    /// A value in MessagePack, as frames and records have it.
    pub fn value<T: Serialize + DeserializeOwned + 'static>(&mut self, name: &str, value: &T) {
        let read_back = |bytes: &[u8]| match decode::<T>(bytes) {
            Ok(value) => Ok(encode(&value)),
            Err(error) => Err(error.to_string()),
        };
        let json = serde_json::to_string(value).expect("samples are JSON too");
        self.add(name, json, encode(value), Box::new(read_back));
    }

    /// Bytes of another form, with what they say.
    pub fn bytes(
        &mut self,
        name: &str,
        says: impl std::fmt::Debug,
        bytes: &[u8],
        read_back: impl Fn(&[u8]) -> Result<Vec<u8>, String> + 'static,
    ) {
        self.add(name, format!("{says:?}"), bytes.to_vec(), Box::new(read_back));
    }

    fn add(&mut self, name: &str, value: String, bytes: Vec<u8>, read_back: ReadBack) {
        assert!(
            self.entries.iter().all(|entry| entry.name != name),
            "two samples are named `{name}`"
        );
        self.entries.push(Entry {
            name: name.to_owned(),
            value,
            bytes,
            read_back,
        });
    }

    /// Compares with the file, and reads the file's bytes back.
    pub fn check(self, file: &Path) {
        let rendered = self.render();
        let update = std::env::var("UPDATE_RENDERED").ok();
        let stored = std::fs::read_to_string(file).unwrap_or_default();
        let (directory, name) = (file.parent(), file.file_name());
        let previous = directory
            .zip(name)
            .map(|(directory, name)| directory.join("previous").join(name));
        let previous = previous
            .map(|file| std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display())));
        if let Some(previous) = previous {
            self.read_stored(&previous.expect("the version before had this file"));
        }
        if update.as_deref() != Some("replace") {
            self.read_stored(&stored);
        }
        if update.is_some() {
            return std::fs::write(file, rendered).expect("the golden file is writable");
        }
        for (number, (stored, now)) in stored.lines().zip(rendered.lines()).enumerate() {
            assert_eq!(
                stored,
                now,
                "{}:{}: changed; if on purpose, render with UPDATE_RENDERED=1",
                file.display(),
                number + 1
            );
        }
        assert_eq!(
            stored.lines().count(),
            rendered.lines().count(),
            "{}: entries were added or removed; render with UPDATE_RENDERED=1",
            file.display()
        );
    }

    fn render(&self) -> String {
        let mut text = format!("# {}\n", self.about);
        for entry in &self.entries {
            let hex: String = entry.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            write!(text, "\n{}\n  {}\n  {hex}\n", entry.name, entry.value).expect("memory");
        }
        text
    }

    /// What is stored can be read, and an entry that did not change means what it meant.
    fn read_stored(&self, stored: &str) {
        let now: BTreeMap<&str, &Entry> = self.entries.iter().map(|e| (e.name.as_str(), e)).collect();
        let lines: Vec<&str> = stored.lines().filter(|line| !line.is_empty()).collect();
        for lines in lines.iter().skip(1).collect::<Vec<_>>().chunks(3) {
            let [name, _, hex] = lines else {
                panic!("{lines:?} are no entry")
            };
            let Some(entry) = now.get(**name) else { continue };
            let bytes = from_hex(hex.trim());
            let again = (entry.read_back)(&bytes).unwrap_or_else(|error| {
                panic!("the stored bytes of `{name}` cannot be read any more: {error}")
            });
            if bytes == entry.bytes {
                assert_eq!(again, bytes, "`{name}` is not what was written after it was read");
            }
        }
    }
}

fn from_hex(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex
        .chars()
        .map(|c| c.to_digit(16).expect("hexadecimal"))
        .collect();
    digits
        .chunks(2)
        .map(|pair| (pair[0] * 16 + pair[1]).to_le_bytes()[0])
        .collect()
}
