//! What each event leads to.

#![expect(clippy::disallowed_methods, reason = "any time will do")]

use std::time::Duration;

use curvine_protocol::checksum::CHUNK_BYTES;
use curvine_protocol::worker::{ReadBlock, Wish};

use super::filling::{IDLE, LOAD_IDLE, SAVE_BYTES};
use super::*;
use crate::worker::disk::Bitmap;

type TestFills = Fills<(), &'static str, &'static str>;
type TestDecision = Decision<(), &'static str, &'static str>;

const BLOCK: BlockId = BlockId(7);
const GENERATION: u32 = 3;

fn read(chunks: Range<u64>, reader: &'static str) -> Request<&'static str, &'static str> {
    Request::Read(call(chunks), reader)
}

fn call(chunks: Range<u64>) -> ReadBlock {
    ReadBlock {
        block: BLOCK,
        generation: GENERATION,
        offset_bytes: chunks.start * CHUNK_BYTES,
        len_bytes: u32::try_from((chunks.end - chunks.start) * CHUNK_BYTES).expect("it is small"),
        fill: None,
        exact: false,
        tier: Wish::UNSAID,
    }
}

fn error(kind: ErrorKind) -> Error {
    Error::new(kind, "it failed")
}

/// A fill of so many chunks, none of them there, that these wait for; with its number and what begins with it.
fn begun(
    chunks: usize,
    waiting: Vec<Request<&'static str, &'static str>>,
    now: Instant,
) -> (TestFills, u64, Vec<TestDecision>) {
    let mut fills = TestFills::new();
    let mut number = None;
    for request in waiting {
        match fills.ask(BLOCK, GENERATION, request, now) {
            Asked::Opens(opening) => assert_eq!(number.replace(opening), None, "opened once"),
            Asked::Decided(decisions) => assert_eq!(decisions, vec![], "waits for the opening"),
        }
    }
    let number = number.expect("somebody asked");
    let begun = Begun {
        place: (),
        generation: GENERATION,
        len_bytes: chunks as u64 * CHUNK_BYTES,
        present: Bitmap::new(chunks),
        checksums: vec![0; chunks],
    };
    let decisions = fills.begin(BLOCK, number, begun, now);
    (fills, number, decisions)
}

fn fetch(number: u64, chunks: Range<usize>, purpose: Purpose) -> TestDecision {
    Decision::Fetch {
        block: BLOCK,
        number,
        place: (),
        chunks,
        purpose,
    }
}

fn ask(
    fills: &mut TestFills,
    generation: u32,
    request: Request<&'static str, &'static str>,
) -> Vec<TestDecision> {
    match fills.ask(BLOCK, generation, request, Instant::now()) {
        Asked::Decided(decisions) => decisions,
        Asked::Opens(number) => panic!("opens fill {number}"),
    }
}

#[test]
fn readers_that_wait_for_an_opening_share_what_is_fetched() {
    let waiting = vec![read(0..1, "one"), read(0..1, "two")];
    let (mut fills, number, decisions) = begun(64, waiting, Instant::now());
    assert_eq!(decisions, vec![fetch(number, 0..32, Purpose::Reading)]);
    let granted = |reader| Decision::Grant {
        place: (),
        call: call(0..1),
        reader,
        len_bytes: u32::try_from(CHUNK_BYTES).expect("it is small"),
        checksums: vec![11],
    };
    assert_eq!(
        fills.stored(BLOCK, number, 0, &[11, 12]),
        vec![granted("one"), granted("two")]
    );
}

#[test]
fn a_part_of_a_chunk_is_read_here_and_nothing_is_behind_the_end() {
    let (mut fills, number, _) = begun(2, vec![read(0..1, "first")], Instant::now());
    fills.stored(BLOCK, number, 0, &[11]);
    let part = ReadBlock {
        len_bytes: 10,
        ..call(0..1)
    };
    assert_eq!(
        ask(&mut fills, GENERATION, Request::Read(part.clone(), "part")),
        vec![Decision::Read {
            place: (),
            call: part,
            reader: "part",
            checksums: vec![11],
        }]
    );
    assert_eq!(
        ask(&mut fills, GENERATION, read(2..3, "behind")),
        vec![Decision::AnswerNothing(call(2..3), "behind")]
    );
}

#[test]
fn a_load_is_answered_when_the_whole_block_is_sealed() {
    let (mut fills, number, decisions) = begun(2, vec![Request::Whole("load")], Instant::now());
    assert_eq!(decisions, vec![fetch(number, 0..2, Purpose::Loading)]);
    assert_eq!(fills.stored(BLOCK, number, 0, &[11]), vec![]);
    let mut present = Bitmap::new(2);
    present.set(0);
    present.set(1);
    let whole = Decision::Save(Progress {
        block: BLOCK,
        number,
        place: (),
        present,
        checksums: vec![11, 12],
    });
    assert_eq!(fills.stored(BLOCK, number, 1, &[12]), vec![whole]);
    assert_eq!(
        fills.saved(BLOCK, number, Ok(true)),
        vec![Decision::AnswerSealed {
            place: (),
            request: Request::Whole("load"),
            fetched_bytes: 2 * CHUNK_BYTES,
        }]
    );
    assert_eq!(fills.stop(), vec![], "nothing is held any more");
}

#[test]
fn a_part_that_fails_takes_along_only_who_waits_for_it_and_is_asked_for_again() {
    let waiting = vec![read(0..1, "hit"), read(500..501, "spared")];
    let (mut fills, number, _) = begun(1_000, waiting, Instant::now());
    let failed = error(ErrorKind::Ufs);
    assert_eq!(
        fills.part_ended(BLOCK, number, &(0..32), Err(failed.clone())),
        vec![
            Decision::Fail(read(0..1, "hit"), failed),
            Decision::Doubt((), ErrorKind::Ufs)
        ]
    );
    assert_eq!(
        ask(&mut fills, GENERATION, read(0..1, "again")),
        vec![fetch(number, 0..16, Purpose::Reading)]
    );
}

#[test]
fn a_changed_object_ends_the_fill_and_leaves_nothing_of_the_old_version() {
    let waiting = vec![read(0..1, "reader"), Request::Whole("load")];
    let (mut fills, number, _) = begun(64, waiting, Instant::now());
    let changed = error(ErrorKind::UfsChanged);
    assert_eq!(
        fills.part_ended(BLOCK, number, &(0..32), Err(changed.clone())),
        vec![
            Decision::Remove(BLOCK, ()),
            Decision::Fail(read(0..1, "reader"), changed.clone()),
            Decision::Fail(Request::Whole("load"), changed),
            Decision::Doubt((), ErrorKind::UfsChanged),
        ]
    );
    assert_eq!(fills.stop(), vec![]);
}

#[test]
fn news_of_an_earlier_fill_of_the_block_changes_nothing() {
    let (mut fills, number, _) = begun(64, vec![read(0..1, "reader")], Instant::now());
    let earlier = number - 1;
    assert_eq!(fills.stored(BLOCK, earlier, 0, &[11]), vec![]);
    let changed = Err(error(ErrorKind::UfsChanged));
    assert_eq!(fills.part_ended(BLOCK, earlier, &(0..32), changed), vec![]);
    assert_eq!(fills.saved(BLOCK, earlier, Ok(true)), vec![]);
    assert_eq!(fills.end_opening(BLOCK, number), vec![], "it is open already");
    assert_eq!(fills.stop().len(), 1);
}

#[test]
fn another_generation_than_the_one_being_filled_is_refused_as_stale() {
    let (mut fills, _, _) = begun(64, vec![read(0..1, "reader")], Instant::now());
    let stale = Error::new(
        ErrorKind::Stale,
        "block 7: generation 4 was asked for and 3 is being filled",
    );
    assert_eq!(
        ask(&mut fills, GENERATION + 1, read(0..1, "newer")),
        vec![Decision::Fail(read(0..1, "newer"), stale)]
    );
}

#[test]
fn no_more_blocks_are_opened_than_the_limit() {
    let (mut fills, now) = (TestFills::new(), Instant::now());
    for block in 0..FILLS_MAX as u64 {
        let asked = fills.ask(BlockId(block), GENERATION, Request::Whole("load"), now);
        assert_eq!(asked, Asked::Opens(block + 1));
    }
    let one_more = BlockId(FILLS_MAX as u64);
    let overloaded = Error::new(
        ErrorKind::Overloaded,
        "4096 blocks are being filled already; try again",
    );
    assert_eq!(
        fills.ask(one_more, GENERATION, Request::Whole("more"), now),
        Asked::Decided(vec![Decision::Fail(Request::Whole("more"), overloaded)])
    );
}

#[test]
fn an_idle_fill_is_saved_first_and_let_go_at_the_next_sweep() {
    let now = Instant::now();
    let (mut fills, number, _) = begun(64, vec![read(0..1, "reader")], now);
    fills.stored(BLOCK, number, 0, &[11]);
    let (idle, nobody_left) = (now + IDLE + Duration::from_secs(1), |_: &_| true);
    assert_eq!(fills.sweep(nobody_left, idle), vec![], "a part is under way");
    fills.part_ended(BLOCK, number, &(0..32), Ok(()));
    assert_eq!(fills.sweep(nobody_left, now + IDLE), vec![], "used lately");
    let saves = fills.sweep(nobody_left, idle);
    assert!(matches!(&saves[..], [Decision::Save(progress)] if progress.present.ones() == 1));
    assert_eq!(fills.sweep(nobody_left, idle), vec![], "being saved");
    assert_eq!(fills.saved(BLOCK, number, Ok(false)), vec![]);
    assert_eq!(fills.sweep(nobody_left, idle), vec![]);
    assert_eq!(fills.stop(), vec![], "let go");
}

#[test]
fn progress_is_saved_every_so_many_bytes_and_one_save_at_a_time() {
    let chunks = 2 * (SAVE_BYTES / CHUNK_BYTES) as usize + 1;
    let (mut fills, number, _) = begun(chunks, vec![Request::Whole("load")], Instant::now());
    let enough = vec![11; (SAVE_BYTES / CHUNK_BYTES) as usize];
    assert_eq!(fills.stored(BLOCK, number, 0, &enough[1..]), vec![]);
    assert_eq!(fills.stored(BLOCK, number, enough.len() - 1, &[11]).len(), 1);
    assert_eq!(fills.stored(BLOCK, number, enough.len(), &enough), vec![]);
    let failed = error(ErrorKind::Io);
    assert_eq!(
        fills.saved(BLOCK, number, Err(failed.clone())),
        vec![Decision::Fail(Request::Whole("load"), failed)]
    );
}

fn stopped(request: Request<&'static str, &'static str>) -> TestDecision {
    let error = Error::new(ErrorKind::Cancelled, "the load of block 7 was stopped");
    Decision::Fail(request, error)
}

#[test]
fn a_load_that_is_stopped_ends_what_is_fetched_and_keeps_what_arrived() {
    let (mut fills, number, _) = begun(256, vec![Request::Whole("load")], Instant::now());
    fills.stored(BLOCK, number, 0, &[11, 12]);
    assert_eq!(fills.fetched_bytes(BLOCK), 2 * CHUNK_BYTES);
    let decisions = fills.stop_loading(BLOCK);
    let [failed, Decision::Stop(()), Decision::Save(progress)] = &decisions[..] else {
        panic!("{decisions:?}");
    };
    assert_eq!(failed, &stopped(Request::Whole("load")));
    assert!(progress.present.all(0..2) && !progress.present.get(2));
    let late = fills.part_ended(BLOCK, number, &(0..128), Err(error(ErrorKind::Cancelled)));
    assert_eq!(late, vec![], "nobody hears of it");
    assert_eq!(fills.stop_loading(BLOCK), vec![], "a second time is none");
    let anew = fills.ask(BLOCK, GENERATION, read(2..3, "reader"), Instant::now());
    assert!(matches!(anew, Asked::Opens(another) if another != number));
}

#[test]
fn a_load_that_is_stopped_leaves_alone_what_a_reader_waits_for() {
    let waiting = vec![Request::Whole("load"), read(5..6, "reader")];
    let (mut fills, number, _) = begun(256, waiting, Instant::now());
    assert_eq!(fills.stop_loading(BLOCK), vec![stopped(Request::Whole("load"))]);
    let decisions = fills.stored(BLOCK, number, 5, &[15]);
    assert!(matches!(
        &decisions[..],
        [Decision::Grant { reader: "reader", .. }]
    ));
}

#[test]
fn an_opening_is_stopped_only_if_no_reader_waits_for_it() {
    let mut fills = TestFills::new();
    let now = Instant::now();
    let Asked::Opens(number) = fills.ask(BLOCK, GENERATION, Request::Whole("load"), now) else {
        panic!("it is opened");
    };
    ask(&mut fills, GENERATION, read(0..1, "reader"));
    assert_eq!(fills.stop_loading(BLOCK), vec![stopped(Request::Whole("load"))]);
    assert_eq!(fills.end_opening(BLOCK, number), vec![read(0..1, "reader")]);
    let Asked::Opens(number) = fills.ask(BLOCK, GENERATION, Request::Whole("load"), now) else {
        panic!("it is opened");
    };
    let decisions = vec![stopped(Request::Whole("load")), Decision::StopOpening(number)];
    assert_eq!(fills.stop_loading(BLOCK), decisions);
    assert_eq!(
        fills.end_opening(BLOCK, number),
        vec![],
        "what is opened all the same is let go"
    );
}

#[test]
fn a_load_that_nobody_asks_for_again_is_given_up() {
    let begun_at = Instant::now();
    let (mut fills, number, _) = begun(256, vec![Request::Whole("load")], begun_at);
    fills.stored(BLOCK, number, 0, &[11]);
    let given_up = |request: &Request<_, _>| matches!(request, Request::Whole("load"));
    assert_eq!(fills.sweep(given_up, begun_at + LOAD_IDLE), vec![]);
    // Asked again meanwhile, as long as it takes.
    let asked_at = begun_at + LOAD_IDLE;
    fills.ask(BLOCK, GENERATION, Request::Whole("load"), asked_at);
    assert_eq!(fills.sweep(given_up, asked_at + LOAD_IDLE), vec![]);
    let decisions = fills.sweep(given_up, asked_at + LOAD_IDLE + Duration::from_millis(1));
    assert!(
        matches!(&decisions[..], [Decision::Stop(()), Decision::Save(_)]),
        "{decisions:?}"
    );
}
