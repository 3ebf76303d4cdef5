//! What is asked of the fills, and what they decide.

use std::ops::Range;

use curvine_protocol::worker::ReadBlock;
use curvine_protocol::{BlockId, Error, ErrorKind};

use crate::worker::disk::Bitmap;

/// Who wants what of a block.
#[derive(Debug, PartialEq, Eq)]
pub enum Request<R, L> {
    Read(ReadBlock, R),
    /// All of it; told the bytes that were fetched for it.
    Whole(L),
}

/// For whom bytes are fetched: each has a budget of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Reading,
    Loading,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked<P, R, L> {
    /// The block is to be opened; [`Fills::begin`](super::Fills::begin) or
    /// [`Fills::end_opening`](super::Fills::end_opening) is told this number then.
    Opens(u64),
    Decided(Vec<Decision<P, R, L>>),
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision<P, R, L> {
    Fail(Request<R, L>, Error),
    /// The read begins behind the block's end.
    AnswerNothing(ReadBlock, R),
    /// Whole chunks, whose checksums are known: the reader takes them from the file itself.
    Grant {
        place: P,
        call: ReadBlock,
        reader: R,
        len_bytes: u32,
        checksums: Vec<u32>,
    },
    /// Parts of chunks: to be read and verified here.
    Read {
        place: P,
        call: ReadBlock,
        reader: R,
        checksums: Vec<u32>,
    },
    /// The block is sealed: whoever waits is answered from the disk.
    AnswerSealed {
        place: P,
        request: Request<R, L>,
        fetched_bytes: u64,
    },
    Fetch {
        block: BlockId,
        number: u64,
        place: P,
        chunks: Range<usize>,
        purpose: Purpose,
    },
    Save(Progress<P>),
    /// What is being fetched to this place is wanted no more.
    Stop(P),
    /// Nobody waits any more for the opening of this number.
    StopOpening(u64),
    /// The object has another version now: nothing of this one may stay on the disk.
    Remove(BlockId, P),
    /// What the block is filled with may be wrong by now.
    Doubt(P, ErrorKind),
}

/// How far a fill has come.
#[derive(Debug, PartialEq, Eq)]
pub struct Progress<P> {
    pub block: BlockId,
    pub number: u64,
    pub place: P,
    pub present: Bitmap,
    pub checksums: Vec<u32>,
}

/// A block that was opened to be filled.
pub struct Begun<P> {
    pub place: P,
    pub generation: u32,
    pub len_bytes: u64,
    /// What is there from an earlier fill, and the checksums of all chunks.
    pub present: Bitmap,
    pub checksums: Vec<u32>,
}
