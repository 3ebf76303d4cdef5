//! The table of owners in ARCHITECTURE.md is that of the code.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const MEMBERS: [&str; 4] = ["actors/src", "fuse/src", "hadoop/src", "node/src"];

fn root() -> PathBuf {
    let members = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    members.expect("a member of the workspace").to_owned()
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every source file that is no test.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("is a directory") {
        let path = entry.expect("is readable").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("is text");
        let is_test = name == "tests" || name.ends_with("tests.rs") || name == "golden.rs";
        match path.is_dir() {
            _ if is_test => {}
            true => sources(&path, found),
            false if name.ends_with(".rs") => found.push(path),
            false => {}
        }
    }
}

/// Whether the code before its tests keeps a lock in a field, or is an actor.
fn owns_state(source: &str) -> bool {
    let code = source
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    code.lines().map(str::trim).any(|line| {
        let is_field = !line.starts_with("//") && !line.contains("fn ") && !line.contains("use ");
        let is_lock = ["Mutex<", "RwLock<"].iter().any(|lock| line.contains(lock));
        is_field && is_lock || line.starts_with("impl Actor for ")
    })
}

#[test]
fn the_map_names_every_owner_of_state_and_no_other() {
    let root = root();
    let map = text(&root.join("ARCHITECTURE.md"));
    let section = map
        .split("### Who owns state")
        .nth(1)
        .expect("the section is there");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let named: BTreeSet<String> = rows
        .map(|row| row.split('`').nth(3).expect("a row names its file").to_owned())
        .collect();
    let mut files = Vec::new();
    for member in MEMBERS {
        sources(&root.join(member), &mut files);
    }
    let owners: BTreeSet<String> = files
        .iter()
        .filter(|file| owns_state(&text(file)))
        .map(|file| file.strip_prefix(&root).expect("is below").display().to_string())
        .collect();
    assert!(owners.len() > 20, "the search finds owners: {owners:?}");
    let unnamed: Vec<_> = owners.difference(&named).collect();
    let gone: Vec<_> = named.difference(&owners).collect();
    assert!(
        unnamed.is_empty() && gone.is_empty(),
        "ARCHITECTURE.md, \"Who owns state\": without a row: {unnamed:?}; rows without an owner: {gone:?}"
    );
}
