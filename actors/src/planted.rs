//! Bugs that are known, for the exam: tests are worth what they find. Each is switched on by name, as a failpoint, and in
//! nothing but a build with the feature `planted-bugs`; everywhere else [`is_planted`] is `false` when it is compiled.

/// What a master, a worker or a client could do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The Raft log is written and not synced.
    LogWithoutSync,
    /// An append is reported as done before it is on disk.
    AppendDoneBeforeDisk,
    /// A client is answered when its change is proposed.
    ReplyBeforeCommit,
    /// A leader reads from its state without asking whether it still leads.
    OldLeaderReads,
    /// A command has its effect a second time.
    ApplyTwice,
    /// A retry is taken for a command of its own.
    NoDeduplication,
    /// A master that lost its log votes at once.
    EmptyLogVotes,
    /// A master that lost its log takes entries before it knows what it has voted.
    ForgetsLostVotes,
    /// The last entry of a log is gone after a restart.
    TruncatesCommitted,
    /// A snapshot is installed without the last name in it.
    SnapshotLacksItsEnd,
    /// A leader trusts its lease for longer than an election takes.
    LeaseTooLong,
    /// A vote is not written down.
    ForgetsItsVote,
    /// A writer that gives up commits the blocks that it was about to write.
    CommitsWhatNobodyHas,
    /// A replica is deleted because a client says that another worker has a newer one.
    DeletesOnAClientsWord,
    /// A writer of a block whose holders have not reported is sent to another worker.
    WriterIsSentElsewhere,
    /// What workers have of a write that failed is not committed.
    FailedWriteKeepsNothing,
    /// A worker takes writes of a generation that it was told to refuse.
    WorkerIgnoresFences,
    /// A worker takes writes however long it has not heard from the masters.
    WorkerNeverFencesItself,
    /// A lease that its holder did not give back is given on without a word to the workers.
    LeaseGivenOnUnfenced,
    /// A reader that finds rotten bytes keeps it to itself.
    RotIsNotReported,
    /// After a power cut, what a fill had fetched is believed.
    FillsBelievedAfterPowerCut,
}

use Bug::*;

impl Bug {
    pub const ALL: [Bug; 21] = [
        LogWithoutSync,
        AppendDoneBeforeDisk,
        ReplyBeforeCommit,
        OldLeaderReads,
        ApplyTwice,
        NoDeduplication,
        EmptyLogVotes,
        ForgetsLostVotes,
        TruncatesCommitted,
        SnapshotLacksItsEnd,
        LeaseTooLong,
        ForgetsItsVote,
        CommitsWhatNobodyHas,
        DeletesOnAClientsWord,
        WriterIsSentElsewhere,
        FailedWriteKeepsNothing,
        WorkerIgnoresFences,
        WorkerNeverFencesItself,
        LeaseGivenOnUnfenced,
        RotIsNotReported,
        FillsBelievedAfterPowerCut,
    ];

    /// The failpoint's.
    pub fn name(self) -> &'static str {
        match self {
            LogWithoutSync => "log-without-sync",
            AppendDoneBeforeDisk => "append-done-before-disk",
            ReplyBeforeCommit => "reply-before-commit",
            OldLeaderReads => "old-leader-reads",
            ApplyTwice => "apply-twice",
            NoDeduplication => "no-deduplication",
            EmptyLogVotes => "empty-log-votes",
            ForgetsLostVotes => "forgets-lost-votes",
            TruncatesCommitted => "truncates-committed",
            SnapshotLacksItsEnd => "snapshot-lacks-its-end",
            LeaseTooLong => "lease-too-long",
            ForgetsItsVote => "forgets-its-vote",
            CommitsWhatNobodyHas => "commits-what-nobody-has",
            DeletesOnAClientsWord => "deletes-on-a-clients-word",
            WriterIsSentElsewhere => "writer-is-sent-elsewhere",
            FailedWriteKeepsNothing => "failed-write-keeps-nothing",
            WorkerIgnoresFences => "worker-ignores-fences",
            WorkerNeverFencesItself => "worker-never-fences-itself",
            LeaseGivenOnUnfenced => "lease-given-on-unfenced",
            RotIsNotReported => "rot-is-not-reported",
            FillsBelievedAfterPowerCut => "fills-believed-after-power-cut",
        }
    }
}

/// Whether this process is to have that bug.
#[cfg(feature = "planted-bugs")]
pub fn is_planted(bug: Bug) -> bool {
    fail::fail_point!(bug.name(), |_| true);
    false
}

#[cfg(not(feature = "planted-bugs"))]
pub const fn is_planted(_: Bug) -> bool {
    false
}
