//! Which client has which file open: what loses its last name stays for exactly those.
//!
//! Soft state of the leader. A client says so with the open itself, before the leader looks at the file, so that a
//! removal either sees the holder or is seen by it; it says in batches what it has closed. A leader that was just
//! elected is *unsure* until every client that had a session has told it everything, or a session's time has passed:
//! whatever loses its last name until then is kept for a session's time.
//!
//! Invariants: a client that was answered with a file's layout is its holder, unless the table was full (then the
//! leader is unsure); an open that is told to be over stays over, in whatever order its messages arrive.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use curvine_protocol::master::{
    AllOpen, ChangedFile, ClosedFile, FileHolders, Holders, OpenTold, SESSION_EXPIRE_MS,
};
use curvine_protocol::{ClientId, InodeId};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Open files known at most; about 100 bytes each.
const OPENS_MAX: usize = 1 << 20;
/// Files of which it is known at most that they were accessed since that was recorded; 8 bytes each.
const ACCESSED_MAX: usize = 1 << 20;
/// Files that one command names at most.
const NAMED_MAX: usize = 4_096;
/// A client that says nothing for so long has nothing open: its session has ended.
const SILENCE_MAX: Duration = Duration::from_millis(SESSION_EXPIRE_MS);

/// What a leader knows of open files.
#[derive(Default)]
pub struct Opens {
    table: Mutex<Table>,
    removed: Notify,
    /// Grows when a removal begins, and when it ends.
    removals: AtomicU64,
}

#[derive(Default)]
struct Table {
    /// In which this master leads; 0 while it does not.
    term: u64,
    clients: HashMap<ClientId, Client>,
    holders: HashMap<InodeId, Vec<ClientId>>,
    opens: usize,
    /// Clients that had a session when this master was elected and have not told it everything, until this time.
    unheard: HashSet<ClientId>,
    unsure_until: Option<Instant>,
    /// An open had no room.
    overflowed: Option<Instant>,
    /// Files that may be losing their last name at this moment, and how often.
    removals: HashMap<InodeId, u32>,
    /// Removals of whole trees under way.
    trees: u32,
    /// By client, the number below which all its opens have ended: one that comes late is not noted.
    over_below: HashMap<ClientId, u64>,
    /// Whether it is to be known which files are accessed, and those that were.
    notes_access: bool,
    accessed: HashSet<InodeId>,
    /// The number of the last answer with news.
    answers: u64,
}

struct Client {
    heard: Instant,
    /// By file, the number of its last open.
    files: HashMap<InodeId, u64>,
    /// Files of it that others have changed, and of which it has not said that it heard it.
    changed: BTreeMap<InodeId, Changed>,
}

/// A change that a client is to hear of.
struct Changed {
    content_version: u64,
    /// The first answer that said so; 0 if none has yet.
    said_in: u64,
}

/// A removal under way: opens of the file wait until it has happened.
pub struct Removal<'a> {
    opens: &'a Opens,
    inode: Option<InodeId>,
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        let mut table = self.opens.table();
        match self.inode {
            None => table.trees -= 1,
            Some(inode) => {
                if let Some(times) = table.removals.get_mut(&inode) {
                    *times -= 1;
                    if *times == 0 {
                        table.removals.remove(&inode);
                    }
                }
            }
        }
        drop(table);
        self.opens.removals.fetch_add(1, Ordering::AcqRel);
        self.opens.removed.notify_waiters();
    }
}

impl Opens {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table
            .lock()
            .expect("nobody panics while it holds the open files")
    }

    /// This master leads from now on; these clients have sessions.
    pub fn begin(&self, term: u64, sessions: Vec<ClientId>, now: Instant) {
        let mut table = self.table();
        table.forget();
        table.term = term;
        table.unheard = sessions.into_iter().filter(|client| client.0 != 0).collect();
        table.unsure_until = Some(now + SILENCE_MAX);
    }

    /// This master leads no more.
    pub fn end(&self) {
        self.table().forget();
    }

    pub fn term(&self) -> u64 {
        self.table().term
    }

    /// As long as this stays the same and [`Opens::opened`] says so too, what was read of a file since is true for whoever
    /// opens it.
    pub fn removals(&self) -> u64 {
        self.removals.load(Ordering::Acquire)
    }

    /// A client opens a file. To be called before the file is looked at. Answers with the number of its last open before.
    pub fn opened(&self, client: ClientId, inode: InodeId, open: u64, now: Instant) -> Option<u64> {
        let mut table = self.table();
        let known = table.clients.get(&client);
        let last = known.and_then(|known| known.files.get(&inode)).copied();
        let is_over = table.over_below.get(&client).is_some_and(|below| open < *below);
        match is_over && last.is_none_or(|last| last < open) {
            // A repeat that comes late: the client is not waiting for it any more.
            true => last,
            false => table.opened(client, inode, open, now),
        }
    }

    /// All opens of a client with lower numbers have ended.
    pub fn over(&self, client: ClientId, below: u64) {
        let mut table = self.table();
        let known = table.over_below.entry(client).or_default();
        *known = (*known).max(below);
    }

    /// An open that was noted came to nothing: what the client had of the file before, it has still.
    pub fn failed(&self, client: ClientId, inode: InodeId, open: u64, before: Option<u64>, now: Instant) {
        let mut table = self.table();
        table.heard(client, now);
        let known = table.clients.get_mut(&client);
        match (known.and_then(|known| known.files.get_mut(&inode)), before) {
            (Some(last), Some(before)) if *last == open => *last = before,
            (Some(_), None) => table.closed(client, &ClosedFile { inode, until: open }),
            _ => {}
        }
    }

    /// A client has closed these.
    pub fn closed(&self, client: ClientId, closed: &[ClosedFile], now: Instant) {
        let mut table = self.table();
        table.heard(client, now);
        for file in closed {
            table.closed(client, file);
        }
    }

    /// Whether it is to be known which files are accessed.
    pub fn note_accesses(&self, notes: bool) {
        let mut table = self.table();
        table.notes_access = notes;
        if !notes {
            table.accessed = HashSet::new();
        }
    }

    /// A file is opened, by whomever.
    pub fn accessed(&self, inode: InodeId) {
        self.table().accessed(inode);
    }

    /// Whether a file was opened or closed since [`Opens::take_accessed`].
    pub fn is_accessed(&self, inode: InodeId) -> bool {
        self.table().accessed.contains(&inode)
    }

    /// The files that were opened or closed since the last call.
    pub fn take_accessed(&self) -> HashSet<InodeId> {
        std::mem::take(&mut self.table().accessed)
    }

    /// Whether some client is known to have a file open.
    pub fn is_open(&self, inode: InodeId) -> bool {
        self.table().holders.contains_key(&inode)
    }

    /// A client has changed a file: the others that have it open are to know.
    pub fn changed(&self, by: ClientId, inode: InodeId, content_version: u64) {
        let mut table = self.table();
        let holders = table.holders.get(&inode).cloned().unwrap_or_default();
        for holder in holders.into_iter().filter(|holder| *holder != by) {
            if let Some(known) = table.clients.get_mut(&holder) {
                let changed = Changed {
                    content_version,
                    said_in: 0,
                };
                known.changed.insert(inode, changed);
            }
        }
    }

    /// What others have changed of what a client has open: again and again, until it has said that it heard it. `heard` is the
    /// number of the last answer that it got of the leader of this term.
    pub fn news(&self, client: ClientId, term: u64, heard: u64) -> OpenTold {
        let mut table = self.table();
        table.answers += 1;
        let number = table.answers;
        let heard = if term == table.term { heard } else { 0 };
        let mut news = Vec::new();
        if let Some(known) = table.clients.get_mut(&client) {
            // Every answer since has said it, too.
            (known.changed).retain(|_, changed| changed.said_in == 0 || changed.said_in > heard);
            for (&inode, changed) in &mut known.changed {
                if changed.said_in == 0 {
                    changed.said_in = number;
                }
                news.push(ChangedFile {
                    inode,
                    content_version: changed.content_version,
                });
            }
        }
        let known = table.clients.get(&client);
        let open = known.map_or(0, |known| known.files.len() as u64);
        OpenTold {
            term: table.term,
            changed: news,
            number,
            // One that found no room is no reason to be told of it again and again.
            open: table.overflowed.is_none().then_some(open),
        }
    }

    /// A client has ended its session.
    pub fn ended(&self, client: ClientId) {
        let mut table = self.table();
        table.forget_client(client);
        table.unheard.remove(&client);
        table.over_below.remove(&client);
    }

    /// Whether a client has a file open.
    pub fn has(&self, client: ClientId, inode: InodeId) -> bool {
        let table = self.table();
        let known = table.clients.get(&client);
        known.is_some_and(|known| known.files.contains_key(&inode))
    }

    /// Everything that a client has open.
    pub fn told_all(&self, client: ClientId, all: &AllOpen, now: Instant) {
        let mut table = self.table();
        table.heard(client, now);
        let listed: HashSet<InodeId> = all.files.iter().map(|file| file.inode).collect();
        let over: Vec<ClosedFile> = table.clients.get(&client).map_or_else(Vec::new, |known| {
            let files = known.files.keys().filter(|inode| !listed.contains(inode));
            files
                .map(|&inode| ClosedFile {
                    inode,
                    until: all.until,
                })
                .collect()
        });
        for file in &over {
            table.closed(client, file);
        }
        for file in &all.files {
            table.opened(client, file.inode, file.open, now);
            // Later ones of it came to nothing there.
            let known = table.clients.get_mut(&client);
            if let Some(last) = known.and_then(|known| known.files.get_mut(&file.inode))
                && *last <= all.until
            {
                *last = file.open;
            }
        }
        table.unheard.remove(&client);
    }

    /// Forgets clients that were not heard of, and whose sessions have ended.
    pub fn expire(&self, is_known: impl Fn(ClientId) -> bool, now: Instant) {
        let mut table = self.table();
        let silent = |known: &Client| now.duration_since(known.heard) >= SILENCE_MAX;
        let gone: Vec<ClientId> = table
            .clients
            .iter()
            .filter(|(_, known)| silent(known))
            .map(|(&client, _)| client)
            .collect();
        for client in gone {
            table.forget_client(client);
        }
        table.unheard.retain(|&client| is_known(client));
        table.over_below.retain(|&client, _| is_known(client));
        if table
            .overflowed
            .is_some_and(|at| now.duration_since(at) >= SILENCE_MAX)
        {
            table.overflowed = None;
        }
    }

    /// A file may lose its last name: who has it open, and whether others may. Opens of it wait for the removal's end.
    pub fn remove(&self, inode: InodeId, now: Instant) -> (Removal<'_>, Vec<FileHolders>, bool) {
        let mut table = self.table();
        *table.removals.entry(inode).or_default() += 1;
        self.removals.fetch_add(1, Ordering::AcqRel);
        let clients = table.holders.get(&inode).cloned();
        let files = clients.map(|clients| FileHolders { inode, clients });
        let unsure = table.unsure(now);
        drop(table);
        let removal = Removal {
            opens: self,
            inode: Some(inode),
        };
        (removal, files.into_iter().collect(), unsure)
    }

    /// A whole tree may go: which of the open files are in it, and whether there may be others.
    pub fn remove_tree(
        &self,
        is_in_it: impl Fn(InodeId) -> bool,
        now: Instant,
    ) -> (Removal<'_>, Vec<FileHolders>, bool) {
        let (open, unsure) = {
            let mut table = self.table();
            table.trees += 1;
            self.removals.fetch_add(1, Ordering::AcqRel);
            let open: Vec<FileHolders> = table
                .holders
                .iter()
                .map(|(&inode, clients)| FileHolders {
                    inode,
                    clients: clients.clone(),
                })
                .collect();
            (open, table.unsure(now))
        };
        let removal = Removal {
            opens: self,
            inode: None,
        };
        let mut files: Vec<FileHolders> = open.into_iter().filter(|file| is_in_it(file.inode)).collect();
        files.sort_unstable_by_key(|file| file.inode.0);
        (removal, files, unsure)
    }

    /// Everything that is open, for a tree that goes in the background: nothing in it is opened any more. Beyond
    /// [`NAMED_MAX`] files, the leader says that it is not sure.
    pub fn everything(&self, now: Instant) -> Holders {
        let table = self.table();
        let many = table.holders.len() > NAMED_MAX;
        let named = table.holders.iter().take(NAMED_MAX);
        let mut files: Vec<FileHolders> = named
            .map(|(&inode, clients)| FileHolders {
                inode,
                clients: clients.clone(),
            })
            .collect();
        files.sort_unstable_by_key(|file| file.inode.0);
        Holders {
            of: InodeId(0),
            files,
            unsure: many || table.unsure(now),
        }
    }

    /// Waits until no removal of this file is under way.
    pub async fn while_removed(&self, inode: InodeId) {
        loop {
            let removed = self.removed.notified();
            tokio::pin!(removed);
            removed.as_mut().enable();
            {
                let table = self.table();
                if table.trees == 0 && !table.removals.contains_key(&inode) {
                    return;
                }
            }
            removed.await;
        }
    }

    /// For people.
    pub fn status(&self, now: Instant) -> String {
        let table = self.table();
        let unsure = match table.unsure(now) {
            true => format!(", {} clients to hear from", table.unheard.len()),
            false => String::new(),
        };
        format!("{} of {} clients{unsure}", table.opens, table.clients.len())
    }
}

impl Table {
    fn forget(&mut self) {
        let (removals, trees) = (std::mem::take(&mut self.removals), self.trees);
        *self = Table {
            removals,
            trees,
            ..Table::default()
        };
    }

    fn unsure(&self, now: Instant) -> bool {
        let elected = !self.unheard.is_empty() && self.unsure_until.is_some_and(|until| now < until);
        elected || self.overflowed.is_some()
    }

    fn heard(&mut self, client: ClientId, now: Instant) {
        if let Some(known) = self.clients.get_mut(&client) {
            known.heard = now;
        }
    }

    fn opened(&mut self, client: ClientId, inode: InodeId, open: u64, now: Instant) -> Option<u64> {
        if self.opens >= OPENS_MAX {
            self.overflowed = Some(now);
            return None;
        }
        let known = self.clients.entry(client).or_insert_with(|| Client {
            heard: now,
            files: HashMap::new(),
            changed: BTreeMap::new(),
        });
        known.heard = now;
        match known.files.get_mut(&inode) {
            Some(last) => Some(std::mem::replace(last, (*last).max(open))),
            None => {
                known.files.insert(inode, open);
                self.holders.entry(inode).or_default().push(client);
                self.opens += 1;
                None
            }
        }
    }

    fn accessed(&mut self, inode: InodeId) {
        if self.notes_access && self.accessed.len() < ACCESSED_MAX {
            self.accessed.insert(inode);
        }
    }

    fn closed(&mut self, client: ClientId, file: &ClosedFile) {
        self.accessed(file.inode);
        let Some(known) = self.clients.get_mut(&client) else {
            return;
        };
        if known.files.get(&file.inode).is_none_or(|&last| last > file.until) {
            return;
        }
        known.files.remove(&file.inode);
        known.changed.remove(&file.inode);
        if known.files.is_empty() {
            self.clients.remove(&client);
        }
        self.release(client, file.inode);
    }

    fn release(&mut self, client: ClientId, inode: InodeId) {
        self.opens -= 1;
        if let Some(holders) = self.holders.get_mut(&inode) {
            holders.retain(|holder| *holder != client);
            if holders.is_empty() {
                self.holders.remove(&inode);
            }
        }
    }

    fn forget_client(&mut self, client: ClientId) {
        let known = self.clients.remove(&client);
        for inode in known.into_iter().flat_map(|known| known.files.into_keys()) {
            self.release(client, inode);
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do")]
mod tests {
    use curvine_protocol::master::HeldFile;
    use futures::FutureExt;

    use super::*;

    const A: ClientId = ClientId(0xA);
    const B: ClientId = ClientId(0xB);
    const FILE: InodeId = InodeId(7);

    fn closed(until: u64) -> [ClosedFile; 1] {
        [ClosedFile { inode: FILE, until }]
    }

    fn holders(opens: &Opens, now: Instant) -> Vec<ClientId> {
        let (_removal, files, _) = opens.remove(FILE, now);
        files.into_iter().flat_map(|file| file.clients).collect()
    }

    #[test]
    fn an_open_that_comes_after_it_was_over_is_not_noted() {
        let (opens, now) = (Opens::default(), Instant::now());
        opens.opened(A, FILE, 1, now);
        opens.over(A, 2);
        opens.closed(A, &closed(1), now);
        assert_eq!(opens.opened(A, FILE, 1, now), None);
        assert_eq!(holders(&opens, now), [], "its repeat came late");
        opens.opened(A, FILE, 2, now);
        assert_eq!(opens.opened(A, FILE, 1, now), Some(2));
        opens.failed(A, FILE, 1, Some(2), now);
        assert_eq!(holders(&opens, now), [A]);
        opens.opened(B, FILE, 1, now);
        assert_eq!(holders(&opens, now), [A, B], "each client counts for itself");
    }

    #[test]
    fn an_open_that_fails_leaves_what_was_open_before_it() {
        let (opens, now) = (Opens::default(), Instant::now());
        assert_eq!(opens.opened(A, FILE, 1, now), None);
        opens.failed(A, FILE, 1, None, now);
        assert_eq!(holders(&opens, now), []);
        assert_eq!(opens.opened(A, FILE, 2, now), None);
        assert_eq!(opens.opened(A, FILE, 3, now), Some(2));
        opens.failed(A, FILE, 3, Some(2), now);
        assert_eq!(holders(&opens, now), [A]);
        opens.closed(A, &closed(2), now);
        assert_eq!(holders(&opens, now), []);
    }

    #[test]
    fn a_close_ends_the_opens_before_it_and_none_after_it() {
        let (opens, now) = (Opens::default(), Instant::now());
        opens.opened(A, FILE, 1, now);
        opens.opened(B, FILE, 1, now);
        assert_eq!(holders(&opens, now), [A, B]);
        opens.opened(A, FILE, 3, now);
        opens.closed(A, &closed(2), now);
        assert_eq!(holders(&opens, now), [A, B], "it was opened again meanwhile");
        opens.changed(B, FILE, 5);
        let changed = ChangedFile {
            inode: FILE,
            content_version: 5,
        };
        let first = opens.news(A, 0, 0);
        assert_eq!(first.changed, [changed]);
        let again = opens.news(A, 0, 0);
        assert_eq!(again.changed, [changed], "the first answer may be lost");
        assert_eq!(
            opens.news(A, 7, again.number).changed,
            [changed],
            "of another leader"
        );
        assert_eq!(opens.news(A, 0, first.number).changed, [], "it has heard it");
        assert_eq!(opens.news(B, 0, 0).changed, [], "it knows");
        // What is changed after an answer is in none before.
        let before = opens.news(A, 0, again.number).number;
        opens.changed(B, FILE, 9);
        let lost = opens.news(A, 0, before);
        assert_eq!(opens.news(A, 0, before).changed, lost.changed);
        opens.closed(A, &closed(3), now);
        opens.closed(A, &closed(3), now);
        assert_eq!(holders(&opens, now), [B]);
    }

    #[test]
    fn all_that_is_open_says_which_later_opens_came_to_nothing() {
        let (opens, now) = (Opens::default(), Instant::now());
        opens.opened(A, FILE, 1, now);
        opens.opened(A, FILE, 3, now);
        opens.opened(A, InodeId(8), 4, now);
        let all = |until| AllOpen {
            files: vec![HeldFile { inode: FILE, open: 1 }],
            until,
            settled_in: 0,
        };
        opens.told_all(A, &all(2), now);
        opens.closed(A, &closed(1), now);
        assert_eq!(holders(&opens, now), [A], "the third may be on its way to A");
        assert_eq!(opens.news(A, 0, 0).open, Some(2));
        opens.told_all(A, &all(4), now);
        assert_eq!(opens.news(A, 0, 0).open, Some(1));
        opens.closed(A, &closed(1), now);
        assert_eq!(holders(&opens, now), []);
    }

    #[test]
    fn an_open_that_comes_during_a_removal_waits_for_it() {
        let (opens, now) = (Opens::default(), Instant::now());
        let (removal, ..) = opens.remove(FILE, now);
        let mut waiting = Box::pin(opens.while_removed(FILE));
        assert!((&mut waiting).now_or_never().is_none());
        assert!(
            opens.while_removed(InodeId(8)).now_or_never().is_some(),
            "another file"
        );
        drop(removal);
        assert!(waiting.now_or_never().is_some());
    }

    #[test]
    fn a_new_leader_is_unsure_until_every_client_has_told_it_everything() {
        let (opens, now) = (Opens::default(), Instant::now());
        let unsure = |now| opens.remove(FILE, now).2;
        opens.begin(5, vec![A, B], now);
        assert!(unsure(now));
        let all = AllOpen {
            files: vec![HeldFile { inode: FILE, open: 1 }],
            until: 1,
            settled_in: 0,
        };
        opens.told_all(A, &all, now);
        assert!(unsure(now));
        opens.expire(|client| client != B, now);
        assert!(!unsure(now), "the other's session has ended");
        assert_eq!(holders(&opens, now), [A]);
        opens.begin(6, vec![A], now);
        assert!(
            unsure(now) && !unsure(now + SILENCE_MAX),
            "it waits for so long only"
        );
    }

    #[test]
    fn what_all_does_not_name_is_closed_unless_it_was_opened_since() {
        let (opens, now) = (Opens::default(), Instant::now());
        opens.opened(A, FILE, 1, now);
        opens.opened(A, InodeId(8), 3, now);
        let all = AllOpen {
            files: Vec::new(),
            until: 2,
            settled_in: 0,
        };
        opens.told_all(A, &all, now);
        assert_eq!(holders(&opens, now), []);
        assert_eq!(opens.status(now), "1 of 1 clients");
        opens.expire(|_| true, now + SILENCE_MAX);
        assert_eq!(opens.status(now), "0 of 0 clients");
    }
}
