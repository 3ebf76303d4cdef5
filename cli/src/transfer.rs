//! Many files at once, with a progress bar, and nothing half-made left behind after an interruption.

use std::cell::RefCell;
use std::collections::BTreeSet;

use clap::builder::RangedU64ValueParser;
use curvine_protocol::{Error, ErrorKind, Result};
use futures::StreamExt;
use futures::stream;
use indicatif::{ProgressBar, ProgressStyle};

use crate::shell::Shell;
use crate::signals::{INTERRUPTED, told_to_end};

/// Bytes read from a local file at a time.
pub const PIECE_BYTES: usize = 1 << 20;
/// How many files may be on their way at the same time.
pub fn threads() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=1_024)
}

/// Destinations that are being written: what to remove if the transfer is interrupted.
pub struct Partial<T: Ord + Clone>(RefCell<BTreeSet<T>>);

impl<T: Ord + Clone> Partial<T> {
    pub fn new() -> Self {
        Partial(RefCell::default())
    }

    pub fn begin(&self, destination: &T) {
        self.0.borrow_mut().insert(destination.clone());
    }

    pub fn done(&self, destination: &T) {
        self.0.borrow_mut().remove(destination);
    }

    pub fn take(&self) -> BTreeSet<T> {
        self.0.take()
    }
}

/// Runs the work of each job, `threads` at a time, until all are done or a signal says to end. A failure is reported, and
/// the others go on. The caller then removes what is partial.
pub async fn run<J, F: Future<Output = Result<()>>>(
    shell: &Shell,
    jobs: Vec<J>,
    threads: usize,
    bar: &ProgressBar,
    work: impl Fn(J) -> F,
) {
    let all = stream::iter(jobs).for_each_concurrent(threads, |job| {
        let one = work(job);
        async {
            if let Err(error) = one.await {
                bar.suspend(|| shell.failed(&error));
            }
        }
    });
    tokio::select! {
        () = all => {}
        () = told_to_end() => {
            shell.exit_with(INTERRUPTED);
            shell.failed(&Error::new(ErrorKind::Cancelled, "interrupted; what was not whole is removed"));
        }
    }
    bar.finish_and_clear();
}

/// A bar of bytes, if somebody looks at it.
pub fn bar(shell: &Shell, bytes: u64) -> ProgressBar {
    if !shell.shows_progress() {
        return ProgressBar::hidden();
    }
    let style = "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}";
    let style = ProgressStyle::with_template(style).expect("the template is correct");
    ProgressBar::new(bytes).with_style(style)
}
