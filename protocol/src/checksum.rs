//! CRC32C (Castagnoli, as in iSCSI, RFC 3720 appendix B.4) per chunk of a block.

use crc_fast::{CrcAlgorithm, Digest};

use crate::number::to_usize;

/// Bytes under one checksum. Chunk `i` of a block covers bytes `i * CHUNK_BYTES ..`; the last may be short.
pub const CHUNK_BYTES: u64 = 64 * 1024;

/// The checksum of some bytes. Its check value (of `123456789`) is `0xE3069283`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    of_32_bits(crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes))
}

/// The checksums of consecutive chunks; `bytes` starts at a chunk's start.
pub fn chunk_checksums(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(to_usize(CHUNK_BYTES)).map(crc32c).collect()
}

/// The checksum of bytes that lie in several pieces.
pub fn crc32c_of_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    pieces.into_iter().for_each(|piece| digest.update(piece));
    of_32_bits(digest.finalize())
}

/// The checksum of two byte strings in a row, from theirs; the second is `second_bytes` long.
pub fn crc32c_combine(first: u32, second: u32, second_bytes: u64) -> u32 {
    of_32_bits(crc_fast::checksum_combine(
        CrcAlgorithm::Crc32Iscsi,
        first.into(),
        second.into(),
        second_bytes,
    ))
}

fn of_32_bits(checksum: u64) -> u32 {
    checksum.try_into().expect("a CRC32C has 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_crc32c_holds() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn a_short_last_chunk_has_its_own_checksum() {
        let bytes = vec![7u8; to_usize(CHUNK_BYTES) + 1];
        assert_eq!(
            chunk_checksums(&bytes),
            vec![crc32c(&bytes[..to_usize(CHUNK_BYTES)]), crc32c(&[7])]
        );
    }

    #[test]
    fn pieces_and_halves_give_the_checksum_of_the_whole() {
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i * 7).to_le_bytes()[0]).collect();
        for cut in [0, 1, 4_096, 70_000, 200_000] {
            let (head, tail) = bytes.split_at(cut);
            assert_eq!(crc32c_of_pieces([head, tail]), crc32c(&bytes));
            assert_eq!(
                crc32c_combine(crc32c(head), crc32c(tail), tail.len() as u64),
                crc32c(&bytes)
            );
        }
    }
}
