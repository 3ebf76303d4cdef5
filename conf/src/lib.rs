//! The configuration of every Curvine process: one typed, documented tree.
//!
//! - [`Config`]: the tree. Every field is declared once, with its documentation, its type and its default.
//! - [`load`]: reads it in layers, weakest first: defaults, the file, `CURVINE_*` variables, flags.
//! - [`render`]: `curvine.toml` and `REFERENCE.md`, made from the same declarations.
//!
//! Invariants: an unknown key, or a value of the wrong shape or out of its range, is refused, naming where it was found; every quantity is
//! written with its unit; the rendered files in this folder are what the code says (tested).

mod data_dir;
mod labels;
mod layers;
pub mod render;
mod section;
mod tree;
mod units;

pub use data_dir::DataDir;
pub use labels::WorkerLabels;
pub use layers::{Loaded, Sources, load};
pub use tree::*;
pub use units::{
    Address, Advertise, EvictionPolicy, FsyncPolicy, LogFormat, LogLevel, Peer, Reserve, Size, Span,
    WebAddress,
};
