//! What of an index survives what.

#![allow(clippy::unwrap_used)]

use super::super::record::{BlockFlags, BlockRecord};
use super::*;
use crate::kit::ports::Inline;

fn open(directory: &Path, run: &str) -> (Arc<Index>, LastRun) {
    // No thread of its own, which might hold the index a moment longer than the test.
    Index::open(directory, run.to_owned(), 1, Arc::new(Inline)).unwrap()
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
