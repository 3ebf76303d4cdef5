//! The under file systems of mounts, as their options are now.
//!
//! A mount's options may change (`UpdateMount`), most often because credentials are about to expire, or have. So nobody
//! keeps an open under file system: what is handed out asks here with each read and write. It is asked of the master again when
//! it is older than [`MOUNT_AGE`], and as soon as the store refuses or fails.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use curvine_protocol::master::ResolveMount;
use curvine_protocol::mount::MountRecord;
use curvine_protocol::{ErrorKind, MountId, Result, UfsVersion};
use futures::future::BoxFuture;
use quick_cache::sync::Cache;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::kit::{Clock, MasterRef};
use crate::ufs::changes::{Replacement, Written};
use crate::ufs::upload_notes::{Upload, UploadNotes};
use crate::worker::membership::{Session, ask_master, unregistered};
use crate::worker::source::{ByteStream, ObjectSource, Sources};

/// How long a mount is taken to be as it was.
const MOUNT_AGE: Duration = Duration::from_secs(5);
const MOUNTS_MAX: usize = 1_024;
const TRIES: u32 = 3;

/// Asks the leader with the worker's token.
pub struct Masters {
    master: MasterRef,
    session: watch::Receiver<Option<Session>>,
}

impl Masters {
    pub fn new(master: MasterRef, session: watch::Receiver<Option<Session>>) -> Self {
        Masters { master, session }
    }

    /// Asks with the current token; again where it turns out to be an old one.
    ///
    /// # Errors
    /// Those of the call; `Unreachable` while this worker is not registered.
    pub async fn ask<C>(&self, make: impl Fn(Session) -> C) -> Result<C::Reply>
    where
        C: curvine_protocol::Call,
        dyn crate::kit::MasterPort: crate::kit::Endpoint<C>,
    {
        let mut session = self.session.clone();
        let mut outcome = Err(unregistered());
        for _ in 0..TRIES {
            let current = *session.borrow_and_update();
            if let Some(current) = current {
                outcome = ask_master(self.master.clone(), make(current)).await;
                match &outcome {
                    Err(error) if error.kind == ErrorKind::NotPermitted => {}
                    _ => return outcome,
                }
            }
            let _ = tokio::time::timeout(Duration::from_secs(2), session.changed()).await;
        }
        outcome
    }

    /// Asks what needs no token.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn tell<C>(&self, call: C) -> Result<C::Reply>
    where
        C: curvine_protocol::Call,
        dyn crate::kit::MasterPort: crate::kit::Endpoint<C>,
    {
        ask_master(self.master.clone(), call).await
    }
}

/// Opens mounts.
pub struct Mounts {
    masters: Arc<Masters>,
    sources: Arc<dyn Sources>,
    uploads: UploadNotes,
    clock: Arc<dyn Clock>,
    opened: Cache<MountId, Opened>,
}

/// An under file system, by which record it was opened, and when the master last said that this is the record.
#[derive(Clone)]
struct Opened {
    /// None if that may be wrong.
    at: Option<Instant>,
    by: Arc<MountRecord>,
    source: Arc<dyn ObjectSource>,
}

impl Mounts {
    pub fn new(
        masters: Arc<Masters>,
        sources: Arc<dyn Sources>,
        uploads: UploadNotes,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Mounts {
            masters,
            sources,
            uploads,
            clock,
            opened: Cache::new(MOUNTS_MAX),
        }
    }

    /// The objects of a mount, reached by whatever options it has when they are.
    ///
    /// # Errors
    /// Those of the master and of opening it.
    pub async fn source(self: &Arc<Self>, mount: MountId) -> Result<Arc<dyn ObjectSource>> {
        self.open(mount).await?;
        let mounts = self.clone();
        Ok(Arc::new(Renewed { mounts, mount }))
    }

    /// What is remembered of a mount may be wrong.
    pub fn doubt(&self, mount: MountId) {
        if let Some(known) = self.opened.get(&mount) {
            self.opened.insert(mount, Opened { at: None, ..known });
        }
    }

    async fn open(&self, mount: MountId) -> Result<Opened> {
        let now = self.clock.now();
        let known = self.opened.get(&mount);
        if let Some(known) = &known
            && known.at.is_some_and(|at| now.duration_since(at) < MOUNT_AGE)
        {
            return Ok(known.clone());
        }
        let resolve = |session: Session| ResolveMount {
            worker: session.worker,
            token: session.token,
            mount,
        };
        let record = self.masters.ask(resolve).await?.record;
        let opened = match known.filter(|known| known.by.opens_as(&record)) {
            // With its connections.
            Some(known) => Opened {
                at: Some(now),
                ..known
            },
            None => Opened {
                at: Some(now),
                source: self.sources.open(&record, &self.uploads)?,
                by: Arc::new(record),
            },
        };
        self.opened.insert(mount, opened.clone());
        Ok(opened)
    }

    /// The under file system by other options than those that the store refused; none if they are the same still.
    async fn open_otherwise(&self, mount: MountId, refused: &MountRecord) -> Option<Opened> {
        self.doubt(mount);
        let opened = self.open(mount).await.ok()?;
        (!opened.by.opens_as(refused)).then_some(opened)
    }
}

/// The objects of a mount, with its options as they are when one is asked for.
struct Renewed {
    mounts: Arc<Mounts>,
    mount: MountId,
}

#[async_trait]
impl ObjectSource for Renewed {
    async fn read(&self, key: &str, range: Range<u64>, version: &UfsVersion) -> Result<ByteStream> {
        let opened = self.mounts.open(self.mount).await?;
        let error = match opened.source.read(key, range.clone(), version).await {
            Err(error) if error.kind == ErrorKind::UfsDenied => error,
            outcome => return outcome,
        };
        match self.mounts.open_otherwise(self.mount, &opened.by).await {
            Some(other) => other.source.read(key, range, version).await,
            None => Err(error),
        }
    }

    async fn replace(
        &self,
        key: &str,
        content: ByteStream,
        how: Replacement<'_>,
        may_finish: BoxFuture<'_, Result<()>>,
    ) -> Result<Written> {
        let opened = self.mounts.open(self.mount).await?;
        let written = opened.source.replace(key, content, how, may_finish).await;
        written.inspect_err(|error| {
            // The content is spent. The master has it written again, and then the options are asked for anew.
            if matches!(error.kind, ErrorKind::UfsDenied | ErrorKind::Ufs) {
                self.mounts.doubt(self.mount);
            }
        })
    }

    async fn abort_upload(&self, upload: &Upload) -> Result<bool> {
        let opened = self.mounts.open(self.mount).await?;
        let aborted = opened.source.abort_upload(upload).await;
        aborted.inspect_err(|error| {
            // It is tried again.
            if matches!(error.kind, ErrorKind::UfsDenied | ErrorKind::Ufs) {
                self.mounts.doubt(self.mount);
            }
        })
    }
}
