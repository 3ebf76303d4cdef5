//! Where a call for the leader goes next, how long it waits before, and when it is given up. Pure: time and chance are
//! arguments.
//!
//! A [`Group`] is what all calls of one caller learn together, a [`Search`] is one call on its way. A search asks whoever
//! is thought to lead; then whom the refusal names, at once; then the others in turn, each once. That is a *round*, after
//! which it waits, longer each time.
//!
//! Invariant: what a master says of another is a reason to ask there, and no more. An address that nobody configured is
//! kept, and told to other calls, only when it has answered as a leader; a master that names itself while it refuses is
//! passed over.

use std::sync::Arc;
use std::time::Duration;

use curvine_protocol::number::to_usize;
use curvine_protocol::{Error, ErrorKind};
use tokio::time::Instant;

use crate::kit::backoff::Backoff;

/// Masters that a caller keeps in mind, and that one round asks.
const MASTERS_MAX: usize = 32;
/// While masters elect a leader, this is what a caller comes late by.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// `host:port` of a master.
pub type Address = Arc<str>;

/// The masters that a caller knows, and whom it takes for their leader.
pub struct Group {
    /// Those that were configured, and others that have led since.
    known: Vec<Address>,
    guess: Address,
}

impl Group {
    /// None without an address.
    pub fn new(addresses: impl IntoIterator<Item = Address>) -> Option<Group> {
        let known: Vec<Address> = addresses.into_iter().collect();
        let guess = known.first()?.clone();
        Some(Group { known, guess })
    }

    pub fn known(&self) -> &[Address] {
        &self.known
    }

    /// The one at this address did what only a leader does.
    fn leads(&mut self, at: &Address) {
        self.guess = at.clone();
        if !self.known.contains(at) && self.known.len() < MASTERS_MAX {
            self.known.push(at.clone());
        }
    }

    /// The known ones in turn, beginning behind this one.
    fn in_turn_after(&self, at: &Address) -> impl Iterator<Item = &Address> {
        let behind = self
            .known
            .iter()
            .position(|known| known == at)
            .map_or(0, |at| at + 1);
        (self.known[behind..].iter()).chain(&self.known[..behind])
    }
}

/// How long a call is tried.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// Until it has waited this often.
    Pauses(u32),
    /// Until this time, but at least this often.
    Until { give_up: Instant, tries_min: u32 },
}

/// Who may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Leader,
    /// Any master. The number decides who is asked first.
    Anybody(u64),
}

/// What happened to a call.
#[derive(Debug)]
pub enum Event {
    /// It begins, or has waited as long as it was told to.
    Ready,
    /// The one that was asked does not answer, and another says that it leads.
    AnotherLeads(Address),
    Refused(Error),
}

#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    Ask(Address),
    Wait(Duration),
    GiveUp(Error),
}

/// What the last error of a search says, beside the addresses and what was answered last.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// Before the addresses and at the end, where nobody answered.
    pub silent: (&'static str, &'static str),
    /// The same where some answered and none leads.
    pub leaderless: (&'static str, &'static str),
}

/// One call on its way.
pub struct Search {
    wanted: Wanted,
    limit: Limit,
    /// Whether an error leaves hope that another try, or another master, has the answer.
    passes: fn(&Error) -> bool,
    words: Words,
    /// Whom the call went to last.
    at: Option<Address>,
    /// Who refused in this round.
    refused: Vec<Address>,
    /// Who refused at all, and whether it answered ever, if only that it does not lead.
    in_vain: Vec<(Address, bool)>,
    tries: u32,
    pauses: u32,
    backoff: Backoff,
}

impl Search {
    pub fn new(wanted: Wanted, limit: Limit, passes: fn(&Error) -> bool) -> Search {
        Search {
            wanted,
            limit,
            passes,
            words: Words {
                silent: ("tried at", ""),
                leaderless: ("tried at", ""),
            },
            at: None,
            refused: Vec::new(),
            in_vain: Vec::new(),
            tries: 0,
            pauses: 0,
            backoff: Backoff::up_to(PAUSE_MAX),
        }
    }

    /// The same, with other words in its last error than that the addresses were tried.
    pub fn saying(self, words: Words) -> Search {
        Search { words, ..self }
    }

    pub fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// What to do now. `chance` is any random number.
    pub fn next(&mut self, group: &mut Group, event: Event, now: Instant, chance: u64) -> Decision {
        match event {
            Event::Ready => self.begin_round(group),
            Event::AnotherLeads(address) => {
                group.guess = address.clone();
                self.ask(address)
            }
            Event::Refused(error) => self.refused(group, error, now, chance),
        }
    }

    /// The call was answered by the one that was asked last.
    pub fn answered(&self, group: &mut Group) {
        // At the first try it was asked because it was thought to lead.
        if let (Wanted::Leader, Some(at), true) = (self.wanted, &self.at, self.tries > 1) {
            group.leads(at);
        }
    }

    fn ask(&mut self, address: Address) -> Decision {
        self.tries += 1;
        self.at = Some(address.clone());
        Decision::Ask(address)
    }

    fn begin_round(&mut self, group: &Group) -> Decision {
        let first = match (self.wanted, &self.at) {
            (Wanted::Leader, _) => &group.guess,
            (Wanted::Anybody(number), None) => &group.known[to_usize(number) % group.known.len()],
            (Wanted::Anybody(_), Some(last)) => group.in_turn_after(last).next().unwrap_or(&group.guess),
        };
        self.ask(first.clone())
    }

    fn refused(&mut self, group: &mut Group, error: Error, now: Instant, chance: u64) -> Decision {
        let Some(at) = self.at.clone() else {
            return Decision::GiveUp(error);
        };
        if !(self.passes)(&error) {
            return Decision::GiveUp(error);
        }
        self.refused.push(at.clone());
        let answers = !matches!(error.kind, ErrorKind::Unreachable | ErrorKind::Timeout);
        if let Some((_, answered)) = self.in_vain.iter_mut().find(|(asked, _)| *asked == at) {
            *answered |= answers;
        } else if self.in_vain.len() < MASTERS_MAX {
            self.in_vain.push((at.clone(), answers));
        }
        let named = error
            .leader
            .as_deref()
            .filter(|named| **named != *at)
            .map(Address::from);
        // It may have the answer as soon as it has room, or workers.
        let stay =
            matches!(error.kind, ErrorKind::Overloaded | ErrorKind::BlockUnavailable) && named.is_none();
        let next = match stay {
            true => None,
            false => self.next_in_round(group, &at, named.as_ref()),
        };
        if self.wanted == Wanted::Leader && !stay {
            // Also where this search ends: the next call begins there.
            let in_turn = || group.in_turn_after(&at).next();
            let guess = match &next {
                Some(next) => Some(next).filter(|next| group.known.contains(next)),
                None => (named.as_ref())
                    .filter(|named| group.known.contains(named))
                    .or_else(in_turn)
                    .or(Some(&at)),
            };
            if let Some(guess) = guess.cloned() {
                group.guess = guess;
            }
        }
        let over = match self.limit {
            Limit::Pauses(_) => false,
            Limit::Until { give_up, tries_min } => self.tries >= tries_min && now >= give_up,
        };
        if over {
            return self.give_up(error);
        }
        if let Some(next) = next {
            return self.ask(next);
        }
        if let Limit::Pauses(most) = self.limit
            && self.pauses >= most
        {
            return self.give_up(error);
        }
        self.refused.clear();
        self.pauses += 1;
        Decision::Wait(self.backoff.next(chance))
    }

    /// Whom this round has not asked yet: the one that was named, the one that another call found, the others in turn.
    fn next_in_round(&self, group: &Group, at: &Address, named: Option<&Address>) -> Option<Address> {
        if self.refused.len() >= MASTERS_MAX {
            return None;
        }
        let hints = match self.wanted {
            Wanted::Leader => [named, Some(&group.guess)],
            Wanted::Anybody(_) => [None, None],
        };
        let mut candidates = hints.into_iter().flatten().chain(group.in_turn_after(at));
        candidates.find(|next| !self.refused.contains(next)).cloned()
    }

    fn give_up(&self, error: Error) -> Decision {
        use ErrorKind::*;
        Decision::GiveUp(match error.kind {
            NotLeader | Unreachable | Timeout | Stopping => {
                let listed = |of: &mut dyn Iterator<Item = &(Address, bool)>| {
                    of.map(|(at, _)| &**at).collect::<Vec<_>>().join(", ")
                };
                let all = listed(&mut self.in_vain.iter());
                let answering = listed(&mut self.in_vain.iter().filter(|(_, answered)| *answered));
                let silent = listed(&mut self.in_vain.iter().filter(|(_, answered)| !answered));
                let (who, (asked, advice)) = match (self.wanted, answering.as_str(), silent.as_str()) {
                    (Wanted::Anybody(_), ..) | (_, "", _) => (all, self.words.silent),
                    (Wanted::Leader, _, "") => (format!("{all} (all answered)"), self.words.leaderless),
                    (Wanted::Leader, answering, silent) => (
                        format!("{all} ({answering} answered, {silent} did not)"),
                        self.words.leaderless,
                    ),
                };
                let mut error = error.while_doing(format_args!("{asked} {who}"));
                error.message.push_str(advice);
                error
            }
            // Whoever says anything else was asked, and answered.
            _ => error,
        })
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do")]
mod tests {
    use super::*;

    const FAR: Duration = Duration::from_secs(30);
    /// Without chance.
    const FIRST_PAUSE: Duration = Duration::from_millis(10);

    fn group(addresses: &[&str]) -> Group {
        Group::new(addresses.iter().map(|address| Address::from(*address))).expect("not empty")
    }

    fn for_leader(limit: Limit) -> Search {
        let passes = |error: &Error| error.kind != ErrorKind::NotFound;
        Search::new(Wanted::Leader, limit, passes)
    }

    fn patient(now: Instant) -> Search {
        for_leader(Limit::Until {
            give_up: now + FAR,
            tries_min: 2,
        })
    }

    fn ask(address: &str) -> Decision {
        Decision::Ask(address.into())
    }

    fn not_leader(named: Option<&str>) -> Event {
        Event::Refused(Error::not_leader(named.map(str::to_owned)))
    }

    fn refuse(kind: ErrorKind) -> Event {
        Event::Refused(Error::new(kind, "refused"))
    }

    /// What is done about these events, at one time and without chance.
    fn told(search: &mut Search, group: &mut Group, now: Instant, events: Vec<Event>) -> Vec<Decision> {
        events
            .into_iter()
            .map(|event| search.next(group, event, now, 0))
            .collect()
    }

    #[test]
    fn a_named_leader_is_asked_at_once_and_by_the_next_call_first() {
        let (mut group, now) = (group(&["m1", "m2", "m3"]), Instant::now());
        let mut search = patient(now);
        let done = told(
            &mut search,
            &mut group,
            now,
            vec![Event::Ready, not_leader(Some("m3"))],
        );
        assert_eq!(done, [ask("m1"), ask("m3")]);
        search.answered(&mut group);
        assert_eq!(patient(now).next(&mut group, Event::Ready, now, 0), ask("m3"));
    }

    #[test]
    fn an_unknown_address_that_is_named_is_asked_and_not_believed_before_it_answers() {
        let (mut group, now) = (group(&["m1", "m2"]), Instant::now());
        let mut search = patient(now);
        let events = || {
            vec![
                Event::Ready,
                not_leader(Some("m9")),
                refuse(ErrorKind::Unreachable),
            ]
        };
        let done = told(&mut search, &mut group, now, events());
        assert_eq!(done, [ask("m1"), ask("m9"), ask("m2")], "it is out of turn");
        assert_eq!(group.known(), ["m1".into(), "m2".into()]);
        let other = patient(now).next(&mut group, Event::Ready, now, 0);
        assert_eq!(other, ask("m2"), "other calls do not hear of it");

        let mut search = patient(now);
        told(
            &mut search,
            &mut group,
            now,
            vec![Event::Ready, not_leader(Some("m9"))],
        );
        search.answered(&mut group);
        assert_eq!(group.known(), ["m1".into(), "m2".into(), "m9".into()]);
        assert_eq!(patient(now).next(&mut group, Event::Ready, now, 0), ask("m9"));
    }

    #[test]
    fn a_master_that_names_itself_while_it_refuses_is_passed_over() {
        let (mut group, now) = (group(&["m1", "m2"]), Instant::now());
        let events = vec![Event::Ready, not_leader(Some("m1")), not_leader(Some("m2"))];
        let done = told(&mut patient(now), &mut group, now, events);
        assert_eq!(done, [ask("m1"), ask("m2"), Decision::Wait(FIRST_PAUSE)]);
    }

    #[test]
    fn all_are_asked_once_whatever_they_say_and_then_there_is_a_pause() {
        let (mut group, now) = (group(&["m1", "m2", "m3"]), Instant::now());
        let mut search = patient(now);
        let round = vec![
            Event::Ready,
            not_leader(Some("m3")),
            not_leader(Some("m1")),
            refuse(ErrorKind::Unreachable),
        ];
        let done = told(&mut search, &mut group, now, round);
        let pause = Decision::Wait(FIRST_PAUSE);
        assert_eq!(done, [ask("m1"), ask("m3"), ask("m2"), pause]);
        let done = told(&mut search, &mut group, now, vec![Event::Ready, not_leader(None)]);
        assert_eq!(
            done,
            [ask("m3"), ask("m1")],
            "the next round begins where this one ended"
        );
    }

    #[test]
    fn what_a_search_of_one_try_was_told_is_where_the_next_one_begins() {
        let (mut group, now) = (group(&["m1", "m2", "m3"]), Instant::now());
        let once = || {
            for_leader(Limit::Until {
                give_up: now,
                tries_min: 1,
            })
        };
        for (refusal, next) in [
            (not_leader(Some("m3")), "m3"),
            (refuse(ErrorKind::Unreachable), "m1"),
            (refuse(ErrorKind::Overloaded), "m1"),
            (not_leader(Some("stranger")), "m1"),
        ] {
            let done = told(&mut once(), &mut group, now, vec![Event::Ready, refusal]);
            assert!(matches!(done[1], Decision::GiveUp(_)), "{done:?}");
            assert_eq!(once().next(&mut group, Event::Ready, now, 0), ask(next));
        }
    }

    #[test]
    fn strangers_that_name_strangers_do_not_make_a_round_endless() {
        let (mut group, now) = (group(&["m1"]), Instant::now());
        let mut search = patient(now);
        search.next(&mut group, Event::Ready, now, 0);
        let asked = (0..)
            .map(|number| not_leader(Some(&format!("x{number}"))))
            .take_while(|event| {
                let Event::Refused(error) = event else {
                    return false;
                };
                let event = Event::Refused(error.clone());
                matches!(search.next(&mut group, event, now, 0), Decision::Ask(_))
            })
            .count();
        assert_eq!(asked, MASTERS_MAX - 1);
        assert_eq!(group.known(), ["m1".into()]);
    }

    #[test]
    fn who_has_no_room_is_asked_again_after_a_pause() {
        let (mut group, now) = (group(&["m1", "m2"]), Instant::now());
        let events = vec![Event::Ready, refuse(ErrorKind::Overloaded), Event::Ready];
        let done = told(&mut patient(now), &mut group, now, events);
        assert_eq!(done, [ask("m1"), Decision::Wait(FIRST_PAUSE), ask("m1")]);
    }

    #[test]
    fn an_answer_that_would_not_change_is_given_at_once() {
        let (mut group, now) = (group(&["m1", "m2"]), Instant::now());
        let done = told(
            &mut patient(now),
            &mut group,
            now,
            vec![Event::Ready, refuse(ErrorKind::NotFound)],
        );
        assert_eq!(
            done[1],
            Decision::GiveUp(Error::new(ErrorKind::NotFound, "refused"))
        );
    }

    #[test]
    fn at_the_deadline_it_ends_with_an_error_that_names_all_who_were_asked() {
        let (mut group, now) = (group(&["m1", "m2", "m3"]), Instant::now());
        let mut search = patient(now);
        let round = vec![Event::Ready, not_leader(None), refuse(ErrorKind::Unreachable)];
        told(&mut search, &mut group, now, round);
        let end = search.next(&mut group, refuse(ErrorKind::Timeout), now + FAR, 0);
        let error = Error::new(
            ErrorKind::Timeout,
            "tried at m1, m2, m3 (m1 answered, m2, m3 did not): refused",
        );
        assert_eq!(end, Decision::GiveUp(error));
    }

    #[test]
    fn its_last_error_tells_masters_that_are_away_from_masters_without_a_leader() {
        let words = Words {
            silent: ("none answers at", ". Start one"),
            leaderless: ("none leads at", ". Start most"),
        };
        let end = |refusals: [Event; 2]| {
            let (mut group, now) = (group(&["m1", "m2"]), Instant::now());
            let mut search = patient(now).saying(words);
            let [first, second] = refusals;
            told(&mut search, &mut group, now, vec![Event::Ready, first]);
            match search.next(&mut group, second, now + FAR, 0) {
                Decision::GiveUp(error) => error.message,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            end([refuse(ErrorKind::Unreachable), refuse(ErrorKind::Timeout)]),
            "none answers at m1, m2: refused. Start one"
        );
        assert_eq!(
            end([refuse(ErrorKind::NotLeader), refuse(ErrorKind::Timeout)]),
            "none leads at m1, m2 (m1 answered, m2 did not): refused. Start most"
        );
        assert_eq!(
            end([refuse(ErrorKind::NotLeader), refuse(ErrorKind::NotLeader)]),
            "none leads at m1, m2 (all answered): refused. Start most"
        );
    }

    #[test]
    fn a_first_try_that_takes_until_the_deadline_is_followed_by_another() {
        let (mut group, now) = (group(&["m1"]), Instant::now());
        let mut search = patient(now);
        search.next(&mut group, Event::Ready, now, 0);
        let second = search.next(&mut group, refuse(ErrorKind::Timeout), now + FAR, 0);
        assert_eq!(second, Decision::Wait(FIRST_PAUSE));
        search.next(&mut group, Event::Ready, now + FAR, 0);
        let end = search.next(&mut group, refuse(ErrorKind::Timeout), now + FAR, 0);
        assert!(matches!(end, Decision::GiveUp(_)), "{end:?}");
    }

    #[test]
    fn with_a_limit_of_pauses_every_round_is_gone_through() {
        let (mut group, now) = (group(&["m1", "m2"]), Instant::now());
        let mut search = for_leader(Limit::Pauses(1));
        let round = || vec![Event::Ready, not_leader(None), not_leader(None)];
        told(&mut search, &mut group, now, round());
        let last = told(&mut search, &mut group, now, round()).pop();
        assert!(matches!(last, Some(Decision::GiveUp(_))), "{last:?}");
    }

    #[test]
    fn who_may_be_answered_by_anybody_is_spread_over_all_and_follows_nobody() {
        let (mut group, now) = (group(&["m1", "m2", "m3"]), Instant::now());
        let limit = Limit::Until {
            give_up: now + FAR,
            tries_min: 3,
        };
        let mut search = Search::new(Wanted::Anybody(7), limit, |_| true);
        let round = vec![
            Event::Ready,
            not_leader(Some("m1")),
            not_leader(None),
            not_leader(None),
            Event::Ready,
        ];
        let done = told(&mut search, &mut group, now, round);
        assert_eq!(
            done,
            [
                ask("m2"),
                ask("m3"),
                ask("m1"),
                Decision::Wait(FIRST_PAUSE),
                ask("m2")
            ]
        );
        search.answered(&mut group);
        assert_eq!(
            patient(now).next(&mut group, Event::Ready, now, 0),
            ask("m1"),
            "nothing is learnt"
        );
    }
}
