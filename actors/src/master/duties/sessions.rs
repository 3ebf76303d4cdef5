//! Ends the sessions of clients that were not heard of: their leases and nameless files are given back.
//!
//! Only silence counts that this leader would have noticed being broken: by a clock that never steps, since it leads, and
//! while it ran and could take what clients said. Where that is not certain (it was stopped or starved, it had to refuse
//! changes, it lost its majority) every session gets a whole period from then on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use curvine_protocol::master::{SESSION_EXPIRE_MS, Unlink};
use curvine_protocol::op::{Op, SilentSession};
use curvine_protocol::{ClientId, ErrorKind, Result};
use tokio::time::Instant;

use super::Duty;
use crate::kit::Clock;
use crate::master::contract::{Consensus, NamespaceView, ProposeOp};
use crate::master::namespace::sessions::{ENDED_KEPT_NS, SessionRecord};
use crate::planted::{Bug, is_planted};

/// How often this leader looks who was heard of.
const EVERY: Duration = Duration::from_secs(2);
/// Without a look for so long, it was stopped or starved.
const GAP: Duration = Duration::from_secs(6);
const EXPIRE: Duration = Duration::from_millis(SESSION_EXPIRE_MS);
/// How much longer a session lasts at most whose unfinished file is on its way to a store.
const EXPORT_WAIT: Duration = Duration::from_secs(60);
/// Sessions that end with one command.
const ENDED_AT_ONCE: usize = 64;

/// How long sessions have been silent. Shared by who expires them and who breaks leases.
#[derive(Default)]
pub struct Hearing {
    silence: Mutex<Silence>,
    refused: AtomicU64,
}

impl Hearing {
    /// A client said something that this leader could not take.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// For how long at least the client of a session was silent, that was heard of last at this time of the record.
    pub fn silent_for(&self, client: ClientId, heard_ns: i64) -> Duration {
        self.silence().silent_for(client, heard_ns)
    }

    /// The client of a session said something that changes nothing, and is in no record.
    pub fn heard(&self, client: ClientId) {
        self.silence().heard(client);
    }

    fn silence(&self) -> MutexGuard<'_, Silence> {
        self.silence
            .lock()
            .expect("nobody panics while it holds who is silent")
    }
}

/// The core: pure, the time is an argument.
#[derive(Default)]
struct Silence {
    looked: Option<Instant>,
    /// The time in which this leader could hear.
    listened: Duration,
    /// When each session was last known to be heard of, and what its record said then.
    since: HashMap<ClientId, (i64, Duration)>,
    refused: u64,
}

impl Silence {
    /// This master begins to lead: it has heard of nobody yet, and nobody could have told it.
    fn begin(&mut self) {
        *self = Silence::default();
    }

    /// Looks at the sessions as they are recorded. Those that have been silent for too long.
    fn look(
        &mut self,
        now: Instant,
        refused: u64,
        sessions: &[(ClientId, SessionRecord)],
    ) -> Vec<SilentSession> {
        let passed = self.looked.map_or(Duration::ZERO, |looked| now - looked);
        self.looked = Some(now);
        if (passed > GAP || refused != self.refused) && !is_planted(Bug::SilenceWhileStopped) {
            self.since.clear();
        }
        self.refused = refused;
        self.listened += match is_planted(Bug::SilenceWhileStopped) {
            false => passed.min(EVERY),
            true => passed,
        };
        let before = std::mem::take(&mut self.since);
        for (client, session) in sessions.iter().filter(|(_, session)| !session.is_ended) {
            let since = match before.get(client) {
                Some((heard_ns, since)) if *heard_ns == session.heard_ns => *since,
                _ => self.listened,
            };
            self.since.insert(*client, (session.heard_ns, since));
        }
        let silent = self
            .since
            .iter()
            .filter(|(_, (_, since))| self.listened.saturating_sub(*since) >= EXPIRE);
        silent
            .map(|(client, (heard_ns, _))| SilentSession {
                client: *client,
                heard_ns: *heard_ns,
            })
            .collect()
    }

    fn heard(&mut self, client: ClientId) {
        if let Some((_, since)) = self.since.get_mut(&client) {
            // Counted from the next look on.
            *since = self.listened + EVERY;
        }
    }

    fn silent_for(&self, client: ClientId, heard_ns: i64) -> Duration {
        match self.since.get(&client) {
            Some((known_ns, since)) if *known_ns == heard_ns => self.listened.saturating_sub(*since),
            // It was heard since the last look, or is new.
            _ => Duration::ZERO,
        }
    }
}

pub struct Sessions {
    view: Arc<dyn NamespaceView>,
    propose: Arc<dyn ProposeOp>,
    consensus: Arc<dyn Consensus>,
    clock: Arc<dyn Clock>,
    hearing: Arc<Hearing>,
}

impl Sessions {
    pub fn new(
        view: Arc<dyn NamespaceView>,
        propose: Arc<dyn ProposeOp>,
        consensus: Arc<dyn Consensus>,
        clock: Arc<dyn Clock>,
        hearing: Arc<Hearing>,
    ) -> Self {
        Sessions {
            view,
            propose,
            consensus,
            clock,
            hearing,
        }
    }

    /// Removes what a client did not finish that was not heard of. That comes before the end of its session: a leader that takes
    /// over still finds it. False if a part of it is on its way to a store: then the session lasts a little longer.
    async fn clears(&self, silent: &SilentSession) -> Result<bool> {
        let silence = self.hearing.silence().silent_for(silent.client, silent.heard_ns);
        if silence < EXPIRE {
            // It was heard of since.
            return Ok(false);
        }
        let mut is_cleared = true;
        for node in self.view.partials(silent.client)? {
            let name = node.to_string();
            let unlink = Unlink {
                node,
                keep_open: false,
                closed: Vec::new(),
                holders: None,
            };
            // Where it is stored already, it has to go there as well.
            match self
                .propose
                .propose_op(Op::Note(Box::new(Op::Unlink(unlink))))
                .await
            {
                Ok(_) => tracing::info!("{name} was not finished, and is removed"),
                Err(error) if error.kind == ErrorKind::NotFound => {}
                Err(error) if error.kind == ErrorKind::UnderWay && silence < EXPIRE + EXPORT_WAIT => {
                    is_cleared = false;
                }
                Err(error) => tracing::warn!(%error, "{name} was not finished, and stays"),
            }
        }
        Ok(is_cleared)
    }

    /// Those that are over, and whose end need not be remembered any longer.
    fn forgettable(&self, sessions: &[(ClientId, SessionRecord)]) -> Vec<SilentSession> {
        let before_ns = self.clock.wall_ns().saturating_sub(ENDED_KEPT_NS);
        let ended = sessions
            .iter()
            .filter(|(_, session)| session.is_ended && session.heard_ns < before_ns);
        ended
            .map(|(client, session)| SilentSession {
                client: *client,
                heard_ns: session.heard_ns,
            })
            .collect()
    }
}

#[async_trait]
impl Duty for Sessions {
    fn name(&self) -> &'static str {
        "sessions"
    }

    fn begin(&self, _term: u64) -> Result<()> {
        self.hearing.silence().begin();
        Ok(())
    }

    async fn due(&self) {
        tokio::time::sleep(EVERY).await;
    }

    async fn tick(&self) -> Result<()> {
        // Without a majority, what clients say is not taken.
        if let Err(error) = self.consensus.read_barrier().await {
            self.hearing.refused();
            return Err(error);
        }
        let sessions = self.view.sessions()?;
        let over = {
            let refused = self.hearing.refused.load(Ordering::Relaxed);
            self.hearing.silence().look(self.clock.now(), refused, &sessions)
        };
        let mut ending = self.forgettable(&sessions);
        for silent in over {
            if self.clears(&silent).await? {
                tracing::info!("session {:016x} was not heard of and ends", silent.client.0);
                ending.push(silent);
            }
        }
        for sessions in ending.chunks(ENDED_AT_ONCE) {
            let sessions = sessions.to_vec();
            self.propose.propose_op(Op::EndSessions { sessions }).await?;
        }
        Ok(())
    }

    fn end(&self) {}

    fn status(&self) -> String {
        match self.view.sessions() {
            Ok(all) => format!(
                "{} known",
                all.iter().filter(|(_, session)| !session.is_ended).count()
            ),
            Err(error) => error.message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: ClientId = ClientId(4);

    /// A leader that looks every so often at one session.
    struct Leader {
        silence: Silence,
        now: Instant,
        heard_ns: i64,
        refused: u64,
    }

    impl Leader {
        #[expect(clippy::disallowed_methods, reason = "any time will do to count from")]
        fn new() -> Leader {
            Leader {
                silence: Silence::default(),
                now: Instant::now(),
                heard_ns: 1,
                refused: 0,
            }
        }

        fn look_after(&mut self, pause: Duration) -> bool {
            self.now += pause;
            let session = SessionRecord {
                heard_ns: self.heard_ns,
                ..SessionRecord::default()
            };
            let over = self.silence.look(self.now, self.refused, &[(CLIENT, session)]);
            assert!(
                over.iter()
                    .all(|over| (over.client, over.heard_ns) == (CLIENT, self.heard_ns))
            );
            !over.is_empty()
        }

        /// For how long the session lasts from here on.
        fn lasts(&mut self) -> Duration {
            let mut lasted = Duration::ZERO;
            while !self.look_after(EVERY) {
                lasted += EVERY;
            }
            lasted
        }
    }

    #[test]
    fn a_session_ends_after_a_period_of_silence_and_not_before() {
        let mut leader = Leader::new();
        leader.look_after(EVERY);
        assert_eq!(leader.lasts(), EXPIRE - EVERY);
        leader.heard_ns += 1;
        assert_eq!(leader.lasts(), EXPIRE, "it was heard of");
    }

    #[test]
    fn who_asks_for_news_is_heard_of_and_its_record_says_nothing_of_that() {
        let mut leader = Leader::new();
        leader.silence.heard(CLIENT);
        for _ in 0..=5 {
            assert!(!leader.look_after(EVERY));
        }
        assert_eq!(leader.silence.silent_for(CLIENT, 1), 5 * EVERY);
        leader.silence.heard(CLIENT);
        assert_eq!(leader.silence.silent_for(CLIENT, 1), Duration::ZERO);
        assert_eq!(leader.lasts(), EXPIRE);
    }

    #[test]
    fn a_leader_that_was_stopped_or_elected_or_could_not_listen_grants_a_whole_period() {
        let mut leader = Leader::new();
        for _ in 0..25 {
            assert!(!leader.look_after(EVERY));
        }
        assert!(!leader.look_after(Duration::from_secs(75)), "it was stopped");
        assert_eq!(leader.lasts(), EXPIRE - EVERY);

        let mut leader = Leader::new();
        for _ in 0..25 {
            assert!(!leader.look_after(EVERY));
        }
        leader.refused += 1;
        assert!(!leader.look_after(EVERY));
        assert_eq!(leader.lasts(), EXPIRE - EVERY, "what was said was not taken");

        leader.silence.begin();
        leader.look_after(EVERY);
        assert_eq!(leader.lasts(), EXPIRE - EVERY, "it was elected");
    }

    #[test]
    fn the_wall_clock_may_step_as_it_likes() {
        let mut leader = Leader::new();
        leader.look_after(EVERY);
        for step in [60_000_000_000, -120_000_000_000] {
            leader.heard_ns += step;
            assert_eq!(leader.lasts(), EXPIRE);
        }
    }

    #[test]
    fn a_leader_that_runs_late_counts_no_more_than_it_could_hear() {
        let mut leader = Leader::new();
        leader.look_after(EVERY);
        // Each time it comes late it may have heard for a moment only.
        for _ in 0..29 {
            assert!(!leader.look_after(GAP));
        }
        assert!(leader.look_after(GAP));
    }
}
