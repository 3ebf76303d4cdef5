//! The FUSE file system: the kernel's requests, answered by the Curvine client.
//!
//! - [`mount`](mod@mount): mounting, mounting over what a killed process left, unmounting.
//! - `filesystem`: the thin shell that takes a request apart and puts the reply together.
//! - `core`: what an operation does; one file per family (`names`, `content`, `directories`).
//! - `acls`: access control lists as the kernel has them.
//! - `files`: the open files, one per inode whatever the number of handles.
//! - `inodes`: what the kernel has of each inode, so that its caches are dropped when they must be.
//! - `reads`: reads under way, in their order.
//! - `walks`: opens of names that mean another file by now.
//! - `runner`: where a request's work runs.
//!
//! Inode numbers are the namespace's: the kernel's `forget` has nothing to forget here.
//!
//! Invariants: a file that is opened after its writer closed it is seen as it was closed, whatever the kernel caches;
//! every request ends within the client's deadlines; what is open here stays readable whoever removes it.

mod acls;
mod convert;
mod core;
mod files;
mod filesystem;
mod inodes;
pub mod mount;
mod reads;
mod runner;
mod walks;

pub use mount::{MountOptions, Mounted, mount};
