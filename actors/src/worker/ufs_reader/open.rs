//! Opens a block: what it is filled with, on which disk, and whether it must be filled at all.

use std::sync::Arc;

use bytes::Bytes;
use curvine_protocol::cluster::Tier;
use curvine_protocol::worker::{Fill, LoadTask};
use curvine_protocol::{BlockId, Error, ErrorKind, JobId, Result};
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
    /// And where the reader wishes it to be.
    Reader(Fill, Option<Tier>),
    /// And the job that wants it.
    Master(Box<LoadTask>, Option<JobId>),
}

impl Origin {
    pub fn purpose(&self) -> Purpose {
        match self {
            Origin::Reader(..) => Purpose::Reading,
            Origin::Master(..) => Purpose::Loading,
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
        let _entered = disks.enter(block).await;
        let (job, tier) = match &origin {
            Origin::Master(task, job) => (*job, task.tier),
            Origin::Reader(_, tier) => (None, *tier),
        };
        if let Some(store) = disks.sealed(block, generation)? {
            if let Some(job) = job {
                store.hold_in_turn(job, block).await;
            }
            if store.brief(block)?.is_some_and(|brief| brief.flags.tier != tier) {
                store.is_wished(block, tier);
            }
            // It may have been on its way out.
            if job.is_none() || disks.sealed(block, generation)?.is_some() {
                return Ok(Opened::Whole(store.clone(), 0));
            }
        }
        let target = match &origin {
            Origin::Reader(fill, _) => resolver.target(block, generation, fill).await?,
            Origin::Master(task, _) => resolver.load_target(task).await?,
        };
        let full = |error| match job {
            Some(job) => full_of(job, block, target.len_bytes),
            None => error,
        };
        let disk = match disks.for_fetched(block, target.len_bytes, tier) {
            Ok(disk) => disk,
            Err(error) => return Ok(Opened::NoRoom(target.clone(), full(error))),
        };
        let need_bytes = match disk.store.holds(block)? {
            true => 0,
            false => target.len_bytes,
        };
        job.inspect(|job| disk.store.hold(*job, block));
        disks.make_room_in_quota(target.mount, need_bytes);
        let room = disk.store.make_room_for(block, need_bytes, job).await;
        if let Some(job) = job.filter(|_| !room.is_there()) {
            let error = full_of(job, block, target.len_bytes);
            return Ok(Opened::NoRoom(target, error));
        }
        let opened = if target.len_bytes <= SMALL_BYTES {
            open_small(disk.store.clone(), &target, fetch, budget).await
        } else {
            open_large(disk.store.clone(), target.clone(), fetch, stop).await
        };
        if let Err(error) = &opened {
            resolver.failed(&target, error.kind).await;
        }
        // Somebody else has taken the room meanwhile.
        Ok(match opened? {
            Opened::NoRoom(target, error) => Opened::NoRoom(target, full(error)),
            Opened::Passed(body, error) if error.kind == ErrorKind::NoSpace => {
                Opened::Passed(body, full(error))
            }
            other => other,
        })
    };
    unless_stopped(stop, opening).await.unwrap_or_else(|| {
        Err(Error::new(
            ErrorKind::Cancelled,
            format!("the load of block {block} was stopped"),
        ))
    })
}

fn full_of(job: JobId, block: BlockId, len_bytes: u64) -> Error {
    Error::new(
        ErrorKind::NoSpace,
        format!(
            "block {block} is not loaded: no disk of this worker has {len_bytes} bytes left without letting go of what job \
             {job} has loaded; `cv load --dry-run` says what fits"
        ),
    )
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
    let mount = target.mount;
    store.on_lane(block, move |store| {
        if let Err(error) = fetch.check() {
            return drop(done.send(Err(error)));
        }
        let done = Box::new(move |outcome| drop(done.send(outcome)));
        store.put_fetched(block, generation, &pieces, mount, done);
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
    let mount = target.mount;
    let on_lane = fetch.clone();
    store.on_lane(block, move |store| {
        let begun = on_lane.check();
        let _ = done.send(begun.and_then(|()| store.fill_begin(block, generation, len_bytes, mount)));
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
