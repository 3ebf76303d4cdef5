//! Which commands of a session are carried out. Pure but for the transaction.
//!
//! A message may come minutes or hours after it was sent: after its retry was answered, after its session ended. So a
//! session has a *floor*, which lasts as long as the session: nothing below it is carried out. And what is of a session
//! that has ended is not carried out either, however late it comes.
//!
//! That an id is over is known without keeping it. Ids of sessions are *given* from a counter of the state
//! ([`OpenSession`](curvine_protocol::master::OpenSession)): a given id that is not in the database is one that has ended, for
//! ever. No clock decides it, and nothing has to be kept; the price is one more command before a session's first change.
//!
//! Clients of older versions *choose* random ids, which begin with their first command. When such a session ends, its
//! record stays for [`ENDED_KEPT_NS`] and says so: they are only as safe as that.
//!
//! Invariant: a session that has ended never begins again, unless its client chose the id and the record is gone.

use curvine_protocol::{ClientId, Error, ErrorKind, Result};
use heed::{RoTxn, RwTxn};

use super::store::{Counter, Dbs, Store, broken, pair_key, u64_at};
use crate::planted::{Bug, is_planted};

/// How long the end of a session with a chosen id is remembered, by the clocks of leaders.
pub const ENDED_KEPT_NS: i64 = 24 * 3_600 * 1_000_000_000;
/// In ids that were given. Chosen ones are odd.
const GIVEN: u64 = 1 << 63;

/// A session, as the state has it. On disk: big endian, one after the other. Older versions wrote `heard_ns` alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionRecord {
    /// The leader's wall clock at its last command. Only ever compared with itself.
    pub heard_ns: i64,
    /// The client has the replies of all its sequences below this one.
    pub floor: u64,
    pub is_ended: bool,
}

impl SessionRecord {
    fn encode(self) -> [u8; 17] {
        let mut bytes = [0; 17];
        bytes[..8].copy_from_slice(&self.heard_ns.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.floor.to_be_bytes());
        bytes[16] = u8::from(self.is_ended);
        bytes
    }

    fn decode(bytes: &[u8]) -> SessionRecord {
        SessionRecord {
            heard_ns: u64_at(bytes, 0).cast_signed(),
            floor: if bytes.len() >= 16 { u64_at(bytes, 8) } else { 0 },
            is_ended: bytes.get(16).is_some_and(|byte| *byte != 0),
        }
    }
}

/// Whether a command is carried out, by its session.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// With the session as it is from now on.
    Admitted(SessionRecord),
    Refused(Error),
}

/// Decides about a command with a sequence. Replies are looked for afterwards: of what is admitted.
pub fn admit(
    client: ClientId,
    session: Option<SessionRecord>,
    (sequence, acked_below): (u64, u64),
    now_ns: i64,
) -> Admission {
    let session = match session {
        Some(session) if !session.is_ended => session,
        None if !is_given(client) => SessionRecord::default(),
        _ if is_planted(Bug::EndedSessionRuns) => SessionRecord::default(),
        _ => return Admission::Refused(ended(client)),
    };
    if sequence < session.floor && !is_planted(Bug::ForgetsTheFloor) {
        return Admission::Refused(Error::new(
            ErrorKind::Stale,
            format!("change {sequence} of session {client} was answered before: it came again, late"),
        ));
    }
    Admission::Admitted(SessionRecord {
        heard_ns: now_ns,
        floor: session.floor.max(acked_below.min(sequence)),
        is_ended: false,
    })
}

pub fn is_given(client: ClientId) -> bool {
    client.0 & GIVEN != 0 && client.0 & 1 == 0
}

/// The id that belongs to a number of the counter.
fn given(number: u64) -> ClientId {
    ClientId(GIVEN | number << 1)
}

pub fn ended(client: ClientId) -> Error {
    Error::new(
        ErrorKind::SessionEnded,
        format!(
            "session {:016x} has ended: the masters had not heard of its client, or it was closed; what was not flushed is \
             lost",
            client.0
        ),
    )
}

impl Dbs {
    pub fn session(&self, txn: &RoTxn, client: ClientId) -> Result<Option<SessionRecord>> {
        let bytes = self.sessions.get(txn, &client.0.to_be_bytes()).map_err(broken)?;
        Ok(bytes.map(SessionRecord::decode))
    }

    pub fn put_session(&self, txn: &mut RwTxn, client: ClientId, session: SessionRecord) -> Result<()> {
        self.sessions
            .put(txn, &client.0.to_be_bytes(), &session.encode())
            .map_err(broken)
    }

    /// All of them, those too whose end is remembered.
    pub fn all_sessions(&self, txn: &RoTxn) -> Result<Vec<(ClientId, SessionRecord)>> {
        let all = self.sessions.iter(txn).map_err(broken)?;
        all.map(|entry| {
            let (key, value) = entry.map_err(broken)?;
            Ok((ClientId(u64_at(key, 0)), SessionRecord::decode(value)))
        })
        .collect()
    }

    /// Begins a session under an id that none had before.
    pub fn begin_session(&self, txn: &mut RwTxn, now_ns: i64) -> Result<ClientId> {
        let client = given(self.take(txn, Counter::Client, 1)?);
        let session = SessionRecord {
            heard_ns: now_ns,
            ..SessionRecord::default()
        };
        self.put_session(txn, client, session)?;
        Ok(client)
    }

    /// Notes that a session is over, and forgets its replies. What it held is given back before.
    pub fn close_session(&self, txn: &mut RwTxn, client: ClientId, now_ns: i64) -> Result<()> {
        let (from, until) = (pair_key(client.0, 0), pair_key(client.0, u64::MAX));
        Store::delete_range(&self.replies, txn, &from, &until)?;
        if !is_given(client) {
            let session = SessionRecord {
                heard_ns: now_ns,
                floor: 0,
                is_ended: true,
            };
            return self.put_session(txn, client, session);
        }
        self.forget_session(txn, client)
    }

    pub fn forget_session(&self, txn: &mut RwTxn, client: ClientId) -> Result<()> {
        self.sessions
            .delete(txn, &client.0.to_be_bytes())
            .map_err(broken)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHOSEN: ClientId = ClientId(0xC11F);

    fn kind(admission: Admission) -> Option<ErrorKind> {
        match admission {
            Admission::Admitted(_) => None,
            Admission::Refused(error) => Some(error.kind),
        }
    }

    #[test]
    fn a_floor_only_rises_and_nothing_below_it_is_admitted() {
        let Admission::Admitted(first) = admit(CHOSEN, None, (4, 3), 10) else {
            panic!("a session with a chosen id begins with its first command");
        };
        assert_eq!((first.heard_ns, first.floor), (10, 3));
        assert_eq!(
            kind(admit(CHOSEN, Some(first), (2, 1), 11)),
            Some(ErrorKind::Stale)
        );
        // It was sent before the one that raised the floor, and not answered yet.
        let later = admit(CHOSEN, Some(first), (3, 2), 12);
        let expected = SessionRecord {
            heard_ns: 12,
            ..first
        };
        assert_eq!(later, Admission::Admitted(expected));
        // A floor above the command itself would refuse its retry.
        let Admission::Admitted(wild) = admit(CHOSEN, Some(first), (5, 900), 13) else {
            panic!("admitted");
        };
        assert_eq!(wild.floor, 5);
    }

    #[test]
    fn what_has_ended_is_refused_and_so_is_a_given_id_that_is_not_known() {
        let over = SessionRecord {
            is_ended: true,
            ..SessionRecord::default()
        };
        assert_eq!(
            kind(admit(CHOSEN, Some(over), (1, 1), 1)),
            Some(ErrorKind::SessionEnded)
        );
        assert_eq!(
            kind(admit(given(7), None, (1, 1), 1)),
            Some(ErrorKind::SessionEnded)
        );
        assert_eq!(
            kind(admit(given(7), Some(SessionRecord::default()), (1, 1), 1)),
            None
        );
    }

    #[test]
    fn a_session_is_read_as_this_version_and_the_one_before_wrote_it() {
        let session = SessionRecord {
            heard_ns: -5,
            floor: 9,
            is_ended: true,
        };
        assert_eq!(SessionRecord::decode(&session.encode()), session);
        let older = SessionRecord {
            heard_ns: -5,
            ..SessionRecord::default()
        };
        assert_eq!(SessionRecord::decode(&(-5_i64).to_be_bytes()), older);
    }
}
