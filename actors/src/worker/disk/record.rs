//! What the index keeps of one block.
//!
//! Layout, little-endian: version u8 (1), state u8, flags u8, more flags u8, generation u32, len_bytes u64,
//! accessed_ms i64, checksum count u32, checksums u32 each, then for Writing, Filling and what was rewritten one bit per
//! checksum, then, if the flag says so, the numbers of its writer's changes: floor u64, sealed u64; then, if the flag says
//! so, the number of the sync that puts it on the device, u64; then, if the second flags say so, the mount, u32.

use curvine_protocol::checksum::{CHUNK_BYTES, crc32c};
use curvine_protocol::cluster::Tier;
use curvine_protocol::number::{to_u32, to_usize};
use curvine_protocol::{Error, ErrorKind, MountId, Result};

use super::bitmap::Bitmap;
use super::order::Numbers;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 28;
const FLAG_FROM_UFS: u8 = 1;
const FLAG_SYNCED: u8 = 2;
const FLAG_CUTTING: u8 = 4;
const FLAG_IN_INDEX: u8 = 8;
const FLAG_REWRITTEN: u8 = 16;
const FLAG_NUMBERED: u8 = 32;
const FLAG_ROUND: u8 = 64;
/// Of the second byte of flags.
const FLAG_DOUBTFUL: u8 = 1;
const FLAG_PINNED: u8 = 2;
const FLAG_GUEST: u8 = 4;
/// Two bits: 0 = no tier, else its code.
const TIER_SHIFT: u8 = 3;
const TIER_BITS: u8 = 3;
const FLAG_MOUNT: u8 = 32;
const NUMBERS_BYTES: usize = 16;
const ROUND_BYTES: usize = 8;
const MOUNT_BYTES: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRecord {
    pub generation: u32,
    pub state: BlockState,
    /// Sealed: the length. Writing: the length when the record was written, the file may be longer by now.
    /// Filling: the length when it will be whole.
    pub len_bytes: u64,
    /// CRC32C per chunk. Those of dirty and of missing chunks mean nothing.
    pub checksums: Vec<u32>,
    /// When bytes of it last came, milliseconds since the epoch. Reads do not change it.
    pub accessed_ms: i64,
    pub flags: BlockFlags,
    /// Of a block that was sealed without a sync, and had bytes on the device before: the chunks that were written since.
    /// A power cut may leave anything in these, and nothing but what was there in the others.
    pub rewritten: Option<Bitmap>,
    /// With `rewritten`: the number of the background sync that puts them on the device, after which they count like the
    /// others. 0 if it has none.
    pub round: u64,
    /// Of the changes of its writer, who may not number them.
    pub numbers: Numbers,
    /// Of a cached block: the mount whose object it is of. Versions before did not note it.
    pub mount: Option<MountId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockState {
    /// Being written. Chunks that are dirty, or beyond the checksums, have none: they are computed when the block is
    /// sealed or read. A chunk is dirty in the index before the first byte of it changes on disk.
    Writing {
        dirty: Bitmap,
    },
    Sealed,
    /// Being filled from an under file system.
    Filling {
        present: Bitmap,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockFlags {
    /// An under file system has the same bytes: the replica may be dropped.
    pub from_ufs: bool,
    /// The bytes are on disk, not only in the page cache; of a block being written, those that were when it was opened.
    pub synced: bool,
    /// The file is about to be cut to `len_bytes`.
    pub cutting: bool,
    /// Sealed and small: the bytes are in the index, and there is no file.
    pub in_index: bool,
    /// A power cut may have undone some of what was sealed in this generation. The masters have not said yet that it counts
    /// all the same.
    pub doubtful: bool,
    /// The masters have ordered that it is not evicted. Whoever writes the block is not held to it: what is written is kept.
    pub pinned: bool,
    /// Another disk of this worker has the block, of which this is a copy: it is read here, and goes at any time. Where no
    /// other has it, a move ended half-way, and this is the block.
    pub guest: bool,
    /// The tier that whoever read or wrote it last wants it in.
    pub tier: Option<Tier>,
}

impl BlockFlags {
    /// The replica may be dropped: an under file system has the same bytes, or another disk of this worker.
    pub fn may_go(&self) -> bool {
        self.from_ufs || self.guest
    }

    fn more(&self) -> u8 {
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        flag(self.doubtful, FLAG_DOUBTFUL)
            | flag(self.pinned, FLAG_PINNED)
            | flag(self.guest, FLAG_GUEST)
            | self.tier.map_or(0, |tier| tier.code() << TIER_SHIFT)
    }
}

fn tier_of(more: u8) -> Option<Tier> {
    Tier::of_code(more >> TIER_SHIFT & TIER_BITS)
}

/// How many chunks a block of this length has.
pub fn chunks_of(len_bytes: u64) -> usize {
    to_usize(len_bytes.div_ceil(CHUNK_BYTES))
}

/// Whether the bytes of a small block are those that its checksums are of: one, or none for no bytes.
pub fn is_content_of(checksums: &[u32], content: &[u8]) -> bool {
    // The checksum of nothing is 0.
    crc32c(content) == checksums.first().copied().unwrap_or(0)
}

impl BlockRecord {
    pub fn sealed(
        generation: u32,
        len_bytes: u64,
        checksums: Vec<u32>,
        accessed_ms: i64,
        flags: BlockFlags,
    ) -> Self {
        assert_eq!(
            checksums.len(),
            chunks_of(len_bytes),
            "a sealed block has every checksum"
        );
        BlockRecord {
            generation,
            state: BlockState::Sealed,
            len_bytes,
            checksums,
            accessed_ms,
            flags,
            rewritten: None,
            round: 0,
            numbers: Numbers::default(),
            mount: None,
        }
    }

    /// The record of a block of a mount's object.
    #[must_use]
    pub fn of_mount(self, mount: Option<MountId>) -> Self {
        BlockRecord { mount, ..self }
    }

    /// The mount for whose quota the block counts: none of one that is kept.
    pub fn counts_for(&self) -> Option<MountId> {
        self.mount.filter(|_| self.flags.from_ufs)
    }

    /// Whether this, of a guest, is a copy of that.
    pub fn is_copy_of(&self, original: &BlockRecord) -> bool {
        let what = |record: &BlockRecord| (record.generation, record.len_bytes, record.state.clone());
        what(self) == what(original) && self.checksums == original.checksums && !original.flags.doubtful
    }

    /// What was written over had come to the device, if background syncs up to this one had ended.
    pub fn is_synced_by(&self, synced: u64) -> bool {
        self.round != 0 && self.round <= synced
    }

    pub fn encode(&self) -> Vec<u8> {
        let (code, bits) = match &self.state {
            BlockState::Writing { dirty } => (1, Some(dirty)),
            BlockState::Sealed => (2, self.rewritten.as_ref()),
            BlockState::Filling { present } => (3, Some(present)),
        };
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        let flags = flag(self.flags.from_ufs, FLAG_FROM_UFS)
            | flag(self.flags.synced, FLAG_SYNCED)
            | flag(self.flags.cutting, FLAG_CUTTING)
            | flag(self.flags.in_index, FLAG_IN_INDEX)
            | flag(self.rewritten.is_some(), FLAG_REWRITTEN);
        let is_numbered = self.numbers != Numbers::default();
        let has_round = self.round != 0;
        let flags = flags | flag(is_numbered, FLAG_NUMBERED) | flag(has_round, FLAG_ROUND);
        let mut bytes = Vec::with_capacity(
            HEAD_BYTES + self.checksums.len() * 5 + NUMBERS_BYTES + ROUND_BYTES + MOUNT_BYTES,
        );
        let more = self.flags.more() | flag(self.mount.is_some(), FLAG_MOUNT);
        bytes.extend_from_slice(&[VERSION, code, flags, more]);
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.extend_from_slice(&self.len_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.accessed_ms.to_le_bytes());
        bytes.extend_from_slice(&to_u32(self.checksums.len()).to_le_bytes());
        for sum in &self.checksums {
            bytes.extend_from_slice(&sum.to_le_bytes());
        }
        if let Some(bits) = bits {
            assert_eq!(bits.len(), self.checksums.len(), "one bit per checksum");
            bytes.extend_from_slice(bits.as_bytes());
        }
        if is_numbered {
            bytes.extend_from_slice(&self.numbers.floor.to_le_bytes());
            bytes.extend_from_slice(&self.numbers.sealed.to_le_bytes());
        }
        if has_round {
            bytes.extend_from_slice(&self.round.to_le_bytes());
        }
        if let Some(MountId(mount)) = self.mount {
            bytes.extend_from_slice(&mount.to_le_bytes());
        }
        bytes
    }
}

/// A record as it lies in the index, checked but not copied.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    bytes: &'a [u8],
    chunks: usize,
}

impl<'a> RecordView<'a> {
    /// # Errors
    /// `Corrupt` if the bytes are no record, or of a newer version.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let corrupt = |what: &str| Error::new(ErrorKind::Corrupt, format!("block index record: {what}"));
        if bytes.len() < HEAD_BYTES {
            return Err(corrupt("too short"));
        }
        if bytes[0] != VERSION {
            return Err(corrupt(&format!(
                "version {} is not known to this program",
                bytes[0]
            )));
        }
        let view = RecordView {
            bytes,
            chunks: u32::from_le_bytes(fixed(bytes, 24)) as usize,
        };
        let bits = match bytes[1] {
            1 | 3 => view.chunks.div_ceil(8),
            2 if view.chunks == chunks_of(view.len_bytes()) && view.is_rewritten() => view.chunks.div_ceil(8),
            2 if view.chunks == chunks_of(view.len_bytes()) => 0,
            2 => return Err(corrupt("a sealed block lacks checksums")),
            _ => return Err(corrupt("unknown state")),
        };
        let numbers = if view.is_numbered() { NUMBERS_BYTES } else { 0 };
        let round = if view.has_round() { ROUND_BYTES } else { 0 };
        let mount = if view.has_mount() { MOUNT_BYTES } else { 0 };
        if bytes.len() != HEAD_BYTES + view.chunks * 4 + bits + numbers + round + mount {
            return Err(corrupt("wrong length"));
        }
        Ok(view)
    }

    pub fn is_sealed(&self) -> bool {
        self.bytes[1] == 2
    }

    pub fn is_filling(&self) -> bool {
        self.bytes[1] == 3
    }

    pub fn generation(&self) -> u32 {
        u32::from_le_bytes(fixed(self.bytes, 4))
    }

    pub fn len_bytes(&self) -> u64 {
        u64::from_le_bytes(fixed(self.bytes, 8))
    }

    pub fn accessed_ms(&self) -> i64 {
        i64::from_le_bytes(fixed(self.bytes, 16))
    }

    pub fn flags(&self) -> BlockFlags {
        let has = |bit: u8| self.bytes[2] & bit != 0;
        BlockFlags {
            from_ufs: has(FLAG_FROM_UFS),
            synced: has(FLAG_SYNCED),
            cutting: has(FLAG_CUTTING),
            in_index: has(FLAG_IN_INDEX),
            doubtful: self.is_doubtful(),
            pinned: self.bytes[3] & FLAG_PINNED != 0,
            guest: self.is_guest(),
            tier: self.tier(),
        }
    }

    /// Where it is wished to be.
    pub fn tier(&self) -> Option<Tier> {
        tier_of(self.bytes[3])
    }

    /// A copy of what another disk of this worker has.
    pub fn is_guest(&self) -> bool {
        self.bytes[3] & FLAG_GUEST != 0
    }

    pub fn is_doubtful(&self) -> bool {
        self.bytes[3] & FLAG_DOUBTFUL != 0
    }

    pub fn is_from_ufs(&self) -> bool {
        self.bytes[2] & FLAG_FROM_UFS != 0
    }

    /// The bytes are in the index and not in a file.
    pub fn is_in_index(&self) -> bool {
        self.bytes[2] & FLAG_IN_INDEX != 0
    }

    fn is_rewritten(&self) -> bool {
        self.bytes[1] == 2 && self.bytes[2] & FLAG_REWRITTEN != 0
    }

    fn is_numbered(&self) -> bool {
        self.bytes[2] & FLAG_NUMBERED != 0
    }

    fn has_round(&self) -> bool {
        self.bytes[2] & FLAG_ROUND != 0
    }

    fn has_mount(&self) -> bool {
        self.bytes[3] & FLAG_MOUNT != 0
    }

    /// See [`BlockRecord::mount`].
    pub fn mount(&self) -> Option<MountId> {
        let number = || u32::from_le_bytes(fixed(self.bytes, self.bytes.len() - MOUNT_BYTES));
        self.has_mount().then(|| MountId(number()))
    }

    /// See [`BlockRecord::counts_for`].
    pub fn counts_for(&self) -> Option<MountId> {
        self.mount().filter(|_| self.is_from_ufs())
    }

    /// The checksums of these chunks, cut at the end.
    pub fn checksums(&self, chunks: std::ops::Range<usize>) -> Vec<u32> {
        (chunks.start..chunks.end.min(self.chunks))
            .map(|chunk| u32::from_le_bytes(fixed(self.bytes, HEAD_BYTES + chunk * 4)))
            .collect()
    }

    /// # Errors
    /// `Corrupt` if the bits are malformed.
    pub fn to_record(self) -> Result<BlockRecord> {
        let number = |at| u64::from_le_bytes(fixed(self.bytes, at));
        let mut end = self.bytes.len();
        if self.has_mount() {
            end -= MOUNT_BYTES;
        }
        let mut round = 0;
        if self.has_round() {
            end -= ROUND_BYTES;
            round = number(end);
        }
        let mut numbers = Numbers::default();
        if self.is_numbered() {
            end -= NUMBERS_BYTES;
            numbers = Numbers {
                floor: number(end),
                sealed: number(end + 8),
            };
        }
        let rest = &self.bytes[..end];
        let bits = || {
            Bitmap::from_bytes(&rest[HEAD_BYTES + self.chunks * 4..], self.chunks)
                .ok_or_else(|| Error::new(ErrorKind::Corrupt, "block index record: malformed bits"))
        };
        let rewritten = self.is_rewritten().then(bits).transpose()?;
        let state = match self.bytes[1] {
            1 => BlockState::Writing { dirty: bits()? },
            3 => BlockState::Filling { present: bits()? },
            _ => BlockState::Sealed,
        };
        Ok(BlockRecord {
            generation: self.generation(),
            state,
            len_bytes: self.len_bytes(),
            checksums: self.checksums(0..self.chunks),
            accessed_ms: self.accessed_ms(),
            flags: self.flags(),
            rewritten,
            round,
            numbers,
            mount: self.mount(),
        })
    }
}

fn fixed<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has N bytes")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn golden_bytes_of_every_state() {
        let mut bits = Bitmap::new(2);
        bits.set(1);
        let sealed = BlockRecord::sealed(
            7,
            CHUNK_BYTES + 1,
            vec![0xAABB_CCDD, 1],
            1_000,
            BlockFlags {
                from_ufs: true,
                synced: true,
                cutting: false,
                in_index: false,
                doubtful: false,
                pinned: false,
                guest: false,
                tier: None,
            },
        );
        let small = BlockRecord::sealed(
            7,
            3,
            vec![1],
            1_000,
            BlockFlags {
                in_index: true,
                ..BlockFlags::default()
            },
        );
        let rewritten = BlockRecord {
            rewritten: Some(bits.clone()),
            ..sealed.clone()
        };
        let of_a_round = BlockRecord {
            numbers: Numbers { floor: 6, sealed: 5 },
            round: 9,
            ..rewritten.clone()
        };
        let pinned = BlockRecord {
            flags: BlockFlags {
                pinned: true,
                ..sealed.flags
            },
            ..sealed.clone()
        };
        let guest = BlockRecord {
            flags: BlockFlags {
                guest: true,
                tier: Some(Tier::Hdd),
                ..sealed.flags
            },
            ..sealed.clone()
        };
        let writing = BlockRecord {
            state: BlockState::Writing { dirty: bits.clone() },
            flags: BlockFlags {
                cutting: true,
                ..BlockFlags::default()
            },
            ..sealed.clone()
        };
        let filling = BlockRecord {
            state: BlockState::Filling { present: bits },
            ..sealed.clone()
        };
        let of_mount = of_a_round.clone().of_mount(Some(MountId(9)));
        assert_eq!(of_mount.counts_for(), Some(MountId(9)));
        let numbered = BlockRecord {
            numbers: Numbers { floor: 6, sealed: 5 },
            ..writing.clone()
        };
        let tail = "0700000001000100000000 00e803000000000000 02000000 ddccbbaa 01000000".replace(' ', "");
        for (record, golden) in [
            (&sealed, format!("01020300{tail}")),
            (&pinned, format!("01020302{tail}")),
            (&guest, format!("0102031c{tail}")),
            (&rewritten, format!("01021300{tail}02")),
            (
                &of_a_round,
                format!("01027300{tail}02 0600000000000000 0500000000000000 0900000000000000")
                    .replace(' ', ""),
            ),
            (
                &of_mount,
                format!("01027320{tail}02 0600000000000000 0500000000000000 0900000000000000 09000000")
                    .replace(' ', ""),
            ),
            (&writing, format!("01010400{tail}02")),
            (
                &numbered,
                format!("01012400{tail}02 0600000000000000 0500000000000000").replace(' ', ""),
            ),
            (&filling, format!("01030300{tail}02")),
            (
                &small,
                "0102080007000000 0300000000000000 e803000000000000 01000000 01000000".replace(' ', ""),
            ),
        ] {
            assert_eq!(hex(&record.encode()), golden);
            assert_eq!(
                &RecordView::parse(&record.encode()).unwrap().to_record().unwrap(),
                record
            );
        }
    }

    #[test]
    fn damaged_records_are_refused() {
        let good = BlockRecord::sealed(1, 10, vec![5], 0, BlockFlags::default()).encode();
        for (at, value) in [(0, 2), (1, 9), (8, 0), (24, 2)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(
                RecordView::parse(&bad).unwrap_err().kind,
                ErrorKind::Corrupt,
                "byte {at}"
            );
        }
        assert_eq!(
            RecordView::parse(&good[..27]).unwrap_err().kind,
            ErrorKind::Corrupt
        );
    }
}
