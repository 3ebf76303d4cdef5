//! One walk over a tree of the namespace, a page of a directory at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use curvine_protocol::{Attr, CurvinePath, InodeId, Result};

use super::contract::NamespaceView;
use super::mirror::Mirror;

const PAGE: usize = 1_000;

/// What a walk says of where it is. Paths are bounded and trees are not, so who does not need paths walks with `()`.
pub trait Trail: Clone {
    /// One name further down.
    ///
    /// # Errors
    /// `NameTooLong` for a path that is too long.
    fn below(&self, name: &str) -> Result<Self>;
}

impl Trail for CurvinePath {
    fn below(&self, name: &str) -> Result<Self> {
        self.join(name)
    }
}

impl Trail for () {
    fn below(&self, _name: &str) -> Result<Self> {
        Ok(())
    }
}

/// Everything at or below a node, directories before what they hold.
pub struct Walk<T> {
    view: Arc<dyn NamespaceView>,
    /// Makes directories of mounts fresh before they are listed.
    mirror: Option<Arc<Mirror>>,
    found: VecDeque<(T, Attr)>,
    todo: Vec<(T, InodeId)>,
    listing: Option<Listing<T>>,
}

struct Listing<T> {
    trail: T,
    directory: InodeId,
    after: Option<String>,
}

impl<T: Trail> Walk<T> {
    /// From `top`, which is at `trail`. With a mirror, directories of mounts are made fresh first.
    pub fn new(view: Arc<dyn NamespaceView>, mirror: Option<Arc<Mirror>>, trail: T, top: Attr) -> Self {
        Walk {
            view,
            mirror,
            found: VecDeque::from([(trail, top)]),
            todo: Vec::new(),
            listing: None,
        }
    }

    /// The next node, or why a directory cannot be listed (the walk goes on with others); none at the end.
    pub async fn next(&mut self) -> Option<(T, Result<Attr>)> {
        loop {
            if let Some((trail, attr)) = self.found.pop_front() {
                if attr.is_dir() {
                    self.todo.push((trail.clone(), attr.inode));
                }
                return Some((trail, Ok(attr)));
            }
            let listing = match self.listing.take() {
                Some(listing) => listing,
                None => {
                    let (trail, directory) = self.todo.pop()?;
                    if let Some(mirror) = &self.mirror
                        && let Err(error) = mirror.fresh_dir(directory).await
                    {
                        return Some((trail, Err(error)));
                    }
                    Listing {
                        trail,
                        directory,
                        after: None,
                    }
                }
            };
            let trail = listing.trail.clone();
            if let Err(error) = self.list(listing) {
                return Some((trail, Err(error)));
            }
            // A big tree must not hold up the other calls.
            tokio::task::yield_now().await;
        }
    }

    fn list(&mut self, listing: Listing<T>) -> Result<()> {
        let Listing {
            trail,
            directory,
            after,
        } = listing;
        let (entries, more) = self.view.list(directory, after.as_deref(), PAGE)?;
        let after = entries.last().map(|entry| entry.name.clone());
        for entry in entries {
            self.found.push_back((trail.below(&entry.name)?, entry.attr));
        }
        if more {
            self.listing = Some(Listing {
                trail,
                directory,
                after,
            });
        }
        Ok(())
    }
}
