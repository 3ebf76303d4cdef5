//! What every actor is built from.
//!
//! - [`port`]: [`Ask`], [`Answer`], [`Endpoint`]: one way to call, local or remote.
//! - [`ports`]: what the outside world gives a node: [`Clock`], [`Random`], [`Network`], [`Offload`].
//! - [`leader`]: who leads a group of masters, found by trying; [`backoff`]: the pauses between tries.
//! - [`metrics`]: what a node counts and times.
//! - [`wire`], [`peer`], [`listener`]: the same calls over a socket; [`threads`] serve them.
//! - [`host_socket`]: open files, between processes of one host.
//!
//! Invariant: nothing outside this folder reads the system's clock, draws a random number or opens a socket.

pub mod backoff;
pub mod deadlines;
pub mod host_socket;
#[cfg(test)]
mod hostile_tests;
pub mod leader;
pub mod listener;
pub mod metrics;
pub mod network;
pub mod peer;
pub mod port;
pub mod ports;
#[cfg(test)]
mod tests;
pub mod threads;
#[cfg(test)]
pub mod until;
pub mod wire;

pub use network::Network;
pub use port::{
    Answer, Ask, Body, Endpoint, FileRange, MasterPort, MasterRef, WorkerConnector, WorkerPort, WorkerRef,
    call,
};
pub use ports::{Clock, Offload, Ports, Random};
