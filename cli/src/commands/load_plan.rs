//! What a load job would do (`cv load --dry-run`).

use curvine_protocol::master::LoadPlan;
use curvine_protocol::{Error, ErrorKind, Result};
use serde_json::json;

use crate::format;
use crate::shell::Shell;

/// Shows it.
///
/// # Errors
/// `NoSpace` if not everything has room, as the job would end; that of the first of what could not be looked at.
pub fn show(shell: &Shell, plan: &LoadPlan) -> Result<()> {
    let failures = plan.failures.iter().map(|failure| {
        json!({
            "path": failure.path, "kind": failure.error.kind.name(), "message": failure.error.message,
        })
    });
    let over_quota = plan.over_quota.iter().map(|over| {
        json!({
            "path": over.path, "quota_bytes": over.quota_bytes, "cached_bytes": over.cached_bytes,
            "bytes_to_fetch": over.bytes_to_fetch, "bytes_evicted": over.bytes_evicted(),
            "bytes_not_kept": over.bytes_not_kept(),
        })
    });
    let value = json!({
        "files": plan.files, "bytes": plan.bytes, "files_cached": plan.files_cached, "bytes_cached": plan.bytes_cached,
        "bytes_to_fetch": plan.bytes_to_fetch(), "requests": plan.requests, "free_bytes": plan.free_bytes,
        "evictable_bytes": plan.evictable_bytes, "bytes_evicted": plan.bytes_evicted(),
        "bytes_without_room": plan.bytes_without_room(), "unseen": plan.unseen, "failures": failures.collect::<Vec<_>>(),
        "over_quota": over_quota.collect::<Vec<_>>(),
    });
    shell.answer(&value, || words(plan));
    if let Some(failure) = plan.failures.first() {
        return Err(failure.error.clone().while_doing(&failure.path));
    }
    match plan.bytes_without_room() {
        0 => Ok(()),
        bytes => Err(Error::new(
            ErrorKind::NoSpace,
            format!(
                "{} of it have no room on the workers: load less, or add disks or workers",
                format::size(bytes, true)
            ),
        )),
    }
}

fn words(plan: &LoadPlan) -> String {
    let size = |bytes| format::size(bytes, true);
    let mut lines = vec![
        format!("{} files, {}", plan.files, size(plan.bytes)),
        format!("cached already: {} files, {}", plan.files_cached, size(plan.bytes_cached)),
        format!("to fetch: {}, with {} requests or more", size(plan.bytes_to_fetch()), plan.requests),
        format!("room: {} free, and {} cached of other files", size(plan.free_bytes), size(plan.evictable_bytes)),
        format!("would go: {} cached of other files", size(plan.bytes_evicted())),
    ];
    lines.extend(plan.over_quota.iter().map(|over| {
        let not_kept = match over.bytes_not_kept() {
            0 => String::new(),
            bytes => format!("; {} of what is loaded cannot stay", size(bytes)),
        };
        format!(
            "{}: its cache quota is {}, and {} of it are cached: {} of the mount would go{not_kept}",
            format::shown(over.path.as_str()),
            size(over.quota_bytes),
            size(over.cached_bytes),
            size(over.bytes_evicted()),
        )
    }));
    if plan.unseen > 0 {
        lines.push(format!("could not be looked at: {} files or directories", plan.unseen));
    }
    lines.extend(plan.failures.iter().map(|failure| {
        format!("{}: {}", format::shown(&failure.path), failure.error)
    }));
    lines.join("\n")
}
