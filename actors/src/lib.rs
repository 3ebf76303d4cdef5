//! The actors of Curvine. One folder per subsystem; each `mod.rs` says what it owns.
//!
//! - [`kit`]: ports, the remote proxy and the listener: what every actor is built from.
//! - [`backup`]: backups of the namespace as files.
//! - [`client`]: the Rust client, reused by FUSE, `cv` and the Hadoop file system.
//! - `master`, `worker`, `ufs`: the servers, behind the feature `server`.

pub mod backup;
pub mod client;
#[cfg(feature = "server")]
pub mod crash_points;
#[cfg(test)]
mod documented;
#[cfg(feature = "server")]
mod durable;
#[cfg(feature = "server")]
mod format;
#[cfg(all(test, feature = "server"))]
mod golden;
pub mod kit;
#[cfg(feature = "server")]
pub mod master;
pub mod planted;
#[cfg(feature = "server")]
mod room;
#[cfg(feature = "server")]
pub mod ufs;
#[cfg(feature = "server")]
pub mod worker;
