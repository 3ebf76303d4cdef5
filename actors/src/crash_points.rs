//! Places at which a test has this process die, as by `kill -9`: each between two steps of a change that outlive it.
//!
//! A build with the feature `planted-bugs` looks, wherever [`crash_point`] is called, for a file of the point's name in the
//! directory that `CURVINE_CRASH_POINTS` names. The first process that comes by takes the file away and dies. A number in the
//! file is how often the point is passed before. Everywhere else a call is nothing.

/// A row: what has just happened, and the point's name.
macro_rules! points {
    ($($(#[$what:meta])* $point:ident: $name:literal;)*) => {
        /// Between which steps a process can be made to die.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point {
            $($(#[$what])* $point,)*
        }

        impl Point {
            pub const ALL: &[Point] = &[$(Point::$point,)*];

            pub const fn name(self) -> &'static str {
                match self {
                    $(Point::$point => $name,)*
                }
            }
        }
    };
}

points! {
    /// A change of a store is in the log, and the store was not asked for anything.
    ChangeNoted: "change-noted";
    /// The store has made a change, and the namespace has not.
    ChangeMade: "change-made";
    /// The namespace has made a change, and its client was not answered.
    ChangeCommitted: "change-committed";
    /// One object was copied, and nobody has noted it.
    ObjectCopied: "object-copied";
    /// Some copies are noted.
    CopiesNoted: "copies-noted";
    /// One object was deleted.
    ObjectDeleted: "object-deleted";
    /// Some of what was copied is gone where it was, and nobody has noted it.
    SourcesDeleted: "sources-deleted";
    /// An export is in the log, and no worker knows of it.
    ExportBegun: "export-begun";
    /// A worker has read a part of what it exports.
    ExportRead: "export-read";
    /// A worker is about to have an object become visible.
    ExportConfirmed: "export-confirmed";
    /// An object is visible, and its worker has told nobody.
    ExportWritten: "export-written";
    /// The leader knows that a file was stored, and has not noted it.
    ExportAnswered: "export-answered";
    /// It has.
    ExportEnded: "export-ended";
}

/// Dies here if a test asks for it.
#[cfg(feature = "planted-bugs")]
pub fn crash_point(point: Point) {
    use std::path::PathBuf;
    use std::sync::LazyLock;
    static ASKED: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os("CURVINE_CRASH_POINTS").map(PathBuf::from));
    let Some(asked) = ASKED.as_ref().map(|directory| directory.join(point.name())) else {
        return;
    };
    let Ok(passes) = std::fs::read_to_string(&asked) else {
        return;
    };
    match passes.trim().parse() {
        Ok(passes @ 1_u32..) => {
            let _ = std::fs::write(&asked, (passes - 1).to_string());
        }
        // Whoever takes it away is the one.
        _ => {
            if std::fs::remove_file(&asked).is_ok() {
                std::process::abort();
            }
        }
    }
}

#[cfg(not(feature = "planted-bugs"))]
pub const fn crash_point(_: Point) {}
