//! MessagePack, compact form, as used for every frame header and every record on disk.
//!
//! A struct is an array of its fields in their order. It grows at its end only, by fields with `#[serde(default)]`:
//! what an older version wrote lacks them and gets the default, and what a newer version wrote has fields that this one
//! passes over ([`lenient`]). An enum is its variant's name; a variant that this version does not know is an error.

mod lenient;

use serde::{Serialize, de::DeserializeOwned};

use crate::error::{Error, ErrorKind, Result};

/// Encodes a value. Infallible for the types of this crate: they have no map keys that are not strings and no
/// unsized sequences.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec(value).expect("protocol types always encode")
}

/// Appends a value's encoding to a buffer.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, buffer: &mut Vec<u8>) {
    rmp_serde::encode::write(buffer, value).expect("protocol types always encode");
}

/// Decodes a value; fields of a newer version are passed over.
///
/// # Errors
/// `Protocol`, with the name of what was expected.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    T::deserialize(lenient::Lenient(&mut deserializer)).map_err(|error| {
        Error::new(
            ErrorKind::Protocol,
            format!(
                "{} bytes are not a {}: {error}",
                bytes.len(),
                std::any::type_name::<T>()
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Old {
        id: u64,
        inner: OldInner,
        list: Vec<OldInner>,
        choice: OldChoice,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct OldInner {
        name: String,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum OldChoice {
        Plain,
        Struct { a: u8 },
        Newtype(OldInner),
        Maybe(Option<OldInner>),
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct New {
        id: u64,
        inner: NewInner,
        list: Vec<NewInner>,
        choice: NewChoice,
        #[serde(default)]
        more: Vec<String>,
        #[serde(default)]
        and_more: Option<NewInner>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct NewInner {
        name: String,
        #[serde(default)]
        nick: Option<String>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum NewChoice {
        Plain,
        Struct {
            a: u8,
            #[serde(default)]
            b: u8,
        },
        Newtype(NewInner),
        Maybe(Option<NewInner>),
        Novel,
    }

    fn old_inner(name: &str) -> OldInner {
        OldInner {
            name: name.to_owned(),
        }
    }

    fn new_inner(name: &str, nick: Option<&str>) -> NewInner {
        NewInner {
            name: name.to_owned(),
            nick: nick.map(str::to_owned),
        }
    }

    fn old(choice: OldChoice) -> Old {
        Old {
            id: 7,
            inner: old_inner("in"),
            list: vec![old_inner("x"), old_inner("y")],
            choice,
        }
    }

    fn new(choice: NewChoice, nick: Option<&str>) -> New {
        New {
            id: 7,
            inner: new_inner("in", nick),
            list: vec![new_inner("x", nick), new_inner("y", nick)],
            choice,
            more: nick.into_iter().map(str::to_owned).collect(),
            and_more: nick.map(|nick| new_inner("z", Some(nick))),
        }
    }

    #[test]
    fn an_older_version_passes_over_what_a_newer_one_added_at_any_depth() {
        let nick = Some("nick");
        for (newer, older) in [
            (NewChoice::Plain, OldChoice::Plain),
            (NewChoice::Struct { a: 1, b: 2 }, OldChoice::Struct { a: 1 }),
            (
                NewChoice::Newtype(new_inner("n", nick)),
                OldChoice::Newtype(old_inner("n")),
            ),
            (
                NewChoice::Maybe(Some(new_inner("m", nick))),
                OldChoice::Maybe(Some(old_inner("m"))),
            ),
            (NewChoice::Maybe(None), OldChoice::Maybe(None)),
        ] {
            assert_eq!(decode(&encode(&new(newer, nick))), Ok(old(older)));
        }
    }

    #[test]
    fn a_newer_version_gives_defaults_to_what_an_older_one_did_not_know() {
        for (older, newer) in [
            (OldChoice::Struct { a: 1 }, NewChoice::Struct { a: 1, b: 0 }),
            (
                OldChoice::Newtype(old_inner("n")),
                NewChoice::Newtype(new_inner("n", None)),
            ),
        ] {
            assert_eq!(decode(&encode(&old(older))), Ok(new(newer, None)));
        }
    }

    #[test]
    fn a_variant_of_a_newer_version_is_an_error_that_names_it() {
        let error = decode::<Old>(&encode(&new(NewChoice::Novel, None))).expect_err("not known");
        assert_eq!(error.kind, ErrorKind::Protocol);
        assert!(error.message.contains("Novel"), "{error}");
    }

    #[test]
    fn what_ends_too_early_or_is_of_another_shape_is_an_error() {
        let bytes = encode(&old(OldChoice::Plain));
        for len in 0..bytes.len() {
            let error = decode::<Old>(&bytes[..len]).expect_err("cut");
            assert_eq!(error.kind, ErrorKind::Protocol, "cut to {len}");
        }
        for garbage in [
            &b"\xc1"[..],
            b"\xdf\xff\xff\xff\xff",
            b"\xdd\xff\xff\xff\xff",
            b"\x94\xa1a",
        ] {
            let error = decode::<Old>(garbage).expect_err("garbage");
            assert_eq!(error.kind, ErrorKind::Protocol, "{garbage:?}");
        }
    }
}
