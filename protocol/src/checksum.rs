//! CRC32C (Castagnoli, as in iSCSI, RFC 3720 appendix B.4) per chunk of a block.

use crc_fast::CrcAlgorithm;

/// Bytes under one checksum. Chunk `i` of a block covers bytes `i * CHUNK_BYTES ..`; the last may be short.
pub const CHUNK_BYTES: u64 = 64 * 1024;

pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// The checksums of consecutive chunks; `bytes` starts at a chunk's start.
pub fn chunk_checksums(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(CHUNK_BYTES as usize).map(crc32c).collect()
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
        let bytes = vec![7u8; CHUNK_BYTES as usize + 1];
        assert_eq!(
            chunk_checksums(&bytes),
            vec![crc32c(&bytes[..CHUNK_BYTES as usize]), crc32c(&[7])]
        );
    }
}
