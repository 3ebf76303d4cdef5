//! Opens a block: what it is filled with, on which disk, and whether it must be filled at all.

use std::sync::Arc;

use bytes::Bytes;
use curvine_protocol::worker::{Fill, LoadTask};
use curvine_protocol::{BlockId, Error, ErrorKind, Result};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::answer::Place;
use super::budget::Budget;
use super::fills::{Begun, Purpose};
use super::resolve::Resolver;
use super::transfer::Target;
use crate::worker::disk::{FillStart, Store};
use crate::worker::disks::Disks;
use crate::worker::disks::fetches::Fetch;

/// Blocks up to this length are fetched in one go and stored in one.
const SMALL_BYTES: u64 = 1 << 20;

/// What a request names as its source.
pub enum Origin {
    Reader(Fill),
    Master(Box<LoadTask>),
}

impl Origin {
    pub fn purpose(&self) -> Purpose {
        match self {
            Origin::Reader(_) => Purpose::Reading,
            Origin::Master(_) => Purpose::Loading,
        }
    }
}

/// How opening a block ended.
pub enum Opened {
    /// It was or is wholly on this disk; so many bytes were fetched.
    Whole(Arc<Store>, u64),
    Fill(Begun<Arc<Place>>),
    /// Small and fetched, but not stored.
    Passed(Vec<Bytes>, Error),
    /// No disk takes it: readers are served through.
    NoRoom(Target, Error),
}

/// Makes a block whole, or ready to be filled, until `stop` ends that and later fetches.
///
/// # Errors
/// `Cancelled` when it was stopped; `BlockUnavailable` if the block was deleted meanwhile; those of resolving the block,
/// of the source and of the disk. A full disk is no error but [`Opened::NoRoom`].
pub async fn open(
    disks: &Disks,
    resolver: &Resolver,
    block: BlockId,
    generation: u32,
    origin: Origin,
    budget: &Budget,
    stop: &CancellationToken,
) -> Result<Opened> {
    let opening = async {
        let fetch = disks.fetches().begin(block);
        if let Some(store) = disks.sealed(block, generation)? {
            return Ok(Opened::Whole(store.clone(), 0));
        }
        let target = match &origin {
            Origin::Reader(fill) => resolver.target(block, generation, fill).await?,
            Origin::Master(task) => resolver.load_target(task).await?,
        };
        let disk = match disks.for_fetched(block, target.len_bytes) {
            Ok(disk) => disk,
            Err(error) => return Ok(Opened::NoRoom(target, error)),
        };
        let need_bytes = match disk.store.holds(block)? {
            true => 0,
            false => target.len_bytes,
        };
        let _room = disk.store.make_room(need_bytes).await;
        let opened = if target.len_bytes <= SMALL_BYTES {
            open_small(disk.store.clone(), &target, fetch, budget).await
        } else {
            open_large(disk.store.clone(), target.clone(), fetch, stop).await
        };
        if let Err(error) = &opened {
            resolver.failed(&target, error.kind).await;
        }
        opened
    };
    unless_stopped(stop, opening).await.unwrap_or_else(|| {
        Err(Error::new(
            ErrorKind::Cancelled,
            format!("the load of block {block} was stopped"),
        ))
    })
}

/// None as soon as it is stopped, also when the work could go on at the same moment: nothing more is asked of a store then.
pub async fn unless_stopped<T>(stop: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        done = work => Some(done),
    }
}

async fn open_small(store: Arc<Store>, target: &Target, fetch: Fetch, budget: &Budget) -> Result<Opened> {
    let body = target.fetch(0..target.len_bytes, budget).await?;
    let (done, stored) = oneshot::channel();
    let (block, generation, pieces) = (target.block, target.generation, body.clone());
    store.on_lane(block, move |store| {
        if let Err(error) = fetch.check() {
            return drop(done.send(Err(error)));
        }
        let done = Box::new(move |outcome| drop(done.send(outcome)));
        store.put_fetched(block, generation, &pieces, done);
    });
    match stored.await {
        Ok(Ok(_)) => Ok(Opened::Whole(store, target.len_bytes)),
        Ok(Err(error)) => Ok(Opened::Passed(body, error)),
        Err(_) => Err(Error::internal("storing a block was given up")),
    }
}

async fn open_large(
    store: Arc<Store>,
    target: Target,
    fetch: Fetch,
    stop: &CancellationToken,
) -> Result<Opened> {
    let (done, begun) = oneshot::channel();
    let (block, generation, len_bytes) = (target.block, target.generation, target.len_bytes);
    let on_lane = fetch.clone();
    store.on_lane(block, move |store| {
        let begun = on_lane.check();
        let _ = done.send(begun.and_then(|()| store.fill_begin(block, generation, len_bytes)));
    });
    let begun = begun
        .await
        .unwrap_or_else(|_| Err(Error::internal("opening a block was given up")));
    match begun {
        Ok(FillStart::Whole) => Ok(Opened::Whole(store, 0)),
        Ok(FillStart::Open {
            file,
            present,
            checksums,
        }) => Ok(Opened::Fill(Begun {
            place: Arc::new(Place {
                target,
                store,
                file,
                stop: stop.clone(),
                fetch,
            }),
            generation,
            len_bytes,
            present,
            checksums,
        })),
        Err(error) if error.kind == ErrorKind::NoSpace => Ok(Opened::NoRoom(target, error)),
        Err(error) => Err(error),
    }
}
