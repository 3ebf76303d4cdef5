//! A master service with several addresses: asks go to the leader, found by trying and by what refusals say.
//!
//! For callers whose calls may be repeated as they are: a worker's registration, heartbeats and reports, and what it
//! asks about files. Clients, whose mutations carry sequences, have retries of their own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use actix::{Addr, ArbiterHandle};
use curvine_protocol::error::Retry;
use curvine_protocol::master::Echo;
use curvine_protocol::{Call, CallContext, Error, ErrorKind, Result};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;

use super::peer::Peer;
use super::port::{Answer, Ask, Endpoint};
use super::ports::Ports;

/// Attempts before the last error is the answer.
const ATTEMPTS_MAX: usize = 6;
/// Masters that a caller keeps in mind.
pub const MASTERS_MAX: usize = 32;
const PAUSE: Duration = Duration::from_millis(100);

/// A master that has not answered for this long may hang: whether another one leads is asked then, and again and again.
const SUSPECT_AFTER: Duration = Duration::from_millis(700);
const PROBE_DEADLINE_MS: u32 = 500;

/// Resolves once another master than the one at `at` says that it leads, by its place among `count`. Never if none does.
pub async fn another_leads(
    count: usize,
    at: usize,
    echo: impl Fn(usize, Ask<Echo>) -> BoxFuture<'static, Result<Answer<Echo>>>,
) -> usize {
    loop {
        tokio::time::sleep(SUSPECT_AFTER).await;
        let others = (0..count).filter(|&other| other != at);
        let mut probes: FuturesUnordered<_> = others
            .map(|other| {
                let context = CallContext {
                    deadline_ms: PROBE_DEADLINE_MS,
                    ..CallContext::default()
                };
                let answered = echo(other, Ask::new(Echo {}, context));
                async move { answered.await.is_ok().then_some(other) }
            })
            .collect();
        while let Some(answer) = probes.next().await {
            if let Some(leader) = answer {
                return leader;
            }
        }
    }
}

/// By address.
type Masters = Vec<(String, Addr<Peer>)>;

/// The port. Cheap to clone; all clones share what they learnt.
#[derive(Clone)]
pub struct LeaderPort {
    /// Those that were named, and leaders that these named since.
    masters: Arc<Mutex<Masters>>,
    arbiter: ArbiterHandle,
    ports: Ports,
    /// Index of the master that led last.
    leader: Arc<AtomicUsize>,
}

impl LeaderPort {
    /// Starts a proxy for each address in an arbiter, where those of masters that are named later will be, too.
    ///
    /// # Errors
    /// `Config` without an address.
    pub fn start(arbiter: ArbiterHandle, addresses: &[String], ports: &Ports) -> Result<LeaderPort> {
        if addresses.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                "no master address: give --master HOST:PORT,... or CURVINE_MASTER",
            ));
        }
        let masters = addresses
            .iter()
            .map(|address| (address.clone(), Peer::start(&arbiter, address, ports)))
            .collect();
        Ok(LeaderPort {
            masters: Arc::new(Mutex::new(masters)),
            arbiter,
            ports: ports.clone(),
            leader: Arc::default(),
        })
    }

    fn masters(&self) -> MutexGuard<'_, Masters> {
        self.masters.lock().expect("nobody panics while it holds this")
    }

    /// A master's place in the list, where it is put if it is new.
    fn place_of(&self, address: &str) -> Option<usize> {
        let mut masters = self.masters();
        let known = masters.iter().position(|(known, _)| known == address);
        if known.is_none() && masters.len() < MASTERS_MAX {
            let master = Peer::start(&self.arbiter, address, &self.ports);
            masters.push((address.to_owned(), master));
            return Some(masters.len() - 1);
        }
        known
    }

    async fn ask_leader<C: Call>(self, ask: Ask<C>) -> Result<Answer<C>> {
        let mut attempt = 0;
        loop {
            let count = self.masters().len();
            let at = self.leader.load(Ordering::Relaxed) % count;
            let master = |place: usize| self.masters()[place].1.clone();
            let echo = |other: usize, ask| Endpoint::<Echo>::ask(&master(other), ask);
            let answer = tokio::select! {
                answer = Endpoint::<C>::ask(&master(at), ask.clone()) => answer,
                leader = another_leads(count, at, echo) => {
                    self.leader.store(leader, Ordering::Relaxed);
                    continue;
                }
            };
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            attempt += 1;
            if error.kind.retry() != Retry::Elsewhere || attempt >= ATTEMPTS_MAX {
                return Err(error);
            }
            let named = error.leader.as_ref().and_then(|leader| self.place_of(leader));
            self.leader.store(named.unwrap_or(at + 1), Ordering::Relaxed);
            if named.is_none() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl<C: Call> Endpoint<C> for LeaderPort {
    fn ask(&self, ask: Ask<C>) -> BoxFuture<'static, Result<Answer<C>>> {
        Box::pin(self.clone().ask_leader(ask))
    }
}
