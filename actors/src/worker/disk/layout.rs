//! Where things lie in a data directory, and whether they are from before a power cut.
//!
//! `blocks/XX/ID` raw block data (byte 0 of the file is byte 0 of the block; ID in hexadecimal, XX its last byte), beside it
//! `ID.GENERATION.copy` a replica that is being made,
//! `index/` the index, `quarantine/` replicas of which a chunk failed its checksum, with the checksums of all chunks in `.sums`,
//! until enough others are there, `probe` what is written to see whether the disk works.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use curvine_protocol::{BlockId, Error, Result};
use rustix::fs::{AtFlags, StatxFlags};

pub fn block_path(root: &Path, block: BlockId) -> PathBuf {
    root.join(format!("blocks/{:02x}/{:016x}", block.0 & 0xff, block.0))
}

/// Where a replica is made of this generation of a block. No name of a block: a start removes it.
pub fn copy_path(root: &Path, block: BlockId, generation: u32) -> PathBuf {
    let name = format!("{:016x}.{generation}.copy", block.0);
    block_path(root, block).with_file_name(name)
}

/// What is written from time to time to see whether it can be.
pub fn probe_path(root: &Path) -> PathBuf {
    root.join("probe")
}

pub fn index_path(root: &Path) -> PathBuf {
    root.join("index")
}

pub fn quarantine_path(root: &Path, block: BlockId, generation: u32) -> PathBuf {
    root.join(format!("quarantine/{:016x}-{generation}", block.0))
}

/// The checksums of the chunks of what is at [`quarantine_path`].
pub fn sums_path(root: &Path, block: BlockId, generation: u32) -> PathBuf {
    root.join(format!("quarantine/{:016x}-{generation}.sums", block.0))
}

/// The blocks of which replicas were set aside, each once, the first of them.
///
/// # Errors
/// As the file system says.
pub fn set_aside(root: &Path, limit: usize) -> Result<BTreeSet<BlockId>> {
    let directory = root.join("quarantine");
    let read =
        |e: std::io::Error| Error::from(e).while_doing(format_args!("listing {}", directory.display()));
    let mut blocks = BTreeSet::new();
    for entry in std::fs::read_dir(&directory).map_err(read)? {
        if let Some((block, _)) = quarantined(&entry.map_err(read)?.file_name()) {
            blocks.insert(block);
        }
        if blocks.len() >= limit {
            break;
        }
    }
    Ok(blocks)
}

/// Removes what was set aside of blocks.
///
/// # Errors
/// As the file system says.
pub fn discard(root: &Path, blocks: &BTreeSet<BlockId>) -> Result<()> {
    let directory = root.join("quarantine");
    let fails =
        |e: std::io::Error| Error::from(e).while_doing(format_args!("emptying {}", directory.display()));
    for entry in std::fs::read_dir(&directory).map_err(fails)? {
        let entry = entry.map_err(fails)?;
        if quarantined(&entry.file_name()).is_some_and(|(block, _)| blocks.contains(&block)) {
            std::fs::remove_file(entry.path()).map_err(fails)?;
        }
    }
    Ok(())
}

/// The block and the generation that a name in `quarantine/` stands for.
fn quarantined(name: &OsStr) -> Option<(BlockId, u32)> {
    let name = name.to_str()?;
    let (block, generation) = name.strip_suffix(".sums").unwrap_or(name).split_once('-')?;
    let block = u64::from_str_radix(block, 16).ok()?;
    Some((BlockId(block), generation.parse().ok()?))
}

/// Makes every directory that blocks go to.
///
/// # Errors
/// As the file system says.
pub fn create_directories(root: &Path) -> Result<()> {
    let make = |path: PathBuf| {
        std::fs::create_dir_all(&path)
            .map_err(|e| Error::from(e).while_doing(format_args!("creating {}", path.display())))
    };
    for shard in 0..=255u8 {
        make(root.join(format!("blocks/{shard:02x}")))?;
    }
    make(root.join("quarantine"))
}

/// Calls `visit` with every file below `blocks/` and the block its name stands for.
///
/// # Errors
/// As the file system says.
pub fn visit_files(root: &Path, mut visit: impl FnMut(PathBuf, Option<BlockId>)) -> Result<()> {
    for shard in 0..=255u8 {
        let directory = root.join(format!("blocks/{shard:02x}"));
        let read =
            |e: std::io::Error| Error::from(e).while_doing(format_args!("listing {}", directory.display()));
        for entry in std::fs::read_dir(&directory).map_err(read)? {
            let entry = entry.map_err(read)?;
            let block = entry
                .file_name()
                .to_str()
                .and_then(|name| u64::from_str_radix(name, 16).ok())
                .map(BlockId)
                .filter(|&block| block_path(root, block) == entry.path());
            visit(entry.path(), block);
        }
    }
    Ok(())
}

/// This boot of the kernel and this mount of the directory's file system: the page cache survives a killed process,
/// but not these changing.
///
/// # Errors
/// As the file system says.
pub fn run_token(root: &Path) -> Result<String> {
    /// `STATX_MNT_ID_UNIQUE` (Linux 6.8): an id that no other mount has until the next boot.
    const MOUNT_ID_UNIQUE: u32 = 0x4000;
    let token = || -> std::io::Result<String> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let directory = std::fs::File::open(root)?;
        let flags = StatxFlags::from_bits_retain(MOUNT_ID_UNIQUE);
        let status = rustix::fs::statx(&directory, "", AtFlags::EMPTY_PATH, flags)?;
        // An older kernel leaves the bit unset: then only boots are told apart.
        let known = status.stx_mask & MOUNT_ID_UNIQUE != 0;
        Ok(format!(
            "{} {}",
            boot.trim(),
            if known { status.stx_mnt_id } else { 0 }
        ))
    };
    token()
        .map_err(|e| Error::from(e).while_doing(format_args!("identifying the mount of {}", root.display())))
}
