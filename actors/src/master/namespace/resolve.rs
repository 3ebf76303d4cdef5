//! From a path or name to an inode. Symbolic links in the middle of a path are followed, the last only if asked.

use curvine_protocol::path::check_name;
use curvine_protocol::{CurvinePath, Error, ErrorKind, InodeId, Node, Result};
use heed::RoTxn;

use super::records::InodeRecord;
use super::store::Dbs;

/// Links followed in one look-up, as Linux has it.
const LINKS_MAX: u32 = 40;

/// Where a name is, and what is there.
#[derive(Clone, Debug)]
pub struct Place {
    /// The directory and the name in it. None for the root, or where the caller named an inode.
    pub entry: Option<(InodeId, String)>,
    pub found: Option<(InodeId, InodeRecord)>,
}

impl Place {
    /// # Errors
    /// `NotFound` naming the node.
    pub fn existing(self, node: &Node) -> Result<(InodeId, InodeRecord)> {
        self.found.ok_or_else(|| Error::not_found(node))
    }
}

/// Finds a node. A missing last name is not an error: `found` is none then.
///
/// # Errors
/// `NotFound` or `NotADirectory` for what is above it, `TooManySymlinks`, `Stale` for an unknown inode.
pub fn resolve(dbs: &Dbs, txn: &RoTxn, node: &Node, follow: bool) -> Result<Place> {
    match node {
        Node::Inode(inode) => {
            let record = dbs.inode_or_stale(txn, *inode)?;
            // A file may have names elsewhere.
            if record.is_dir() {
                dbs.refuse_detached(txn, *inode)?;
            }
            Ok(Place {
                entry: None,
                found: Some((*inode, record)),
            })
        }
        Node::Child { parent, name } => {
            let directory = dbs.inode_or_stale(txn, *parent)?;
            if !directory.is_dir() {
                return Err(not_a_directory(node));
            }
            dbs.refuse_detached(txn, *parent)?;
            if name == ".." {
                return Ok(Place {
                    entry: None,
                    found: Some((directory.parent, dbs.inode_or_stale(txn, directory.parent)?)),
                });
            }
            check_name(name)?;
            Ok(Place {
                found: child(dbs, txn, *parent, name)?,
                entry: Some((*parent, name.clone())),
            })
        }
        Node::Path(path) => walk(dbs, txn, path, follow),
    }
}

fn child(dbs: &Dbs, txn: &RoTxn, parent: InodeId, name: &str) -> Result<Option<(InodeId, InodeRecord)>> {
    match dbs.child(txn, parent, name)? {
        None => Ok(None),
        Some(inode) => {
            let record = dbs.inode(txn, inode)?.ok_or_else(|| {
                Error::internal(format!(
                    "entry `{name}` of inode {parent} leads to inode {inode}, which is missing"
                ))
            })?;
            Ok(Some((inode, record)))
        }
    }
}

fn not_a_directory(what: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::NotADirectory,
        format!("{what}: a part of the path is not a directory"),
    )
}

fn walk(dbs: &Dbs, txn: &RoTxn, path: &CurvinePath, follow: bool) -> Result<Place> {
    match walk_directories(dbs, txn, path, follow)? {
        Some(place) => Ok(place),
        None => walk_anything(dbs, txn, path, follow),
    }
}

/// The way of most paths: directories all through, and something at the end. Only directories have entries, so none of
/// their records is looked at. None if it is not so simple.
fn walk_directories(dbs: &Dbs, txn: &RoTxn, path: &CurvinePath, follow: bool) -> Result<Option<Place>> {
    let (mut at, mut last) = (InodeId::ROOT, None);
    for name in path.names() {
        let Some(child) = dbs.child(txn, at, name)? else {
            return Ok(None);
        };
        last = Some((at, name));
        at = child;
    }
    let Some(record) = dbs.inode(txn, at)? else {
        return Ok(None);
    };
    Ok((!follow || record.target().is_none()).then(|| Place {
        entry: last.map(|(directory, name)| (directory, name.to_owned())),
        found: Some((at, record)),
    }))
}

fn walk_anything(dbs: &Dbs, txn: &RoTxn, path: &CurvinePath, follow: bool) -> Result<Place> {
    let root = (InodeId::ROOT, dbs.inode_or_stale(txn, InodeId::ROOT)?);
    let mut at = root.clone();
    // Names still to walk, the next one last.
    let mut names: Vec<String> = path.names().rev().map(str::to_owned).collect();
    let mut links = 0;
    let mut entry = None;
    while let Some(name) = names.pop() {
        if !at.1.is_dir() {
            return Err(not_a_directory(path));
        }
        if name == "." {
            continue;
        }
        if name == ".." {
            let parent = at.1.parent;
            at = (parent, dbs.inode_or_stale(txn, parent)?);
            entry = None;
            continue;
        }
        let last = names.is_empty();
        let Some(found) = child(dbs, txn, at.0, &name)? else {
            return match last {
                true => Ok(Place {
                    entry: Some((at.0, name)),
                    found: None,
                }),
                false => Err(Error::not_found(path)),
            };
        };
        match found.1.target() {
            Some(target) if !last || follow => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(too_many_links(path));
                }
                if target.starts_with('/') {
                    at = root.clone();
                }
                names.extend(
                    target
                        .split('/')
                        .rev()
                        .filter(|name| !name.is_empty())
                        .map(str::to_owned),
                );
                entry = None;
            }
            _ => {
                entry = Some((at.0, name));
                at = found;
            }
        }
    }
    Ok(Place {
        entry,
        found: Some(at),
    })
}

/// The path that a path leads to: with every symbolic link on the way followed, as far as it is known, and the last one if
/// asked. What is not known is taken for what it says.
///
/// # Errors
/// `TooManySymlinks`; `NameTooLong` if the links make it too long.
pub fn real_path(dbs: &Dbs, txn: &RoTxn, path: &CurvinePath, follow: bool) -> Result<CurvinePath> {
    let mut at = Some(InodeId::ROOT);
    let mut walked: Vec<(String, Option<InodeId>)> = Vec::new();
    let mut names: Vec<String> = path.names().rev().map(str::to_owned).collect();
    let mut links = 0;
    while let Some(name) = names.pop() {
        if name == "." {
            continue;
        }
        if name == ".." {
            walked.pop();
            at = walked.last().map_or(Some(InodeId::ROOT), |(_, inode)| *inode);
            continue;
        }
        let found = match at {
            Some(directory) => child(dbs, txn, directory, &name)?,
            None => None,
        };
        let target = found.as_ref().and_then(|(_, record)| record.target());
        match target.filter(|_| follow || !names.is_empty()) {
            Some(target) => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(too_many_links(path));
                }
                if target.starts_with('/') {
                    walked.clear();
                    at = Some(InodeId::ROOT);
                }
                let below = target.split('/').rev().filter(|name| !name.is_empty());
                names.extend(below.map(str::to_owned));
            }
            None => {
                at = found.map(|(inode, _)| inode);
                walked.push((name, at));
            }
        }
    }
    let names: Vec<String> = walked.into_iter().map(|(name, _)| name).collect();
    CurvinePath::parse(&format!("/{}", names.join("/")))
}

fn too_many_links(path: &CurvinePath) -> Error {
    Error::new(
        ErrorKind::TooManySymlinks,
        format!("{path}: more than {LINKS_MAX} symbolic links"),
    )
}

/// Whether a directory is another one or below it.
pub fn is_within(dbs: &Dbs, txn: &RoTxn, mut directory: InodeId, ancestor: InodeId) -> Result<bool> {
    loop {
        if directory == ancestor {
            return Ok(true);
        }
        if directory == InodeId::ROOT {
            return Ok(false);
        }
        directory = dbs.inode_or_stale(txn, directory)?.parent;
    }
}

/// The path of an inode, by its parents.
pub fn path_of(dbs: &Dbs, txn: &RoTxn, inode: InodeId) -> Result<CurvinePath> {
    let mut names = Vec::new();
    let mut at = inode;
    while at != InodeId::ROOT {
        let record = dbs.inode_or_stale(txn, at)?;
        names.push(match record.name.as_str() {
            "" => name_in(dbs, txn, record.parent, at)?,
            name => name.to_owned(),
        });
        at = record.parent;
    }
    if names.is_empty() {
        return Ok(CurvinePath::root());
    }
    names.reverse();
    CurvinePath::parse(&format!("/{}", names.join("/")))
}

/// The name under which a directory holds an inode.
pub fn name_in(dbs: &Dbs, txn: &RoTxn, directory: InodeId, inode: InodeId) -> Result<String> {
    let mut after: Option<String> = None;
    loop {
        let page = dbs.children(txn, directory, after.as_deref(), 1_000)?;
        if let Some((name, _)) = page.iter().find(|(_, child)| *child == inode) {
            return Ok(name.clone());
        }
        match page.last() {
            Some((name, _)) => after = Some(name.clone()),
            None => return Err(Error::not_found(format_args!("a name of inode {inode}"))),
        }
    }
}
