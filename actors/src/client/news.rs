//! A client that holds leases hears from the masters when others want them, and gives them back.

use std::sync::{Arc, Weak};
use std::time::Duration;

use curvine_protocol::InodeId;
use curvine_protocol::master::ReleaseLease;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::file::Shared;
use super::file::table::Files;
use super::route::NewsRoute;

/// After news that could not be got.
const REST: Duration = Duration::from_millis(500);
/// A lease may be wanted before the answer that gives it has arrived here.
const ON_ITS_WAY: Duration = Duration::from_millis(200);
const LOOKS: u32 = 3;
/// Files given back at the same time.
const AT_ONCE: usize = 256;

/// Gives leases back as they are wanted, for as long as the client lives.
pub(super) async fn follow(route: NewsRoute, files: Weak<Files>) {
    let mut giving = JoinSet::new();
    loop {
        let Some(leased) = files.upgrade().map(|files| files.leased()) else {
            return;
        };
        leased.notified().await;
        loop {
            let Some(files) = files.upgrade() else { return };
            if !files.any_leased() {
                break;
            }
            let recalls = match route.news().await {
                None => return,
                Some(Ok(recalls)) => recalls,
                Some(Err(error)) => {
                    tracing::debug!(%error, "no news of leases");
                    sleep(REST).await;
                    continue;
                }
            };
            while giving.try_join_next().is_some() {}
            for inode in recalls {
                if giving.len() >= AT_ONCE {
                    giving.join_next().await;
                }
                let (files, route) = (files.clone(), route.clone());
                giving.spawn(async move { give_back(&files, &route, inode).await });
            }
        }
    }
}

/// After a time in which the masters did not hear of this client, asks whether it still has its leases.
pub(super) async fn doubt(route: NewsRoute, files: Weak<Files>) {
    while route.lapse().await {
        while let Some(files) = files.upgrade() {
            let checking = stream::iter(files.leased_files());
            let checked = checking
                .map(|shared| async move { shared.check_lease().await })
                .buffer_unordered(AT_ONCE)
                .try_collect::<Vec<()>>();
            let Err(error) = checked.await else { break };
            tracing::debug!(%error, "nobody says which leases are still held");
            sleep(REST).await;
        }
    }
}

/// Gives back the lease of a file that is open here.
async fn recall(shared: &Arc<Shared>, inode: InodeId) {
    if let Err(error) = shared.recall().await {
        tracing::warn!(%error, "another client wants inode {inode}, which could not be given back");
    }
}

async fn give_back(files: &Arc<Files>, route: &NewsRoute, inode: InodeId) {
    for _ in 0..LOOKS {
        if let Some(shared) = files.find(inode) {
            return recall(&shared, inode).await;
        }
        sleep(ON_ITS_WAY).await;
    }
    // Nobody here has it open: its lease came too late for who asked, or is on its way. Who has the answer and has not
    // entered it asks anew.
    let Some(giving) = route.gives_back_unknown(files, inode) else {
        return;
    };
    if let Some(shared) = files.find(inode) {
        // It was entered just before.
        drop(giving);
        return recall(&shared, inode).await;
    }
    if let Err(error) = route.change(ReleaseLease { inode }).await {
        tracing::debug!(%error, "the lease on inode {inode} was not given back");
    }
}
