//! Changes that under file systems make before the namespace does, and exports: noted, carried out by the leader, over.

use curvine_protocol::master::{Delete, MakeDir, RemoveDir, Rename, RenameMode, Unlink};
use curvine_protocol::op::{Command, CommitChange, Copied, ExportOutcome, Op, OpReply, UfsObject};
use curvine_protocol::worker::Done;
use curvine_protocol::{
    CurvinePath, EffectId, Error, ErrorKind, FileKind, InodeId, MountId, Node, Result, UfsVersion, WorkerId,
};

use super::Apply;
use super::remove::not_empty;
use crate::master::namespace::effects::{
    Area, AttributesWrite, Change, EFFECTS_MAX, EffectRecord, Export, Stage, Work, areas, under_way,
};
use crate::master::namespace::records::{FileBody, InodeBody, InodeRecord};
use crate::master::namespace::store::pair_key;
use crate::master::namespace::view::{key_in_mount, to_export};
use crate::ufs::joined;

/// What an under file system has to do before a change.
struct Plan {
    mount: MountId,
    key: String,
    to: Option<String>,
    tree: bool,
    /// The change, with nodes that are directories and names in them.
    op: Op,
    inode: InodeId,
    object: Option<UfsVersion>,
    replaces: Option<UfsVersion>,
    /// There is nothing to be done, see [`is_free`].
    is_free: bool,
}

impl Apply<'_, '_> {
    /// Notes what must be done first, or makes the change at once where there is nothing.
    pub(super) fn note(&mut self, command: Command) -> Result<OpReply> {
        if let Some(effect) = self.noted_before(&command)? {
            return Ok(OpReply::Noted(effect));
        }
        let Some(plan) = self.plan(&command.op)? else {
            return self.op(command.op);
        };
        self.room_for(plan.mount, || areas(&plan.key, plan.to.as_deref(), plan.tree))?;
        if plan.is_free {
            return self.make_at_once(plan);
        }
        let change = Change {
            command: Command {
                op: plan.op,
                ..command
            },
            inode: plan.inode,
            object: plan.object,
            replaces: plan.replaces,
            stage: Stage::Begun,
        };
        let record = EffectRecord {
            mount: plan.mount,
            key: plan.key,
            to: plan.to,
            tree: plan.tree,
            since_ns: self.now_ns,
            work: Work::Change(Box::new(change)),
        };
        self.effects.noted = true;
        self.dbs.add_effect(self.txn, &record).map(OpReply::Noted)
    }

    /// The effect of this very change, if it is under way.
    fn noted_before(&self, command: &Command) -> Result<Option<EffectId>> {
        if command.sequence == 0 {
            return Ok(None);
        }
        let asked_by = Some((command.client, command.sequence));
        let is_begun = |record: &EffectRecord| matches!(&record.work, Work::Change(change) if change.stage == Stage::Begun);
        let mut effects = self.dbs.effects(self.txn)?.into_iter();
        Ok(effects
            .find(|(_, record)| record.asked_by() == asked_by && is_begun(record))
            .map(|(id, _)| id))
    }

    /// # Errors
    /// `UnderWay` while another effect touches one of these areas, or there are too many.
    fn room_for<'k, I: Iterator<Item = Area<'k>>>(
        &self,
        mount: MountId,
        areas: impl Fn() -> I,
    ) -> Result<()> {
        let effects = self.dbs.effects_of(self.txn, mount)?;
        let in_the_way = effects
            .iter()
            .find(|(_, record)| areas().any(|area| record.meets(mount, area)));
        let in_the_way = in_the_way.or_else(|| effects.get(EFFECTS_MAX - 1));
        match in_the_way {
            Some((_, record)) => Err(under_way(record)),
            None => Ok(()),
        }
    }

    /// What the change needs of an under file system. None if it is not about a mount, or fails, or changes nothing: the
    /// change itself says so.
    fn plan(&mut self, op: &Op) -> Result<Option<Plan>> {
        match op {
            Op::Unlink(Unlink { node, .. }) => self.plan_removal(op, node, false),
            Op::Expire { inode, unlink } => {
                self.check_expired(*inode, unlink)?;
                self.plan_removal(&Op::Unlink(unlink.clone()), &unlink.node, false)
            }
            Op::Delete(Delete { node, recursive, .. }) => self.plan_removal(op, node, *recursive),
            Op::RemoveDir(RemoveDir { node }) => self.plan_removal(op, node, false),
            Op::MakeDir(call) => self.plan_dir(call),
            Op::Rename(call) => self.plan_rename(call),
            _ => Ok(None),
        }
    }

    fn plan_removal(&mut self, op: &Op, node: &Node, recursive: bool) -> Result<Option<Plan>> {
        let place = self.place(node, false)?;
        let Some((parent, name)) = place.entry.clone() else {
            return Ok(None);
        };
        let (inode, record) = place.existing(node)?;
        let is_dir = record.is_dir();
        let fits = match op {
            Op::Unlink(_) => !is_dir,
            Op::RemoveDir(_) => is_dir,
            _ => true,
        };
        if record.mount == MountId(0) || !fits {
            return Ok(None);
        }
        if is_dir {
            self.refuse_mount_point(parent, &record, node)?;
            if !recursive && !self.dbs.is_empty(self.txn, inode)? {
                return Err(not_empty(node));
            }
        }
        let object = record.object().cloned();
        let node = Node::child(parent, name);
        let op = match op.clone() {
            Op::Unlink(call) => Op::Unlink(Unlink { node, ..call }),
            Op::Delete(call) => Op::Delete(Delete { node, ..call }),
            _ => Op::RemoveDir(RemoveDir { node }),
        };
        let Some((mount, key)) = key_in_mount(&self.dbs, self.txn, &record)? else {
            return Ok(None);
        };
        Ok(Some(Plan {
            mount,
            key,
            to: None,
            tree: is_dir,
            op,
            inode,
            is_free: is_free(&record),
            object,
            replaces: None,
        }))
    }

    fn plan_dir(&mut self, call: &MakeDir) -> Result<Option<Plan>> {
        let Some((mount, key, node)) = self.place_of_dir(call)? else {
            return Ok(None);
        };
        Ok(Some(Plan {
            mount,
            key,
            to: None,
            tree: false,
            op: Op::MakeDir(MakeDir { node, ..call.clone() }),
            inode: InodeId(0),
            object: None,
            replaces: None,
            is_free: false,
        }))
    }

    /// Where a directory that is to be made goes in a mount.
    fn place_of_dir(&self, call: &MakeDir) -> Result<Option<(MountId, String, Node)>> {
        let key_of = |record: &InodeRecord| key_in_mount(&self.dbs, self.txn, record);
        match (self.place(&call.node, call.parents), &call.node) {
            (Ok(place), _) => {
                let (None, Some((parent, name))) = (place.found, place.entry) else {
                    return Ok(None);
                };
                let above = self.dbs.inode_or_stale(self.txn, parent)?;
                let key = key_of(&above)?;
                Ok(key.map(|(mount, key)| (mount, joined(&key, &name), Node::child(parent, name))))
            }
            (Err(error), Node::Path(path)) if call.parents && error.kind == ErrorKind::NotFound => {
                // The nearest directory above it that is there says whose it will be.
                let mut missing: Vec<&str> = path.name().into_iter().collect();
                let above: Vec<CurvinePath> =
                    std::iter::successors(path.parent(), CurvinePath::parent).collect();
                for path in &above {
                    if let Ok((_, record)) = self.existing(&Node::Path(path.clone()), true) {
                        let key = if record.is_dir() { key_of(&record)? } else { None };
                        missing.reverse();
                        let below = missing.join("/");
                        return Ok(key.map(|(mount, key)| (mount, joined(&key, &below), call.node.clone())));
                    }
                    missing.extend(path.name());
                }
                Ok(None)
            }
            (Err(error), _) => Err(error),
        }
    }

    fn plan_rename(&mut self, call: &Rename) -> Result<Option<Plan>> {
        let (from, to) = (self.place(&call.from, false)?, self.place(&call.to, false)?);
        let (Some((from_dir, from_name)), Some((to_dir, to_name))) = (from.entry.clone(), to.entry.clone())
        else {
            return Ok(None);
        };
        let (inode, record) = from.existing(&call.from)?;
        if record.mount == MountId(0) {
            return Ok(None);
        }
        self.check_rename(call, (from_dir, inode, &record), to_dir, to.found.as_ref())?;
        if call.mode == RenameMode::Exchange {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{}: entries cannot be exchanged in a mounted under file system",
                    call.from
                ),
            ));
        }
        if to.found.as_ref().is_some_and(|(target, _)| *target == inode) {
            return Ok(None);
        }
        let Some((mount, key)) = key_in_mount(&self.dbs, self.txn, &record)? else {
            return Ok(None);
        };
        let above = self.dbs.inode_or_stale(self.txn, to_dir)?;
        let directory = key_in_mount(&self.dbs, self.txn, &above)?
            .map(|(_, key)| key)
            .unwrap_or_default();
        let object = record.object().cloned();
        Ok(Some(Plan {
            mount,
            key,
            to: Some(joined(&directory, &to_name)),
            tree: record.is_dir(),
            inode,
            is_free: is_free(&record),
            object,
            replaces: to.found.as_ref().and_then(|(_, record)| record.object().cloned()),
            op: Op::Rename(Rename {
                from: Node::child(from_dir, from_name),
                to: Node::child(to_dir, to_name),
                ..call.clone()
            }),
        }))
    }

    /// A file without an object is removed or renamed in the namespace alone. What it is renamed over, its export replaces.
    fn make_at_once(&mut self, plan: Plan) -> Result<OpReply> {
        let is_rename = matches!(plan.op, Op::Rename(_));
        let reply = self.op(plan.op)?;
        if is_rename {
            self.set_base(plan.inode, plan.replaces, false)?;
        }
        Ok(reply)
    }

    /// The object that the next export of a file replaces, and whether blocks can be fetched from it.
    fn set_base(&mut self, inode: InodeId, base: Option<UfsVersion>, has_blocks: bool) -> Result<()> {
        let mut record = self.dbs.inode_or_stale(self.txn, inode)?;
        if let InodeBody::File(file) = &mut record.body {
            file.set_base(base, has_blocks);
            self.dbs.put_inode(self.txn, inode, &record)?;
        }
        Ok(())
    }

    /// The change that an effect is for, if that is at this stage.
    fn change_at(&self, effect: EffectId, stage: Stage) -> Result<(EffectRecord, Change)> {
        let record = self.dbs.effect(self.txn, effect)?;
        if let Some(record) = record
            && let Work::Change(change) = &record.work
            && change.stage == stage
        {
            let change = (**change).clone();
            return Ok((record, change));
        }
        Err(Error::new(
            ErrorKind::Stale,
            format!("effect {effect} is over, or at another stage"),
        ))
    }

    pub(super) fn commit_change(&mut self, call: CommitChange) -> Result<OpReply> {
        let CommitChange {
            effect,
            holders,
            copies,
        } = call;
        let (record, mut change) = self.change_at(effect, Stage::Begun)?;
        for copied in copies {
            self.dbs.put_copy(self.txn, effect, copied)?;
        }
        let mut op = change.command.op.clone();
        if let Op::Unlink(Unlink { holders: kept, .. })
        | Op::Delete(Delete { holders: kept, .. })
        | Op::Rename(Rename { holders: kept, .. }) = &mut op
        {
            *kept = holders;
        }
        let is_rename = matches!(op, Op::Rename(_));
        // On behalf of whoever asked for it.
        let own = (self.client, self.uid, self.gid);
        (self.client, self.uid, self.gid) = (change.command.client, change.command.uid, change.command.gid);
        let outcome = self.op(op);
        (self.client, self.uid, self.gid) = own;
        change.stage = match (&outcome, is_rename) {
            (_, false) => return self.answer_change(effect, &change, outcome, true),
            (Ok(_), true) => Stage::Made,
            (Err(_), true) => Stage::Undone,
        };
        let settled = self.answer_change(effect, &change, outcome, false);
        let work = Work::Change(Box::new(change));
        self.dbs
            .put_effect(self.txn, effect, &EffectRecord { work, ..record })?;
        settled
    }

    pub(super) fn refuse_change(&mut self, effect: EffectId, error: Error) -> Result<Done> {
        let (record, mut change) = self.change_at(effect, Stage::Begun)?;
        let is_rename = matches!(change.command.op, Op::Rename(_));
        change.stage = Stage::Undone;
        // What is answered is the client's affair, and no failure of this command.
        let _refused = self.answer_change(effect, &change, Err(error), !is_rename);
        if is_rename {
            let work = Work::Change(Box::new(change));
            self.dbs
                .put_effect(self.txn, effect, &EffectRecord { work, ..record })?;
        }
        self.done()
    }

    /// Keeps the answer for the client's retries, and tells it to who waits for it.
    fn answer_change(
        &mut self,
        effect: EffectId,
        change: &Change,
        outcome: Result<OpReply>,
        is_over: bool,
    ) -> Result<OpReply> {
        let Command { client, sequence, .. } = change.command;
        if let Some(session) = self.dbs.session(self.txn, client)?
            && !session.is_ended
            && sequence >= session.floor.max(1)
        {
            let key = pair_key(client.0, sequence);
            let bytes = curvine_protocol::codec::encode(&outcome);
            self.dbs
                .replies
                .put(self.txn, &key, &bytes)
                .map_err(crate::master::namespace::store::broken)?;
        }
        if is_over {
            self.end(effect)?;
        }
        self.effects.settled.push((effect, outcome.clone()));
        outcome
    }

    fn end(&mut self, effect: EffectId) -> Result<()> {
        self.effects.ended.push(effect);
        self.dbs.end_effect(self.txn, effect)
    }

    pub(super) fn note_copies(&mut self, effect: EffectId, copies: Vec<Copied>) -> Result<Done> {
        self.change_at(effect, Stage::Begun)?;
        for copied in copies {
            self.dbs.put_copy(self.txn, effect, copied)?;
        }
        self.done()
    }

    pub(super) fn settle_copies(
        &mut self,
        effect: EffectId,
        inodes: Vec<InodeId>,
        end: bool,
    ) -> Result<Done> {
        let made = self.change_at(effect, Stage::Made);
        let change = match &made {
            Ok((_, change)) => Some(change),
            Err(_) => {
                self.change_at(effect, Stage::Undone)?;
                None
            }
        };
        for inode in inodes {
            let Some(copy) = self
                .dbs
                .copy(self.txn, inode)?
                .filter(|copy| copy.effect == effect)
            else {
                continue;
            };
            self.dbs.forget_copy(self.txn, inode)?;
            let Some(change) = change else { continue };
            let record = self.dbs.inode(self.txn, inode)?;
            let is_as_copied = record.is_some_and(|record| record.object() == Some(&copy.from));
            if is_as_copied {
                let replaces = change.replaces.clone().filter(|_| change.inode == inode);
                let has_blocks = copy.to.is_some();
                self.set_base(inode, copy.to.or(replaces), has_blocks)?;
            }
        }
        if end {
            self.end(effect)?;
        }
        self.done()
    }

    pub(super) fn begin_export(&mut self, inode: InodeId, worker: WorkerId) -> Result<EffectId> {
        let record = self.dbs.inode_or_stale(self.txn, inode)?;
        let InodeBody::File(file) = &record.body else {
            return Err(Error::invalid(format!("inode {inode} is not a file")));
        };
        let place = to_export(&self.dbs, self.txn, &record)?;
        let Some((mount, key)) = place else {
            return Err(Error::new(
                ErrorKind::Stale,
                format!("inode {inode} needs no export any more"),
            ));
        };
        let export = Export {
            inode,
            content_version: file.content_version,
            replaces: file.ufs.clone(),
            worker,
            writer: file.lease,
            attribute_changes: self.attribute_changes(mount, inode)?,
        };
        self.begin_of_file(mount, key, Work::Export(export))
    }

    fn attribute_changes(&self, mount: MountId, inode: InodeId) -> Result<u64> {
        let unkept = self.dbs.unkept(self.txn, mount, inode)?;
        Ok(unkept.map_or(0, |unkept| unkept.changes))
    }

    /// An object has got the attributes that its file had after so many changes.
    fn attributes_are_kept(&mut self, mount: MountId, inode: InodeId, changes: u64) -> Result<()> {
        match self.attribute_changes(mount, inode)? == changes {
            true => self.dbs.forget_unkept(self.txn, mount, inode),
            false => Ok(()),
        }
    }

    pub(super) fn begin_attributes(&mut self, inode: InodeId) -> Result<EffectId> {
        let record = self.dbs.inode_or_stale(self.txn, inode)?;
        let changes = self.attribute_changes(record.mount, inode)?;
        let place = match &record.body {
            InodeBody::File(FileBody {
                ufs: Some(object),
                needs_export: false,
                ..
            }) if changes > 0 && record.nlink > 0 => {
                let place = key_in_mount(&self.dbs, self.txn, &record)?;
                place.map(|(mount, key)| (mount, key, object.clone()))
            }
            _ => None,
        };
        let Some((mount, key, object)) = place else {
            return Err(Error::new(
                ErrorKind::Stale,
                format!("inode {inode} has no attributes to be written to its object"),
            ));
        };
        let write = AttributesWrite {
            inode,
            object,
            changes,
        };
        self.begin_of_file(mount, key, Work::Attributes(write))
    }

    /// Notes what a store is to do with one file, if nothing else is under way there.
    fn begin_of_file(&mut self, mount: MountId, key: String, work: Work) -> Result<EffectId> {
        self.room_for(mount, || areas(&key, None, false))?;
        let record = EffectRecord {
            mount,
            key,
            to: None,
            tree: false,
            since_ns: self.now_ns,
            work,
        };
        self.dbs.add_effect(self.txn, &record)
    }

    fn end_attributes(
        &mut self,
        mount: MountId,
        write: &AttributesWrite,
        outcome: ExportOutcome,
    ) -> Result<Done> {
        let inode = write.inode;
        let Some(mut record) = self.dbs.inode(self.txn, inode)? else {
            return self.done();
        };
        match (outcome, &mut record.body) {
            (ExportOutcome::Stored(version), InodeBody::File(file)) => {
                // The object has the same content as before: what is cached of it stays.
                if file.ufs.as_ref() == Some(&write.object) {
                    file.ufs = Some(version);
                    self.dbs.put_inode(self.txn, inode, &record)?;
                }
                self.attributes_are_kept(mount, inode, write.changes)?;
            }
            // Somebody else has changed the object, and the next look at it says so: with its content come its attributes.
            (ExportOutcome::Conflict(_), _) => self.dbs.forget_unkept(self.txn, mount, inode)?,
            _ => {}
        }
        self.done()
    }

    pub(super) fn end_export(&mut self, effect: EffectId, outcome: ExportOutcome) -> Result<Done> {
        let Some(EffectRecord { mount, work, .. }) = self.dbs.effect(self.txn, effect)? else {
            return self.done();
        };
        let export = match work {
            Work::Export(export) => export,
            Work::Attributes(write) => {
                self.end(effect)?;
                return self.end_attributes(mount, &write, outcome);
            }
            Work::Change(_) => return self.done(),
        };
        self.end(effect)?;
        let inode = export.inode;
        let Some(mut record) = self.dbs.inode(self.txn, inode)?.filter(|record| record.nlink > 0) else {
            return self.done();
        };
        let InodeBody::File(file) = &mut record.body else {
            return self.done();
        };
        match outcome {
            ExportOutcome::Failed => return self.done(),
            ExportOutcome::Stored(version) => {
                file.ufs = Some(version);
                // What was written since is still to be exported.
                file.needs_export &= file.content_version != export.content_version;
                self.attributes_are_kept(mount, inode, export.attribute_changes)?;
            }
            // Gone: there is nothing that this one could replace.
            ExportOutcome::Conflict(None) => file.set_base(None, false),
            ExportOutcome::Conflict(Some(theirs)) => {
                file.set_base(None, false);
                return self.keep_both(effect, inode, record, theirs);
            }
        }
        self.dbs.put_inode(self.txn, inode, &record)?;
        self.done()
    }

    /// Two have changed an object. The name stays with what the under file system has; what was written here gets another
    /// name beside it, and is exported as that.
    fn keep_both(
        &mut self,
        effect: EffectId,
        inode: InodeId,
        record: InodeRecord,
        theirs: UfsVersion,
    ) -> Result<Done> {
        let (parent, name) = (record.parent, record.name.clone());
        let other = conflict_name(&name, effect);
        if self.dbs.child(self.txn, parent, &name)? != Some(inode) {
            return self.done();
        }
        self.dbs.delete_dentry(self.txn, parent, &name)?;
        self.dbs.put_dentry(self.txn, parent, &other, inode)?;
        self.moved(inode, record, parent, &other)?;
        let object = UfsObject {
            name,
            kind: FileKind::File,
            version: Some(theirs),
            target: None,
            attributes: None,
        };
        self.add_object(parent, &object)?;
        self.done()
    }
}

/// Whether an under file system has nothing of it: a file without an object. A symbolic link is always one of a store.
fn is_free(record: &InodeRecord) -> bool {
    record.kind == FileKind::File && record.object().is_none()
}

/// The name for the version of a file that was written here, beside that of somebody else: `report.csv.conflict-41`.
fn conflict_name(name: &str, effect: EffectId) -> String {
    let suffix = format!(".conflict-{effect}");
    let mut kept = name
        .len()
        .min(curvine_protocol::path::NAME_BYTES_MAX - suffix.len());
    while !name.is_char_boundary(kept) {
        kept -= 1;
    }
    format!("{}{suffix}", &name[..kept])
}
