//! Bugs that are known, for the exam: tests are worth what they find. Each has one row here, and a place in the program
//! where [`is_planted`] asks for it. A build with the feature `planted-bugs` has the one that the environment names
//! (`CURVINE_PLANT`); everywhere else [`is_planted`] is `false` when it is compiled.

/// Where the exam looks for a bug first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meets {
    /// In runs of masters alone.
    Masters,
    /// In that plot.
    Plot(&'static str),
    /// Only who stands for a kernel meets it: in that test of the mount's core, which the exam passes where it is asked for
    /// this bug.
    Core(&'static str),
    /// In that test of the nodes' own, likewise.
    Unit(&'static str),
    /// Only a kernel meets it: in that test of two mounts, likewise.
    Kernel(&'static str),
}

/// A row: what it does, its name, and where it is met.
macro_rules! bugs {
    ($($(#[$what:meta])* $bug:ident: $name:literal, $meets:expr;)*) => {
        /// What a master, a worker, a client or a mount could do wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $($(#[$what])* $bug,)*
        }

        impl Bug {
            /// Those that the exam must find: all.
            pub const ALL: &[Bug] = &[$(Bug::$bug,)*];

            pub const fn name(self) -> &'static str {
                match self {
                    $(Bug::$bug => $name,)*
                }
            }

            pub fn meets(self) -> Meets {
                use Meets::*;
                match self {
                    $(Bug::$bug => $meets,)*
                }
            }
        }
    };
}

bugs! {
    /// The Raft log is written and not synced.
    LogWithoutSync: "log-without-sync", Masters;
    /// An append is reported as done before it is on disk.
    AppendDoneBeforeDisk: "append-done-before-disk", Masters;
    /// A client is answered when its change is proposed.
    ReplyBeforeCommit: "reply-before-commit", Masters;
    /// A leader reads from its state without asking whether it still leads.
    OldLeaderReads: "old-leader-reads", Masters;
    /// A command has its effect a second time.
    ApplyTwice: "apply-twice", Masters;
    /// A retry is taken for a command of its own.
    NoDeduplication: "no-deduplication", Masters;
    /// A master that lost its log votes at once.
    EmptyLogVotes: "empty-log-votes", Masters;
    /// A master that lost its log takes entries before it knows what it has voted.
    ForgetsLostVotes: "forgets-lost-votes", Masters;
    /// The last entry of a log is gone after a restart.
    TruncatesCommitted: "truncates-committed", Masters;
    /// What an earlier pass through the journal left in it is taken for entries of the log.
    ReplaysOldJournal: "replays-old-journal", Masters;
    /// The journal is written from its start again before the log has what is in it.
    JournalBeginsEarly: "journal-begins-early", Masters;
    /// A snapshot is installed without the last name in it.
    SnapshotLacksItsEnd: "snapshot-lacks-its-end", Masters;
    /// A leader trusts its lease for longer than an election takes.
    LeaseTooLong: "lease-too-long", Masters;
    /// A vote is not written down.
    ForgetsItsVote: "forgets-its-vote", Masters;
    /// A file goes with its last name though another client has it open.
    ForgetsOtherHolders: "forgets-other-holders", Plot("open-elsewhere");
    /// A file is opened while it is being removed.
    OpensBesideRemovals: "opens-beside-removals", Plot("opened-while-removed");
    /// A file that is open is read as it was, though a newer version was named.
    ReadsOldLayouts: "reads-old-layouts", Plot("follows-a-writer");
    /// A file is entered as an answer says that is older than this client's own commit.
    EntersOldLayouts: "enters-old-layouts", Plot("opened-beside-close");
    /// A mount keeps its pages of a file though others wrote between what it wrote.
    PagesOutliveTheLease: "pages-outlive-the-lease", Core("pages_of_before_the_lease_was_away_do_not_become_new_by_a_commit");
    /// A mount opens what others made meanwhile without a look at its mode.
    OpensWhatItDidNotMake: "opens-what-it-did-not-make", Kernel("a_file_that_another_mount_made_is_opened_as_its_mode_allows");
    /// A mount keeps pages that were read beside a write past them.
    DirectWritesLeavePages: "direct-writes-leave-pages", Core("what_is_written_past_the_pages_has_them_dropped_if_there_may_be_any");
    /// A sync through a descriptor that only reads does nothing.
    ReadersSyncNothing: "readers-sync-nothing", Kernel("a_sync_through_a_descriptor_that_only_reads_syncs_what_was_written");
    /// A command below its session's floor is carried out.
    ForgetsTheFloor: "forgets-the-floor", Plot("late-copy");
    /// A command of a session that has ended begins it anew.
    EndedSessionRuns: "ended-session-runs", Plot("late-change");
    /// Renewing a session that has ended begins it anew.
    RenewalRevives: "renewal-revives", Plot("stopped-mount");
    /// A leader counts the time in which it was stopped as silence of its clients.
    SilenceWhileStopped: "silence-while-stopped", Plot("stopped-master");
    /// A session ends that was heard of since the leader looked.
    RenewedSessionEnds: "renewed-session-ends", Plot("heard-in-time");
    /// A lease that ended without its holder's word is given on while workers still take the holder's bytes.
    LeaseGivenUnfenced: "lease-given-unfenced", Plot("overtaken-writer");
    /// A lease is taken from a holder that lives.
    LiveLeaseBroken: "live-lease-broken", Plot("writers-in-turn");
    /// A lease is believed in that was answered to an earlier try, and has gone since.
    BelievesOldLeases: "believes-old-leases", Plot("late-lease");
    /// A lock is given while another one excludes it.
    LockForAll: "lock-for-all", Plot("locked-counter");
    /// A writer that gives up commits the blocks that it was about to write.
    CommitsWhatNobodyHas: "commits-what-nobody-has", Plot("nobody-took-it");
    /// A writer that gives up has the file be as long as it knew it.
    GivesBackTheOldSize: "gives-back-the-old-size", Plot("unanswered-cut");
    /// A block that is written on without one of its workers keeps the generation that this one has.
    LeavesNewerBehind: "leaves-newer-behind", Plot("left-behind");
    /// A replica is deleted because a client says that another worker has a newer one.
    DeletesOnAClientsWord: "deletes-on-a-clients-word", Plot("older-replica");
    /// A writer of a block whose holders have not reported is sent to another worker.
    WriterIsSentElsewhere: "writer-is-sent-elsewhere", Plot("worker-away");
    /// What workers have of a write that failed is not committed.
    FailedWriteKeepsNothing: "failed-write-keeps-nothing", Plot("full-worker");
    /// A block that was written counts as cached.
    EvictsKeptBlocks: "evicts-kept-blocks", Plot("full-of-cached");
    /// A write that comes late is made, over what its writer wrote since.
    LateWritesAreTaken: "late-writes-are-taken", Plot("late-write");
    /// A seal means whatever is there, though the power went since the writes were acknowledged.
    LostWritesAreSealed: "lost-writes-are-sealed", Plot("lost-before-seal");
    /// What was written over since the last sync is written over again without a look at it.
    RotIsWrittenOver: "rot-is-written-over", Plot("rot-between-writes");
    /// A write over a file's bytes and beyond is refused as a whole by a worker that has no room for its end.
    OverwritesNeedRoom: "overwrites-need-room", Plot("full-overwrite");
    /// A worker that does not take an order to delete hears no more of it.
    DeletionsAreToldOnce: "deletions-are-told-once", Plot("deletion-untaken");
    /// Masters do not hear of a block that is being written.
    BegunBlocksAreNotTold: "begun-blocks-are-not-told", Plot("late-block");
    /// Replicas stay as different as a writer left them that went without a word.
    ReplicasStayDifferent: "replicas-stay-different", Plot("half-written");
    /// What a worker has after a power cut counts as what it had before.
    DoubtfulReplicasCount: "doubtful-replicas-count", Plot("undone-by-power");
    /// A worker takes writes of a generation that it was told to refuse.
    WorkerIgnoresFences: "worker-ignores-fences", Plot("overtaken-writer");
    /// A worker takes writes however long it has not heard from the masters.
    WorkerNeverFencesItself: "worker-never-fences-itself", Plot("overtaken-beside-its-worker");
    /// A reader that finds rotten bytes keeps it to itself.
    RotIsNotReported: "rot-is-not-reported", Plot("rotten-object");
    /// After a power cut, what a fill had fetched is believed.
    FillsBelievedAfterPowerCut: "fills-believed-after-power-cut", Plot("fill-and-power-cut");
    /// A file whose time to live is over is deleted though somebody has it open.
    ExpiresWhatIsOpen: "expires-what-is-open", Plot("open-when-over");
    /// Whether a file's time to live is over is decided before it is deleted, and not looked at again then.
    ExpiresByAnOldLook: "expires-by-an-old-look", Plot("touched-in-time");
    /// A tree that moves below a rule is not looked through.
    MovedTreesKeepTheirRule: "moved-trees-keep-their-rule", Plot("moved-in");
    /// What is written is put into memory, where it is the only copy.
    KeptInMemory: "kept-in-memory", Plot("power-cut-of-memory");
    /// The copy that a faster disk has of a block stays when the block is written.
    GuestsStayBehind: "guests-stay-behind", Plot("written-while-in-memory");
    /// A block goes from a disk though it was written since it was copied to another.
    MovesOverWrites: "moves-over-writes", Plot("written-while-it-moves");
    /// A worker that is told that a replica is too much lets it go without asking whether others have it.
    ShedsUnasked: "sheds-unasked", Plot("shed-late");
    /// A worker that is to let a replica go says to another one that it has it.
    ConfirmsWhatItSheds: "confirms-what-it-sheds", Plot("shed-by-two");
    /// What a worker sends is not compared with its checksums.
    SkipsChecksums: "skips-checksums", Plot("rotten-object");
    /// Whoever has any replica of a block is taken for one who has it, by masters and by itself.
    ForgetsGenerations: "forgets-generations", Plot("left-behind");
    /// The only replica of a block counts as two.
    CountsAReplicaTwice: "counts-a-replica-twice", Plot("back-after-repair");
    /// A worker says that a block is on its device, and has not waited for that.
    SaysItSynced: "says-it-synced", Plot("power-cut-of-memory");
    /// A report of a worker counts though a later one has come.
    BelievesLateReports: "believes-late-reports", Unit("a_block_report_that_comes_after_a_later_one_is_refused");
    /// The bytes of a block that goes are given back at once, whoever was granted a part of it.
    FreesUnderReaders: "frees-under-readers", Unit("a_reader_keeps_what_it_was_granted_though_the_block_goes");
    /// Whether a worker has pinned what is pinned is not looked at when it reports, so not by a new leader.
    ForgetsPins: "forgets-pins", Unit("pins_survive_a_failover_and_whatever_differs_on_a_worker_is_told_again");
    /// A change that is sent again has no effect but on quotas.
    ChargesRetries: "charges-retries", Unit("a_retry_is_charged_once");
}

/// Whether this process is to have that bug.
#[cfg(feature = "planted-bugs")]
pub fn is_planted(bug: Bug) -> bool {
    static PLANTED: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("CURVINE_PLANT").ok());
    PLANTED.as_deref() == Some(bug.name())
}

#[cfg(not(feature = "planted-bugs"))]
pub const fn is_planted(_: Bug) -> bool {
    false
}
