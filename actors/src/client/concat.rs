//! Joining files: by their blocks as far as these fit, and by copying what comes behind.

use curvine_protocol::master::{Concat, ConcatTail, IfExists};
use curvine_protocol::{Attr, CurvinePath, Error, ErrorKind, Node, Result};
use futures::TryStreamExt;

use super::{Client, CreateOptions};

/// What a copy is made with; it shows until its bytes are the file's.
const COPY_MODE: u32 = 0o600;

impl Client {
    /// Appends files to another one of the same directory, in their order, and removes them, in one step. Bytes are copied
    /// from the first place on where blocks do not fit, as [`Concat`] says: behind a file that is no multiple of its block
    /// size long. Until the step is made, the copies take as much room as what is copied.
    ///
    /// # Errors
    /// As [`Concat`]; `Stale` if one of the files is changed while it is copied; `Busy` while another program has the same
    /// file copied to; those of reading and writing.
    pub async fn concat(&self, target: &CurvinePath, sources: &[CurvinePath]) -> Result<Attr> {
        let outcome = self.join(target, sources).await;
        if !outcome
            .as_ref()
            .is_err_and(|error| error.kind == ErrorKind::LeaseConflict)
        {
            return outcome;
        }
        // The last writer of one of them went without a word: whoever gets the file to write gets it when that is settled.
        for path in std::iter::once(target).chain(sources) {
            self.open_for_write(path.clone(), false).await?.close().await?;
        }
        self.join(target, sources).await
    }

    async fn join(&self, target: &CurvinePath, sources: &[CurvinePath]) -> Result<Attr> {
        let call = Concat {
            node: target.clone().into(),
            sources: sources.iter().cloned().map(Node::Path).collect(),
            tail: None,
        };
        let refused = match self.change(call.clone()).await {
            Err(error) if error.kind == ErrorKind::CrossMount => error,
            outcome => return self.joined(outcome.map(|entry| entry.attr)),
        };
        let mut files = Vec::with_capacity(sources.len() + 1);
        for path in std::iter::once(target).chain(sources) {
            files.push((path, self.lookup(path.clone(), false).await?.attr));
        }
        let attrs: Vec<&Attr> = files.iter().map(|(_, attr)| attr).collect();
        let layouts: Vec<Blocks> = attrs.iter().map(|attr| Blocks::of(attr)).collect();
        let Some(offset_bytes) = first_misfit(&layouts) else {
            return Err(refused);
        };
        let versions = attrs.iter().map(|attr| attr.content_version).collect();
        let prefix = self.session().await?.partial_prefix();
        let Some(directory) = target.parent() else {
            return Err(refused);
        };
        let copy = directory.join(&format!("{prefix}concat-{}", attrs[0].inode))?;
        self.copy_behind(&files, offset_bytes, &copy).await?;
        let tail = Some(ConcatTail {
            node: copy.clone().into(),
            offset_bytes,
            versions,
        });
        let outcome = self.change(Concat { tail, ..call }).await;
        if outcome.is_err() {
            // What is left of it goes with the session.
            let _ = self.unlink(copy, false).await;
        }
        self.joined(outcome.map(|entry| entry.attr))
    }

    /// What is open here of the file that became longer is asked for again.
    fn joined(&self, outcome: Result<Attr>) -> Result<Attr> {
        let attr = outcome?;
        self.files
            .named(attr.inode, attr.content_version, self.router.opens());
        Ok(attr)
    }

    /// Copies what these files, one after another, have from an offset on into a new one.
    async fn copy_behind(
        &self,
        files: &[(&CurvinePath, Attr)],
        offset_bytes: u64,
        copy: &CurvinePath,
    ) -> Result<()> {
        let (target, attr) = &files[0];
        let options = CreateOptions {
            mode: COPY_MODE,
            if_exists: IfExists::Fail,
            parents: false,
            block_bytes: attr.block_bytes,
            replicas: attr.replicas,
            unmasked: None,
        };
        let to = match self.create(copy.clone(), options).await {
            Err(error) if error.kind == ErrorKind::AlreadyExists => {
                let message = format!("{target}: other files are being appended to it; try again later");
                return Err(Error::new(ErrorKind::Busy, message));
            }
            created => created?,
        };
        let copying = async {
            let mut start = 0;
            for (path, attr) in files {
                let end = start + attr.size_bytes;
                if end > offset_bytes {
                    let from = self.open((*path).clone()).await?;
                    let mut bytes = std::pin::pin!(from.stream(offset_bytes.saturating_sub(start)));
                    while let Some(piece) = bytes.try_next().await? {
                        to.append(piece).await?;
                    }
                }
                start = end;
            }
            to.close().await
        };
        let copied: Result<Attr> = copying.await;
        if copied.is_err() {
            let _ = self.unlink(copy.clone(), false).await;
        }
        copied.map(|_| ())
    }
}

/// How long a file is, and what its blocks are like.
#[derive(Clone, Copy)]
struct Blocks {
    size_bytes: u64,
    block_bytes: u64,
    replicas: u8,
}

impl Blocks {
    fn of(attr: &Attr) -> Self {
        Blocks {
            size_bytes: attr.size_bytes,
            block_bytes: attr.block_bytes,
            replicas: attr.replicas,
        }
    }
}

/// From which offset of the whole on blocks of these files, the first of which is to have all, do not fit: a multiple of its
/// block size. None if all fit.
fn first_misfit(files: &[Blocks]) -> Option<u64> {
    let block_bytes = files[0].block_bytes.max(1);
    let size_bytes: u64 = files.iter().map(|file| file.size_bytes).sum();
    let mut start = 0;
    for file in files.iter().filter(|file| file.size_bytes > 0) {
        let is_one = file.size_bytes <= file.block_bytes.min(block_bytes);
        if file.replicas != files[0].replicas || (file.block_bytes != block_bytes && !is_one) {
            return Some(start);
        }
        start += file.size_bytes;
        if !start.is_multiple_of(block_bytes) && start < size_bytes {
            return Some(start / block_bytes * block_bytes);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(size_bytes: u64, block_bytes: u64, replicas: u8) -> Blocks {
        Blocks {
            size_bytes,
            block_bytes,
            replicas,
        }
    }

    #[test]
    fn blocks_fit_until_a_file_ends_within_one_or_has_others() {
        let (whole, short, empty) = (file(20, 10, 1), file(25, 10, 1), file(0, 50, 3));
        assert_eq!(first_misfit(&[whole, empty, short]), None);
        assert_eq!(first_misfit(&[whole, short, empty]), None);
        assert_eq!(first_misfit(&[whole, short, whole]), Some(40));
        assert_eq!(first_misfit(&[file(3, 10, 1), whole]), Some(0));
        assert_eq!(first_misfit(&[whole, file(10, 50, 1), whole]), None);
        assert_eq!(first_misfit(&[whole, file(11, 50, 1)]), Some(20));
        assert_eq!(first_misfit(&[whole, file(10, 10, 2)]), Some(20));
    }
}
