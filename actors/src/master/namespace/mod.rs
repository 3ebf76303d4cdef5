//! The namespace: the inode tree and everything that is replicated with it.
//!
//! - [`records`]: what one inode looks like on disk.
//! - [`store`]: the heed environment and its databases.
//! - [`resolve`]: from a path or name to an inode, following links.
//! - [`sessions`]: whether a command of a session is carried out.
//! - [`locks`]: which locks of programs go together.
//! - [`detached`]: trees that were cut off and go in the background.
//! - [`acl`]: what changes make of access control lists, and what children inherit; pure.
//! - [`effects`]: what is to be done in under file systems.
//! - [`apply`]: one command against the state; pure but for the transaction it is given.
//! - [`view`]: consistent reads; [`listing`]: of a directory, a page at a time.
//! - [`opens`]: which client has which file open, so that what loses its last name stays for those; [`holding`]: the same
//!   for one change.
//! - [`actor`]: the thin shell that clients ask; [`leases`]: what it does where a lease is in the way.
//!
//! Invariants:
//! - Every inode but the root, the orphans and the tops of detached trees has exactly `nlink` dentries (a directory has
//!   one dentry, and `nlink` is two plus its subdirectories).
//! - An inode's mount never changes; a dentry leads from one mount into another only at a mount point.
//! - A block id belongs to at most one file; the `blocks` database knows every block of every file.
//! - A command that fails changes nothing but the record of its reply.

pub mod acl;
pub mod actor;
pub mod apply;
pub mod balance;
pub mod detached;
pub mod effects;
pub mod expiry;
#[cfg(test)]
mod golden;
pub mod holding;
pub mod kept;
pub mod leases;
mod listing;
pub mod locks;
pub mod opens;
pub mod pins;
pub mod quotas;
pub mod records;
pub mod recovery;
pub mod resolve;
pub mod services;
pub mod sessions;
pub mod store;
#[cfg(test)]
mod tests;
mod tiers;
pub mod view;
