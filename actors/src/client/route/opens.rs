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
    /// As whom it was told.
    told_as: ClientId,
    /// The number of the last answer of that leader, whose news have been passed on.
    heard: u64,
    listener: Option<Listener>,
}

/// Told of a file that is open here and that others have changed: which, and to which version.
pub type Listener = Arc<dyn Fn(InodeId, u64) + Send + Sync>;

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
            Err(error) if is_passing(error) => table.told_in = 0,
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
        let keep = table.closed.len().saturating_sub(CLOSED_WITH_CHANGE);
        table.closed.split_off(keep)
    }

    /// Something that was told may not have arrived: everything is told anew.
    pub fn lost(&self) {
        self.table().told_in = 0;
    }

    /// As long as anything is open, the leader is asked what others have changed of it.
    fn to_tell(&self) -> Option<TellOpen> {
        let mut table = self.table();
        table.let_go();
        if table.closed.is_empty() && table.files.is_empty() {
            return None;
        }
        let all = (table.told_in == 0).then(|| table.all());
        Some(TellOpen {
            term: table.told_in,
            closed: std::mem::take(&mut table.closed),
            all,
            heard: table.heard,
            over_below: table.over_below(),
        })
    }

    fn all(&self) -> Option<AllOpen> {
        Some(self.table().all())
    }

    /// All that is open, for a session that the leader knows nothing of yet. None if nothing is.
    pub(super) fn anew(&self) -> Option<TellOpen> {
        let table = self.table();
        (!table.files.is_empty()).then(|| TellOpen {
            term: 0,
            closed: Vec::new(),
            all: Some(table.all()),
            heard: 0,
            over_below: table.over_below(),
        })
    }

    /// The leader was told everything as this session.
    pub(super) fn told_as(&self, client: ClientId, call: &TellOpen, reply: &OpenTold) {
        self.told(call, reply);
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
    fn told(&self, call: &TellOpen, reply: &OpenTold) -> bool {
        let listener = self.table().listener.clone();
        for file in &reply.changed {
            if let Some(listener) = &listener {
                listener(file.inode, file.content_version);
            }
        }
        let mut table = self.table();
        table.heard = reply.number;
        table.told_in = match (&call.all, reply.term == call.term) {
            (Some(_), _) => reply.term,
            (None, true) => call.term,
            (None, false) => 0,
        };
        table.told_in == 0 && !table.files.is_empty()
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

    /// To be told.
    fn is_closed(&mut self, closed: ClosedFile) {
        match self.closed.len() < CLOSED_MAX {
            true => self.closed.push(closed),
            false => {
                self.closed.clear();
                self.told_in = 0;
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
        }
    }
}

/// Tells the leader what is open and what was closed, while the client lives, and the client what of it others changed.
pub(super) async fn tell(session: Weak<Session>) {
    loop {
        sleep(LOOK_EVERY).await;
        let Some(session) = session.upgrade() else { return };
        if session.ended.is_cancelled() {
            return;
        }
        while let Some(mut call) = session.opens.to_tell() {
            // What is kept for this client is kept for as long as its session lasts.
            let client = match session.confirmed().await {
                Ok(client) => client,
                Err(error) => {
                    tracing::debug!(%error, "no session to keep what is open here");
                    session.opens.lost();
                    break;
                }
            };
            if session.opens.is_another(client) {
                call.all = session.opens.all();
                call.heard = 0;
            }
            let context = CallContext {
                client,
                deadline_ms: CALL_DEADLINE_MS,
                ..CallContext::default()
            };
            match session.attempt(call.clone(), context, Duration::ZERO).await {
                Ok(answer) => {
                    if !session.opens.told(&call, &answer.reply) {
                        break;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the leader does not know yet what is open here; trying again");
                    session.opens.lost();
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
    fn a_new_session_is_told_of_all_that_is_open_before_it_is_used() {
        let opens = Opens::default();
        assert_eq!(opens.anew(), None, "nothing is open");
        let number = open(&opens);
        let call = opens.anew().expect("it is open");
        let all = call.all.clone().expect("everything");
        assert_eq!(
            all.files,
            [HeldFile {
                inode: FILE,
                open: number
            }]
        );
        opens.told_as(ClientId(9), &call, &said(3));
        assert!(!opens.is_another(ClientId(9)));
        let next = opens.to_tell().expect("it is open");
        assert_eq!((next.term, next.all), (3, None), "the leader knows the rest");
    }

    #[test]
    fn everything_is_told_to_each_new_leader_and_then_only_what_was_closed() {
        let opens = Opens::default();
        assert_eq!(opens.to_tell(), None);
        let first = open(&opens);
        let call = opens.to_tell().expect("no leader knows it");
        let all = AllOpen {
            files: vec![HeldFile {
                inode: FILE,
                open: first,
            }],
            until: first,
        };
        assert_eq!((call.term, &call.all), (0, &Some(all)));
        assert!(!opens.told(&call, &said(3)));
        let call = opens.to_tell().expect("it is open");
        assert_eq!((call.term, &call.all), (3, &None));
        assert!(opens.told(&call, &said(4)), "another leader");
        assert!(opens.to_tell().expect("it wants all").all.is_some());
    }

    #[test]
    fn a_close_says_nothing_of_an_earlier_open_that_is_on_its_way() {
        let opens = Opens::default();
        let early = opens.begin();
        let late = open(&opens);
        opens.closed(FILE, late);
        assert_eq!(opens.to_tell(), None, "the early one may be of this file");
        assert_eq!(opens.take_closed(), []);
        opens.table().opened(FILE, early.number);
        let number = early.number;
        drop(early);
        let told = opens.to_tell().expect("it is open");
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
