//! One walk over a tree of the namespace, a page of a directory at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use curvine_protocol::{Attr, CurvinePath, InodeId, Result};

use super::contract::NamespaceView;
use super::mirror::Mirror;

const PAGE: usize = 1_000;

/// Everything at or below a node, directories before what they hold.
pub struct Walk {
    view: Arc<dyn NamespaceView>,
    /// Makes directories of mounts fresh before they are listed.
    mirror: Option<Arc<Mirror>>,
    found: VecDeque<(CurvinePath, Attr)>,
    todo: Vec<(CurvinePath, InodeId)>,
    listing: Option<Listing>,
}

struct Listing {
    path: CurvinePath,
    directory: InodeId,
    after: Option<String>,
}

impl Walk {
    /// From `top`, whose paths begin with `path`. With a mirror, directories of mounts are made fresh first.
    pub fn new(
        view: Arc<dyn NamespaceView>,
        mirror: Option<Arc<Mirror>>,
        path: CurvinePath,
        top: Attr,
    ) -> Self {
        Walk {
            view,
            mirror,
            found: VecDeque::from([(path, top)]),
            todo: Vec::new(),
            listing: None,
        }
    }

    /// The next node, or why a directory cannot be listed (the walk goes on with others); none at the end.
    pub async fn next(&mut self) -> Option<(CurvinePath, Result<Attr>)> {
        loop {
            if let Some((path, attr)) = self.found.pop_front() {
                if attr.is_dir() {
                    self.todo.push((path.clone(), attr.inode));
                }
                return Some((path, Ok(attr)));
            }
            let listing = match self.listing.take() {
                Some(listing) => listing,
                None => {
                    let (path, directory) = self.todo.pop()?;
                    if let Some(mirror) = &self.mirror
                        && let Err(error) = mirror.fresh_dir(directory).await
                    {
                        return Some((path, Err(error)));
                    }
                    Listing {
                        path,
                        directory,
                        after: None,
                    }
                }
            };
            let path = listing.path.clone();
            if let Err(error) = self.list(listing) {
                return Some((path, Err(error)));
            }
            // A big tree must not hold up the other calls.
            tokio::task::yield_now().await;
        }
    }

    fn list(&mut self, listing: Listing) -> Result<()> {
        let Listing {
            path,
            directory,
            after,
        } = listing;
        let (entries, more) = self.view.list(directory, after.as_deref(), PAGE)?;
        let after = entries.last().map(|entry| entry.name.clone());
        for entry in entries {
            self.found.push_back((path.join(&entry.name)?, entry.attr));
        }
        if more {
            self.listing = Some(Listing {
                path,
                directory,
                after,
            });
        }
        Ok(())
    }
}
