//! A master service with several addresses: asks go to the leader, found by trying and by what refusals say.
//!
//! - [`search`]: whom to ask next, when, and when to give up. Pure.
//! - [`Masters`]: the shell that does it: the ports of the masters, and what all calls through them have learnt. A client's
//!   session has one.
//! - [`LeaderPort`]: the same as one port, for callers whose calls may be repeated as they are: a worker's registration,
//!   heartbeats and reports, and what it asks about files.
//!
//! Invariant: a call is asked of one master at a time, and ends when its limit says so.

pub mod search;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use actix::{Addr, ArbiterHandle};
use curvine_protocol::error::Retry;
use curvine_protocol::master::Echo;
use curvine_protocol::{Call, CallContext, Error, ErrorKind, Result};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};

use self::search::{Address, Decision, Event, Group, Limit, Search, Wanted};
use super::peer::Peer;
use super::port::{Answer, Ask, Endpoint};
use super::ports::Ports;

/// Pauses of a [`LeaderPort`] before the last error is the answer.
const PAUSES_MAX: u32 = 5;

/// A master that has not answered for this long may hang: whether another one leads is asked then, and again and again.
const SUSPECT_AFTER: Duration = Duration::from_millis(700);
const PROBE_DEADLINE_MS: u32 = 500;

/// Makes the port of a master at an address.
pub type Connect<M> = Box<dyn Fn(&str) -> Result<Arc<M>> + Send + Sync>;

/// The masters of a cluster, as one caller knows them.
pub struct Masters<M: ?Sized> {
    heard: Mutex<Heard<M>>,
    connect: Connect<M>,
    ports: Ports,
}

struct Heard<M: ?Sized> {
    group: Group,
    /// Of those that the group knows, and of the last one that was only named.
    ports: Vec<(Address, Arc<M>)>,
}

impl<M: ?Sized> Heard<M> {
    fn port(&self, at: &Address) -> Option<Arc<M>> {
        let found = self.ports.iter().find(|(address, _)| address == at);
        found.map(|(_, port)| port.clone())
    }
}

impl<M: ?Sized> Masters<M> {
    /// With the ports of the masters that were configured; those that are named later are connected to.
    ///
    /// # Errors
    /// `Config` without an address.
    pub fn new(masters: Vec<(String, Arc<M>)>, connect: Connect<M>, ports: Ports) -> Result<Masters<M>> {
        let masters: Vec<(Address, Arc<M>)> = masters
            .into_iter()
            .map(|(address, port)| (address.into(), port))
            .collect();
        let group = Group::new(masters.iter().map(|(address, _)| address.clone())).ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                "no master address: give --master HOST:PORT,... or set CURVINE_MASTER",
            )
        })?;
        let heard = Mutex::new(Heard {
            group,
            ports: masters,
        });
        Ok(Masters {
            heard,
            connect,
            ports,
        })
    }

    pub fn count(&self) -> usize {
        self.heard().group.known().len()
    }

    /// Makes a call as often, and of as many masters, as the search says.
    ///
    /// # Errors
    /// The callee's, if it is final; the last one when the search is given up.
    pub async fn ask<C: Call>(&self, ask: Ask<C>, mut search: Search) -> Result<Answer<C>>
    where
        M: Endpoint<C> + Endpoint<Echo>,
    {
        let mut event = Event::Ready;
        loop {
            let at = match self.decide(&mut search, event) {
                Decision::Ask(at) => at,
                Decision::Wait(pause) => {
                    tokio::time::sleep(pause).await;
                    event = Event::Ready;
                    continue;
                }
                Decision::GiveUp(error) => return Err(error),
            };
            let answer = match (self.port(&at), search.wanted()) {
                (Ok(port), Wanted::Leader) => tokio::select! {
                    answer = Endpoint::<C>::ask(&*port, ask.clone()) => answer,
                    // The one that was asked hangs, or is cut off.
                    leader = self.another_leads(&at) => {
                        event = Event::AnotherLeads(leader);
                        continue;
                    }
                },
                (Ok(port), Wanted::Anybody(_)) => Endpoint::<C>::ask(&*port, ask.clone()).await,
                (Err(error), _) => Err(error),
            };
            match answer {
                Ok(answer) => {
                    search.answered(&mut self.heard().group);
                    return Ok(answer);
                }
                Err(error) => event = Event::Refused(error),
            }
        }
    }

    fn heard(&self) -> MutexGuard<'_, Heard<M>> {
        self.heard.lock().expect("nobody panics while it holds this")
    }

    fn decide(&self, search: &mut Search, event: Event) -> Decision {
        let (now, chance) = (self.ports.clock.now(), self.ports.random.next_u64());
        search.next(&mut self.heard().group, event, now, chance)
    }

    fn port(&self, at: &Address) -> Result<Arc<M>> {
        if let Some(port) = self.heard().port(at) {
            return Ok(port);
        }
        let port = (self.connect)(at)?;
        let mut heard = self.heard();
        if let Some(port) = heard.port(at) {
            return Ok(port);
        }
        let Heard { group, ports } = &mut *heard;
        ports.retain(|(address, _)| group.known().contains(address));
        ports.push((at.clone(), port.clone()));
        Ok(port)
    }

    /// Resolves once another known master than the one at `at` says that it leads. Never if none does.
    async fn another_leads(&self, at: &Address) -> Address
    where
        M: Endpoint<Echo>,
    {
        loop {
            tokio::time::sleep(SUSPECT_AFTER).await;
            let others = {
                let heard = self.heard();
                let others = heard.group.known().iter().filter(|other| *other != at);
                let ports = others.filter_map(|other| Some((other.clone(), heard.port(other)?)));
                ports.collect::<Vec<_>>()
            };
            let mut probes: FuturesUnordered<_> = others
                .into_iter()
                .map(|(other, port)| async move {
                    let context = CallContext {
                        deadline_ms: PROBE_DEADLINE_MS,
                        ..CallContext::default()
                    };
                    let answered = Endpoint::<Echo>::ask(&*port, Ask::new(Echo {}, context)).await;
                    answered.is_ok().then_some(other)
                })
                .collect();
            while let Some(answer) = probes.next().await {
                if let Some(leader) = answer {
                    return leader;
                }
            }
        }
    }
}

/// The port. Cheap to clone; all clones share what they learnt.
#[derive(Clone)]
pub struct LeaderPort {
    masters: Arc<Masters<Addr<Peer>>>,
}

impl LeaderPort {
    /// Starts a proxy for each address in an arbiter, where those of masters that are named later will be, too.
    ///
    /// # Errors
    /// `Config` without an address.
    pub fn start(arbiter: ArbiterHandle, addresses: &[String], ports: &Ports) -> Result<LeaderPort> {
        let connect = {
            let ports = ports.clone();
            move |address: &str| Arc::new(Peer::start(&arbiter, address, &ports))
        };
        let masters = addresses
            .iter()
            .map(|address| (address.clone(), connect(address)));
        let masters = Masters::new(
            masters.collect(),
            Box::new(move |address| Ok(connect(address))),
            ports.clone(),
        )?;
        Ok(LeaderPort {
            masters: Arc::new(masters),
        })
    }
}

impl<C: Call> Endpoint<C> for LeaderPort {
    fn ask(&self, ask: Ask<C>) -> BoxFuture<'static, Result<Answer<C>>> {
        let passes = |error: &Error| error.kind.retry() == Retry::Elsewhere;
        let search = Search::new(Wanted::Leader, Limit::Pauses(PAUSES_MAX), passes);
        let masters = self.masters.clone();
        Box::pin(async move { masters.ask(ask, search).await })
    }
}
