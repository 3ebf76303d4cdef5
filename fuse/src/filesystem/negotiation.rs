//! What is agreed with the kernel when it mounts: abilities, and the sizes of requests.

use fuser::{InitFlags, KernelConfig};

/// The kernel sends no more in one request (FUSE_MAX_MAX_PAGES).
const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// Read-ahead and other requests that nobody waits for yet.
const BACKGROUND_MAX: u16 = 64;

/// Asks for what helps; a kernel that lacks something is served without it.
///
/// Without `locks`, the kernel keeps locks of programs by itself, for this mount alone.
pub(super) fn agree(config: &mut KernelConfig, locks: bool) {
    let of_locks = [InitFlags::FUSE_POSIX_LOCKS, InitFlags::FUSE_FLOCK_LOCKS];
    let wanted = [
        InitFlags::FUSE_ASYNC_READ,
        InitFlags::FUSE_BIG_WRITES,
        InitFlags::FUSE_DO_READDIRPLUS,
        InitFlags::FUSE_READDIRPLUS_AUTO,
        InitFlags::FUSE_PARALLEL_DIROPS,
        InitFlags::FUSE_ASYNC_DIO,
        InitFlags::FUSE_CACHE_SYMLINKS,
        // The umask comes beside the mode: in a directory with default entries it does not count.
        InitFlags::FUSE_DONT_MASK,
        // What is opened to append passes by the pages, and may be mapped all the same.
        InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
        // Without it, the kernel asks for `security.capability` before every write.
        InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    ];
    for flag in wanted.into_iter().chain(of_locks.into_iter().filter(|_| locks)) {
        if config.add_capabilities(flag).is_err() {
            tracing::debug!("the kernel has no {flag:?}");
        }
    }
    let limits = [
        config.set_max_write(REQUEST_BYTES_MAX).is_ok(),
        config.set_max_background(BACKGROUND_MAX).is_ok(),
    ];
    debug_assert_eq!(limits, [true; 2]);
    // The kernel's own limit is what it offers.
    if let Err(nearest) = config.set_max_readahead(REQUEST_BYTES_MAX) {
        let _ = config.set_max_readahead(nearest);
    }
}
