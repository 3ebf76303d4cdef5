//! Where the index stood when it was last synced, kept beside it so that a power cut leads back there and not into a
//! torn tree.
//!
//! LMDB never writes over a page that the newest snapshot, or one that somebody reads, refers to. It only writes over its
//! two meta pages, which name the root of a snapshot each; without syncs, after a power cut, they may name pages that
//! never reached the device. So a sync does three things: it holds a snapshot, it puts the pages on the device, and it
//! keeps a copy of the meta pages here. Until the next sync the snapshot stays held, so its pages stay as they are, and
//! putting the meta pages back makes it the newest one again.
//!
//! The file `anchor` has two slots that are written in turn, so that one of them is always whole. A slot, little-endian:
//! CRC32C u32 of all that follows, bytes that follow u32, sequence u64, token length u32, token, meta pages.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use curvine_protocol::checksum::crc32c;
use curvine_protocol::number::{to_u32, to_usize};
use curvine_protocol::{Error, Result};

const FILE: &str = "anchor";
const HEAD_BYTES: usize = 8;
/// Longest token.
const TOKEN_BYTES_MAX: usize = 1_024;
/// LMDB's largest page.
const PAGE_BYTES_MAX: usize = 32 << 10;

/// The bytes of both meta pages of an environment.
pub fn metas_bytes() -> usize {
    2 * rustix::param::page_size().min(PAGE_BYTES_MAX)
}

fn slot_bytes() -> u64 {
    (metas_bytes() + 4_096) as u64
}

/// The open file.
pub struct Anchor {
    file: File,
    sequence: u64,
}

/// What a slot says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Which run wrote it.
    pub token: String,
    pub metas: Vec<u8>,
}

impl Anchor {
    /// Opens the file in a directory, or makes it, and returns what was kept last. None if nothing ever was.
    ///
    /// # Errors
    /// As the file system says.
    pub fn open(directory: &Path) -> Result<(Anchor, Option<Kept>)> {
        let path = directory.join(FILE);
        let opened = || -> std::io::Result<_> {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)?;
            let len_bytes = file.metadata()?.len();
            if len_bytes < 2 * slot_bytes() {
                // Room that was written once: later syncs move data alone.
                let rest = vec![0; to_usize(2 * slot_bytes() - len_bytes)];
                file.write_all_at(&rest, len_bytes)?;
                file.sync_all()?;
                File::open(directory)?.sync_all()?;
            }
            let mut slots = Vec::new();
            for slot in 0..2 {
                let mut bytes = vec![0; to_usize(slot_bytes())];
                file.read_exact_at(&mut bytes, slot * slot_bytes())?;
                slots.extend(decode(&bytes));
            }
            Ok((file, slots.into_iter().max_by_key(|(sequence, _)| *sequence)))
        };
        let (file, newest) =
            opened().map_err(|e| Error::from(e).while_doing(format_args!("opening {}", path.display())))?;
        let sequence = newest.as_ref().map_or(0, |(sequence, _)| *sequence);
        Ok((Anchor { file, sequence }, newest.map(|(_, kept)| kept)))
    }

    /// Keeps this, on the device when it returns.
    ///
    /// # Errors
    /// As the file system says. What was kept before stays.
    pub fn keep(&mut self, kept: &Kept) -> Result<()> {
        let sequence = self.sequence + 1;
        let written = || -> std::io::Result<()> {
            self.file
                .write_all_at(&encode(sequence, kept), sequence % 2 * slot_bytes())?;
            self.file.sync_data()
        };
        written().map_err(|e| Error::from(e).while_doing("keeping where the block index stands"))?;
        self.sequence = sequence;
        Ok(())
    }
}

fn encode(sequence: u64, kept: &Kept) -> Vec<u8> {
    assert!(kept.token.len() <= TOKEN_BYTES_MAX, "a token is short");
    let mut bytes = vec![0; HEAD_BYTES];
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&to_u32(kept.token.len()).to_le_bytes());
    bytes.extend_from_slice(kept.token.as_bytes());
    bytes.extend_from_slice(&kept.metas);
    let len = to_u32(bytes.len() - HEAD_BYTES);
    bytes[4..8].copy_from_slice(&len.to_le_bytes());
    let sum = crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// None if the slot was never written, or not to its end.
fn decode(slot: &[u8]) -> Option<(u64, Kept)> {
    let (head, rest) = slot.split_at_checked(HEAD_BYTES)?;
    let len = u32::from_le_bytes(head[4..].try_into().ok()?) as usize;
    let whole = slot.get(4..HEAD_BYTES + len)?;
    if crc32c(whole) != u32::from_le_bytes(head[..4].try_into().ok()?) {
        return None;
    }
    let (sequence, rest) = rest[..len].split_at_checked(8)?;
    let (token_len, rest) = rest.split_at_checked(4)?;
    let token_len = u32::from_le_bytes(token_len.try_into().ok()?) as usize;
    let (token, metas) = rest.split_at_checked(token_len)?;
    let kept = Kept {
        token: String::from_utf8(token.to_vec()).ok()?,
        metas: metas.to_vec(),
    };
    Some((u64::from_le_bytes(sequence.try_into().ok()?), kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(token: &str, fill: u8) -> Kept {
        Kept {
            token: token.to_owned(),
            metas: vec![fill; metas_bytes()],
        }
    }

    #[test]
    fn golden_bytes_of_a_slot() {
        let kept = Kept {
            token: "run".to_owned(),
            metas: vec![0xab, 0xcd],
        };
        let bytes = encode(7, &kept);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "5307acee1100000007000000000000000300000072756eabcd");
        assert_eq!(decode(&bytes), Some((7, kept)));
        for at in 0..bytes.len() {
            let mut torn = bytes.clone();
            torn[at] ^= 1;
            assert_eq!(decode(&torn), None, "byte {at}");
        }
    }

    #[test]
    fn the_last_one_counts_and_a_torn_one_gives_way_to_the_one_before() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let (mut anchor, before) = Anchor::open(scratch.path()).expect("opens");
        assert_eq!(before, None);
        for round in 1..=3u8 {
            anchor.keep(&kept(&round.to_string(), round)).expect("room");
            let (_, read) = Anchor::open(scratch.path()).expect("opens");
            assert_eq!(read, Some(kept(&round.to_string(), round)));
        }
        // The third is in the second slot.
        let file = OpenOptions::new()
            .write(true)
            .open(scratch.path().join(FILE))
            .expect("it is there");
        file.write_all_at(&[9], slot_bytes() + 100).expect("room");
        let (_, read) = Anchor::open(scratch.path()).expect("opens");
        assert_eq!(read, Some(kept("2", 2)));
    }
}
