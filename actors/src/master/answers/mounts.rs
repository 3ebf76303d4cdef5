//! Mounting, unmounting, freeing the cache, persisting files of writable mounts.

use std::collections::BTreeMap;
use std::sync::Arc;

use curvine_protocol::master::*;
use curvine_protocol::mount::MountInfo;
use curvine_protocol::op::{Op, OpReply};
use curvine_protocol::worker::Done;
use curvine_protocol::{CallContext, Error, ErrorKind, Node, Result};
use tokio::time::timeout;

use super::Answers;
use crate::kit::deadlines::MOUNT_CHECK;
use crate::kit::ports::{MakeOffload, offloaded};
use crate::master::blocks::BlockMap;
use crate::master::contract::{Consensus, NamespaceView, ProposeOp};
use crate::master::freeing::{Freeing, Orders};
use crate::master::mirror::Mirror;
use crate::master::pinning::Pinning;
use crate::master::stores::changes::Changes;
use crate::master::stores::exports::Exports;
use crate::master::walk::Walk;
use crate::ufs::{Ufs, uri};

pub struct MountAnswers {
    pub view: Arc<dyn NamespaceView>,
    pub propose: Arc<dyn ProposeOp>,
    pub consensus: Arc<dyn Consensus>,
    pub blocks: Arc<BlockMap>,
    pub mirror: Arc<Mirror>,
    pub changes: Arc<Changes>,
    pub exports: Arc<Exports>,
    pub threads: MakeOffload,
    pub pinning: Pinning,
    pub freeing: Freeing,
}

impl Answers<MountUfs> for MountAnswers {
    async fn answer(self: Arc<Self>, call: MountUfs, _context: CallContext) -> Result<MountInfo> {
        self.consensus.read_barrier().await?;
        self.check_place(&call)?;
        let writable = call.settings.writable;
        let conditions = self
            .check_store(&call.uri, &call.options, writable, writable)
            .await?;
        let MountUfs {
            path,
            uri,
            options,
            mut settings,
        } = call;
        settings.conditions = conditions;
        match self
            .propose
            .propose_op(Op::AddMount {
                path,
                uri,
                options,
                settings,
            })
            .await?
        {
            OpReply::Mount(record) => Ok(record.public()),
            other => Err(Error::internal(format!("the reply to AddMount is {other:?}"))),
        }
    }
}

impl Answers<UpdateMount> for MountAnswers {
    async fn answer(self: Arc<Self>, call: UpdateMount, _context: CallContext) -> Result<MountInfo> {
        self.consensus.read_barrier().await?;
        let mounts = self.view.mounts()?;
        let Some(mount) = mounts.iter().find(|mount| mount.path == call.path) else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "{}: nothing is mounted there; `cv mounts` lists the mounts",
                    call.path
                ),
            ));
        };
        let changed = mount.changed(&call.changes);
        uri::check_same_place(mount, &changed)?;
        let others = mounts.iter().filter(|other| other.id != mount.id);
        let place = (&*changed.uri, &changed.options);
        uri::check_shared(place, changed.settings.writable, others)?;
        // Its objects may all be gone by now.
        let conditions = self
            .check_store(&changed.uri, &changed.options, changed.settings.writable, true)
            .await?;
        let update = Op::UpdateMount {
            id: mount.id,
            changes: call.changes,
            conditions,
        };
        let reply = self.propose.propose_op(update).await?;
        self.exports.try_now();
        match reply {
            OpReply::Mount(record) => Ok(record.public()),
            other => Err(Error::internal(format!("the reply to UpdateMount is {other:?}"))),
        }
    }
}

impl MountAnswers {
    /// Whether the store is there and does what the mount will ask of it. The answer: whether it honours conditions.
    async fn check_store(
        &self,
        uri: &str,
        options: &BTreeMap<String, String>,
        writable: bool,
        may_be_empty: bool,
    ) -> Result<bool> {
        let checked = async {
            let ufs = self.opened(uri.to_owned(), options).await?;
            self.check_root(&ufs, uri, options, may_be_empty).await?;
            ufs.check(writable).await
        };
        timeout(MOUNT_CHECK, checked).await.map_err(|_| {
            Error::new(
                ErrorKind::Ufs,
                format!(
                    "{uri}: no answer within {} s; check the endpoint",
                    MOUNT_CHECK.as_secs()
                ),
            )
        })?
    }

    /// Opens a store with the options of a mount. On a thread of its own: a local directory may be on something that does not
    /// answer.
    async fn opened(&self, uri: String, options: &BTreeMap<String, String>) -> Result<Ufs> {
        let options = options.clone();
        let thread = (self.threads)("open-ufs");
        offloaded(&*thread, move || Ufs::open_parts(&uri, &options)).await?
    }

    /// See [`Ufs::check_root`].
    async fn check_root(
        &self,
        ufs: &Ufs,
        uri: &str,
        options: &BTreeMap<String, String>,
        may_be_empty: bool,
    ) -> Result<()> {
        let Some((above, name)) = uri::above(uri) else {
            return ufs.check_root(None, may_be_empty).await;
        };
        let above = self.opened(above, options).await?;
        ufs.check_root(Some((&above, &name)), may_be_empty).await
    }

    /// What can be refused before the under file system is asked. Applying checks it again.
    fn check_place(&self, call: &MountUfs) -> Result<()> {
        let path = &call.path;
        if path.is_root() {
            return Err(Error::invalid(
                "/: mount on a directory below the root, such as /data",
            ));
        }
        let mounts = self.view.mounts()?;
        for mount in &mounts {
            if mount.path == *path {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    format!(
                        "{path}: {} is mounted there already; `cv umount {path}` first",
                        mount.uri
                    ),
                ));
            }
            if mount.path.contains(path) || path.contains(&mount.path) {
                return Err(Error::invalid(format!(
                    "{path}: mounts do not nest, and {} is mounted on {}",
                    mount.uri, mount.path
                )));
            }
        }
        let place = (&*call.uri, &call.options);
        uri::check_shared(place, call.settings.writable, mounts.iter())?;
        match self.view.lookup(&Node::Path(path.clone()), false) {
            Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(entry) if !entry.attr.is_dir() => Err(Error::new(
                ErrorKind::NotADirectory,
                format!("{path}: is not a directory"),
            )),
            Ok(entry) => match self.view.list(entry.attr.inode, None, 1)?.0.is_empty() {
                true => Ok(()),
                false => Err(Error::new(
                    ErrorKind::DirectoryNotEmpty,
                    format!("{path}: the directory is not empty; mount on an empty or a new one"),
                )),
            },
        }
    }
}

impl Answers<UnmountUfs> for MountAnswers {
    async fn answer(self: Arc<Self>, call: UnmountUfs, _context: CallContext) -> Result<Done> {
        self.propose
            .propose_op(Op::RemoveMount {
                path: call.path,
                force: call.force,
            })
            .await?;
        Ok(Done {})
    }
}

impl Answers<ListMounts> for MountAnswers {
    async fn answer(self: Arc<Self>, _call: ListMounts, _context: CallContext) -> Result<Mounts> {
        self.consensus.read_barrier().await?;
        let now = self.blocks.now();
        Ok(Mounts {
            mounts: self
                .view
                .mounts()?
                .iter()
                .map(|mount| {
                    let backlog = match mount.settings.writable {
                        true => Some(self.exports.backlog(mount.id)?),
                        false => None,
                    };
                    Ok(MountInfo {
                        backlog,
                        hidden: self.mirror.hidden(mount.id),
                        traffic: Some(self.blocks.cluster().roster.traffic(mount.id, now)),
                        ..mount.public()
                    })
                })
                .collect::<Result<_>>()?,
        })
    }
}

impl Answers<FreeCache> for MountAnswers {
    async fn answer(self: Arc<Self>, call: FreeCache, _context: CallContext) -> Result<Freed> {
        self.consensus.read_barrier().await?;
        self.blocks.heard_from_all(self.view.last_worker()?).await;
        let mut freed = Freed::default();
        let top = self.view.lookup(&Node::Path(call.path.clone()), true)?.attr;
        self.refuse_pinned(&call.path, top.inode)?;
        let mut orders = Orders::default();
        let mut walk = Walk::new(self.view.clone(), None, (), top);
        while let Some((_, found)) = walk.next().await {
            let attr = found?;
            if !attr.is_file() {
                continue;
            }
            match self.freeing.release(attr.inode, &mut orders)? {
                None => freed.kept += 1,
                Some(0) => {}
                Some(bytes) => {
                    freed.files += 1;
                    freed.bytes += bytes;
                }
            }
        }
        self.freeing.delete(orders).await;
        Ok(freed)
    }
}

impl Answers<PersistTree> for MountAnswers {
    async fn answer(self: Arc<Self>, call: PersistTree, context: CallContext) -> Result<Persisted> {
        self.consensus.read_barrier().await?;
        let top = self.view.lookup(&call.node, true)?.attr.inode;
        if self.view.mounted(top)?.is_none() {
            return Err(Error::invalid(format!(
                "{}: is in no mount; `cv mounts` lists them",
                call.node
            )));
        }
        self.exports.persist_tree(top, &context).await
    }
}

impl Answers<PersistFile> for MountAnswers {
    async fn answer(self: Arc<Self>, persist: PersistFile, context: CallContext) -> Result<Entry> {
        self.consensus.read_barrier().await?;
        self.exports
            .persist(persist.inode, persist.wait, &context)
            .await?;
        self.view.lookup(&Node::Inode(persist.inode), false)
    }
}
