//! What every test of whole systems shares: real processes, a reference model, and random operations to compare
//! anything that is a file system with it.
//!
//! - [`process`]: nodes as processes on free ports, killed and cleaned up when dropped. [`wait`]: for a condition.
//! - [`model`]: the reference file system.
//! - [`random`]: random operations, replay by seed, shrinking.
//! - [`history`] and [`linearizability`]: whether what clients saw can be.
//! - [`directory`] and [`remote`]: a directory of this machine and a cluster, seen as what the model is. [`several`]: two
//!   mounts of one cluster, seen so. [`stored`]: a writable mount, and the directory below it.

pub mod directory;
pub mod history;
pub mod linearizability;
pub mod model;
pub mod process;
pub mod random;
pub mod remote;
pub mod several;
pub mod stored;
pub mod wait;
