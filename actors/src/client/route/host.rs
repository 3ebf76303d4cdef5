//! Where a client's proxies live: a thread with an actix system, since a client works in any runtime.

use std::sync::OnceLock;

use actix::{Addr, ArbiterHandle};
use curvine_protocol::{Error, Result};

use crate::kit::Ports;
use crate::kit::peer::Peer;

/// The proxies of one session. A session of one process starts no thread until it meets a node of another process.
pub(super) struct Proxies {
    host: OnceLock<Host>,
    ports: Ports,
}

struct Host {
    arbiter: ArbiterHandle,
    system: actix_rt::System,
}

impl Proxies {
    pub fn new(ports: Ports) -> Proxies {
        Proxies {
            host: OnceLock::new(),
            ports,
        }
    }

    /// The proxy of the node at this address. Nothing is connected yet.
    ///
    /// # Errors
    /// The system's, if it has no thread left.
    pub fn peer(&self, address: &str) -> Result<Addr<Peer>> {
        Ok(Peer::start(self.arbiter()?, address, &self.ports))
    }

    /// As [`Proxies::peer`].
    pub fn arbiter(&self) -> Result<&ArbiterHandle> {
        if let Some(host) = self.host.get() {
            return Ok(&host.arbiter);
        }
        // Of two that are started at once, one goes again.
        let host = Host::start()?;
        Ok(&self.host.get_or_init(|| host).arbiter)
    }
}

impl Host {
    fn start() -> Result<Host> {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("curvine-client".to_owned())
            .spawn(move || {
                let runner = actix_rt::System::new();
                let _ = tell.send((actix_rt::Arbiter::current(), actix_rt::System::current()));
                if let Err(error) = runner.run() {
                    tracing::error!(%error, "the client's system ended with an error");
                }
            })
            .map_err(|e| Error::from(e).while_doing("starting the client's thread"))?;
        let (arbiter, system) = told
            .recv()
            .map_err(|_| Error::internal("the client's thread ended before it began"))?;
        Ok(Host { arbiter, system })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.system.stop();
    }
}
