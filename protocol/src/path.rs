//! Validated paths and names. What holds a [`CurvinePath`] or a checked name needs no further check.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::InodeId;

/// Longest name of one entry, in bytes (POSIX NAME_MAX).
pub const NAME_BYTES_MAX: usize = 255;
/// Longest path, in bytes, without the terminating NUL (POSIX PATH_MAX - 1).
pub const PATH_BYTES_MAX: usize = 4095;

/// Checks the name of one directory entry.
///
/// # Errors
/// `NameTooLong` over 255 bytes; `InvalidArgument` when empty, `.`, `..`, or with a slash or NUL.
pub fn check_name(name: &str) -> Result<()> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Error::new(
            ErrorKind::NameTooLong,
            format!(
                "name `{}...` has {} bytes; at most {NAME_BYTES_MAX} are allowed",
                clip(name),
                name.len()
            ),
        ));
    }
    match name {
        "" => Err(Error::invalid("a name must not be empty")),
        "." | ".." => Err(Error::invalid(format!("`{name}` cannot be used as a name"))),
        _ if name.contains('/') => Err(Error::invalid(format!("name `{name}` must not contain `/`"))),
        _ if name.contains('\0') => Err(Error::invalid(format!(
            "name `{}` must not contain a NUL byte",
            name.escape_debug()
        ))),
        _ => Ok(()),
    }
}

fn clip(text: &str) -> &str {
    let end = (0..=32.min(text.len()))
        .rev()
        .find(|&i| text.is_char_boundary(i))
        .unwrap_or(0);
    &text[..end]
}

/// An absolute, normalized path: `/` or `/a/b`, no `.`, `..`, `//`, NUL or trailing slash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CurvinePath(String);

impl CurvinePath {
    /// `/`.
    pub fn root() -> Self {
        CurvinePath("/".to_owned())
    }

    /// Parses an absolute path. One trailing slash is dropped.
    ///
    /// # Errors
    /// `InvalidArgument` or `NameTooLong`, naming the path and the offending part.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > PATH_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::NameTooLong,
                format!(
                    "path `{}...` has {} bytes; at most {PATH_BYTES_MAX} are allowed",
                    clip(text),
                    text.len()
                ),
            ));
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err(Error::invalid(format!(
                "path `{}` is not absolute; it must start with `/`",
                text.escape_debug()
            )));
        };
        if rest.is_empty() {
            return Ok(Self::root());
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        for name in rest.split('/') {
            if name.is_empty() {
                return Err(Error::invalid(format!(
                    "path `{}` has an empty part (`//`); write it with single slashes",
                    text.escape_debug()
                )));
            }
            check_name(name).map_err(|e| e.while_doing(format_args!("path `{}`", text.escape_debug())))?;
        }
        Ok(CurvinePath(format!("/{rest}")))
    }

    /// The path as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `/`.
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// The names from the root down; none for the root.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|name| !name.is_empty())
    }

    /// The last name; none for the root.
    pub fn name(&self) -> Option<&str> {
        self.names().next_back()
    }

    /// The parent directory; none for the root.
    pub fn parent(&self) -> Option<CurvinePath> {
        let cut = self.0.rfind('/')?;
        match (self.is_root(), cut) {
            (true, _) => None,
            (false, 0) => Some(Self::root()),
            (false, cut) => Some(CurvinePath(self.0[..cut].to_owned())),
        }
    }

    /// The path of an entry in this directory.
    ///
    /// # Errors
    /// As [`check_name`], or `NameTooLong` where the whole becomes too long.
    pub fn join(&self, name: &str) -> Result<CurvinePath> {
        check_name(name)?;
        let joined = if self.is_root() {
            format!("/{name}")
        } else {
            format!("{}/{name}", self.0)
        };
        if joined.len() > PATH_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::NameTooLong,
                format!(
                    "path `{}...` would have {} bytes; at most {PATH_BYTES_MAX} are allowed",
                    clip(&joined),
                    joined.len()
                ),
            ));
        }
        Ok(CurvinePath(joined))
    }

    /// True for the path itself and everything below it.
    pub fn contains(&self, other: &CurvinePath) -> bool {
        self.is_root()
            || other.0 == self.0
            || other
                .0
                .strip_prefix(&self.0)
                .is_some_and(|rest| rest.starts_with('/'))
    }

    /// `other` relative to this directory: empty for itself, `b/c` for an entry below; none outside.
    pub fn relative<'a>(&self, other: &'a CurvinePath) -> Option<&'a str> {
        if !self.contains(other) {
            return None;
        }
        let from = if self.is_root() {
            1
        } else {
            (self.0.len() + 1).min(other.0.len())
        };
        Some(&other.0[from.min(other.0.len())..])
    }
}

impl fmt::Display for CurvinePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for CurvinePath {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl TryFrom<String> for CurvinePath {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<CurvinePath> for String {
    fn from(path: CurvinePath) -> String {
        path.0
    }
}

/// How a call names what it acts on. FUSE speaks of inodes, `cv` and Hadoop of paths.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Node {
    Inode(InodeId),
    /// An entry in a directory known by inode. `name` is checked by the receiver with [`check_name`].
    Child {
        parent: InodeId,
        name: String,
    },
    /// A path. Symbolic links in the middle are followed; the last name only where the call says so.
    Path(CurvinePath),
}

impl Node {
    /// The entry of a directory. The name is checked by whoever looks it up.
    pub fn child(parent: InodeId, name: impl Into<String>) -> Self {
        Node::Child {
            parent,
            name: name.into(),
        }
    }
}

impl From<InodeId> for Node {
    fn from(inode: InodeId) -> Self {
        Node::Inode(inode)
    }
}

impl From<CurvinePath> for Node {
    fn from(path: CurvinePath) -> Self {
        Node::Path(path)
    }
}

impl From<&CurvinePath> for Node {
    fn from(path: &CurvinePath) -> Self {
        Node::Path(path.clone())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Inode(inode) => write!(f, "inode {inode}"),
            Node::Child { parent, name } => write!(f, "`{}` in inode {parent}", name.escape_debug()),
            Node::Path(path) => write!(f, "{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> CurvinePath {
        CurvinePath::parse(text).expect("a valid path")
    }

    #[test]
    fn a_trailing_slash_is_dropped() {
        assert_eq!(path("/a/b/").as_str(), "/a/b");
        assert_eq!(path("/").as_str(), "/");
    }

    #[test]
    fn bad_paths_are_refused_by_kind() {
        let long_name = format!("/{}", "n".repeat(256));
        let long_path = format!("/{}", "a/".repeat(2100));
        for (text, kind) in [
            ("a/b", ErrorKind::InvalidArgument),
            ("", ErrorKind::InvalidArgument),
            ("/a//b", ErrorKind::InvalidArgument),
            ("//", ErrorKind::InvalidArgument),
            ("/a/../b", ErrorKind::InvalidArgument),
            ("/a/.", ErrorKind::InvalidArgument),
            ("/a\0b", ErrorKind::InvalidArgument),
            (long_name.as_str(), ErrorKind::NameTooLong),
            (long_path.as_str(), ErrorKind::NameTooLong),
        ] {
            assert_eq!(
                CurvinePath::parse(text).map_err(|e| e.kind),
                Err(kind),
                "{text:?}"
            );
        }
    }

    #[test]
    fn parent_and_name_take_a_path_apart() {
        assert_eq!(path("/a/b").parent(), Some(path("/a")));
        assert_eq!(path("/a").parent(), Some(CurvinePath::root()));
        assert_eq!(CurvinePath::root().parent(), None);
        assert_eq!(path("/a/b").name(), Some("b"));
    }

    #[test]
    fn contains_respects_name_boundaries() {
        assert!(path("/a").contains(&path("/a/b")));
        assert!(path("/a").contains(&path("/a")));
        assert!(!path("/a").contains(&path("/ab")));
        assert_eq!(path("/a").relative(&path("/a/b/c")), Some("b/c"));
        assert_eq!(path("/a").relative(&path("/a")), Some(""));
        assert_eq!(CurvinePath::root().relative(&path("/a/b")), Some("a/b"));
        assert_eq!(path("/a").relative(&path("/ab")), None);
    }
}
