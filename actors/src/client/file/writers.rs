//! The handles that write a file, and which of them are to hear that something of theirs is lost. Pure.
//!
//! A lease that is lost takes with it what was written under it and not flushed. That is said to the handles that wrote
//! it, each until it is closed, and to nobody else: the file itself goes on, under another lease.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use curvine_protocol::{Error, Result};

/// One handle among those of a file, for as long as the client has the file open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HandleId(pub u64);

/// By handle. One that only reads is not among them.
#[derive(Default)]
pub(super) struct Writers {
    by_handle: BTreeMap<HandleId, Writer>,
    /// How often something that was written has been lost, by whomever, and why last.
    losses: u64,
    last_loss: Option<Error>,
}

/// What one of several users of a handle knows of what was lost: nothing is to be lost from its first write on.
#[derive(Debug, Default)]
pub struct Seen(OnceLock<u64>);

#[derive(Default)]
struct Writer {
    /// It wrote, or was about to, since everything was last flushed.
    is_unflushed: bool,
    /// Why what it wrote is lost.
    lost: Option<Error>,
}

impl Writers {
    pub fn enter(&mut self, handle: HandleId) {
        self.by_handle.entry(handle).or_default();
    }

    /// It is closed: from now on it is as one that never wrote.
    pub fn leave(&mut self, handle: HandleId) {
        self.by_handle.remove(&handle);
    }

    pub fn is_empty(&self) -> bool {
        self.by_handle.is_empty()
    }

    /// Whether nobody else writes.
    pub fn is_last(&self, handle: HandleId) -> bool {
        self.by_handle.keys().eq([&handle])
    }

    /// It is about to write. Enters it, if need be.
    pub fn writes(&mut self, handle: HandleId) {
        self.by_handle.entry(handle).or_default().is_unflushed = true;
    }

    /// The masters have everything that was written.
    pub fn flushed(&mut self) {
        for writer in self.by_handle.values_mut() {
            writer.is_unflushed = false;
        }
    }

    /// What was not flushed is lost. A handle that has lost something already keeps to its first error.
    pub fn lost(&mut self, error: &Error) {
        let mut is_loss = false;
        for writer in self.by_handle.values_mut() {
            if std::mem::take(&mut writer.is_unflushed) {
                writer.lost.get_or_insert_with(|| error.clone());
                is_loss = true;
            }
        }
        if is_loss {
            self.note_loss(error);
        }
    }

    /// Nobody writes on by a handle that wrote, whether it has flushed or not.
    pub fn revoked(&mut self, error: &Error) {
        for writer in self.by_handle.values_mut() {
            writer.is_unflushed = true;
        }
        self.lost(error);
    }

    /// Something is lost that was written.
    pub fn note_loss(&mut self, error: &Error) {
        self.losses += 1;
        self.last_loss = Some(error.clone());
    }

    /// For one who is about to write.
    ///
    /// # Errors
    /// Why something was lost since it wrote first.
    pub fn begins(&self, seen: &Seen) -> Result<()> {
        seen.0.get_or_init(|| self.losses);
        self.check_seen(seen)
    }

    /// # Errors
    /// Why something was lost since the user wrote first, if it did.
    pub fn check_seen(&self, seen: &Seen) -> Result<()> {
        match (&self.last_loss, seen.0.get()) {
            (Some(error), Some(seen)) if *seen < self.losses => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// # Errors
    /// Why something that this handle wrote is lost, until it is closed.
    pub fn check(&self, handle: HandleId) -> Result<()> {
        let lost = self
            .by_handle
            .get(&handle)
            .and_then(|writer| writer.lost.as_ref());
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

    #[test]
    fn a_loss_is_told_to_every_user_of_a_handle_that_wrote_before_for_as_long_as_there_are_any() {
        let mut writers = Writers::default();
        let (wrote, wrote_first_later, idle) = (Seen::default(), Seen::default(), Seen::default());
        assert_eq!(writers.begins(&wrote), Ok(()));
        writers.writes(FIRST);
        let error = Error::new(ErrorKind::Lost, "one");
        writers.note_loss(&error);
        writers.leave(FIRST);
        for _ in 0..2 {
            assert_eq!(writers.begins(&wrote), Err(error.clone()));
            assert_eq!(writers.check_seen(&wrote), Err(error.clone()));
        }
        assert_eq!(writers.begins(&wrote_first_later), Ok(()));
        assert_eq!(writers.check_seen(&idle), Ok(()));
        writers.lost(&Error::new(ErrorKind::Stale, "nobody's"));
        assert_eq!(writers.check_seen(&wrote_first_later), Ok(()));
        writers.writes(SECOND);
        let stale = Error::new(ErrorKind::Stale, "two");
        writers.lost(&stale);
        assert_eq!(writers.check_seen(&wrote_first_later), Err(stale));
        assert_eq!(writers.check_seen(&idle), Ok(()));
    }
}
