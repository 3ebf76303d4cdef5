//! The worker.

pub mod disk;
