//! The reference model of files: what a read may see.
//!
//! A file is a row of [`units`]. Every write fills whole units with a stamp of its own, so that what is read says who wrote
//! it. Holes are [`HOLE`], what is beyond the end is [`END`]: both are written by truncations and by writes behind the end.
//! Whoever writes behind the end may not know where that is, when others have written meanwhile: a *gap* is a hole where
//! the file ended, and nothing where it did not.
//!
//! What a client may expect (close-to-open): a read through a handle sees of each unit a write that had begun by then, and
//! none that was *over* before the handle was opened. A write is over once a later one is flushed. A client sees its own
//! writes at once.
//!
//! Mounts take turns in writing a file: who wants it gets it with all that was taken of others before, flushed. So of two
//! writes of one client the one that began later is the later one, and of two clients' the one that began when the other
//! had been taken, or settled: flushed, or given up. Of others nobody knows, and either may be what is there. Whether what
//! was taken of a client was flushed when another one wanted the file, its own next flush says: if that succeeds, it was.
//!
//! Time is the order of events: everything is on one thread.

mod units;

use std::collections::BTreeMap;
use std::time::Duration;

use curvine_protocol::number::to_usize;
use curvine_protocol::{InodeId, NodeId};

use crate::known::{Known, is_known};

pub use self::units::{END, HOLE, UNIT, UNITS_MAX, bytes, name_of, stamps};

/// Workers sync by themselves every second, while they run. What has had less of that may go with the power.
pub const SYNCED_AFTER: Duration = Duration::from_secs(10);

/// What a writer has left open, a worker seals after 30 s without a pause. What it had sent may come later than it failed.
pub const SEALED_AFTER: Duration = Duration::from_secs(80);

pub type WriteId = usize;
/// A moment: events before it.
pub type Moment = u64;

#[derive(Clone, Debug)]
struct Write {
    mount: NodeId,
    what: String,
    begun: Moment,
    /// The client was told that it is taken.
    accepted: Option<Moment>,
    /// Flushed, failed, or its lease was given to another: no later write of others is older.
    settled: Option<Moment>,
    flushed: Option<(Moment, Duration)>,
    synced: bool,
    /// It failed before anything of it was sent.
    never: bool,
    failed: bool,
    failed_at: Duration,
    /// A flush of it is under way: it may be sealed already.
    is_flushing: bool,
    /// Its own mount has read past it: it is lost, which its writer hears from its next flush.
    missed: bool,
    /// The masters make it, and may hear of it late: after its client has died, as long as that one's session lasts.
    by_masters: bool,
}

/// One write of one unit.
#[derive(Clone, Copy, Debug)]
struct Entry {
    write: WriteId,
    value: u64,
    /// Where the file did not end, nothing.
    is_gap: bool,
    /// Since when no new handle may see it.
    over: Option<Moment>,
    /// Since when no new handle may see it unless it is flushed after all.
    lost: Option<Moment>,
}

struct File {
    writes: Vec<Write>,
    units: Vec<Vec<Entry>>,
    /// The power went before what was flushed was on a disk: anything that was ever written may be there, or nothing.
    lossy: bool,
    /// It has no name any more; who has kept it, if anybody.
    removed: Option<Option<NodeId>>,
    cell: usize,
}

/// What was read, and when.
pub struct Seen {
    pub mount: NodeId,
    /// When its handle was opened, and when the read began.
    pub opened: Moment,
    pub began: Moment,
    pub from: u64,
    pub values: Vec<u64>,
}

#[derive(Default)]
pub struct Files {
    files: BTreeMap<InodeId, File>,
    now: Moment,
    stamps: u64,
    /// Cells in which names are being removed or replaced, and by how many.
    removing: BTreeMap<usize, usize>,
}

impl Files {
    /// The next moment.
    pub fn moment(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    pub fn stamp(&mut self) -> u64 {
        self.stamps += 1;
        self.stamps
    }

    pub fn inodes(&self) -> Vec<InodeId> {
        self.files.keys().copied().collect()
    }

    /// How long a file is by what was flushed, if its writer alone has had anything to say since it had nothing to flush.
    pub fn flushed_long(&self, inode: InodeId, writer: NodeId) -> Option<u64> {
        let file = self.files.get(&inode)?;
        let begun = (file.writes.iter())
            .filter(|write| write.mount == writer && write.flushed.is_none() && !write.never)
            .map(|write| write.begun)
            .min();
        let is_before = |write: &Write| {
            write
                .settled
                .is_some_and(|settled| begun.is_none_or(|begun| settled < begun))
        };
        if !(file.writes.iter()).all(|write| write.mount == writer || write.never || is_before(write)) {
            return None;
        }
        let is_there = |entries: &Vec<Entry>| {
            let mut flushed = entries.iter().filter(|entry| {
                let write = &file.writes[entry.write];
                write.flushed.is_some() && entry.over.is_none()
            });
            flushed.next_back().is_some_and(|entry| entry.value != END)
        };
        Some(file.units.iter().take_while(|entries| is_there(entries)).count() as u64)
    }

    /// Whether a mount has something that it has not flushed.
    pub fn is_dirty(&self, mount: NodeId) -> bool {
        let mut writes = self.files.values().flat_map(|file| &file.writes);
        writes.any(|write| write.mount == mount && write.accepted.is_some() && write.settled.is_none())
    }

    /// Whether nothing is written and not flushed, and nothing was given up since a time: what was given up before has its
    /// checksums, if the workers have run for [`SEALED_AFTER`] since.
    pub fn is_quiet(&self, since: Duration) -> bool {
        let mut files = self.files.values();
        files.all(|file| {
            file.writes.iter().all(|write| match write.settled {
                None => write.never,
                Some(_) => !write.failed || write.failed_at < since || file.removed == Some(None),
            })
        })
    }

    pub fn is_lossy(&self, inode: InodeId) -> bool {
        self.files.get(&inode).is_none_or(|file| file.lossy)
    }

    /// A mount wants to write what is in a cell: what others have written there may be flushed any moment.
    pub fn wanted(&mut self, cell: usize, by: NodeId) {
        let of_cell = self.files.values_mut().filter(|file| file.cell == cell);
        for write in of_cell.flat_map(|file| &mut file.writes) {
            write.is_flushing |= write.mount != by && write.accepted.is_some();
        }
    }

    /// A new and empty file.
    pub fn created(&mut self, cell: usize, inode: InodeId, mount: NodeId) {
        let now = self.moment();
        let creation = Write {
            mount,
            what: "creation".to_owned(),
            begun: now,
            accepted: Some(now),
            settled: Some(now),
            flushed: Some((now, Duration::ZERO)),
            synced: true,
            never: false,
            failed: false,
            failed_at: Duration::ZERO,
            is_flushing: false,
            missed: false,
            by_masters: false,
        };
        let entry = Entry {
            write: 0,
            value: END,
            is_gap: false,
            over: None,
            lost: None,
        };
        self.files.entry(inode).or_insert_with(|| File {
            writes: vec![creation],
            units: vec![vec![entry]; to_usize(UNITS_MAX)],
            lossy: false,
            removed: None,
            cell,
        });
    }

    /// A name in a cell is about to be removed, or to be replaced.
    pub fn removing(&mut self, cell: usize) {
        *self.removing.entry(cell).or_default() += 1;
    }

    /// What became of it is known: this file, if any, lost its name. Without that, nobody knows when it will.
    pub fn removed(&mut self, cell: usize, inode: Option<InodeId>, kept_by: Option<NodeId>) {
        if let Some(count) = self.removing.get_mut(&cell) {
            *count -= 1;
        }
        if let Some(file) = inode.and_then(|inode| self.files.get_mut(&inode)) {
            file.removed = Some(kept_by);
        }
    }

    /// Whether a client may find that its open file is gone: another removes it.
    pub fn may_be_gone(&self, inode: InodeId, mount: NodeId) -> bool {
        let Some(file) = self.files.get(&inode) else {
            return true;
        };
        match file.removed {
            Some(kept_by) => kept_by != Some(mount),
            None => self.removing.get(&file.cell).is_some_and(|count| *count > 0),
        }
    }

    /// A write is about to be made, of a file that its writer takes to be so long.
    pub fn write(
        &mut self,
        inode: InodeId,
        mount: NodeId,
        long: u64,
        range: std::ops::Range<u64>,
        stamp: u64,
    ) -> WriteId {
        let what = format!("write {stamp} of units {range:?}, of {long}");
        let gap = (0..range.start).map(|unit| (unit, HOLE, true));
        let values = gap.chain(range.map(|unit| (unit, stamp, false)));
        self.change(inode, mount, what, values.collect())
    }

    /// A truncation is about to be made.
    pub fn truncate(&mut self, inode: InodeId, mount: NodeId, long: u64, to: u64) -> WriteId {
        let what = format!("truncation from {long} to {to} units");
        let gap = (0..to).map(|unit| (unit, HOLE, true));
        let values = gap.chain((to..UNITS_MAX).map(|unit| (unit, END, false)));
        let id = self.change(inode, mount, what, values.collect());
        if let Some(write) = self.of(inode, id) {
            write.by_masters = true;
        }
        id
    }

    fn change(
        &mut self,
        inode: InodeId,
        mount: NodeId,
        what: String,
        values: Vec<(u64, u64, bool)>,
    ) -> WriteId {
        let begun = self.moment();
        let Some(file) = self.files.get_mut(&inode) else {
            return WriteId::MAX;
        };
        for write in file.writes.iter_mut().filter(|write| write.mount != mount) {
            write.is_flushing |= write.accepted.is_some();
        }
        let write = file.writes.len();
        for (unit, value, is_gap) in values {
            file.units[to_usize(unit)].push(Entry {
                write,
                value,
                is_gap,
                over: None,
                lost: None,
            });
        }
        file.writes.push(Write {
            mount,
            what,
            begun,
            accepted: None,
            settled: None,
            flushed: None,
            synced: false,
            never: false,
            failed: false,
            failed_at: Duration::ZERO,
            is_flushing: false,
            missed: false,
            by_masters: false,
        });
        write
    }

    fn of(&mut self, inode: InodeId, write: WriteId) -> Option<&mut Write> {
        self.files.get_mut(&inode)?.writes.get_mut(write)
    }

    pub fn accepted(&mut self, inode: InodeId, write: WriteId) {
        let now = self.moment();
        if let Some(write) = self.of(inode, write) {
            write.accepted = Some(now);
        }
    }

    /// It was refused before anything was sent.
    pub fn refused(&mut self, inode: InodeId, write: WriteId) {
        if let Some(write) = self.of(inode, write) {
            write.never = true;
        }
    }

    /// What a flush that begins now will have flushed.
    pub fn begin_flush(&mut self, inode: InodeId, mount: NodeId) -> Vec<WriteId> {
        let Some(file) = self.files.get_mut(&inode) else {
            return Vec::new();
        };
        let mine = file.writes.iter_mut().enumerate().filter(|(_, write)| {
            write.mount == mount && write.accepted.is_some() && write.flushed.is_none() && !write.failed
        });
        let begun = mine.map(|(id, write)| {
            write.is_flushing = true;
            id
        });
        begun.collect()
    }

    /// # Errors
    /// What its own mount did not see is not flushed.
    pub fn flushed(
        &mut self,
        inode: InodeId,
        writes: &[WriteId],
        at: Duration,
        is_synced: bool,
    ) -> Result<(), String> {
        let now = self.moment();
        let Some(file) = self.files.get_mut(&inode) else {
            return Ok(());
        };
        let missed = writes
            .iter()
            .map(|id| &file.writes[*id])
            .find(|write| write.missed);
        let outcome = missed.map_or(Ok(()), |write| {
            Err(format!(
                "{} by {} was flushed, and its mount had read past it",
                write.what,
                crate::network::name(write.mount)
            ))
        });
        for id in writes {
            let write = &mut file.writes[*id];
            write.flushed.get_or_insert((now, at));
            write.settled.get_or_insert(now);
            write.accepted.get_or_insert(now);
        }
        if is_synced {
            let flushed = file.writes.iter_mut().filter(|write| write.flushed.is_some());
            flushed.for_each(|write| write.synced = true);
        }
        let File {
            writes: all, units, ..
        } = file;
        for unit in units {
            let flushed: Vec<Entry> = (unit.iter().copied())
                .filter(|entry| writes.contains(&entry.write))
                .collect();
            for last in flushed {
                // Whatever was there before a gap, its end was not.
                let ends = |entry: &Entry| !last.is_gap || entry.value == END;
                for entry in unit.iter_mut().filter(|entry| ends(entry)) {
                    if is_older(&all[entry.write], &all[last.write]) {
                        entry.over.get_or_insert(now);
                    }
                }
            }
        }
        outcome
    }

    /// A client gave up on what it had not flushed: the file was closed with an error.
    pub fn gave_up(&mut self, inode: InodeId, mount: NodeId, at: Duration) {
        self.gave_up_if(inode, mount, at, |_| true);
    }

    fn gave_up_if(&mut self, inode: InodeId, mount: NodeId, at: Duration, is_so: impl Fn(&Write) -> bool) {
        let now = self.moment();
        if let Some(file) = self.files.get_mut(&inode) {
            let unflushed = (file.writes.iter_mut())
                .filter(|write| write.mount == mount && write.flushed.is_none() && !write.never);
            for write in unflushed.filter(|write| is_so(write)) {
                write.settled.get_or_insert(now);
                if !std::mem::replace(&mut write.failed, true) {
                    write.failed_at = at;
                }
            }
        }
    }

    /// A client has died. What it had asked the masters for may be on its way.
    pub fn died(&mut self, mount: NodeId, at: Duration) {
        for inode in self.inodes() {
            self.gave_up_if(inode, mount, at, |write| {
                !write.by_masters || write.accepted.is_some()
            });
        }
    }

    /// A power cut of a worker, which has run for [`SYNCED_AFTER`] since: what was flushed later and not synced may be
    /// gone. So may be what a flush that failed has kept.
    pub fn power_cut(&mut self, since: Duration) {
        for file in self.files.values_mut() {
            file.lossy |= file.writes.iter().any(|write| match write.flushed {
                Some((_, at)) => !write.synced && at > since,
                None => (write.failed || write.is_flushing && write.settled.is_none()) && !write.never,
            });
        }
    }

    /// A new writer, who asked for the lease at `opened` and has it, has read this: what had been taken of others before, or
    /// was given up, and is not flushed, is seen by it, or never.
    pub fn pinned(&mut self, inode: InodeId, seen: &Seen) {
        let now = self.moment();
        let Some(File { writes, units, .. }) = self.files.get_mut(&inode) else {
            return;
        };
        let is_before = |moment: Option<Moment>| moment.is_some_and(|moment| moment < seen.opened);
        for (unit, value) in (seen.from..).zip(&seen.values) {
            for entry in &mut units[to_usize(unit)] {
                let write = &writes[entry.write];
                let is_of_others = write.mount != seen.mount
                    && write.begun < seen.opened
                    && (is_before(write.accepted) || is_before(write.settled));
                if is_of_others && write.flushed.is_none() && entry.value != *value {
                    entry.lost.get_or_insert(now);
                }
            }
        }
    }

    /// Whether all of it may have been seen; else, what is wrong.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&mut self, inode: InodeId, seen: &Seen) -> Result<(), String> {
        if is_known(Known::RemovedElsewhere) && self.may_be_gone(inode, seen.mount) {
            return Ok(());
        }
        let Some(file) = self.files.get_mut(&inode) else {
            return Ok(());
        };
        let mut missed = Vec::new();
        for (unit, value) in (seen.from..).zip(&seen.values) {
            let Some(entries) = file.units.get(to_usize(unit)) else {
                return Err(format!(
                    "unit {unit} is {}, and no file is that long",
                    name_of(*value)
                ));
            };
            if file.lossy && matches!(*value, HOLE | END) {
                continue;
            }
            let fits = |entry: &&Entry| entry.value == *value && !file.writes[entry.write].never;
            let candidates: Vec<&Entry> = entries.iter().filter(fits).collect();
            let may_be = |entry: &&Entry| file.lossy || file.may_be_seen(entry, entries, seen);
            if candidates.iter().any(may_be) {
                continue;
            }
            // What this mount had written and not flushed may be lost, and its writer not told yet.
            let without = candidates
                .iter()
                .find_map(|entry| file.is_seen_without(entry, entries, seen));
            if let Some(lost) = without {
                missed.extend(lost);
            } else {
                let story = file.story(entries, seen);
                return Err(format!(
                    "unit {unit} is {} to {}, which opened it at event {}: it is {story}",
                    name_of(*value),
                    crate::network::name(seen.mount),
                    seen.opened,
                ));
            }
        }
        for write in missed {
            file.writes[write].missed = true;
        }
        Ok(())
    }
}

impl File {
    fn may_be_seen(&self, entry: &Entry, all: &[Entry], seen: &Seen) -> bool {
        let write = &self.writes[entry.write];
        let is_past = |since: Option<Moment>| since.is_some_and(|since| since < seen.opened);
        // Flushed after all, whatever a reader saw before.
        let is_over = is_past(entry.over) || write.flushed.is_none() && is_past(entry.lost);
        !is_over
            && !all.iter().any(|other| self.hides(other, entry, seen))
            && (!entry.is_gap || self.may_be_a_hole(entry, all))
    }

    /// Whether the reader's own mount had written over an entry before the read.
    fn hides(&self, other: &Entry, entry: &Entry, seen: &Seen) -> bool {
        // A gap hides nothing but the end.
        if other.is_gap && entry.value != END {
            return false;
        }
        let other = &self.writes[other.write];
        other.mount == seen.mount
            && other.accepted.is_some_and(|accepted| accepted < seen.began)
            && !other.failed
            && is_older(&self.writes[entry.write], other)
    }

    /// What its mount must have lost of what it had not flushed, if an entry may be seen then.
    fn is_seen_without(&self, entry: &Entry, all: &[Entry], seen: &Seen) -> Option<Vec<WriteId>> {
        let hide = all.iter().filter(|other| self.hides(other, entry, seen));
        let lost: Vec<WriteId> = hide.map(|other| other.write).collect();
        let are_unflushed = lost.iter().all(|write| self.writes[*write].flushed.is_none());
        let rest: Vec<Entry> = (all.iter())
            .filter(|other| !lost.contains(&other.write))
            .copied()
            .collect();
        (!lost.is_empty() && are_unflushed && self.may_be_seen(entry, &rest, seen)).then_some(lost)
    }

    /// Whether the file may have ended where this gap was made: nobody had written there for certain.
    fn may_be_a_hole(&self, gap: &Entry, all: &[Entry]) -> bool {
        let of_gap = &self.writes[gap.write];
        let is_certain = |end: &Entry, entry: &&Entry| {
            let write = &self.writes[entry.write];
            let is_own = write.mount == of_gap.mount && write.accepted.is_some() && !write.failed;
            let is_there = write.flushed.is_some() || is_own;
            let is_between = is_older(&self.writes[end.write], write) && is_older(write, of_gap);
            entry.value != END && !entry.is_gap && is_there && is_between
        };
        (all.iter()).any(|end| end.value == END && !all.iter().any(|entry| is_certain(end, &entry)))
    }

    /// The unit's last writes, for people.
    fn story(&self, entries: &[Entry], seen: &Seen) -> String {
        let told = (entries.iter().rev()).filter(|entry| !entry.is_gap || self.may_be_a_hole(entry, entries));
        let told = told.take(6).map(|entry| {
            let write = &self.writes[entry.write];
            let mut line = format!(
                "{} by {} ({}) at event {}",
                name_of(entry.value),
                crate::network::name(write.mount),
                write.what,
                write.begun
            );
            match (write.flushed, write.never, write.failed) {
                (Some((moment, _)), _, _) => line += &format!(", flushed by {moment}"),
                (None, true, _) => line += ", refused",
                (None, false, true) => line += ", given up",
                (None, false, false) => line += ", not flushed",
            }
            if let Some(over) = entry.over {
                line += &format!(", over since {over}");
            }
            if !self.may_be_seen(entry, entries, seen) {
                line += " (not this)";
            }
            line
        });
        told.collect::<Vec<_>>().join("; ")
    }
}

/// Whether one write is older than another, for certain.
fn is_older(write: &Write, than: &Write) -> bool {
    let is_before = |moment: Option<Moment>| moment.is_some_and(|moment| moment < than.begun);
    match write.mount == than.mount {
        true => write.begun < than.begun,
        false => is_before(write.accepted) || is_before(write.settled),
    }
}
