//! Blocks in lists, from the oldest to the newest: what every policy is made of. Pure.

use std::collections::HashMap;

use curvine_protocol::BlockId;
use curvine_protocol::number::to_usize;

/// Lists that there are. A policy says what each means.
pub const LISTS: usize = 64;
const NONE: u32 = u32::MAX;

/// A block in one of the lists.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub block: BlockId,
    /// What comes free on the device when it goes.
    pub bytes: u64,
    newer: u32,
    older: u32,
    /// When it was used last, by the policy's own time.
    pub seen: u32,
    pub uses: u8,
    list: u8,
    pub owner: Owner,
}

/// Of which mount a block is: a small number that stands for one, or for none that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owner(pub u16);

#[derive(Clone, Copy, Debug)]
struct List {
    newest: u32,
    oldest: u32,
    blocks: usize,
    bytes: u64,
}

const EMPTY: List = List {
    newest: NONE,
    oldest: NONE,
    blocks: 0,
    bytes: 0,
};

/// Each block is in one list at most. Everything takes the same time however many there are.
pub struct Lists {
    places: HashMap<BlockId, u32>,
    entries: Vec<Entry>,
    /// Places of entries that are in no list.
    free: Vec<u32>,
    lists: [List; LISTS],
    bytes: u64,
    /// A list whose blocks do not count for their owners.
    uncounted: Option<usize>,
    /// What the blocks of each owner take in the other lists.
    owned_bytes: Vec<u64>,
}

impl Lists {
    /// `uncounted` is the list of which [`Lists::owned_bytes`] says nothing.
    pub fn new(uncounted: Option<usize>) -> Self {
        Lists {
            places: HashMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            lists: [EMPTY; LISTS],
            bytes: 0,
            uncounted,
            owned_bytes: Vec::new(),
        }
    }

    /// What the blocks of an owner take, in bytes.
    pub fn owned_bytes(&self, owner: Owner) -> u64 {
        self.owned_bytes.get(usize::from(owner.0)).copied().unwrap_or(0)
    }

    /// A block is of another owner than was known.
    pub fn belongs_to(&mut self, block: BlockId, owner: Owner) {
        let Some(entry) = self.get_mut(block) else { return };
        let (before, bytes, list) = (entry.owner, entry.bytes, usize::from(entry.list));
        entry.owner = owner;
        self.count(list, before, 0, bytes);
        self.count(list, owner, bytes, 0);
    }

    fn count(&mut self, list: usize, owner: Owner, more_bytes: u64, fewer_bytes: u64) {
        if self.uncounted == Some(list) {
            return;
        }
        let at = usize::from(owner.0);
        if self.owned_bytes.len() <= at {
            self.owned_bytes.resize(at + 1, 0);
        }
        self.owned_bytes[at] = self.owned_bytes[at] + more_bytes - fewer_bytes;
    }

    /// Bytes of memory that are used.
    #[cfg(test)]
    pub fn memory_bytes(&self) -> usize {
        let of_place = size_of::<(BlockId, u32)>() + 1;
        // A hash map has one slot more for each seven that it says it has room for.
        let slots = self.places.capacity() * 8 / 7;
        slots * of_place
            + self.owned_bytes.capacity() * size_of::<u64>()
            + self.entries.capacity() * size_of::<Entry>()
            + self.free.capacity() * size_of::<u32>()
    }

    /// Of all lists.
    pub fn all_blocks(&self) -> usize {
        self.places.len()
    }

    /// Of all lists.
    pub fn all_bytes(&self) -> u64 {
        self.bytes
    }

    pub fn blocks(&self, list: usize) -> usize {
        self.lists[list].blocks
    }

    pub fn bytes(&self, list: usize) -> u64 {
        self.lists[list].bytes
    }

    pub fn get(&self, block: BlockId) -> Option<&Entry> {
        Some(&self.entries[at(*self.places.get(&block)?)])
    }

    pub fn get_mut(&mut self, block: BlockId) -> Option<&mut Entry> {
        Some(&mut self.entries[at(*self.places.get(&block)?)])
    }

    pub fn list_of(&self, block: BlockId) -> Option<usize> {
        Some(self.get(block)?.list.into())
    }

    pub fn oldest(&self, list: usize) -> Option<&Entry> {
        self.entry(self.lists[list].oldest)
    }

    /// The next one of the same list, towards the newest.
    pub fn next_newer(&self, entry: &Entry) -> Option<&Entry> {
        self.entry(entry.newer)
    }

    fn entry(&self, place: u32) -> Option<&Entry> {
        (place != NONE).then(|| &self.entries[at(place)])
    }

    /// Puts a block that is in no list into one, as its newest.
    pub fn add(&mut self, list: usize, block: BlockId, bytes: u64, seen: u32, owner: Owner) {
        let entry = Entry {
            block,
            bytes,
            newer: NONE,
            older: NONE,
            seen,
            uses: 0,
            list: 0,
            owner,
        };
        let place = match self.free.pop() {
            Some(place) => {
                self.entries[at(place)] = entry;
                place
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).expect("a disk has fewer blocks than that")
            }
        };
        let before = self.places.insert(block, place);
        assert!(before.is_none(), "the block is in no list");
        self.link(list, place);
    }

    /// Takes a block out of its list.
    pub fn remove(&mut self, block: BlockId) -> Option<Entry> {
        let place = self.places.remove(&block)?;
        self.unlink(place);
        self.free.push(place);
        Some(self.entries[at(place)])
    }

    /// Makes a block the newest of a list, which may be its own.
    pub fn move_to(&mut self, list: usize, block: BlockId) {
        let place = self.places[&block];
        self.unlink(place);
        self.link(list, place);
    }

    /// A block has another length now.
    pub fn resize(&mut self, block: BlockId, bytes: u64) {
        let Some(entry) = self.get_mut(block) else { return };
        let before = std::mem::replace(&mut entry.bytes, bytes);
        let (list, owner) = (usize::from(entry.list), entry.owner);
        self.count(list, owner, bytes, before);
        self.lists[list].bytes = self.lists[list].bytes - before + bytes;
        self.bytes = self.bytes - before + bytes;
    }

    fn link(&mut self, list: usize, place: u32) {
        let List { newest, .. } = self.lists[list];
        let entry = &mut self.entries[at(place)];
        entry.list = u8::try_from(list).expect("there are few lists");
        (entry.older, entry.newer) = (newest, NONE);
        let (bytes, owner) = (entry.bytes, entry.owner);
        self.count(list, owner, bytes, 0);
        match newest {
            NONE => self.lists[list].oldest = place,
            newest => self.entries[at(newest)].newer = place,
        }
        let list = &mut self.lists[list];
        list.newest = place;
        list.blocks += 1;
        list.bytes += bytes;
        self.bytes += bytes;
    }

    fn unlink(&mut self, place: u32) {
        let Entry {
            older,
            newer,
            list,
            bytes,
            owner,
            ..
        } = self.entries[at(place)];
        let list = usize::from(list);
        self.count(list, owner, 0, bytes);
        match older {
            NONE => self.lists[list].oldest = newer,
            older => self.entries[at(older)].newer = newer,
        }
        match newer {
            NONE => self.lists[list].newest = older,
            newer => self.entries[at(newer)].older = older,
        }
        self.lists[list].blocks -= 1;
        self.lists[list].bytes -= bytes;
        self.bytes -= bytes;
    }
}

fn at(place: u32) -> usize {
    to_usize(place.into())
}
