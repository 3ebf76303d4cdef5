//! One walk over a tree of the namespace, a page of a directory at a time.

use std::sync::Arc;

use curvine_protocol::{Attr, CurvinePath, DirEntry, Error, InodeId, Result};

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
///
/// It holds a page of each directory on the way down to where it is, however much there is.
pub struct Walk<T> {
    view: Arc<dyn NamespaceView>,
    /// Makes directories of mounts fresh before they are listed.
    mirror: Option<Arc<Mirror>>,
    /// Where it begins, until it is there.
    top: Option<(T, Attr)>,
    /// The directory that was found last: it is next.
    entering: Option<(T, InodeId)>,
    /// From the top down to where it is.
    listings: Vec<Listing<T>>,
}

struct Listing<T> {
    trail: T,
    directory: InodeId,
    page: std::vec::IntoIter<DirEntry>,
    /// The last name of the page, if there are more behind it.
    after: Option<String>,
}

impl<T: Trail> Walk<T> {
    /// From `top`, which is at `trail`. With a mirror, directories of mounts are made fresh first.
    pub fn new(view: Arc<dyn NamespaceView>, mirror: Option<Arc<Mirror>>, trail: T, top: Attr) -> Self {
        Walk {
            view,
            mirror,
            top: Some((trail, top)),
            entering: None,
            listings: Vec::new(),
        }
    }

    /// The next node, or why a directory cannot be listed (the walk goes on with others); none at the end.
    pub async fn next(&mut self) -> Option<(T, Result<Attr>)> {
        if let Some((trail, attr)) = self.top.take() {
            return Some(self.found(trail, attr));
        }
        loop {
            if let Some((trail, directory)) = self.entering.take()
                && let Err(error) = self.enter(trail.clone(), directory).await
            {
                return Some((trail, Err(error)));
            }
            let listing = self.listings.last_mut()?;
            if let Some(entry) = listing.page.next() {
                return Some(match listing.trail.below(&entry.name) {
                    Ok(trail) => self.found(trail, entry.attr),
                    Err(error) => (listing.trail.clone(), Err(error)),
                });
            }
            // A big tree must not hold up the other calls.
            tokio::task::yield_now().await;
            if let Some((trail, error)) = self.turn_page() {
                return Some((trail, Err(error)));
            }
        }
    }

    fn found(&mut self, trail: T, attr: Attr) -> (T, Result<Attr>) {
        if attr.is_dir() {
            self.entering = Some((trail.clone(), attr.inode));
        }
        (trail, Ok(attr))
    }

    async fn enter(&mut self, trail: T, directory: InodeId) -> Result<()> {
        if let Some(mirror) = &self.mirror {
            mirror.fresh_dir(directory).await?;
        }
        let listing = self.list(trail, directory, None)?;
        self.listings.push(listing);
        Ok(())
    }

    /// Goes on with the next page, or with the directory above. Says which directory cannot be listed to its end.
    fn turn_page(&mut self) -> Option<(T, Error)> {
        let Listing {
            trail,
            directory,
            after,
            ..
        } = self.listings.pop()?;
        after.as_ref()?;
        match self.list(trail.clone(), directory, after.as_deref()) {
            Ok(listing) => {
                self.listings.push(listing);
                None
            }
            Err(error) => Some((trail, error)),
        }
    }

    fn list(&self, trail: T, directory: InodeId, after: Option<&str>) -> Result<Listing<T>> {
        let (entries, more) = self.view.list(directory, after, PAGE)?;
        let last = entries.last().map(|entry| entry.name.clone());
        Ok(Listing {
            trail,
            directory,
            page: entries.into_iter(),
            after: last.filter(|_| more),
        })
    }
}
