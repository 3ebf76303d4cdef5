//! Fills blocks from under file systems: for readers as they read, for the master as it asks.
//!
//! Owns the fills under way. Each block is filled by one fill, which fetches every chunk once for any number of
//! readers, writes it as it arrives and answers whoever waits for it. A whole block is sealed and reported.
//!
//! - pure: [`fills`] decides what each event leads to, [`plan`] what of a block is fetched when.
//! - [`open`]: the opening of a block; [`resolve`]: what it is filled with; [`mounts`]: the stores, by their options as they
//!   are now; [`transfer`]: its bytes on their way, in memory of a [`budget`].
//! - [`answer`]: the replies. [`actor`]: carries out what was decided.
//!
//! Invariants:
//! - One fill reads one version of the object: when the object changes, what was filled is dropped.
//! - What is filled when its block is deleted ends, and leaves nothing behind.
//! - Bytes in memory on their way to the disk are within the budgets, one for readers and one for loads, but
//!   for one transfer of each mount: a store that is silent holds up no other.
//! - A reader is answered only with bytes whose checksum was computed from what arrived.

mod actor;
mod answer;
mod budget;
mod fills;
mod mounts;
mod open;
mod peers;
mod plan;
mod resolve;
mod transfer;

pub use actor::{ReadThrough, StopReader, Suspect, UfsReader};
pub use budget::Budget;
pub use resolve::Resolver;
