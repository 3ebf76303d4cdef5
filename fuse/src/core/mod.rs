//! What the operations do, on our types. `filesystem` translates from and to the kernel's.
//!
//! - `names`: look-ups, attributes, entries that come, go and move, extended attributes.
//! - `content`: open files.
//! - `directories`: listings.

mod content;
mod directories;
mod names;

use std::time::Duration;

use curvine_actors::client::Client;
use curvine_protocol::Attr;
use fuser::{FileAttr, INodeNo, Notifier};
use std::sync::OnceLock;

pub use content::{Allocate, Opened};
pub use directories::{Directories, Listed};

use crate::convert::attributes;
use crate::files::Files;
use crate::known::Known;

/// On behalf of whom a request comes.
#[derive(Clone, Copy, Debug)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

/// Everything that operations share.
pub struct Core {
    pub client: Client,
    pub files: Files,
    pub directories: Directories,
    pub known: Known,
    /// How long the kernel may believe names and attributes.
    pub ttl: Duration,
    /// The way to the kernel's caches; there once the mount is.
    pub notifier: OnceLock<Notifier>,
}

impl Core {
    pub fn new(client: Client, ttl: Duration) -> Self {
        Core {
            client,
            files: Files::new(),
            directories: Directories::new(),
            known: Known::new(),
            ttl,
            notifier: OnceLock::new(),
        }
    }

    fn client_of(&self, user: User) -> Client {
        self.client.for_user(user.uid, user.gid)
    }

    /// Attributes for the kernel, noted as what it knows.
    fn shown(&self, attr: Attr) -> FileAttr {
        let attr = self.files.overlay(attr);
        if attr.is_file() {
            self.known.told(attr.inode, attr.content_version);
        }
        attributes(&attr)
    }

    /// Makes the kernel ask again for a file's attributes.
    fn drop_attributes(&self, inode: curvine_protocol::InodeId) {
        if let Some(notifier) = self.notifier.get()
            && let Err(error) = notifier.inval_inode(INodeNo(inode.0), -1, 0)
            && error.raw_os_error() != Some(libc::ENOENT)
        {
            tracing::debug!(%error, "the kernel keeps the attributes of inode {inode} until they expire");
        }
    }
}
