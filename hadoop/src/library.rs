//! What the JVM has of this library: clients and open files, behind handles that are numbers.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use curvine_actors::client::{Client, ClientOptions, LocalFile, OpenFile};
use curvine_protocol::{Error, ErrorKind, Result};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::users::Names;

/// A JVM loads a library once, and its native methods have no other place to keep something.
pub static LIBRARY: LazyLock<Result<Library>> = LazyLock::new(Library::new);

/// The runtime that the client's tasks run in, and everything that Java holds a handle of.
pub struct Library {
    pub runtime: Runtime,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// The last handle that was given out. None is given twice.
    last: i64,
    clients: HashMap<i64, Arc<Connection>>,
    files: HashMap<i64, File>,
}

/// With whom a client is shared: with everybody who wants the same.
#[derive(Clone, PartialEq, Eq)]
pub struct Wanted {
    pub masters: Vec<String>,
    pub user: String,
    pub connect_timeout: Duration,
    pub operation_timeout: Duration,
}

/// A client, or one that is being connected.
pub struct Connection {
    wanted: Wanted,
    client: OnceCell<(Client, Names)>,
}

/// An open file and its path, for messages.
#[derive(Clone)]
pub struct File {
    pub file: OpenFile,
    pub path: Arc<str>,
    /// What workers of this host have of it. None where it is written here.
    local: Arc<OnceCell<Option<LocalFile>>>,
}

impl File {
    /// Bytes from an offset on, into the beginning of a buffer: how many; 0 at the end. Fewer than there is room for if the
    /// rest is elsewhere.
    ///
    /// # Errors
    /// As [`OpenFile::read_at`].
    pub async fn read_at(&self, offset_bytes: u64, into: &mut [u8]) -> Result<usize> {
        let local = self.local.get_or_try_init(|| self.file.open_local()).await?;
        if let Some(local) = local
            && let Some(got) = local.read_at(offset_bytes, into).await
        {
            return Ok(got);
        }
        let bytes = self.file.read_at(offset_bytes, into.len() as u64).await?;
        into[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}

impl Library {
    fn new() -> Result<Library> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("curvine")
            .enable_all()
            .build()
            .map_err(|error| {
                Error::from(error).while_doing("starting the threads of Curvine's native library")
            })?;
        Ok(Library {
            runtime,
            held: Mutex::default(),
        })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().expect("nobody panics while holding this")
    }

    /// A handle of a client: of that which is there, if somebody wanted the same.
    pub async fn connect(&self, wanted: Wanted) -> Result<i64> {
        let (handle, connection) = {
            let mut held = self.held();
            let known = held
                .clients
                .values()
                .find(|known| known.wanted == wanted)
                .cloned();
            let connection = known.unwrap_or_else(|| {
                Arc::new(Connection {
                    wanted,
                    client: OnceCell::new(),
                })
            });
            let handle = held.next();
            held.clients.insert(handle, connection.clone());
            (handle, connection)
        };
        if let Err(error) = connection.open().await {
            self.held().clients.remove(&handle);
            return Err(error);
        }
        Ok(handle)
    }

    /// Gives a handle back; the last of a client ends its session.
    pub async fn disconnect(&self, handle: i64) {
        let last = {
            let mut held = self.held();
            let gone = held.clients.remove(&handle);
            gone.filter(|gone| !held.clients.values().any(|other| Arc::ptr_eq(gone, other)))
        };
        if let Some(connection) = last
            && let Some((client, _)) = connection.client.get()
        {
            client.clone().close().await;
        }
    }

    pub fn connection(&self, handle: i64) -> Result<Arc<Connection>> {
        let known = self.held().clients.get(&handle).cloned();
        known.ok_or_else(|| Error::new(ErrorKind::Stale, "the file system is closed"))
    }

    /// Keeps an open file for Java.
    pub fn keep(&self, file: OpenFile, path: &str) -> i64 {
        let mut held = self.held();
        let handle = held.next();
        let path = path.into();
        let local = Arc::default();
        held.files.insert(handle, File { file, path, local });
        handle
    }

    pub fn file(&self, handle: i64) -> Result<File> {
        let known = self.held().files.get(&handle).cloned();
        known.ok_or_else(|| Error::new(ErrorKind::Stale, "the stream is closed"))
    }

    /// Takes an open file back from Java.
    pub fn take(&self, handle: i64) -> Option<File> {
        self.held().files.remove(&handle)
    }
}

impl Held {
    fn next(&mut self) -> i64 {
        self.last += 1;
        self.last
    }
}

impl Connection {
    async fn open(&self) -> Result<()> {
        let connect = async || {
            let names = Names::system();
            let (uid, gid) = names.ids(&self.wanted.user)?;
            let options = ClientOptions {
                retry_for: self.wanted.operation_timeout,
                connect_timeout: self.wanted.connect_timeout,
                uid,
                gid,
                ..ClientOptions::default()
            };
            let client = Client::connect(self.wanted.masters.clone(), options).await?;
            Ok((client, names))
        };
        self.client.get_or_try_init(connect).await.map(|_| ())
    }

    fn opened(&self) -> &(Client, Names) {
        self.client
            .get()
            .expect("a handle is given out after it was connected")
    }

    pub fn client(&self) -> &Client {
        &self.opened().0
    }

    pub fn names(&self) -> &Names {
        &self.opened().1
    }
}
