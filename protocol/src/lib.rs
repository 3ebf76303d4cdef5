//! What Curvine nodes can say to each other.
//!
//! This crate holds the vocabulary and nothing that acts: ids, paths, attributes, errors, the typed calls of the
//! two services ([`master`] and [`worker`]), the commands that the master replicates ([`op`]) and the [`frame`]
//! that carries all of it over a socket. No I/O, no clock, no random number.
//!
//! Invariants:
//! - Every [`Call`] has one code, unique for ever; a retired code is never reused.
//! - Messages and records are MessagePack in compact (positional) form: fields are only ever appended, each new
//!   one with `#[serde(default)]`, and a reader passes over those it does not know ([`codec`]). The golden files in
//!   `protocol/tests/golden` show every message to the byte.
//! - Units are in the names: `_ns` nanoseconds since the Unix epoch, `_ms` milliseconds, `_bytes` bytes.

pub mod acl;
pub mod attr;
pub mod backup;
pub mod call;
pub mod checksum;
pub mod cluster;
pub mod codec;
pub mod error;
pub mod frame;
pub mod ids;
pub mod job;
pub mod master;
pub mod mount;
pub mod number;
pub mod op;
pub mod path;
pub mod worker;

pub use acl::{AclEntry, AclScope, AclWho};
pub use attr::{
    Attr, BlockRef, DamagedBlock, DirEntry, FILE_BYTES_MAX, FileKind, FileLayout, KeptAttributes,
    LocatedBlock, UfsVersion,
};
pub use call::{Call, CallContext};
pub use error::{Error, ErrorKind, Result};
pub use ids::*;
pub use op::Mutation;
pub use path::{CurvinePath, Node};

/// Every call of both services, for macros that name calls without their service.
pub mod master_or_worker {
    pub use crate::master::*;
    pub use crate::worker::*;
}
