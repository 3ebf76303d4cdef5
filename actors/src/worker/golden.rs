//! The bytes of what a worker keeps beside block data.

use std::sync::Arc;

use curvine_protocol::checksum::CHUNK_BYTES;
use curvine_protocol::cluster::Tier;
use curvine_protocol::{ClusterId, MountId, WorkerId};

use super::disk::{Bitmap, BlockFlags, BlockRecord, BlockState, Numbers, RecordView};
use super::identity::Identity;
use crate::golden::{Golden, file, text};
use crate::kit::ports::Inline;
use crate::ufs::upload_notes::{Upload, UploadNotes};

#[test]
fn every_record_of_the_block_index_and_the_identity_have_their_golden_bytes() {
    let mut golden = Golden::new("The block index of a disk, worker.json, and notes of uploads.");
    let reencoded = |bytes: &[u8]| {
        RecordView::parse(bytes)
            .and_then(RecordView::to_record)
            .map(|record| record.encode())
            .map_err(|error| error.to_string())
    };
    let mut bits = Bitmap::new(2);
    bits.set(1);
    for state in [
        BlockState::Writing { dirty: bits.clone() },
        BlockState::Sealed,
        BlockState::Filling { present: bits },
    ] {
        let (name, flags) = match state {
            BlockState::Writing { .. } => ("block being written", (false, false, true)),
            BlockState::Sealed => ("sealed block", (false, true, false)),
            BlockState::Filling { .. } => ("block being filled", (true, false, false)),
        };
        let (from_ufs, synced, cutting) = flags;
        let record = BlockRecord {
            generation: 7,
            state,
            len_bytes: CHUNK_BYTES + 1,
            checksums: vec![0xAABB_CCDD, 1],
            accessed_ms: 1_000,
            flags: BlockFlags {
                from_ufs,
                synced,
                cutting,
                in_index: false,
                doubtful: false,
                pinned: false,
                guest: false,
                tier: None,
            },
            rewritten: None,
            round: 0,
            numbers: Numbers::default(),
            mount: None,
        };
        golden.bytes(name, &record, &record.encode(), reencoded);
    }
    let small = BlockRecord::sealed(
        7,
        3,
        vec![0xAABB_CCDD],
        1_000,
        BlockFlags {
            in_index: true,
            ..BlockFlags::default()
        },
    );
    let rewritten = BlockRecord {
        rewritten: Some(Bitmap::new(1)),
        flags: BlockFlags::default(),
        ..small.clone()
    };
    golden.bytes(
        "sealed block that was rewritten since its sync",
        &rewritten,
        &rewritten.encode(),
        reencoded,
    );
    let guest = BlockRecord {
        flags: BlockFlags {
            guest: true,
            tier: Some(Tier::Hdd),
            ..BlockFlags::default()
        },
        ..small.clone()
    };
    golden.bytes(
        "copy of what another disk has, that was wished to be on HDD",
        &guest,
        &guest.encode(),
        reencoded,
    );
    let doubtful = BlockRecord {
        flags: BlockFlags {
            doubtful: true,
            ..BlockFlags::default()
        },
        ..small.clone()
    };
    golden.bytes(
        "block that a power cut may have taken something of",
        &doubtful,
        &doubtful.encode(),
        reencoded,
    );
    let numbered = BlockRecord {
        numbers: Numbers { floor: 9, sealed: 8 },
        ..rewritten.clone()
    };
    let of_a_round = BlockRecord {
        round: 7,
        ..rewritten.clone()
    };
    golden.bytes(
        "sealed block that was rewritten, with the sync that is for it",
        &of_a_round,
        &of_a_round.encode(),
        reencoded,
    );
    golden.bytes(
        "sealed block whose writer numbers its changes",
        &numbered,
        &numbered.encode(),
        reencoded,
    );
    let of_mount = BlockRecord {
        flags: BlockFlags {
            from_ufs: true,
            ..small.flags
        },
        round: 7,
        ..numbered.clone()
    }
    .of_mount(Some(MountId(0x0102_0304)));
    golden.bytes(
        "sealed block of a mount's object",
        &of_mount,
        &of_mount.encode(),
        reencoded,
    );
    golden.bytes(
        "sealed block whose bytes are in the index",
        &small,
        &small.encode(),
        reencoded,
    );
    let identity = Identity {
        worker: Some(WorkerId(2)),
        cluster: Some(ClusterId(0xC1)),
    };
    let scratch = tempfile::tempdir().expect("a scratch directory");
    identity.store(scratch.path()).expect("room");
    let json = std::fs::read(scratch.path().join("worker.json")).expect("stored");
    golden.bytes("worker.json", String::from_utf8_lossy(&json), &json, text);
    let upload = Upload {
        mount: MountId(3),
        uri: "s3://bucket/below".to_owned(),
        key: "a/b".to_owned(),
        id: "VXBsb2FkIElE".to_owned(),
    };
    let opened = UploadNotes::open(scratch.path().join("uploads"), Arc::new(Inline));
    let (notes, _, _given_up) = opened.expect("opens");
    let _note = futures::executor::block_on(notes.begun(upload)).expect("room");
    let json = std::fs::read(scratch.path().join("uploads/0.json")).expect("stored");
    let reencoded = |bytes: &[u8]| {
        serde_json::from_slice::<Upload>(bytes)
            .and_then(|upload| serde_json::to_vec_pretty(&upload))
            .map_err(|error| error.to_string())
    };
    golden.bytes("uploads/0.json", String::from_utf8_lossy(&json), &json, reencoded);
    golden.check(&file("worker.txt"));
    assert_eq!(Identity::load(scratch.path()), Ok(identity));
}
