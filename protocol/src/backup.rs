//! The head of a backup: what a file says of the namespace that is in it.
//!
//! A backup is its head, then the state's bytes, then the CRC32C of all of that. The head is [`MAGIC`], the format and
//! the length of what follows, a [`BackupHeader`] in MessagePack, and the CRC32C of the head up to there. Numbers are
//! little endian.

use serde::{Deserialize, Serialize};

use crate::checksum::crc32c;
use crate::codec::{decode, encode};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::ClusterId;
use crate::number::to_u32;

/// What every backup begins with.
pub const MAGIC: [u8; 8] = *b"CURVINEB";
/// What this version writes, and the newest it reads.
pub const FORMAT: u32 = 1;
/// Most bytes of a head.
pub const HEAD_BYTES_MAX: usize = 4096;
/// Magic, format, length.
const FIXED_BYTES: usize = 16;
/// The CRC32C behind the head, and the one behind everything.
pub const CHECKSUM_BYTES: usize = 4;

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupHeader {
    pub cluster: ClusterId,
    /// Of the master that made it.
    pub version: String,
    /// When, by the master's clock.
    pub time_ns: i64,
    /// The last log entry that is in it.
    pub log_index: u64,
    /// Bytes of the state.
    pub len_bytes: u64,
}

impl BackupHeader {
    /// The bytes that a backup with this header begins with.
    pub fn to_head(&self) -> Vec<u8> {
        let header = encode(self);
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&FORMAT.to_le_bytes());
        head.extend_from_slice(&to_u32(header.len()).to_le_bytes());
        head.extend_from_slice(&header);
        head.extend_from_slice(&crc32c(&head).to_le_bytes());
        head
    }

    /// Reads the head that a file begins with; says how long it is, too.
    ///
    /// # Errors
    /// `InvalidArgument` if it is none, `Config` if a newer version wrote it, `Corrupt`.
    pub fn from_head(bytes: &[u8]) -> Result<(BackupHeader, usize)> {
        if !bytes.starts_with(&MAGIC) {
            return Err(Error::invalid("this is not a backup of Curvine"));
        }
        let format = u32_at(bytes, 8).ok_or_else(cut_short)?;
        if format > FORMAT {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "the backup has format {format} and this version knows up to {FORMAT}; use a newer one"
                ),
            ));
        }
        let header_bytes = u32_at(bytes, 12).ok_or_else(cut_short)? as usize;
        let end = FIXED_BYTES + header_bytes.min(HEAD_BYTES_MAX);
        let checksum = u32_at(bytes, end).ok_or_else(cut_short)?;
        if checksum != crc32c(&bytes[..end]) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "the head of the backup fails its checksum; use another backup",
            ));
        }
        Ok((decode(&bytes[FIXED_BYTES..end])?, end + CHECKSUM_BYTES))
    }
}

fn cut_short() -> Error {
    Error::new(
        ErrorKind::Corrupt,
        "the backup ends in its head; use another backup",
    )
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().expect("four bytes are four")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> BackupHeader {
        BackupHeader {
            cluster: ClusterId(0xC1),
            version: "0.1.0".to_owned(),
            time_ns: 1_700_000_000_000_000_000,
            log_index: 77,
            len_bytes: 1 << 20,
        }
    }

    #[test]
    fn a_head_is_read_back_and_says_how_long_it_is() {
        let mut bytes = header().to_head();
        let len = bytes.len();
        bytes.extend_from_slice(b"state");
        assert_eq!(BackupHeader::from_head(&bytes), Ok((header(), len)));
    }

    #[test]
    fn every_byte_and_the_length_of_a_head_count() {
        let head = header().to_head();
        for at in 0..head.len() {
            let mut flipped = head.clone();
            flipped[at] ^= 1;
            let kind = BackupHeader::from_head(&flipped)
                .expect_err("it is another head")
                .kind;
            let expected = match at {
                0..=7 => ErrorKind::InvalidArgument,
                // Format 0 is older than any; the others are newer.
                9..=11 => ErrorKind::Config,
                _ => ErrorKind::Corrupt,
            };
            assert_eq!(kind, expected, "byte {at}");
            let cut = BackupHeader::from_head(&head[..at]).expect_err("it is cut").kind;
            let expected = match at {
                0..=7 => ErrorKind::InvalidArgument,
                _ => ErrorKind::Corrupt,
            };
            assert_eq!(cut, expected, "cut at {at}");
        }
    }

    #[test]
    fn a_newer_format_is_refused() {
        let mut head = header().to_head();
        head[8] = 2;
        let error = BackupHeader::from_head(&head).expect_err("it is newer");
        assert_eq!(
            (error.kind, error.message.as_str()),
            (
                ErrorKind::Config,
                "the backup has format 2 and this version knows up to 1; use a newer one"
            )
        );
    }
}
