//! Mounts of local directories, in which there are symbolic links and what is not shown.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use super::*;

/// A directory that is mounted writable on `/w`, and whose names are asked for each time.
async fn mounted(world: &World) -> tempfile::TempDir {
    let bucket = tempfile::tempdir().expect("a scratch directory");
    let mount = MountUfs {
        path: path("/w"),
        uri: format!("file://{}", bucket.path().display()),
        options: Default::default(),
        settings: MountSettings {
            writable: true,
            staleness_ms: 0,
            ..MountSettings::default()
        },
    };
    world.ask(mount).await.expect("mounted");
    bucket
}

fn rename(from: &str, to: &str) -> Rename {
    Rename {
        from: path(from).into(),
        to: path(to).into(),
        mode: RenameMode::Replace,
        keep_replaced: false,
        closed: Vec::new(),
        holders: None,
    }
}

fn delete(at: &str) -> Delete {
    Delete {
        node: path(at).into(),
        recursive: true,
        holders: None,
    }
}

/// Everything below a directory: its names, with what links point to.
fn below(directory: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("readable");
        let name = entry.file_name().into_string().expect("UTF-8");
        let kind = entry.file_type().expect("there");
        if kind.is_symlink() {
            let target = std::fs::read_link(entry.path()).expect("a link");
            names.push(format!("{name} -> {}", target.display()));
        } else if kind.is_dir() && name != ".curvine-uploads" {
            names.extend(below(&entry.path()).iter().map(|below| format!("{name}/{below}")));
            names.push(format!("{name}/"));
        } else if kind.is_file() {
            names.push(name);
        }
    }
    names.sort();
    names
}

/// Until what is left of a rename is gone, too.
async fn until_below(directory: &Path, wanted: &[&str]) {
    until_some(&format!("below are {wanted:?}"), async || {
        (below(directory) == wanted).then_some(())
    })
    .await;
}

#[actix::test]
async fn a_tree_with_links_is_moved_and_removed_as_a_whole() {
    let world = World::new().await;
    let bucket = mounted(&world).await;
    let root = bucket.path();
    std::fs::create_dir_all(root.join("tree/deep")).expect("fresh");
    std::fs::create_dir(root.join("other")).expect("fresh");
    for file in ["tree/f", "other/o"] {
        std::fs::write(root.join(file), file).expect("room");
    }
    symlink("f", root.join("tree/file")).expect("fresh");
    symlink("../other", root.join("tree/directory")).expect("fresh");
    symlink("nowhere", root.join("tree/deep/dangling")).expect("fresh");
    world.ask(rename("/w/tree", "/w/moved")).await.expect("moved");
    let moved = [
        "moved/",
        "moved/deep/",
        "moved/deep/dangling -> nowhere",
        "moved/directory -> ../other",
        "moved/f",
        "moved/file -> f",
        "other/",
        "other/o",
    ];
    until_below(root, &moved).await;
    world.names("/w/moved").await.expect("listed");
    let link = world.look("/w/moved/deep/dangling").await.expect("there");
    assert_eq!(link.target.as_deref(), Some("nowhere"));
    until_some("the rename is over", async || {
        world.ask(delete("/w/moved")).await.ok()
    })
    .await;
    assert_eq!(below(root), ["other/", "other/o"]);
    assert_eq!(world.names("/w").await.expect("listed"), ["other"]);
    world.master.stop().await;
}

#[actix::test]
async fn a_link_is_removed_moved_and_replaced_itself() {
    let world = World::new().await;
    let bucket = mounted(&world).await;
    let root = bucket.path();
    std::fs::write(root.join("f"), "f").expect("room");
    std::fs::write(root.join("replaced"), "old").expect("room");
    for link in ["removed", "moved", "over a file", "over a link", "another"] {
        symlink("f", root.join(link)).expect("fresh");
    }
    let unlink = Unlink {
        node: path("/w/removed").into(),
        keep_open: false,
        holders: None,
        closed: Vec::new(),
    };
    world.ask(unlink).await.expect("removed");
    world.ask(rename("/w/moved", "/w/there")).await.expect("moved");
    world
        .ask(rename("/w/over a file", "/w/replaced"))
        .await
        .expect("moved");
    world
        .ask(rename("/w/over a link", "/w/another"))
        .await
        .expect("moved");
    until_below(root, &["another -> f", "f", "replaced -> f", "there -> f"]).await;
    let names = world.names("/w").await.expect("listed");
    assert_eq!(names, ["another", "f", "replaced", "there"]);
    world.master.stop().await;
}

#[actix::test]
async fn a_link_that_somebody_else_has_changed_stays() {
    let world = World::new().await;
    let bucket = mounted(&world).await;
    symlink("known", bucket.path().join("link")).expect("fresh");
    let ufs = crate::ufs::Ufs::open_parts(
        &format!("file://{}", bucket.path().display()),
        &Default::default(),
    )
    .expect("opened");
    assert_eq!(ufs.delete_link("link", "other").await, Ok(false));
    let copied = ufs.copy_link(("link", "other"), ("copy", None)).await;
    assert_eq!(copied.map_err(|error| error.kind), Err(ErrorKind::UfsChanged));
    std::fs::write(bucket.path().join("copy"), "theirs").expect("room");
    let copied = ufs.copy_link(("link", "known"), ("copy", None)).await;
    assert_eq!(copied.map_err(|error| error.kind), Err(ErrorKind::UfsChanged));
    assert_eq!(below(bucket.path()), ["copy", "link -> known"]);
    world.master.stop().await;
}

#[actix::test]
async fn nothing_gets_the_name_of_what_is_not_shown() {
    let world = World::new().await;
    let bucket = mounted(&world).await;
    let root = bucket.path();
    std::fs::write(root.join("f"), "f").expect("room");
    std::fs::create_dir(root.join("d")).expect("fresh");
    let fifo = root.join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).expect("fresh");
    symlink(std::ffi::OsStr::from_bytes(b"\xff"), root.join("link")).expect("fresh");
    for name in ["fifo", "link"] {
        let at = format!("/w/{name}");
        let make_dir = |at: &str| MakeDir {
            node: path(at).into(),
            mode: 0o755,
            parents: true,
            unmasked: None,
        };
        let errors = [
            world.ask(create(&at, false)).await.map(drop),
            world.ask(create(&format!("{at}/f"), true)).await.map(drop),
            world.ask(make_dir(&at)).await.map(drop),
            world.ask(make_dir(&format!("{at}/d"))).await.map(drop),
            world.ask(rename("/w/f", &at)).await.map(drop),
            world.ask(rename("/w/d", &at)).await.map(drop),
        ];
        for (step, error) in errors.into_iter().enumerate() {
            let error = error.expect_err("refused");
            assert_eq!(error.kind, ErrorKind::NotPermitted, "{step}: {error}");
            assert!(error.message.contains(&format!("`{name}`")), "{step}: {error}");
        }
    }
    world.ask(create("/w/d/new", false)).await.expect("made");
    assert_eq!(world.names("/w").await.expect("listed"), ["d", "f"]);
    assert!(!fifo.is_file() && fifo.exists());
    world.master.stop().await;
}
