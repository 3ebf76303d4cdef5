//! The operations, and what they answer.

use std::fmt;

/// One operation. Paths are absolute and below the root of whatever file system is asked; slots name handles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    MakeDir {
        path: String,
        mode: u32,
    },
    Symlink {
        path: String,
        target: String,
    },
    Link {
        from: String,
        to: String,
    },
    Unlink {
        path: String,
    },
    RemoveDir {
        path: String,
    },
    Rename {
        from: String,
        to: String,
        how: RenameHow,
    },
    Stat {
        path: String,
        follow: bool,
    },
    List {
        path: String,
    },
    ReadLink {
        path: String,
    },
    SetMode {
        path: String,
        mode: u32,
    },
    Truncate {
        path: String,
        size: u64,
    },
    /// Opens, reads everything, closes: what somebody else sees of the file.
    ReadFile {
        path: String,
    },
    SetXattr {
        path: String,
        name: String,
        value: Vec<u8>,
        how: XattrHow,
    },
    GetXattr {
        path: String,
        name: String,
    },
    ListXattrs {
        path: String,
    },
    RemoveXattr {
        path: String,
        name: String,
    },
    Open {
        slot: u8,
        path: String,
        access: Access,
        create: bool,
        exclusive: bool,
        truncate: bool,
    },
    Close {
        slot: u8,
    },
    Read {
        slot: u8,
        offset: u64,
        len: u64,
    },
    Write {
        slot: u8,
        offset: u64,
        bytes: Pattern,
    },
    /// At the end, wherever that is.
    Append {
        slot: u8,
        bytes: Pattern,
    },
    TruncateHandle {
        slot: u8,
        size: u64,
    },
    StatHandle {
        slot: u8,
    },
    Flush {
        slot: u8,
    },
    Sync {
        slot: u8,
    },
    /// What serves the file system stops and comes back; whoever uses it stays.
    Restart {
        kill: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    /// Reading too.
    Write,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameHow {
    Replace,
    NoReplace,
    Exchange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrHow {
    Set,
    Create,
    Replace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File,
    Symlink,
}

/// Bytes that a failure report can name in a few characters. Never zero, so that holes show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    pub seed: u8,
    pub len: u32,
}

impl Pattern {
    pub fn make(self) -> Vec<u8> {
        let byte = |i: u32| 1 + ((i.wrapping_mul(0x9e37_79b1) >> 24) as u8 ^ self.seed) % 255;
        (0..self.len).map(byte).collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    pub kind: Kind,
    pub mode: u32,
    pub links: u32,
    /// None for a directory: every file system has its own idea of it.
    pub size: Option<u64>,
}

#[derive(Clone, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Stat(Stat),
    Bytes(Vec<u8>),
    /// Sorted; with the kind for entries of a directory.
    Names(Vec<(String, Option<Kind>)>),
    Target(String),
    Position(u64),
}

impl fmt::Debug for Outcome {
    /// Long contents are told by their runs: a reader of a failure wants to know where, not which bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Done => f.write_str("Done"),
            Outcome::Stat(stat) => stat.fmt(f),
            Outcome::Bytes(bytes) if bytes.len() <= 16 => write!(f, "{bytes:?}"),
            Outcome::Bytes(bytes) => {
                write!(f, "{} bytes:", bytes.len())?;
                let mut at = 0;
                for run in bytes.chunk_by(|a, b| (*a == 0) == (*b == 0)).take(20) {
                    let what = if run[0] == 0 { "zeros" } else { "data" };
                    write!(f, " {at}+{} {what}", run.len())?;
                    at += run.len();
                }
                Ok(())
            }
            Outcome::Names(names) => write!(f, "{names:?}"),
            Outcome::Target(target) => write!(f, "-> {target}"),
            Outcome::Position(position) => write!(f, "at {position}"),
        }
    }
}
