//! What a load job would do: walks what the job would walk, and fetches nothing.

use std::collections::BTreeMap;

use curvine_protocol::cluster::DiskStatus;
use curvine_protocol::job::FileFailure;
use curvine_protocol::master::{LoadPlan, OverQuota};
use curvine_protocol::{Attr, CurvinePath, Error, MountId, Result};

use super::Parts;
use crate::master::fetching::to_load;

/// Failures that are named.
const FAILURES_NAMED: usize = 100;

/// What the load's files of a mount have, and what is to be fetched of them.
type OfMounts = BTreeMap<MountId, (u64, u64)>;

/// Sums up what is at or below these paths, none of which is below another.
pub async fn look(parts: &Parts, paths: &[CurvinePath]) -> LoadPlan {
    let mut plan = LoadPlan::default();
    let mut of_mounts = OfMounts::new();
    for path in paths {
        if let Err(error) = look_below(parts, path, &mut plan, &mut of_mounts).await {
            unseen(&mut plan, path, error);
        }
    }
    let mounts = parts.view.mounts().unwrap_or_default();
    let now = parts.blocks.now();
    let cluster = parts.blocks.cluster();
    let over_quota = mounts.into_iter().filter_map(|mount| {
        let (bytes, bytes_to_fetch) = *of_mounts.get(&mount.id)?;
        let over = OverQuota {
            path: mount.path,
            quota_bytes: mount.settings.cache_quota_bytes?,
            cached_bytes: cluster.roster.traffic(mount.id, now).cached_bytes,
            bytes_to_fetch,
            bytes,
        };
        (over.bytes_evicted() > 0).then_some(over)
    });
    plan.over_quota = over_quota.collect();
    let takes = cluster.roster.in_service(now);
    let workers = cluster.roster.statuses(now);
    let disks = workers.iter().filter(|worker| takes.contains(&worker.id));
    let disks: Vec<&DiskStatus> = disks.flat_map(|worker| &worker.disks).collect();
    let usable = || disks.iter().filter(|disk| disk.failure.is_none());
    plan.free_bytes = usable().map(|disk| disk.available_bytes).sum();
    let cached: u64 = usable().map(|disk| disk.cached_bytes).sum();
    plan.evictable_bytes = cached.saturating_sub(plan.bytes_cached);
    plan
}

async fn look_below(
    parts: &Parts,
    path: &CurvinePath,
    plan: &mut LoadPlan,
    of_mounts: &mut OfMounts,
) -> Result<()> {
    let mut walk = parts.walk(path).await?;
    while let Some((path, found)) = walk.next().await {
        let looked = match found {
            Ok(attr) if attr.is_file() => add(parts, &attr, plan, of_mounts),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = looked {
            unseen(plan, &path, error);
        }
    }
    Ok(())
}

fn add(parts: &Parts, attr: &Attr, plan: &mut LoadPlan, of_mounts: &mut OfMounts) -> Result<()> {
    let layout = parts.view.layout(attr.inode)?;
    let now = parts.blocks.now();
    let missing = {
        let cluster = parts.blocks.cluster();
        to_load(&layout, |block| cluster.is_cached(block, now))
    };
    let missing_bytes: u64 = missing.iter().map(|(_, task)| task.len_bytes).sum();
    if let Some(source) = &layout.source {
        let (bytes, to_fetch) = of_mounts.entry(source.mount).or_default();
        *bytes += attr.size_bytes;
        *to_fetch += missing_bytes;
    }
    plan.files += 1;
    plan.bytes += attr.size_bytes;
    plan.bytes_cached += attr.size_bytes.saturating_sub(missing_bytes);
    plan.files_cached += u64::from(missing.is_empty());
    plan.requests += missing.len() as u64;
    Ok(())
}

fn unseen(plan: &mut LoadPlan, path: &CurvinePath, error: Error) {
    plan.unseen += 1;
    if plan.failures.len() < FAILURES_NAMED {
        let path = path.to_string();
        plan.failures.push(FileFailure { path, error });
    }
}
