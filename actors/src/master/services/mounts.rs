//! Mounting, unmounting, freeing the cache, persisting files of writable mounts.

use std::sync::Arc;
use std::time::Duration;

use curvine_protocol::master::*;
use curvine_protocol::mount::MountInfo;
use curvine_protocol::op::{Op, OpReply};
use curvine_protocol::worker::{DeleteBlocks, Done, ExportFile};
use curvine_protocol::{BlockId, CallContext, Error, ErrorKind, Node, Result, WorkerId};
use tokio::time::timeout;

use super::loader::files_below;
use super::{Parts, ServiceCall};
use crate::kit::call;
use crate::master::contract::Placement;
use crate::ufs::Ufs;

const CHECK_DEADLINE: Duration = Duration::from_secs(20);
/// For a transfer of a whole file.
const EXPORT_DEADLINE_MS: u32 = 3_600_000;

impl ServiceCall for MountUfs {
    async fn answer(parts: Arc<Parts>, call: Self, _context: CallContext) -> Result<MountInfo> {
        parts.consensus.read_barrier().await?;
        check_place(&parts, &call)?;
        let ufs = Ufs::open_parts(&call.uri, &call.options)?;
        timeout(CHECK_DEADLINE, ufs.check(call.settings.writable))
            .await
            .map_err(|_| {
                Error::new(
                    ErrorKind::Ufs,
                    format!(
                        "{}: no answer within {} s; check the endpoint",
                        call.uri,
                        CHECK_DEADLINE.as_secs()
                    ),
                )
            })??;
        let MountUfs {
            path,
            uri,
            options,
            settings,
        } = call;
        match parts
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

/// What can be refused before the under file system is asked. Applying checks it again.
fn check_place(parts: &Parts, call: &MountUfs) -> Result<()> {
    let path = &call.path;
    if path.is_root() {
        return Err(Error::invalid(
            "/: mount on a directory below the root, such as /data",
        ));
    }
    for mount in parts.view.mounts()? {
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
    match parts.view.lookup(&Node::Path(path.clone()), false) {
        Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(entry) if !entry.attr.is_dir() => Err(Error::new(
            ErrorKind::NotADirectory,
            format!("{path}: is not a directory"),
        )),
        Ok(entry) => match parts.view.list(entry.attr.inode, None, 1)?.0.is_empty() {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::DirectoryNotEmpty,
                format!("{path}: the directory is not empty; mount on an empty or a new one"),
            )),
        },
    }
}

impl ServiceCall for UnmountUfs {
    async fn answer(parts: Arc<Parts>, call: Self, _context: CallContext) -> Result<Done> {
        parts
            .propose
            .propose_op(Op::RemoveMount { path: call.path })
            .await?;
        Ok(Done {})
    }
}

impl ServiceCall for ListMounts {
    async fn answer(parts: Arc<Parts>, _call: Self, _context: CallContext) -> Result<Mounts> {
        parts.consensus.read_barrier().await?;
        Ok(Mounts {
            mounts: parts.view.mounts()?.iter().map(|mount| mount.public()).collect(),
        })
    }
}

impl ServiceCall for FreeCache {
    async fn answer(parts: Arc<Parts>, call: Self, _context: CallContext) -> Result<Freed> {
        parts.consensus.read_barrier().await?;
        let mut freed = Freed::default();
        let top = parts.view.lookup(&Node::Path(call.path), true)?.attr;
        let mut pending = Vec::new();
        files_below(&parts.view, None, top, |attr, _| {
            let layout = parts.view.layout(attr.inode)?;
            if layout.source.is_none() {
                freed.kept += 1;
                return Ok(());
            }
            let blocks: Vec<_> = layout.blocks.iter().map(|located| located.block).collect();
            let bytes = parts.blocks.cached_bytes(&blocks);
            if bytes > 0 {
                freed.files += 1;
                freed.bytes += bytes;
                pending.extend(orders(&parts, blocks.iter().map(|block| block.id)));
            }
            Ok(())
        })
        .await?;
        delete_now(&parts, pending).await;
        Ok(freed)
    }
}

impl ServiceCall for PersistFile {
    async fn answer(parts: Arc<Parts>, persist: Self, context: CallContext) -> Result<Entry> {
        parts.consensus.read_barrier().await?;
        let inode = persist.inode;
        let node = Node::Inode(inode);
        let Some((mount, key)) = parts.view.mounted(inode)? else {
            return parts.view.lookup(&node, false);
        };
        if !parts.view.needs_export(inode)? {
            return parts.view.lookup(&node, false);
        }
        let mut layout = parts.view.layout(inode)?;
        parts.blocks.locate(&mut layout);
        let holder = layout
            .blocks
            .iter()
            .find_map(|located| located.workers.first().copied());
        let worker = holder.or_else(|| {
            let now = parts.blocks.now();
            parts
                .blocks
                .cluster()
                .addresses(now)
                .first()
                .map(|worker| worker.id)
        });
        let port = worker.and_then(|worker| parts.worker(worker)).ok_or_else(|| {
            Error::new(
                ErrorKind::BlockUnavailable,
                format!("`{key}`: no live worker can write it to its under file system"),
            )
        })?;
        let export = ExportFile {
            inode,
            mount,
            key,
            size_bytes: layout.attr.size_bytes,
            layout,
        };
        let long = CallContext {
            deadline_ms: EXPORT_DEADLINE_MS,
            ..context
        };
        let exported = call(&*port, export, long).await?;
        parts
            .propose
            .propose_op(Op::SetUfsVersion {
                inode,
                version: exported.version,
            })
            .await?;
        parts.view.lookup(&node, false)
    }
}

/// Who is to delete what.
pub fn orders(parts: &Parts, blocks: impl Iterator<Item = BlockId>) -> Vec<(WorkerId, BlockId)> {
    let mut cluster = parts.blocks.cluster();
    blocks
        .flat_map(|block| {
            cluster
                .release(block)
                .into_iter()
                .map(move |worker| (worker, block))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Tells workers to delete blocks and waits until they have.
pub async fn delete_now(parts: &Parts, orders: Vec<(WorkerId, BlockId)>) {
    let mut by_worker: std::collections::BTreeMap<WorkerId, Vec<BlockId>> = Default::default();
    for (worker, block) in orders {
        by_worker.entry(worker).or_default().push(block);
    }
    for (worker, blocks) in by_worker {
        let Some(port) = parts.worker(worker) else {
            continue;
        };
        if let Err(error) = call(&*port, DeleteBlocks { blocks }, CallContext::default()).await {
            tracing::warn!(%worker, %error, "a worker did not delete freed blocks; its next report brings them up");
        }
    }
}
