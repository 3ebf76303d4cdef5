//! The master: the namespace, replicated by Raft; the workers and their blocks; mounts and jobs.

pub mod contract;
pub mod door;
pub mod namespace;
pub mod replica;
#[cfg(test)]
mod tests;
