//! The fate of each key: shown under a name that means this very key, or hidden.
//!
//! A name is shown only if everything that is done under it reaches the key it stands for. OpenDAL cuts white space off the
//! end of a path and joins repeated slashes; clients of HTTP resolve `.` and `..`; XML has no way to say some control
//! characters, and makes a carriage return another character. Such keys are counted, and left alone.

use std::collections::BTreeMap;

use curvine_protocol::mount::HiddenKeys;
use curvine_protocol::path::NAME_BYTES_MAX;

use super::uri::UPLOADS_DIRECTORY;

/// Why a key is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hidden {
    /// `x//y`, or a slash at its beginning.
    EmptyName,
    /// A part of it is `.` or `..`.
    Dots,
    TooLong,
    /// An object, whose name ends with white space. A directory's path ends with a slash.
    EndsInWhiteSpace,
    ControlCharacter,
    NotUnicode,
    /// A FIFO, a socket, a device, a mount of Curvine.
    NotAFile,
    /// Below an object of the same name.
    BelowAnObject,
    /// Where mounts of directories write what is not complete yet.
    Uploads,
}

impl Hidden {
    /// For people, after "names that" or "its name".
    pub fn why(self) -> &'static str {
        match self {
            Hidden::EmptyName => "has an empty part (`//`)",
            Hidden::Dots => "has the part `.` or `..`",
            Hidden::TooLong => "is longer than 255 bytes",
            Hidden::EndsInWhiteSpace => "ends with white space",
            Hidden::ControlCharacter => "has a control character",
            Hidden::NotUnicode => "is not UTF-8",
            Hidden::NotAFile => "is that of a FIFO, a socket, a device or a mount of Curvine",
            Hidden::BelowAnObject => "is below an object of the same name",
            Hidden::Uploads => "is that of incomplete uploads",
        }
    }
}

/// How exactly a store says names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// As they are.
    Exact,
    /// Through XML, which changes some control characters.
    Xml,
}

/// What becomes of an entry of a directory. `name` has no slash behind it; an empty one is what `//` leaves.
pub fn fate(name: &str, is_dir: bool, spelling: Spelling) -> Result<(), Hidden> {
    let unclear = |letter: char| letter.is_control() && letter != '\t' && spelling == Spelling::Xml;
    match name {
        "" => Err(Hidden::EmptyName),
        "." | ".." => Err(Hidden::Dots),
        UPLOADS_DIRECTORY => Err(Hidden::Uploads),
        _ if name.contains('/') => Err(Hidden::EmptyName),
        _ if name.len() > NAME_BYTES_MAX => Err(Hidden::TooLong),
        _ if name.contains('\0') || name.contains(unclear) => Err(Hidden::ControlCharacter),
        _ if !is_dir && name.ends_with(char::is_whitespace) => Err(Hidden::EndsInWhiteSpace),
        _ => Ok(()),
    }
}

/// What a directory has and does not show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HiddenNames(BTreeMap<Hidden, (u64, String)>);

impl HiddenNames {
    /// One more; `key` is kept as the example if it is the first of its kind.
    pub fn add(&mut self, why: Hidden, key: &str) {
        self.0.entry(why).or_insert_with(|| (0, key.to_owned())).0 += 1;
    }

    pub fn merge(&mut self, other: &HiddenNames) {
        for (why, (count, example)) in &other.0 {
            self.0.entry(*why).or_insert_with(|| (0, example.clone())).0 += count;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn count(&self) -> u64 {
        self.0.values().map(|(count, _)| count).sum()
    }

    /// For people: how many, why, and one of each kind.
    pub fn told(&self) -> String {
        let each = self.0.iter().map(|(why, (count, example))| {
            format!(
                "{count} whose name {}, such as `{}`",
                why.why(),
                example.escape_debug()
            )
        });
        each.collect::<Vec<_>>().join("; ")
    }

    /// For the mount table.
    pub fn table(&self) -> Vec<HiddenKeys> {
        let row = |(why, (count, example)): (&Hidden, &(u64, String))| HiddenKeys {
            why: why.why().to_owned(),
            count: *count,
            example: example.clone(),
        };
        self.0.iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_only_if_it_means_its_key() {
        use Spelling::{Exact, Xml};
        let long = "n".repeat(256);
        for (name, is_dir, spelling, expected) in [
            ("f", false, Xml, Ok(())),
            (" leads", false, Xml, Ok(())),
            ("tab\there", false, Xml, Ok(())),
            ("..two", false, Xml, Ok(())),
            (&long[..255], false, Xml, Ok(())),
            (&long, false, Xml, Err(Hidden::TooLong)),
            ("", true, Xml, Err(Hidden::EmptyName)),
            ("x/y", false, Xml, Err(Hidden::EmptyName)),
            (".", true, Exact, Err(Hidden::Dots)),
            ("..", true, Xml, Err(Hidden::Dots)),
            ("u ", false, Xml, Err(Hidden::EndsInWhiteSpace)),
            ("u\u{3000}", false, Exact, Err(Hidden::EndsInWhiteSpace)),
            ("u ", true, Xml, Ok(())),
            ("a\nb", false, Exact, Ok(())),
            ("a\nb", false, Xml, Err(Hidden::ControlCharacter)),
            ("a\rb", true, Xml, Err(Hidden::ControlCharacter)),
            ("a\0b", false, Exact, Err(Hidden::ControlCharacter)),
        ] {
            assert_eq!(fate(name, is_dir, spelling), expected, "{name:?}");
        }
    }

    #[test]
    fn hidden_names_are_counted_by_their_reasons_with_an_example_each() {
        let (mut names, mut more) = (HiddenNames::default(), HiddenNames::default());
        names.add(Hidden::Dots, "a/..");
        more.add(Hidden::Dots, "b/..");
        more.add(Hidden::EndsInWhiteSpace, "u ");
        names.merge(&more);
        assert_eq!(names.count(), 3);
        assert_eq!(
            names.told(),
            "2 whose name has the part `.` or `..`, such as `a/..`; 1 whose name ends with white space, such as `u `"
        );
    }
}
