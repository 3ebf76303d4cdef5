//! Whose history a master has: of which cluster, and from which backup.

use std::sync::OnceLock;

use curvine_protocol::ClusterId;

use super::ReplicaPort;
use super::state::RESTORED;
use crate::master::namespace::store::Store;

/// Whose history a master has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub cluster: ClusterId,
    /// When the namespace was restored from a backup; 0 = never.
    pub restored_ns: i64,
}

pub(super) fn known_origin(known: &OnceLock<Origin>, store: &Store) -> Option<Origin> {
    if let Some(origin) = known.get() {
        return Some(*origin);
    }
    let txn = store.read().ok()?;
    let cluster = store.dbs.cluster(&txn).ok()??;
    let restored_ns = store.dbs.meta_record(&txn, RESTORED).ok()?.unwrap_or(0);
    Some(*known.get_or_init(|| Origin { cluster, restored_ns }))
}

impl ReplicaPort {
    pub(super) fn cluster(&self) -> Option<ClusterId> {
        self.origin().map(|origin| origin.cluster)
    }

    pub(super) fn origin(&self) -> Option<Origin> {
        known_origin(&self.origin, &self.store)
    }
}
