//! The threads that serve connections: arbiters, one a core unless configured otherwise.

use std::num::NonZero;
use std::thread::available_parallelism;

use actix::Arbiter;
use curvine_protocol::{Error, ErrorKind, Result};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Arbiters that run until this is dropped.
pub struct Threads {
    arbiters: Vec<Arbiter>,
    handles: Vec<Handle>,
}

impl Threads {
    /// Starts so many; 0: one a core.
    pub async fn start(count: u64) -> Result<Self> {
        let count = match count {
            0 => available_parallelism().map_or(1, NonZero::get),
            count => count.min(1_024) as usize,
        };
        let mut threads = Threads {
            arbiters: Vec::new(),
            handles: Vec::new(),
        };
        for _ in 0..count {
            let arbiter = Arbiter::new();
            let (tell, told) = oneshot::channel();
            arbiter.spawn_fn(move || drop(tell.send(Handle::current())));
            threads.arbiters.push(arbiter);
            let ended = |_| Error::new(ErrorKind::Internal, "a thread for connections ended at its start");
            threads.handles.push(told.await.map_err(ended)?);
        }
        Ok(threads)
    }

    /// Where to serve connections, in turn.
    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
    }
}
