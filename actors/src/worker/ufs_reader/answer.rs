//! Answers whoever waits for a block: from its file, from what was fetched, or with why not.

use std::fs::File;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use curvine_protocol::checksum::CHUNK_BYTES;
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{BlockData, ReadBlock};
use curvine_protocol::{Error, Result};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::fills;
use super::transfer::Target;
use crate::kit::{Answer, Body, FileRange};
use crate::worker::disk::{Grant, Store, answer_with};
use crate::worker::disks::fetches::Fetch;

pub type Reader = oneshot::Sender<Result<Answer<ReadBlock>>>;
/// Told the bytes that were fetched for the block.
pub type Loader = oneshot::Sender<Result<u64>>;
pub type Request = fills::Request<Reader, Loader>;

/// What a block is filled with, and where its bytes go.
pub struct Place {
    pub target: Target,
    pub store: Arc<Store>,
    pub file: Arc<File>,
    /// Ends what is being fetched here.
    pub stop: CancellationToken,
    pub fetch: Fetch,
}

impl Request {
    pub fn fail(self, error: Error) {
        match self {
            Request::Read(_, reader) => drop(reader.send(Err(error))),
            Request::Whole(loader) => drop(loader.send(Err(error))),
        }
    }

    pub fn is_given_up(&self) -> bool {
        match self {
            Request::Read(_, reader) => reader.is_closed(),
            Request::Whole(loader) => loader.is_closed(),
        }
    }
}

/// A read that begins behind the block's end.
pub fn answer_nothing(call: &ReadBlock, reader: Reader) {
    let _ = reader.send(Ok(answer_with(call.offset_bytes, Bytes::new())));
}

/// A read of whole chunks.
pub fn answer_granted(place: &Place, call: &ReadBlock, reader: Reader, len_bytes: u32, checksums: Vec<u32>) {
    let data = BlockData {
        offset_bytes: call.offset_bytes,
        checksums,
    };
    let range = FileRange {
        file: place.file.clone(),
        offset_bytes: call.offset_bytes,
        len_bytes,
    };
    let _ = reader.send(Ok(Answer::with_body(data, Body::File(range))));
}

/// A read of parts of chunks, verified on one of the disk's lanes.
pub fn answer_read(place: &Place, call: ReadBlock, reader: Reader, checksums: Vec<u32>) {
    let (file, len_bytes) = (place.file.clone(), place.target.len_bytes);
    place
        .store
        .on_any_lane(call.offset_bytes / CHUNK_BYTES, move |store| {
            let _ = reader.send(store.read_filled(&call, &file, len_bytes, &checksums));
        });
}

/// A request for a block that is wholly on a disk.
pub fn answer_whole(store: &Arc<Store>, fetched_bytes: u64, request: Request) {
    match request {
        Request::Whole(loader) => drop(loader.send(Ok(fetched_bytes))),
        Request::Read(call, reader) => match store.grant(&call) {
            Ok(Grant::Ready(answer)) => drop(reader.send(Ok(answer))),
            Err(error) => drop(reader.send(Err(error))),
            Ok(_) => store.on_lane(call.block, move |store| {
                let _ = reader.send(store.read(&call));
            }),
        },
    }
}

/// Answers a read from bytes that were fetched and not stored.
pub fn answer_passed(call: &ReadBlock, start: u64, body: &[Bytes]) -> Answer<ReadBlock> {
    let mut bytes = BytesMut::new();
    let mut at = start;
    let end = call.offset_bytes.saturating_add(call.len_bytes.into());
    for piece in body {
        let from = call.offset_bytes.clamp(at, at + piece.len() as u64) - at;
        let to = end.clamp(at, at + piece.len() as u64) - at;
        bytes.extend_from_slice(&piece[to_usize(from)..to_usize(to)]);
        at += piece.len() as u64;
    }
    answer_with(call.offset_bytes, bytes.freeze())
}
