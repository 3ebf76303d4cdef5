//! Attributes of files in the metadata of their objects, under the names and in the formats of s3fs-fuse: `mode`, `uid` and
//! `gid` are decimal numbers, `mtime` is seconds, a dot and nine digits (rclone reads that, too), `xattr` is JSON of names and
//! base64, percent-encoded.
//!
//! Pure. An object may be anybody's: what is not understood is passed over, and is never an error.

use std::collections::{BTreeMap, HashMap};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use curvine_protocol::KeptAttributes;
use curvine_protocol::path::NAME_BYTES_MAX;

/// What an object's metadata may have in all, names and values: S3's limit.
pub const METADATA_BYTES_MAX: usize = 2 << 10;
/// Extended attributes that programs set. Others give rights, which nobody gets by writing an object; they are kept in the
/// namespace alone.
pub const XATTR_PREFIX: &str = "user.";
const MODE: &str = "mode";
const UID: &str = "uid";
const GID: &str = "gid";
const MTIME: &str = "mtime";
const XATTR: &str = "xattr";
/// The type in `st_mode`, and that of a file.
const TYPE_MASK: u32 = 0o170_000;
const TYPE_FILE: u32 = 0o100_000;
/// Programs run with the rights of a file's owner by these, which nobody gets by writing an object.
pub const SET_ID: u32 = 0o6000;
const NS_PER_SECOND: i64 = 1_000_000_000;

/// Whether metadata of this name says an attribute.
pub fn is_field(name: &str) -> bool {
    [MODE, UID, GID, MTIME, XATTR].contains(&name)
}

/// The metadata that says these attributes, in at most so many bytes. Of extended attributes, those stay out that do not fit.
pub fn encode(kept: &KeptAttributes, room_bytes: usize) -> HashMap<String, String> {
    let plain = [
        (MODE, kept.mode.map(|mode| (TYPE_FILE | mode).to_string())),
        (UID, kept.uid.map(|uid| uid.to_string())),
        (GID, kept.gid.map(|gid| gid.to_string())),
        (MTIME, kept.mtime_ns.map(time)),
    ];
    let mut left = room_bytes;
    let mut fields = HashMap::new();
    for (name, value) in plain {
        let Some(value) = value else { continue };
        if let Some(rest) = left.checked_sub(name.len() + value.len()) {
            left = rest;
            fields.insert(name.to_owned(), value);
        }
    }
    let xattrs = left.checked_sub(XATTR.len()).and_then(|left| xattrs(kept, left));
    fields.extend(xattrs.map(|xattrs| (XATTR.to_owned(), xattrs)));
    fields
}

/// What metadata says, asked by name.
pub fn decode<'a>(field: impl Fn(&str) -> Option<&'a str>) -> KeptAttributes {
    let id = |name| field(name).and_then(number).filter(|id| *id != u32::MAX);
    let mode = field(MODE).and_then(number);
    // Of a link, a directory or a device, as others keep them in objects: that is no mode for a file.
    let mode = mode.filter(|mode| [0, TYPE_FILE].contains(&(mode & TYPE_MASK)));
    KeptAttributes {
        mode: mode.map(|mode| mode & 0o7777 & !SET_ID),
        uid: id(UID),
        gid: id(GID),
        mtime_ns: field(MTIME).and_then(nanoseconds),
        xattrs: field(XATTR).and_then(named_values).unwrap_or_default(),
    }
}

fn time(mtime_ns: i64) -> String {
    let (seconds, rest) = (
        mtime_ns.div_euclid(NS_PER_SECOND),
        mtime_ns.rem_euclid(NS_PER_SECOND),
    );
    // As a decimal number, so that -0.5 is not taken for half a second after the epoch.
    match seconds < 0 && rest > 0 {
        true => {
            let whole = (seconds + 1).unsigned_abs();
            format!("-{whole}.{:09}", NS_PER_SECOND - rest)
        }
        false => format!("{seconds}.{rest:09}"),
    }
}

fn number(text: &str) -> Option<u32> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

fn nanoseconds(text: &str) -> Option<i64> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (seconds, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if seconds.is_empty() || !is_digits(seconds) || !is_digits(fraction) {
        return None;
    }
    let seconds: i64 = seconds.parse().ok()?;
    let fraction: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let sign = if is_negative { -1 } else { 1 };
    let whole = (sign * seconds).checked_mul(NS_PER_SECOND)?;
    whole.checked_add(sign * fraction.parse::<i64>().ok()?)
}

/// As many as fit, in the order of their names; none if none does.
fn xattrs(kept: &KeptAttributes, room_bytes: usize) -> Option<String> {
    let all = kept
        .xattrs
        .iter()
        .filter(|(name, _)| name.starts_with(XATTR_PREFIX));
    let mut left = room_bytes.checked_sub("%7B%7D".len())?;
    let mut fit = BTreeMap::new();
    for (name, value) in all {
        // Nothing that is longer fits, and need not be encoded to see that.
        if value.len() > room_bytes {
            continue;
        }
        let value = STANDARD.encode(value);
        let entry = BTreeMap::from([(name, &value)]);
        // The braces that it does not have stand for the comma that it may.
        let length = json(&entry).len().saturating_sub("%7B%7D".len()) + "%2C".len();
        if let Some(rest) = left.checked_sub(length) {
            left = rest;
            fit.insert(name, value);
        }
    }
    (!fit.is_empty()).then(|| json(&fit))
}

fn json(entries: &impl serde::Serialize) -> String {
    let json = serde_json::to_string(entries).expect("strings are always JSON");
    urlencoding::encode(&json).into_owned()
}

fn named_values(text: &str) -> Option<BTreeMap<String, Vec<u8>>> {
    let json = urlencoding::decode(text).ok()?;
    let entries: BTreeMap<String, serde_json::Value> = serde_json::from_str(&json).ok()?;
    let is_name = |name: &String| {
        name.starts_with(XATTR_PREFIX)
            && name.len() > XATTR_PREFIX.len()
            && name.len() <= NAME_BYTES_MAX
            && !name.contains('\0')
    };
    let known = entries.into_iter().filter(|(name, _)| is_name(name));
    Some(
        known
            .filter_map(|(name, value)| Some((name, STANDARD.decode(value.as_str()?).ok()?)))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(fields: &HashMap<String, String>) -> KeptAttributes {
        decode(|name| fields.get(name).map(String::as_str))
    }

    fn said(pairs: &[(&str, &str)]) -> KeptAttributes {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        decoded(&pairs.iter().map(owned).collect())
    }

    #[test]
    fn attributes_are_written_as_s3fs_writes_them() {
        let kept = KeptAttributes {
            mode: Some(0o640),
            uid: Some(1_000),
            gid: Some(7),
            mtime_ns: Some(1_234_567_890_000_000_005),
            xattrs: BTreeMap::from([("user.a".to_owned(), b"value".to_vec())]),
        };
        let fields = encode(&kept, METADATA_BYTES_MAX);
        let field = |name: &str| fields.get(name).map(String::as_str);
        assert_eq!(
            [MODE, UID, GID, MTIME, XATTR].map(field),
            [
                Some("33184"),
                Some("1000"),
                Some("7"),
                Some("1234567890.000000005"),
                Some("%7B%22user.a%22%3A%22dmFsdWU%3D%22%7D"),
            ]
        );
    }

    #[test]
    fn what_others_wrote_is_read_or_passed_over() {
        let nothing = KeptAttributes::default();
        for foreign in [
            ("mode", "40755x"),
            ("mode", ""),
            ("mode", "-1"),
            // A link and a directory of s3fs.
            ("mode", "41471"),
            ("mode", "16877"),
            ("uid", "4294967295"),
            ("gid", "99999999999"),
            ("mtime", "yesterday"),
            ("mtime", "99999999999999.0"),
            ("mtime", "1.-5"),
            ("mtime", "."),
            ("xattr", "%7B"),
            ("xattr", "[]"),
            ("xattr", "{\"user.a\":\"***\"}"),
            ("xattr", "{\"user.a\":5}"),
            ("xattr", "{\"security.capability\":\"AAAA\"}"),
            ("xattr", "{\"user.\":\"AAAA\"}"),
        ] {
            assert_eq!(said(&[foreign]), nothing, "{foreign:?}");
        }
        let mtime = |text| said(&[("mtime", text)]).mtime_ns;
        assert_eq!(mtime("12"), Some(12 * NS_PER_SECOND));
        assert_eq!(mtime("12.5"), Some(12_500_000_000));
        assert_eq!(mtime("12.1234567891"), Some(12_123_456_789));
        assert_eq!(mtime("-0.5"), Some(-500_000_000));
        assert_eq!(said(&[("mode", "420")]).mode, Some(0o644));
        assert_eq!(
            said(&[("mode", "35309")]).mode,
            Some(0o755),
            "without its set-id bits"
        );
    }

    fn any_kept() -> impl Strategy<Value = KeptAttributes> {
        let xattrs = prop::collection::btree_map(
            "user\\.[^\0]{1,20}",
            prop::collection::vec(any::<u8>(), 0..200),
            0..12,
        );
        (
            prop::option::of((0..0o10000_u32).prop_map(|mode| mode & !SET_ID)),
            prop::option::of(0..u32::MAX),
            prop::option::of(0..u32::MAX),
            prop::option::of(any::<i64>()),
            xattrs,
        )
            .prop_map(|(mode, uid, gid, mtime_ns, xattrs)| KeptAttributes {
                mode,
                uid,
                gid,
                mtime_ns,
                xattrs,
            })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(kept in any_kept()) {
            prop_assert_eq!(decoded(&encode(&kept, 1 << 20)), kept);
        }

        #[test]
        fn what_is_written_fits_and_what_does_not_stays_out(kept in any_kept(), room_bytes in 0..3_000_usize) {
            let fields = encode(&kept, room_bytes);
            let bytes: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
            prop_assert!(bytes <= room_bytes, "{} bytes in {}", bytes, room_bytes);
            prop_assert!(fields.values().all(|value| value.is_ascii()));
            let read = decoded(&fields);
            prop_assert!(read.xattrs.iter().all(|(name, value)| kept.xattrs.get(name) == Some(value)));
            if room_bytes >= 100 {
                prop_assert_eq!(KeptAttributes { xattrs: kept.xattrs.clone(), ..read }, kept);
            }
        }

        #[test]
        fn whatever_is_there_is_no_error(values in prop::collection::vec(".{0,60}", 5)) {
            let fields = [MODE, UID, GID, MTIME, XATTR].map(str::to_owned).into_iter().zip(values).collect();
            decoded(&fields);
        }
    }
}
