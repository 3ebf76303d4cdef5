//! What a client has open, as the leader is to know it: every open is numbered, and what is closed is told in batches.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use curvine_protocol::master::{AllOpen, ClosedFile, HeldFile, OpenTold, TellOpen};
use curvine_protocol::{CallContext, ClientId, FileLayout, InodeId, Result};
use tokio::time::sleep;

use super::session::Session;
use super::{CALL_DEADLINE_MS, is_passing};

/// How often it is looked whether there is something to tell.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After so many looks without a word to the leader, it is asked whether it is another one: until all clients have told it
/// what is open, a new leader must take everything for open.
const QUIET_LOOKS: u32 = 5;
/// Closed files that are remembered one by one; beyond, everything is told anew.
const CLOSED_MAX: usize = 4_096;
/// Closed files that travel with a change.
const CLOSED_WITH_CHANGE: usize = 256;

#[derive(Default)]
pub(in crate::client) struct Opens {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last: u64,
    in_flight: BTreeSet<u64>,
    /// By file, the number of its last open.
    files: HashMap<InodeId, u64>,
    closed: Vec<ClosedFile>,
    /// What was closed while an earlier open was on its way, which may be of the same file: not to be told before that has
    /// ended.
    held_back: Vec<ClosedFile>,
    /// By file that is open under an earlier number than one that is closed already: both. They are closed together.
    covered: HashMap<InodeId, (u64, u64)>,
    /// The term of the leader that knows everything; 0 if none does for sure.
    told_in: u64,
    /// The leader may take something for open that is not: it is told everything, also if nothing is open.
    is_unsure: bool,
    /// How often it became so.
    doubts: u64,
    /// The term of the leader that has answered last.
    answered_in: u64,
    /// Removed files that are kept for this client without being open.
    kept: usize,
    /// As whom it was told.
    told_as: ClientId,
    /// The number of the last answer of that leader, whose news have been passed on.
    heard: u64,
    listener: Option<Listener>,
}

/// Told of a file that is open here and that others have changed: which, and to which version.
pub type Listener = Arc<dyn Fn(InodeId, u64) + Send + Sync>;

/// What the leader is told.
pub(super) struct Telling {
    pub call: TellOpen,
    doubts: u64,
    /// How many opens had begun and how many files are open, if no open is on its way: the leader is to know of as many.
    settled: Option<(u64, u64)>,
}

/// An open on its way, until its file is in the table of those that are open here.
pub(in crate::client) struct Opening<'a> {
    opens: &'a Opens,
    pub number: u64,
}

impl Opening<'_> {
    /// What the masters said: the file is open under this number.
    pub fn ended(&self, outcome: Result<FileLayout>) -> Result<FileLayout> {
        let mut table = self.opens.table();
        match &outcome {
            Ok(layout) => table.opened(layout.attr.inode, self.number),
            // Nobody knows whether they took it for open.
            Err(error) if is_passing(error) => table.doubt(),
            Err(_) => {}
        }
        drop(table);
        outcome
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.opens.table().in_flight.remove(&self.number);
    }
}

impl Opens {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("nobody panics while holding this")
    }

    pub fn begin(&self) -> Opening<'_> {
        let mut table = self.table();
        table.last += 1;
        let number = table.last;
        table.in_flight.insert(number);
        Opening { opens: self, number }
    }

    /// The numbers of the first open that is on its way, and of the last that was begun; none if none is on its way.
    pub fn on_their_way(&self) -> Option<(u64, u64)> {
        let table = self.table();
        table.in_flight.first().map(|first| (*first, table.last))
    }

    /// Whether a file has a handle.
    pub fn has(&self, inode: InodeId) -> bool {
        self.table().files.contains_key(&inode)
    }

    /// The last handle of a file has gone, which was opened last with this number.
    pub fn closed(&self, inode: InodeId, mut until: u64) {
        let mut table = self.table();
        if let Some((_, later)) = table.covered.get(&inode).filter(|(earlier, _)| *earlier <= until) {
            until = until.max(*later);
            table.covered.remove(&inode);
        }
        if table.files.get(&inode).is_some_and(|&last| last <= until) {
            table.files.remove(&inode);
        }
        let closed = ClosedFile { inode, until };
        match table.over_below() > until {
            true => table.is_closed(closed),
            false => table.held_back.push(closed),
        }
    }

    /// What was closed, to travel with a change. If that fails, [`Opens::lost`].
    pub fn take_closed(&self) -> Vec<ClosedFile> {
        let mut table = self.table();
        table.let_go();
        table.cover_failed();
        let keep = table.closed.len().saturating_sub(CLOSED_WITH_CHANGE);
        table.closed.split_off(keep)
    }

    /// What was told may not have arrived: it is told again, with everything that is open.
    pub fn lost(&self, closed: Vec<ClosedFile>) {
        let mut table = self.table();
        table.doubt();
        for closed in closed {
            table.is_closed(closed);
        }
    }

    /// A removed file is kept for this client from now on, or is not any more, without being open.
    pub fn kept(&self, is_kept: bool) {
        let mut table = self.table();
        table.kept = match is_kept {
            true => table.kept + 1,
            false => table.kept.saturating_sub(1),
        };
    }

    /// As long as anything is open, the leader is asked what others have changed of it.
    fn to_tell(&self) -> Option<Telling> {
        self.to_tell_or_ask(false)
    }

    /// The same; with `asks`, the leader is asked in any case: a new one is to hear also that nothing is open.
    fn to_tell_or_ask(&self, asks: bool) -> Option<Telling> {
        let mut table = self.table();
        table.let_go();
        table.cover_failed();
        if table.closed.is_empty() && table.files.is_empty() && !table.is_unsure && !asks {
            return None;
        }
        let all = (table.told_in == 0).then(|| table.all());
        let call = TellOpen {
            term: table.told_in,
            closed: std::mem::take(&mut table.closed),
            all,
            heard: table.heard,
            over_below: table.over_below(),
        };
        Some(table.telling(call))
    }

    fn all(&self) -> Option<AllOpen> {
        Some(self.table().all())
    }

    /// All that is open, for a session that the leader knows nothing of yet. None if nothing is.
    pub(super) fn anew(&self) -> Option<Telling> {
        let table = self.table();
        (!table.files.is_empty()).then(|| {
            table.telling(TellOpen {
                term: 0,
                closed: Vec::new(),
                all: Some(table.all()),
                heard: 0,
                over_below: table.over_below(),
            })
        })
    }

    /// The leader was told everything as this session.
    pub(super) fn told_as(&self, client: ClientId, telling: &Telling, reply: &OpenTold) {
        self.told(telling, reply);
        self.is_another(client);
    }

    /// Whether the session is another one than that which the leader was told of.
    fn is_another(&self, client: ClientId) -> bool {
        let mut table = self.table();
        std::mem::replace(&mut table.told_as, client) != client
    }

    /// Has whoever caches what is open here told of what others change.
    pub fn on_change(&self, listener: Listener) {
        self.table().listener = Some(listener);
    }

    /// What the leader said; whether there is more to tell.
    fn told(&self, telling: &Telling, reply: &OpenTold) -> bool {
        let call = &telling.call;
        let listener = self.table().listener.clone();
        for file in &reply.changed {
            if let Some(listener) = &listener {
                listener(file.inode, file.content_version);
            }
        }
        let mut table = self.table();
        table.heard = reply.number;
        table.answered_in = reply.term;
        if table.doubts != telling.doubts {
            // What it was told is not everything, by now.
            return true;
        }
        match &call.all {
            Some(_) => (table.told_in, table.is_unsure) = (reply.term, false),
            None if reply.term != call.term => {
                table.doubt();
                return true;
            }
            None => {}
        }
        // It may have taken in an open that came to nothing here, and was heard of late; or a leader before has left something.
        let is_as_it_was = |(last, _): &(u64, u64)| *last == table.last;
        let settled = telling.settled.filter(is_as_it_was);
        let has_said_all = call.all.as_ref().is_some_and(|all| all.settled_in == reply.term);
        if let (Some((_, files)), Some(open)) = (settled, reply.open)
            && files != open
            && !has_said_all
        {
            table.doubt();
        }
        table.is_unsure
    }
}

impl Table {
    /// A file is open under this number. A later open of it that was closed meanwhile is told to be over with this one.
    fn opened(&mut self, inode: InodeId, number: u64) {
        let of_it = self.held_back.iter().filter(|closed| closed.inode == inode);
        if let Some(later) = of_it.map(|closed| closed.until).max() {
            self.covered.insert(inode, (number, later));
            self.held_back.retain(|closed| closed.inode != inode);
        }
        let covered = self.covered.get(&inode).map_or(0, |(_, later)| *later);
        let last = self.files.entry(inode).or_default();
        *last = (*last).max(number).max(covered);
    }

    /// Nobody knows any more what the leader takes for open.
    fn doubt(&mut self) {
        (self.told_in, self.is_unsure) = (0, true);
        self.doubts += 1;
    }

    /// Of what is told to be closed and is not open, all opens are over that have ended: the leader may have noted one of which
    /// no answer came.
    fn cover_failed(&mut self) {
        let ended = self.over_below() - 1;
        for closed in &mut self.closed {
            if !self.files.contains_key(&closed.inode) {
                closed.until = closed.until.max(ended);
            }
        }
    }

    fn telling(&self, call: TellOpen) -> Telling {
        let settled = || (self.last, self.files.len() as u64);
        Telling {
            call,
            doubts: self.doubts,
            settled: self.is_settled().then(settled),
        }
    }

    fn is_settled(&self) -> bool {
        self.in_flight.is_empty() && self.kept == 0
    }

    /// To be told.
    fn is_closed(&mut self, closed: ClosedFile) {
        match self.closed.len() < CLOSED_MAX {
            true => self.closed.push(closed),
            false => {
                self.closed.clear();
                self.doubt();
            }
        }
    }

    /// No open is on its way any more that what was held back could be about.
    fn let_go(&mut self) {
        let over_below = self.over_below();
        let over = (self.held_back).extract_if(.., |closed| closed.until < over_below);
        for closed in over.collect::<Vec<_>>() {
            self.is_closed(closed);
        }
    }

    /// All opens with lower numbers have ended.
    fn over_below(&self) -> u64 {
        self.in_flight.first().map_or(self.last + 1, |first| *first)
    }

    fn all(&self) -> AllOpen {
        let mut files: Vec<HeldFile> = self
            .files
            .iter()
            .map(|(&inode, &open)| HeldFile { inode, open })
            .collect();
        files.sort_unstable_by_key(|file| file.inode.0);
        AllOpen {
            files,
            until: self.over_below() - 1,
            settled_in: if self.is_settled() { self.answered_in } else { 0 },
        }
    }
}

/// Tells the leader what is open and what was closed, while the client lives, and the client what of it others changed.
pub(super) async fn tell(session: Weak<Session>) {
    let mut quiet = 0;
    loop {
        sleep(LOOK_EVERY).await;
        let Some(session) = session.upgrade() else { return };
        if session.ended.is_cancelled() {
            return;
        }
        // Who has no session keeps nothing open.
        let asks = quiet >= QUIET_LOOKS && session.sequences.session().is_some();
        let mut next = session.opens.to_tell_or_ask(asks);
        quiet = if next.is_some() { 0 } else { quiet + 1 };
        while let Some(mut telling) = next {
            // What is kept for this client is kept for as long as its session lasts.
            let client = match session.confirmed().await {
                Ok(client) => client,
                Err(error) => {
                    tracing::debug!(%error, "no session to keep what is open here");
                    session.opens.lost(telling.call.closed);
                    break;
                }
            };
            if session.opens.is_another(client) {
                telling.call.all = session.opens.all();
                telling.call.heard = 0;
            }
            let context = CallContext {
                client,
                deadline_ms: CALL_DEADLINE_MS,
                ..CallContext::default()
            };
            match session
                .attempt(telling.call.clone(), context, Duration::ZERO)
                .await
            {
                Ok(answer) => {
                    if !session.opens.told(&telling, &answer.reply) {
                        break;
                    }
                    next = session.opens.to_tell();
                }
                Err(error) => {
                    tracing::debug!(%error, "the leader does not know yet what is open here; trying again");
                    session.opens.lost(telling.call.closed);
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use curvine_protocol::{Error, ErrorKind};

    use super::*;

    const FILE: InodeId = InodeId(7);

    fn open(opens: &Opens) -> u64 {
        let opening = opens.begin();
        opens.table().opened(FILE, opening.number);
        opening.number
    }

    fn said(term: u64) -> OpenTold {
        OpenTold {
            term,
            ..OpenTold::default()
        }
    }

    #[test]
    fn a_client_with_nothing_open_says_so_to_a_new_leader() {
        let opens = Opens::default();
        assert!(opens.to_tell().is_none());
        let telling = opens.to_tell_or_ask(true).expect("it asks");
        assert!(telling.call.all.is_some(), "no leader was told yet");
        assert!(!opens.told(&telling, &said(3)));
        let telling = opens.to_tell_or_ask(true).expect("it asks");
        assert_eq!((telling.call.term, &telling.call.all), (3, &None));
        assert!(opens.told(&telling, &said(4)), "there is another leader");
        let telling = opens.to_tell().expect("it has to tell");
        assert_eq!((telling.call.term, telling.call.all.is_some()), (0, true));
        assert!(!opens.told(&telling, &said(4)));
        assert!(opens.to_tell().is_none());
    }

    #[test]
    fn a_new_session_is_told_of_all_that_is_open_before_it_is_used() {
        let opens = Opens::default();
        assert!(opens.anew().is_none(), "nothing is open");
        let number = open(&opens);
        let telling = opens.anew().expect("it is open");
        let all = telling.call.all.clone().expect("everything");
        assert_eq!(
            all.files,
            [HeldFile {
                inode: FILE,
                open: number
            }]
        );
        opens.told_as(ClientId(9), &telling, &said(3));
        assert!(!opens.is_another(ClientId(9)));
        let next = opens.to_tell().expect("it is open").call;
        assert_eq!((next.term, next.all), (3, None), "the leader knows the rest");
    }

    #[test]
    fn everything_is_told_to_each_new_leader_and_then_only_what_was_closed() {
        let opens = Opens::default();
        assert!(opens.to_tell().is_none());
        let first = open(&opens);
        let telling = opens.to_tell().expect("no leader knows it");
        let all = AllOpen {
            files: vec![HeldFile {
                inode: FILE,
                open: first,
            }],
            until: first,
            settled_in: 0,
        };
        assert_eq!((telling.call.term, &telling.call.all), (0, &Some(all)));
        assert!(!opens.told(&telling, &said(3)));
        let telling = opens.to_tell().expect("it is open");
        assert_eq!((telling.call.term, &telling.call.all), (3, &None));
        assert!(opens.told(&telling, &said(4)), "another leader");
        assert!(opens.to_tell().expect("it wants all").call.all.is_some());
    }

    /// The leader has been told everything.
    fn known(opens: &Opens) {
        let telling = opens.to_tell().expect("there is something to tell");
        assert!(!opens.told(&telling, &said(3)));
    }

    fn failed(opens: &Opens) {
        let lost = Err(Error::new(ErrorKind::Timeout, "no answer"));
        assert!(opens.begin().ended(lost).is_err());
    }

    #[test]
    fn what_fails_to_be_told_is_told_also_if_nothing_is_open_any_more() {
        let opens = Opens::default();
        let number = open(&opens);
        known(&opens);
        opens.closed(FILE, number);
        let telling = opens.to_tell().expect("it is closed");
        assert_eq!(telling.call.closed.len(), 1);
        opens.lost(telling.call.closed.clone());
        let again = opens.to_tell().expect("the leader may not know it");
        assert_eq!(again.call.closed, telling.call.closed);
        assert_eq!(again.call.all.as_ref().map(|all| all.files.len()), Some(0));
        assert!(!opens.told(&again, &said(3)));
        assert!(opens.to_tell().is_none(), "all is said");
        // The leader may have noted an open of which no answer came.
        failed(&opens);
        assert!(opens.to_tell().expect("it is in doubt").call.all.is_some());
    }

    #[test]
    fn an_open_that_comes_to_nothing_while_the_leader_is_told_leaves_a_doubt() {
        let opens = Opens::default();
        open(&opens);
        let telling = opens.to_tell().expect("it is open");
        failed(&opens);
        assert!(opens.told(&telling, &said(3)), "there is more to tell");
        assert!(opens.to_tell().expect("it is open").call.all.is_some());
    }

    #[test]
    fn a_close_covers_opens_of_the_file_that_came_to_nothing() {
        let opens = Opens::default();
        let number = open(&opens);
        failed(&opens);
        known(&opens);
        opens.closed(FILE, number);
        let telling = opens.to_tell().expect("it is closed");
        let closed = ClosedFile {
            inode: FILE,
            until: number + 1,
        };
        assert_eq!(telling.call.closed, [closed]);
    }

    #[test]
    fn a_leader_that_takes_something_else_for_open_is_told_everything() {
        let opens = Opens::default();
        open(&opens);
        known(&opens);
        let says = |open| OpenTold {
            open: Some(open),
            ..said(3)
        };
        let telling = opens.to_tell().expect("it is open");
        assert!(!opens.told(&telling, &says(1)));
        let telling = opens.to_tell().expect("it is open");
        let begun = opens.begin();
        assert!(!opens.told(&telling, &says(2)), "it may have heard of that one");
        drop(begun);
        let telling = opens.to_tell().expect("it is open");
        assert!(opens.told(&telling, &says(2)), "a late repeat");
        let telling = opens.to_tell().expect("it is to know");
        assert_eq!(telling.call.all.as_ref().map(|all| all.settled_in), Some(3));
        assert!(!opens.told(&telling, &says(2)), "it knows");
    }

    #[test]
    fn a_new_leader_hears_of_nothing_else_when_it_has_answered() {
        let opens = Opens::default();
        open(&opens);
        known(&opens);
        let says = |term, open| OpenTold {
            open: Some(open),
            ..said(term)
        };
        let telling = opens.to_tell().expect("it is open");
        assert!(opens.told(&telling, &said(4)), "another leader");
        let telling = opens.to_tell().expect("it wants all");
        let settled_in = |telling: &Telling| telling.call.all.as_ref().map(|all| all.settled_in);
        assert_eq!(settled_in(&telling), Some(4));
        // What comes late to the one after it says nothing to that one.
        assert!(opens.told(&telling, &says(5, 3)), "it keeps more");
        let telling = opens.to_tell().expect("it keeps more");
        assert_eq!(settled_in(&telling), Some(5));
        assert!(!opens.told(&telling, &says(5, 1)));
        opens.kept(true);
        opens.lost(Vec::new());
        let telling = opens.to_tell().expect("it may not know");
        assert_eq!(
            settled_in(&telling),
            Some(0),
            "something is kept that is not open"
        );
    }

    #[test]
    fn a_close_says_nothing_of_an_earlier_open_that_is_on_its_way() {
        let opens = Opens::default();
        let early = opens.begin();
        let late = open(&opens);
        opens.closed(FILE, late);
        assert!(opens.to_tell().is_none(), "the early one may be of this file");
        assert_eq!(opens.take_closed(), []);
        opens.table().opened(FILE, early.number);
        let number = early.number;
        drop(early);
        let told = opens.to_tell().expect("it is open").call;
        assert_eq!(told.closed, []);
        let held = HeldFile {
            inode: FILE,
            open: late,
        };
        assert_eq!(told.all.expect("no leader knows it").files, [held]);
        opens.closed(FILE, number);
        let closed = ClosedFile {
            inode: FILE,
            until: late,
        };
        assert_eq!(opens.take_closed(), [closed], "both are over");
        // One that comes to nothing holds nothing back any more.
        let early = opens.begin();
        let late = open(&opens);
        opens.closed(FILE, late);
        drop(early);
        assert_eq!(opens.take_closed().len(), 1);
    }

    #[test]
    fn a_close_does_not_take_back_an_open_since() {
        let opens = Opens::default();
        let first = open(&opens);
        let second = open(&opens);
        opens.closed(FILE, first);
        assert!(opens.table().files.contains_key(&FILE));
        let on_its_way = opens.begin();
        opens.closed(FILE, second);
        let all = opens.table().all();
        assert_eq!((all.files.len(), all.until), (0, on_its_way.number - 1));
        assert_eq!(opens.take_closed().len(), 2);
    }
}
