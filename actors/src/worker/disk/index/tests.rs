//! What of an index survives what.

#![allow(clippy::unwrap_used)]

use super::super::record::{BlockFlags, BlockRecord};
use super::*;
use crate::kit::ports::Inline;

/// An index that syncs when it is told to.
fn open(directory: &Path, run: &str) -> (Arc<Index>, LastRun) {
    open_with(directory, run, 1 << 30)
}

fn open_with(directory: &Path, run: &str, unsynced_bytes_max: u64) -> (Arc<Index>, LastRun) {
    // No thread of its own, which might hold the index a moment longer than the test.
    Index::open(directory, run.to_owned(), 1, unsynced_bytes_max, Arc::new(Inline)).unwrap()
}

fn put(index: &Arc<Index>, block: u64, content: &'static [u8], sync: bool) {
    let block = BlockId(block);
    let flags = BlockFlags {
        in_index: true,
        ..BlockFlags::default()
    };
    let record = BlockRecord::sealed(1, content.len() as u64, vec![0], 0, flags);
    let changes = vec![
        Change::Put(block, record.encode()),
        Change::PutContent(block, vec![bytes::Bytes::from_static(content)]),
    ];
    index.submit_and_wait(changes, sync).unwrap();
}

fn content(index: &Index, block: u64) -> Option<Vec<u8>> {
    index
        .get_with_content(BlockId(block), |_, content| content.map(<[u8]>::to_vec))
        .unwrap()
        .flatten()
}

#[test]
fn each_end_of_a_run_is_told_from_the_others() {
    let scratch = tempfile::tempdir().unwrap();
    let (index, last) = open(scratch.path(), "boot 1");
    assert_eq!(last, LastRun::None);
    put(&index, 1, b"one", false);
    drop(index);
    let (index, last) = open(scratch.path(), "boot 1");
    assert_eq!(
        (last, content(&index, 1)),
        (LastRun::Killed, Some(b"one".to_vec()))
    );
    index.stop().unwrap();
    drop(index);
    let (index, last) = open(scratch.path(), "boot 2");
    assert_eq!(
        (last, content(&index, 1)),
        (LastRun::Stopped, Some(b"one".to_vec()))
    );
    drop(index);
    assert_eq!(open(scratch.path(), "boot 3").1, LastRun::PowerCut);
}

/// A thread that has ended.
struct Ended;

impl Offload for Ended {
    fn run(&self, _: Box<dyn FnOnce() + Send>) {}
}

#[test]
fn what_waits_for_a_committer_that_has_ended_is_let_go_and_with_it_the_index() {
    let scratch = tempfile::tempdir().unwrap();
    let (index, _) = Index::open(scratch.path(), "boot".to_owned(), 1, 1 << 30, Arc::new(Ended)).unwrap();
    let (told, heard) = std::sync::mpsc::sync_channel(1);
    let holder = index.clone();
    index.submit(Update {
        changes: vec![Change::Delete(BlockId(1))],
        sync: false,
        done: Box::new(move |outcome| {
            drop(holder);
            let _ = told.send(outcome);
        }),
    });
    assert_eq!(heard.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected));
    drop(index);
    let (_index, last) = open(scratch.path(), "boot");
    assert_eq!(last, LastRun::Killed);
}

#[test]
fn a_power_cut_leads_back_to_the_last_sync_whatever_else_reached_the_device() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data.mdb");
    for round in 0..20u64 {
        let (index, _) = open(scratch.path(), &format!("boot {round}"));
        put(&index, round, b"synced", true);
        // Enough unsynced transactions that freed pages would be used again, if nothing held them.
        let before = std::fs::read(&data).unwrap();
        for number in 0..60 {
            put(&index, 1_000 + number % 7, b"lost", false);
            let delete = vec![Change::Delete(BlockId(1_000 + (number + 3) % 7))];
            index.submit_and_wait(delete, false).unwrap();
        }
        drop(index);
        // The worst of it: the new meta pages reached the device, and every page since the sync did not, but for those
        // written over: they are gone for good.
        let mut after = std::fs::read(&data).unwrap();
        let metas = anchor::metas_bytes();
        for at in (metas..after.len()).step_by(4_096) {
            let page = at..at + 4_096;
            if before.get(page.clone()) != Some(&after[page.clone()]) {
                after[page].fill(0xee);
            }
        }
        std::fs::write(&data, after).unwrap();
    }
    let (index, last) = open(scratch.path(), "the last boot");
    assert_eq!(last, LastRun::PowerCut);
    for round in 0..20 {
        assert_eq!(content(&index, round), Some(b"synced".to_vec()), "round {round}");
    }
}

#[test]
fn the_file_does_not_grow_with_what_is_written_but_with_what_is_there() {
    const UNSYNCED_BYTES_MAX: u64 = 1 << 20;
    let scratch = tempfile::tempdir().unwrap();
    let (index, _) = open_with(scratch.path(), "boot", UNSYNCED_BYTES_MAX);
    let mut longest = 0;
    for number in 0..2_000 {
        put(&index, number % 50, b"written over and over", false);
        longest = longest.max(index.file_bytes() - index.live_bytes().unwrap());
    }
    assert!(
        longest <= 2 * UNSYNCED_BYTES_MAX,
        "{longest} bytes were not in use"
    );
    let length = std::fs::metadata(scratch.path().join(DATA)).unwrap().len();
    assert_eq!(index.file_bytes(), length);
}

/// An index in which most of the file is free.
fn mostly_free(directory: &Path, run: &str) -> Arc<Index> {
    let (index, _) = open(directory, run);
    let content: &'static [u8] = &[7; 4_000];
    (0..500).for_each(|block| put(&index, block, content, false));
    let all_but_one = (1..500).map(|block| Change::Delete(BlockId(block)));
    index.submit_and_wait(all_but_one.collect(), false).unwrap();
    index
}

#[test]
fn a_file_that_is_mostly_free_is_shortened_when_nothing_goes_on_and_keeps_what_is_in_use() {
    let scratch = tempfile::tempdir().unwrap();
    let index = mostly_free(scratch.path(), "boot 1");
    let life = index.life();
    for round in 0..3 {
        index.compact().unwrap();
        assert!(
            index.file_bytes() > 1 << 20,
            "something was going on: round {round}"
        );
        index.compact().unwrap();
        let length = std::fs::metadata(scratch.path().join(DATA)).unwrap().len();
        assert!(
            index.file_bytes() == length && length < 100 << 10,
            "round {round}: {length} bytes"
        );
        assert_eq!(content(&index, 0), Some(vec![7; 4_000]), "round {round}");
        let content: &'static [u8] = &[8; 4_000];
        (1..500).for_each(|block| put(&index, block, content, false));
        let others = (1..500).map(|block| Change::Delete(BlockId(block)));
        index.submit_and_wait(others.collect(), false).unwrap();
    }
    drop(index);
    let (index, last) = open(scratch.path(), "boot 1");
    assert_eq!(
        (last, index.life(), content(&index, 0)),
        (LastRun::Killed, life, Some(vec![7; 4_000]))
    );
}

#[test]
fn a_power_cut_after_a_file_was_shortened_leads_back_to_what_was_in_it() {
    let scratch = tempfile::tempdir().unwrap();
    let index = mostly_free(scratch.path(), "boot 1");
    index.compact().unwrap();
    index.compact().unwrap();
    let data = scratch.path().join(DATA);
    let before = std::fs::read(&data).unwrap();
    (1..20).for_each(|block| put(&index, block, b"lost", false));
    drop(index);
    // As above: what was written since is lost, and what it was written over as well.
    let mut after = std::fs::read(&data).unwrap();
    for at in (anchor::metas_bytes()..after.len()).step_by(4_096) {
        let page = at..at + 4_096;
        if before.get(page.clone()) != Some(&after[page.clone()]) {
            after[page].fill(0xee);
        }
    }
    std::fs::write(&data, after).unwrap();
    let (index, last) = open(scratch.path(), "boot 2");
    assert_eq!(
        (last, content(&index, 0), content(&index, 1)),
        (LastRun::PowerCut, Some(vec![7; 4_000]), None)
    );
}

#[test]
fn a_power_cut_while_a_file_is_shortened_leaves_the_old_one_or_the_new_one() {
    for is_renamed in [false, true] {
        let scratch = tempfile::tempdir().unwrap();
        let index = mostly_free(scratch.path(), "boot 1");
        index.sync().unwrap();
        let path = scratch.path().join("compact-0.mdb");
        let copy = index.copied(&path).unwrap();
        let token = "boot 1".to_owned();
        let nothing = Kept { token, metas: vec![] };
        index.anchored.lock().unwrap().anchor.keep(&nothing).unwrap();
        if is_renamed {
            std::fs::rename(&path, scratch.path().join(DATA)).unwrap();
        }
        drop((index, copy));
        let (index, last) = open(scratch.path(), "boot 2");
        assert_eq!(
            (last, content(&index, 0), content(&index, 1)),
            (LastRun::PowerCut, Some(vec![7; 4_000]), None)
        );
        assert!(!path.exists(), "a start leaves nothing beside it");
    }
}

#[test]
fn a_record_whose_bytes_are_missing_is_corrupt() {
    let scratch = tempfile::tempdir().unwrap();
    let (index, _) = open(scratch.path(), "boot");
    put(&index, 1, b"one", false);
    index
        .submit_and_wait(vec![Change::DeleteContent(BlockId(1))], false)
        .unwrap();
    let error = index.get(BlockId(1), |_| ()).unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::Corrupt, "block 1: the index lacks its bytes")
    );
}
