//! The worker with a mock master: the real actors, disks in scratch directories, objects in memory.

#![allow(clippy::unwrap_used)]

mod bench;
mod blocks;
mod copies;
mod eviction;
mod fences;
mod fills;
mod lending;
mod membership;
mod objects;
mod order;
mod pins;
mod quotas;
mod shedding;
mod tiers;
mod world;
