//! What must stay in the cache.

use curvine_protocol::master::{ListPins, PinSet, Pins, SetPin};
use curvine_protocol::{CurvinePath, Result};

use super::Client;

impl Client {
    /// Has a file, or all that is and comes below a directory, stay in the cache once it is there.
    ///
    /// # Errors
    /// `NoSpace` if that is more than may be pinned; `BlockUnavailable` if a worker that has some of it does not answer.
    pub async fn pin(&self, path: &CurvinePath) -> Result<PinSet> {
        let path = path.clone();
        self.call(SetPin {
            path,
            pinned: true,
            recursive: false,
        })
        .await
    }

    /// Takes a pin back, with `recursive` every pin below as well.
    ///
    /// # Errors
    /// `InvalidArgument` if there is none.
    pub async fn unpin(&self, path: &CurvinePath, recursive: bool) -> Result<PinSet> {
        let path = path.clone();
        self.call(SetPin {
            path,
            pinned: false,
            recursive,
        })
        .await
    }

    /// The pins; with `sizes`, also how much each is, which takes a walk over all of it.
    pub async fn pins(&self, sizes: bool) -> Result<Pins> {
        self.call(ListPins { sizes }).await
    }
}
