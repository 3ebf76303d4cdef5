//! Programs on mounts: they open, write, flush and read a few small files, and note with the model what they did and saw.
//!
//! Files are in cells of two names each, so that one can be renamed to the other; which names there are is checked as that
//! of the raw calls is ([`curvine_tests::history`]), what is in the files by [`Files`].

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use curvine_actors::client::{Client, CreateOptions, OpenFile};
use curvine_protocol::acl::whole_acl;
use curvine_protocol::master::{AttrChange, RenameMode};
use curvine_protocol::{CurvinePath, Error, ErrorKind, FileKind, InodeId, NodeId};
use curvine_tests::history::{History, Name, Operation, Outcome};

use crate::acls::{Step, Tree};
use crate::chance::Chance;
use crate::files::{Files, Seen, UNIT, UNITS_MAX, bytes, stamps};
use crate::network::{self, Network};
use crate::objects::{self, Objects};
use crate::troubles::ClusterPlan;

/// Of the files: a few units more than one and two blocks are written.
pub const BLOCK_BYTES: u64 = 64 << 10;
const BLOCK_UNITS: u64 = BLOCK_BYTES / UNIT;

/// What all programs share with the world.
#[derive(Clone)]
pub struct Shared {
    pub files: Rc<RefCell<Files>>,
    pub objects: Rc<RefCell<Objects>>,
    /// One of each program that has changed lists; each is that program's alone.
    pub acls: Rc<RefCell<Vec<Tree>>>,
    pub names: Rc<RefCell<History>>,
    pub cells: usize,
    pub replicas: u8,
    pub removes: bool,
    /// The world's time.
    pub now: Rc<Cell<Duration>>,
    pub stop: Rc<Cell<bool>>,
    /// What is wrong, and what is to be told.
    pub violation: Rc<RefCell<Option<String>>>,
    pub told: Rc<RefCell<Vec<String>>>,
    /// Until when a mount was not what its sessions can rely on: stopped, or cut off, for long.
    pub disturbed: Rc<RefCell<BTreeMap<NodeId, Duration>>>,
    pub network: Network,
    pub programs: usize,
    pub flushes: Rc<Cell<u64>>,
    pub reads: Rc<Cell<u64>>,
}

impl Shared {
    pub fn new(network: Network, plan: &ClusterPlan) -> Shared {
        Shared {
            files: Rc::default(),
            objects: Rc::default(),
            acls: Rc::default(),
            names: Rc::default(),
            cells: plan.cells,
            replicas: plan.replicas,
            removes: plan.removes,
            now: Rc::default(),
            stop: Rc::default(),
            violation: Rc::default(),
            told: Rc::default(),
            disturbed: Rc::default(),
            network,
            programs: plan.programs,
            flushes: Rc::default(),
            reads: Rc::default(),
        }
    }

    pub fn wrong(&self, what: String) {
        self.violation.borrow_mut().get_or_insert(what);
    }

    fn healthy_since(&self, mount: NodeId, since: Duration) -> bool {
        let disturbed = self.disturbed.borrow();
        disturbed.get(&mount).is_none_or(|until| *until < since)
    }
}

/// One program of a mount.
#[derive(Clone)]
pub struct Program {
    mount: NodeId,
    client: Client,
    shared: Shared,
    chance: Chance,
    /// Cells that a program of this mount writes in: one at a time, so that each knows what it does.
    writing: Rc<RefCell<BTreeSet<usize>>>,
    /// The tree whose access control lists it changes, by its place among all.
    tree: Rc<Cell<Option<usize>>>,
}

/// An open file, and since when.
struct Handle {
    file: OpenFile,
    inode: InodeId,
    opened: u64,
    opened_at: Duration,
}

fn path(cell: usize, name: Name) -> CurvinePath {
    let name = match name {
        Name::A => "a",
        Name::B => "b",
    };
    CurvinePath::parse(&format!("/f{cell}{name}")).expect("a valid path")
}

impl Program {
    pub fn new(
        mount: NodeId,
        client: Client,
        shared: Shared,
        chance: Chance,
        writing: Rc<RefCell<BTreeSet<usize>>>,
    ) -> Program {
        Program {
            mount,
            client,
            shared,
            chance,
            writing,
            tree: Rc::default(),
        }
    }

    pub async fn run(self) {
        // As a mount does before it shows a file.
        while !self.shared.stop.get() && self.client.session().await.is_err() {}
        while !self.shared.stop.get() {
            let cell = self.chance.index_below(self.shared.cells);
            let name = *self.chance.one_of(&[Name::A, Name::B]);
            match self.chance.below(100) {
                0..6 => self.reads_object().await,
                6..12 => self.changes_acls().await,
                12..35 => self.reads(cell, name).await,
                35..80 => self.writes(cell, name).await,
                80.. if !self.shared.removes => {}
                80..86 => self.removes(cell, name).await,
                86..92 => self.renames(cell, name).await,
                _ => self.removes_what_is_open(cell, name).await,
            }
            self.rest(1_500).await;
        }
    }

    async fn rest(&self, most_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.chance.below(most_ms))).await;
    }

    fn tell(&self, what: String) {
        let line = format!("  {}: {what}", network::name(self.mount));
        self.shared.told.borrow_mut().push(line);
    }

    fn moment(&self) -> u64 {
        self.shared.files.borrow_mut().moment()
    }

    fn begin(&self, cell: usize, operation: Operation) -> curvine_tests::history::Ticket {
        let mut names = self.shared.names.borrow_mut();
        names.begin(cell, self.mount.0, operation)
    }

    fn end(&self, ticket: curvine_tests::history::Ticket, outcome: Outcome) {
        self.shared.names.borrow_mut().end(ticket, outcome);
    }

    /// A handle for reading, if there is a file.
    async fn open(&self, cell: usize, name: Name) -> Result<Option<Handle>, Error> {
        let (opened, opened_at) = (self.moment(), self.shared.now.get());
        let ticket = self.begin(cell, Operation::Get(name));
        match self.client.open(&path(cell, name)).await {
            Ok(file) => {
                self.end(ticket, Outcome::NoValue);
                let inode = file.inode();
                self.shared.files.borrow_mut().created(cell, inode, self.mount);
                Ok(Some(Handle {
                    file,
                    inode,
                    opened,
                    opened_at,
                }))
            }
            Err(error) if error.kind == ErrorKind::NotFound => {
                self.end(ticket, Outcome::Absent);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads some of a file, and looks whether that may be seen.
    async fn read(&self, handle: &Handle, from: u64, units: u64) -> Result<Seen, Error> {
        let began = self.moment();
        let content = handle.file.read_at(from * UNIT, units * UNIT).await;
        let content = content.inspect_err(|error| self.is_there(handle, error))?;
        self.shared.reads.set(self.shared.reads.get() + 1);
        let seen = Seen {
            mount: self.mount,
            opened: handle.opened,
            began,
            from,
            values: stamps(from, units, &content),
        };
        let checked = self.shared.files.borrow_mut().check(handle.inode, &seen);
        if let Err(wrong) = checked {
            self.shared.wrong(format!("inode {}: {wrong}", handle.inode));
        }
        Ok(seen)
    }

    /// What is open stays readable, whoever removes it.
    fn is_there(&self, handle: &Handle, error: &Error) {
        let is_gone = matches!(error.kind, ErrorKind::Stale | ErrorKind::NotFound)
            && !self.shared.files.borrow().is_lossy(handle.inode);
        if is_gone && self.shared.healthy_since(self.mount, handle.opened_at) {
            self.shared.wrong(format!(
                "{} was healthy and lost inode {}, which it has open: {error}",
                network::name(self.mount),
                handle.inode
            ));
        }
    }

    async fn reads(&self, cell: usize, name: Name) {
        let Ok(Some(handle)) = self.open(cell, name).await else {
            return;
        };
        for _ in 0..self.chance.within(1..4) {
            let (from, units) = match self.chance.percent(60) {
                true => (0, UNITS_MAX),
                false => (self.chance.below(300), self.chance.within(1..100)),
            };
            if let Err(error) = self.read(&handle, from, units).await {
                self.tell(format!("cannot read inode {}: {error}", handle.inode));
                break;
            }
            self.rest(if self.chance.percent(20) { 10_000 } else { 300 })
                .await;
        }
    }

    /// Reads an object of the under file system, if there is one.
    async fn reads_object(&self) {
        let keys = self.shared.objects.borrow().keys();
        if !keys.is_empty() {
            let key = self.chance.one_of(&keys);
            if let Err(error) = self.read_object(key).await {
                self.tell(format!("cannot read object {key}: {error}"));
            }
        }
    }

    async fn read_object(&self, key: &str) -> Result<(), Error> {
        let opened = self.shared.now.get();
        let path = CurvinePath::parse(&format!("{}/{key}", objects::MOUNT))?;
        let file = self.client.open(&path).await?;
        for _ in 0..2 {
            let content = file.read_at(0, objects::UNITS * UNIT).await?;
            let values = stamps(0, objects::UNITS, &content);
            if let Err(wrong) = self.shared.objects.borrow().check(key, opened, &values) {
                self.shared
                    .wrong(format!("{}: {wrong}", network::name(self.mount)));
            }
            self.rest(3_000).await;
        }
        Ok(())
    }

    /// Takes a few steps in its own tree, and looks after each whether the list is what it must be.
    async fn changes_acls(&self) {
        let at = self.tree.get().unwrap_or_else(|| {
            let mut trees = self.shared.acls.borrow_mut();
            let top = format!("/acls{}", trees.len());
            trees.push(Tree::new(top));
            trees.len() - 1
        });
        self.tree.set(Some(at));
        for _ in 0..self.chance.within(1..6) {
            let before = self.shared.acls.borrow()[at].clone();
            let (step, after) = before.next(&self.chance);
            self.shared.acls.borrow_mut()[at].is_unsure = true;
            let outcome = self.takes(&step).await;
            let now = match (outcome, after) {
                (Ok(()), Some(after)) => after,
                (Err(error), None) if error.kind == ErrorKind::InvalidArgument => before,
                (Ok(()), None) => {
                    return self.shared.wrong(format!("{step:?} must have been refused"));
                }
                (Err(error), Some(_))
                    if matches!(
                        error.kind,
                        ErrorKind::InvalidArgument | ErrorKind::NotFound | ErrorKind::AlreadyExists
                    ) =>
                {
                    return self.shared.wrong(format!("{step:?} was refused: {error}"));
                }
                (Err(error), _) => {
                    self.tell(format!("{step:?}: {error}"));
                    return self.tree.set(None);
                }
            };
            self.shared.acls.borrow_mut()[at] = now;
            if let Err(error) = self.looks_at_acl(at, step.path()).await {
                return self.tell(format!("cannot look at {}: {error}", step.path()));
            }
        }
    }

    async fn takes(&self, step: &Step) -> Result<(), Error> {
        let client = &self.client;
        match step {
            Step::Make {
                path,
                is_dir: true,
                mode,
            } => client.make_dir(path, *mode, false).await.map(drop),
            Step::Make { path, mode, .. } => client.make_node(path, FileKind::File, *mode, 0).await.map(drop),
            Step::Chmod(path, mode) => {
                let change = AttrChange {
                    mode: Some(*mode),
                    ..AttrChange::default()
                };
                client.set_attr(path, true, change).await.map(drop)
            }
            Step::Rename(from, to) => client
                .rename(from, to, RenameMode::NoReplace, false)
                .await
                .map(drop),
            Step::Change(path, change) => client.change_acl(path, change.clone()).await.map(drop),
        }
    }

    async fn looks_at_acl(&self, at: usize, path: &CurvinePath) -> Result<(), Error> {
        let found = self.client.acl(path).await?;
        let whole = whole_acl(found.attr.mode, &found.entries);
        let checked = self.shared.acls.borrow()[at].check(path, found.attr.mode, whole);
        if let Err(wrong) = checked {
            self.shared.wrong(wrong);
        }
        Ok(())
    }

    /// A handle for writing. With a new file, if there is none.
    async fn open_to_write(&self, cell: usize, name: Name) -> Option<Handle> {
        self.shared.files.borrow_mut().wanted(cell, self.mount);
        let path = path(cell, name);
        let (mut opened, mut opened_at) = (self.moment(), self.shared.now.get());
        let mut file = None;
        if self.chance.percent(50) {
            let ticket = self.begin(cell, Operation::Make(name));
            let options = CreateOptions {
                block_bytes: BLOCK_BYTES,
                replicas: self.shared.replicas,
                ..CreateOptions::default()
            };
            match self.client.create(&path, options).await {
                Ok(made) => {
                    self.end(ticket, Outcome::Done);
                    file = Some(made);
                }
                Err(error) if error.kind == ErrorKind::AlreadyExists => self.end(ticket, Outcome::Exists),
                Err(error) => {
                    self.tell(format!("cannot make {path}: {error}"));
                    return None;
                }
            }
        }
        if file.is_none() {
            (opened, opened_at) = (self.moment(), self.shared.now.get());
            file = match self.client.open_for_write(&path, false).await {
                Ok(file) => Some(file),
                Err(error) if error.kind == ErrorKind::NotFound => None,
                Err(error) => {
                    self.tell(format!("cannot open {path} to write: {error}"));
                    None
                }
            };
        }
        let file = file?;
        let inode = file.inode();
        self.shared.files.borrow_mut().created(cell, inode, self.mount);
        self.shared.files.borrow_mut().wanted(cell, self.mount);
        self.tell(format!("opens inode {inode} ({path}) to write"));
        Some(Handle {
            file,
            inode,
            opened,
            opened_at,
        })
    }

    async fn writes(&self, cell: usize, name: Name) {
        if !self.writing.borrow_mut().insert(cell) {
            return;
        }
        if let Some(handle) = self.open_to_write(cell, name).await {
            self.writes_to(handle).await;
        }
        self.writing.borrow_mut().remove(&cell);
    }

    async fn writes_to(&self, handle: Handle) {
        let (mut outcome, mut sent) = (Ok(()), self.shared.network.sent());
        if self.chance.percent(60) {
            let seen = self.read(&handle, 0, UNITS_MAX).await;
            outcome = seen.map(|seen| {
                // Only as long as it has the lease.
                if self.shared.healthy_since(self.mount, handle.opened_at) {
                    self.shared.files.borrow_mut().pinned(handle.inode, &seen);
                }
            });
        }
        let steps = self.chance.within(1..7);
        for _ in 0..steps {
            if outcome.is_err() {
                break;
            }
            let flushes = self.shared.flushes.get();
            outcome = self.step(&handle).await;
            if self.shared.flushes.get() > flushes {
                sent = self.shared.network.sent();
            }
        }
        if let Err(error) = &outcome {
            self.tell(format!("inode {}: {error}", handle.inode));
            self.lost(&handle, error);
        }
        let Handle { file, inode, .. } = &handle;
        if self.chance.percent(5) {
            // Nobody hears of what becomes of it.
            self.shared
                .files
                .borrow_mut()
                .gave_up(*inode, self.mount, self.shared.now.get());
            return;
        }
        let due = self.shared.files.borrow_mut().begin_flush(*inode, self.mount);
        let committed = self.shared.files.borrow().flushed_long(*inode, self.mount);
        match file.close().await {
            Ok(_) => {
                self.flushed(*inode, &due, false);
                self.tell(format!("closes inode {inode}"));
            }
            Err(error) => {
                self.tell(format!("closes inode {inode}, and gets {error}"));
                self.lost(&handle, &error);
                self.shared
                    .files
                    .borrow_mut()
                    .gave_up(*inode, self.mount, self.shared.now.get());
                if let (ErrorKind::NoSpace, Some(committed)) = (error.kind, committed) {
                    self.kept(*inode, committed, sent).await;
                }
            }
        }
    }

    /// Of what was appended to a file and did not fit, what workers took is in the file.
    async fn kept(&self, inode: InodeId, committed: u64, sent: u64) {
        if self.shared.programs > 1 {
            return;
        }
        let (index, end) = (committed / BLOCK_UNITS, committed * UNIT % BLOCK_BYTES);
        let taken = self.shared.network.taken_since(self.mount, sent);
        if self.shared.network.lost_since(self.mount, sent) > 1 {
            // What is asked twice may be lost twice.
            return;
        }
        let Ok(layout) = self.client.locate(inode).await else {
            return;
        };
        if self
            .shared
            .files
            .borrow()
            .flushed_long(inode, self.mount)
            .is_none()
        {
            // Others have written, or cut it.
            return;
        }
        if layout.attr.replicas > 1 {
            // What one worker took, another may not have.
            return;
        }
        // Which block came after the last whole one cannot be known if it is gone.
        let last = u32::try_from(index)
            .ok()
            .and_then(|index| layout.block_at(index))
            .map(|located| located.block.id);
        let is_taken = (taken.iter()).any(|(block, range)| Some(*block) == last && range.contains(&end));
        if is_taken && layout.attr.size_bytes <= committed * UNIT {
            self.shared.wrong(format!(
                "inode {inode}: a worker took bytes behind unit {committed}, there was no room for the rest, and the file \
                 ends there: {taken:?}"
            ));
        }
    }

    fn flushed(&self, inode: InodeId, writes: &[usize], is_synced: bool) {
        self.shared.flushes.set(self.shared.flushes.get() + 1);
        let (mut files, now) = (self.shared.files.borrow_mut(), self.shared.now.get());
        let outcome = files.flushed(inode, writes, now, is_synced);
        drop(files);
        if let Err(wrong) = outcome {
            self.shared.wrong(format!("inode {inode}: {wrong}"));
        }
    }

    /// A healthy client does not lose its lease.
    fn lost(&self, handle: &Handle, error: &Error) {
        let is_lease = error.kind == ErrorKind::Stale && error.message.contains("lease")
            || error.kind == ErrorKind::SessionEnded;
        if is_lease && self.shared.healthy_since(self.mount, handle.opened_at) {
            self.shared.wrong(format!(
                "{} was healthy and lost its lease on inode {}: {error}",
                network::name(self.mount),
                handle.inode
            ));
        }
    }

    /// One thing that a writer does.
    async fn step(&self, handle: &Handle) -> Result<(), Error> {
        let Handle { file, inode, .. } = handle;
        let long = file.size_now().div_ceil(UNIT);
        match self.chance.below(100) {
            0..50 => {
                let units = self
                    .chance
                    .within(1..*self.chance.one_of(&[4, 30, BLOCK_UNITS + 20]));
                let from = match self.chance.below(10) {
                    0..5 => long,
                    5..9 => self.chance.below(long + 1),
                    _ => long + self.chance.below(40),
                };
                if from + units > UNITS_MAX {
                    return Ok(());
                }
                self.write(handle, long, from..from + units).await
            }
            50..58 => {
                let to = self.chance.below(long + 20).min(UNITS_MAX - 1);
                let mut due = self.shared.files.borrow_mut().begin_flush(*inode, self.mount);
                let id = (self.shared.files.borrow_mut()).truncate(*inode, self.mount, long, to);
                if let Err(error) = file.truncate(to * UNIT).await {
                    if error.kind == ErrorKind::LeaseConflict {
                        self.shared.files.borrow_mut().refused(*inode, id);
                    }
                    return Err(error);
                }
                self.shared.files.borrow_mut().accepted(*inode, id);
                due.push(id);
                self.flushed(*inode, &due, false);
                self.tell(format!("truncates inode {inode} from {long} to {to} units"));
                Ok(())
            }
            58..72 => self.flush(handle, false).await,
            72..82 => self.flush(handle, true).await,
            82..90 => self.read(handle, 0, UNITS_MAX).await.map(|_| ()),
            _ => {
                self.rest(*self.chance.one_of(&[2_000, 8_000, 25_000])).await;
                Ok(())
            }
        }
    }

    async fn write(&self, handle: &Handle, long: u64, range: std::ops::Range<u64>) -> Result<(), Error> {
        let Handle { file, inode, .. } = handle;
        let (stamp, id) = {
            let mut files = self.shared.files.borrow_mut();
            let stamp = files.stamp();
            (stamp, files.write(*inode, self.mount, long, range.clone(), stamp))
        };
        let content = bytes(stamp, range.clone());
        let written = file.write_at(range.start * UNIT, content.into()).await;
        let mut files = self.shared.files.borrow_mut();
        match &written {
            Ok(()) => files.accepted(*inode, id),
            Err(error) if error.kind == ErrorKind::LeaseConflict => files.refused(*inode, id),
            Err(_) => {}
        }
        drop(files);
        let how = written.as_ref().err().map(|error| format!(": {error}"));
        self.tell(format!(
            "writes {stamp} to units {range:?} of inode {inode}{}",
            how.unwrap_or_default()
        ));
        written
    }

    async fn flush(&self, handle: &Handle, is_sync: bool) -> Result<(), Error> {
        let Handle { file, inode, .. } = handle;
        let due = self.shared.files.borrow_mut().begin_flush(*inode, self.mount);
        match is_sync {
            true => file.sync().await?,
            false => file.flush().await?,
        };
        self.flushed(*inode, &due, is_sync);
        let word = if is_sync { "syncs" } else { "flushes" };
        self.tell(format!("{word} inode {inode}"));
        Ok(())
    }

    async fn removes(&self, cell: usize, name: Name) {
        let ticket = self.begin(cell, Operation::Remove(name));
        self.shared.files.borrow_mut().removing(cell);
        let removed = match self.client.unlink(&path(cell, name), false).await {
            Ok(attr) => {
                self.end(ticket, Outcome::Done);
                Some(attr.inode)
            }
            Err(error) if error.kind == ErrorKind::NotFound => {
                self.end(ticket, Outcome::Absent);
                None
            }
            Err(_) => return,
        };
        self.shared.files.borrow_mut().removed(cell, removed, None);
    }

    async fn renames(&self, cell: usize, from: Name) {
        let to = match from {
            Name::A => Name::B,
            Name::B => Name::A,
        };
        let ticket = self.begin(cell, Operation::Rename(from, to));
        let (old, new) = (path(cell, from), path(cell, to));
        let renamed = self.client.rename(&old, &new, RenameMode::Replace, false);
        self.shared.files.borrow_mut().removing(cell);
        let replaced = match renamed.await {
            Ok(renamed) => {
                self.end(ticket, Outcome::Done);
                renamed.replaced.map(|attr| attr.inode)
            }
            Err(error) if error.kind == ErrorKind::NotFound => {
                self.end(ticket, Outcome::Absent);
                None
            }
            Err(_) => return,
        };
        self.shared.files.borrow_mut().removed(cell, replaced, None);
    }

    /// What is open stays readable without a name, as long as its client is healthy.
    async fn removes_what_is_open(&self, cell: usize, name: Name) {
        let Ok(Some(handle)) = self.open(cell, name).await else {
            return;
        };
        let ticket = self.begin(cell, Operation::Remove(name));
        self.shared.files.borrow_mut().removing(cell);
        let removed = match self.client.unlink(&path(cell, name), true).await {
            Ok(attr) => {
                self.end(ticket, Outcome::Done);
                let mut files = self.shared.files.borrow_mut();
                files.removed(cell, Some(attr.inode), Some(self.mount));
                attr.inode
            }
            Err(error) if error.kind == ErrorKind::NotFound => {
                self.end(ticket, Outcome::Absent);
                return self.shared.files.borrow_mut().removed(cell, None, None);
            }
            Err(_) => return,
        };
        if removed == handle.inode {
            self.tell(format!("has inode {removed} open without a name"));
            for _ in 0..self.chance.within(1..5) {
                self.rest(30_000).await;
                // Whether it is there is looked at as it is read.
                if self.read(&handle, 0, UNITS_MAX).await.is_err() {
                    break;
                }
            }
        }
        let _ = self.client.release_inode(removed).await;
    }

    /// Reads all files. For the end, when everything is healed: says what cannot be read.
    pub async fn reads_all(&self) -> Result<(), String> {
        let keys = self.shared.objects.borrow().keys();
        for key in keys {
            let read = self.read_object(&key).await;
            read.map_err(|error| format!("object {key} cannot be read: {error}"))?;
        }
        for cell in 0..self.shared.cells {
            for name in [Name::A, Name::B] {
                let path = path(cell, name);
                let handle = match self.open(cell, name).await {
                    Ok(Some(handle)) => handle,
                    Ok(None) => continue,
                    Err(error) => return Err(format!("{path} cannot be opened: {error}")),
                };
                if let Err(error) = self.read(&handle, 0, UNITS_MAX).await
                    && !self.shared.files.borrow().is_lossy(handle.inode)
                {
                    return Err(format!("{path}, inode {}, cannot be read: {error}", handle.inode));
                }
            }
        }
        let trees = self.shared.acls.borrow().len();
        for at in 0..trees {
            let tree = self.shared.acls.borrow()[at].clone();
            for path in tree.paths().iter().filter(|_| !tree.is_unsure) {
                let looked = self.looks_at_acl(at, path).await;
                looked.map_err(|error| format!("the access control list of {path}: {error}"))?;
            }
        }
        self.counts_blocks().await
    }

    /// Workers have no block that no file has.
    async fn counts_blocks(&self) -> Result<(), String> {
        let text = |error: Error| format!("blocks cannot be counted: {error}");
        let names = (0..self.shared.cells).flat_map(|cell| [path(cell, Name::A), path(cell, Name::B)]);
        let objects = self.shared.objects.borrow().keys();
        let (mut named, workers) = (0, self.client.status().await.map_err(text)?.workers);
        for path in names {
            match self.client.locate(&path).await {
                Ok(layout) => {
                    named += layout
                        .blocks
                        .iter()
                        .map(|block| match block.workers.len() {
                            // What the power took was never found again: what there is of it stays wherever it is.
                            0 => workers.len(),
                            holders => holders,
                        })
                        .sum::<usize>()
                }
                Err(error) if error.kind == ErrorKind::NotFound => {}
                Err(error) => return Err(text(error)),
            }
        }
        let disks = workers.iter().flat_map(|worker| &worker.disks);
        let held: u64 = disks.map(|disk| disk.blocks).sum();
        // Whether an object is cached is nobody's business, and of each there is one block.
        let most = named + objects.len() * workers.len();
        match held <= most as u64 {
            true => Ok(()),
            false => Err(format!("workers hold {held} blocks, and files have {most}")),
        }
    }
}
