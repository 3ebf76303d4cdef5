//! Taking in a backup: what `cv master restore` placed becomes the state of a master that has nothing, at its first start.
//!
//! The group begins again, with this master as its only voter. Where a new group begins with an empty state before entry 0
//! in term 0, this one begins with the backup's state before the entry behind the backup's last, in term 0 as well: the
//! elections to come have higher terms, as openraft wants it. The log up to there counts as dropped, so that masters that
//! are added later get a snapshot first.
//!
//! The state becomes the current snapshot, from which [`OpenState`](super::OpenState) makes the state as after a power
//! cut. The placed file goes last: whatever breaks off is begun again.
//!
//! What was given out after the backup is known to clients and workers still. So ids go on with a gap behind the backup's,
//! and the state notes when it was restored: masters that have what was before are not listened to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use curvine_protocol::{Error, ErrorKind, NodeId, Result};
use openraft::{BasicNode, CommittedLeaderId};

use super::Members;
use super::state::{APPLIED, Applied, RESTORED, keep};
use super::types::{LogId, Membership};
use crate::backup::{Backup, PLACED, private_file};
use crate::master::namespace::store::{Counter, Store, broken};

/// More ids than can have been given out since the backup.
const GAP: u64 = 1 << 40;
/// Of ids with 32 bits.
const SMALL_GAP: u64 = 1 << 16;

/// Takes in the backup that was placed in a master's directory, if one was. `now_ns`: the wall clock's time.
///
/// # Errors
/// `AlreadyExists` if there is a log already; `Config` if the master is not to start alone; what is wrong with the backup.
/// The backup is still placed then.
pub fn take_in(directory: &Path, members: &Members, now_ns: i64) -> Result<()> {
    let placed = directory.join(PLACED);
    let failed =
        |e: std::io::Error| Error::from(e).while_doing(format_args!("taking in {}", placed.display()));
    if !placed.try_exists().map_err(failed)? {
        return Ok(());
    }
    for used in ["log", "state"] {
        if directory.join(used).exists() {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!(
                    "{} was placed to be restored, and there is a `{used}` beside it already: remove the one that is not \
                     wanted",
                    placed.display()
                ),
            ));
        }
    }
    let address = alone(members)?;
    let backup = Backup::open(&placed)?;
    tracing::info!(
        backup = placed.display().to_string(),
        log_index = backup.header.log_index,
        "taking in a backup"
    );
    let snapshots = directory.join("snapshots");
    match std::fs::remove_dir_all(&snapshots) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => std::fs::create_dir_all(&snapshots).map_err(failed)?,
    }
    let copy = snapshots.join("new.mdb");
    extract(&backup, &copy)?;
    let applied = begin_again(&backup, &copy, members.me, address, now_ns)?;
    let cluster = backup.header.cluster;
    keep(&snapshots, &copy, applied)?;
    std::fs::remove_file(&placed).map_err(failed)?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed)?;
    tracing::warn!(
        "the namespace of cluster {cluster} was restored up to log entry {}; the other masters are to be started with \
         empty directories and added with `cv master add`",
        backup.header.log_index
    );
    Ok(())
}

/// This master's address.
fn alone(members: &Members) -> Result<&str> {
    match (members.addresses.len(), members.addresses.get(&members.me)) {
        (1, Some(address)) => Ok(address),
        _ => Err(Error::new(
            ErrorKind::Config,
            "a master that takes in a backup starts alone: name no other in --peers, and add the others with `cv master \
             add` when it runs",
        )),
    }
}

fn extract(backup: &Backup, to: &Path) -> Result<()> {
    let failed = |e: std::io::Error| Error::from(e).while_doing(format_args!("writing {}", to.display()));
    let mut file = private_file(to).map_err(failed)?;
    backup.extract(&mut file)?;
    file.sync_all().map_err(failed)
}

/// Changes the copied state into one that a group begins with.
fn begin_again(backup: &Backup, copy: &Path, me: NodeId, address: &str, now_ns: i64) -> Result<Applied> {
    let state = Store::open_copy_to_change(copy)?;
    let mut txn = state.write()?;
    let was: Applied = state.dbs.meta_record(&txn, APPLIED)?.unwrap_or_default();
    let cluster = state.dbs.cluster(&txn)?;
    let index = was.last.map_or(0, |last| last.index);
    if cluster != Some(backup.header.cluster) || index != backup.header.log_index {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "the state in the backup is another one than its head says; use another backup",
        ));
    }
    let last = LogId::new(CommittedLeaderId::new(0, 0), index);
    let nodes = BTreeMap::from([(me.0, BasicNode::new(address))]);
    let group = openraft::Membership::new(vec![BTreeSet::from([me.0])], nodes);
    let applied = Applied {
        last: Some(last),
        membership: Membership::new(Some(last), group),
    };
    state.dbs.put_meta_record(&mut txn, APPLIED, &applied)?;
    state.dbs.put_meta_record(&mut txn, RESTORED, &now_ns)?;
    for counter in Counter::GIVEN_OUT {
        let gap = match counter {
            Counter::Worker | Counter::Mount => SMALL_GAP,
            _ => GAP,
        };
        state.dbs.take(&mut txn, counter, gap)?;
    }
    txn.commit().map_err(broken)?;
    Ok(applied)
}
