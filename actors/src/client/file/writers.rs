//! The handles that write a file, and which of them are to hear that something of theirs is lost. Pure.
//!
//! A lease that is lost takes with it what was written under it and not flushed. That is said to the handles that wrote
//! it, each until it is closed, and to nobody else: the file itself goes on, under another lease.

use std::collections::BTreeMap;

use curvine_protocol::{Error, Result};

/// One handle among those of a file, for as long as the client has the file open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HandleId(pub u64);

/// By handle. One that only reads is not among them.
#[derive(Default)]
pub(super) struct Writers(BTreeMap<HandleId, Writer>);

#[derive(Default)]
struct Writer {
    /// It wrote, or was about to, since everything was last flushed.
    is_unflushed: bool,
    /// Why what it wrote is lost.
    lost: Option<Error>,
}

impl Writers {
    pub fn enter(&mut self, handle: HandleId) {
        self.0.entry(handle).or_default();
    }

    /// It is closed: from now on it is as one that never wrote.
    pub fn leave(&mut self, handle: HandleId) {
        self.0.remove(&handle);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether nobody else writes.
    pub fn is_last(&self, handle: HandleId) -> bool {
        self.0.keys().eq([&handle])
    }

    /// It is about to write. Enters it, if need be.
    pub fn writes(&mut self, handle: HandleId) {
        self.0.entry(handle).or_default().is_unflushed = true;
    }

    /// The masters have everything that was written.
    pub fn flushed(&mut self) {
        for writer in self.0.values_mut() {
            writer.is_unflushed = false;
        }
    }

    /// What was not flushed is lost. A handle that has lost something already keeps to its first error.
    pub fn lost(&mut self, error: &Error) {
        for writer in self.0.values_mut() {
            if std::mem::take(&mut writer.is_unflushed) {
                writer.lost.get_or_insert_with(|| error.clone());
            }
        }
    }

    /// # Errors
    /// Why something that this handle wrote is lost, until it is closed.
    pub fn check(&self, handle: HandleId) -> Result<()> {
        let lost = self.0.get(&handle).and_then(|writer| writer.lost.as_ref());
        lost.map_or(Ok(()), |error| Err(error.clone()))
    }
}

#[cfg(test)]
mod tests {
    use curvine_protocol::ErrorKind;

    use super::*;

    const FIRST: HandleId = HandleId(1);
    const SECOND: HandleId = HandleId(2);

    fn said(writers: &Writers, handle: HandleId) -> Option<String> {
        writers.check(handle).err().map(|error| error.message)
    }

    #[test]
    fn a_loss_is_told_to_who_wrote_what_was_not_flushed_and_until_its_close() {
        let mut writers = Writers::default();
        writers.enter(SECOND);
        writers.writes(FIRST);
        writers.lost(&Error::new(ErrorKind::Stale, "one"));
        assert_eq!(
            [said(&writers, FIRST), said(&writers, SECOND)],
            [Some("one".into()), None]
        );
        // Under the next lease.
        writers.writes(SECOND);
        writers.flushed();
        writers.lost(&Error::new(ErrorKind::Stale, "of nothing"));
        assert_eq!(said(&writers, SECOND), None);
        writers.writes(SECOND);
        writers.writes(FIRST);
        writers.lost(&Error::new(ErrorKind::Stale, "two"));
        assert_eq!(
            [said(&writers, FIRST), said(&writers, SECOND)],
            [Some("one".into()), Some("two".into())]
        );
        writers.leave(FIRST);
        assert_eq!(said(&writers, FIRST), None, "it may write again");
        assert!(writers.is_last(SECOND) && !writers.is_last(FIRST));
        writers.leave(SECOND);
        assert!(writers.is_empty() && !writers.is_last(SECOND));
    }
}
