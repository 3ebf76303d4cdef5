//! Faults that are known, or were. Each says what is left out of runs while it stands in [`NOT_MENDED`], so that what else
//! there is can be found. Whoever mends one takes it out of there.
//!
//! `CURVINE_KNOWN=none` runs without this table, `CURVINE_KNOWN=-late-duplicates` without that row.

/// A fault of the program under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// An append that fails (no room, no worker) has committed bytes deleted or unreadable. Left out: full workers, and
    /// those that are away for longer than a client tries.
    FailedAppend,
    /// A change that comes again after its session's next ones is made again. Left out: late requests to masters.
    LateDuplicates,
    /// A writer that was stopped for longer than its lease writes into the file of its successor. Left out: mounts that are
    /// stopped, cut off, or killed.
    StoppedWriter,
    /// A master that was stopped, or whose wall clock is set, ends the sessions of healthy clients. Left out: both.
    LeadersClock,
    /// A master that has just begun to lead, or lost sight of a worker, sends a writer elsewhere than where the block is.
    /// Left out: faults of masters in clusters.
    SentElsewhere,
    /// What another mount removes or replaces is gone for who has it open, and a write into it makes its blocks anew.
    /// Left out: what is said of such files.
    RemovedElsewhere,
    /// A chunk of a cached object rots, its readers find that, and nobody fetches it again. Left out: bits of such blocks.
    RottenChunk,
}

use Known::*;

/// The table.
const NOT_MENDED: [Known; 0] = [];

impl Known {
    fn name(self) -> &'static str {
        match self {
            FailedAppend => "failed-append",
            LateDuplicates => "late-duplicates",
            StoppedWriter => "stopped-writer",
            LeadersClock => "leaders-clock",
            SentElsewhere => "sent-elsewhere",
            RemovedElsewhere => "removed-elsewhere",
            RottenChunk => "rotten-chunk",
        }
    }
}

/// Whether it is in the table, and this run has not taken it out.
pub fn is_known(fault: Known) -> bool {
    NOT_MENDED.contains(&fault)
        && match std::env::var("CURVINE_KNOWN") {
            Err(_) => true,
            Ok(without) => {
                without != "none" && without.split(',').all(|row| row != format!("-{}", fault.name()))
            }
        }
}
