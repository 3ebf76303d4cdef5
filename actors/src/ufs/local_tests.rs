//! Changes of local directories: links, FIFOs, and roots that go.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;

use bytes::Bytes;
use curvine_protocol::{ErrorKind, Result, UfsVersion};
use futures::StreamExt;

use super::Ufs;
use super::changes::{Replacement, Written};
use crate::kit::until::until;

fn local(directory: &Path) -> Ufs {
    Ufs::open_parts(&format!("file://{}", directory.display()), &BTreeMap::new()).expect("opens")
}

async fn put(ufs: &Ufs, key: &str, replaces: Option<&UfsVersion>) -> Result<Written> {
    let content = futures::stream::iter([Ok(Bytes::from_static(b"new"))]).boxed();
    let how = Replacement {
        replaces,
        mark: "1.1",
        attributes: None,
    };
    ufs.replace(key, content, how, async { Ok(()) }).await
}

async fn there(ufs: &Ufs, key: &str) -> UfsVersion {
    ufs.stat(key).await.expect("looked at").expect("a file")
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).expect("there")
}

#[tokio::test]
async fn no_change_follows_a_link() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let (root, outside) = (scratch.path().join("root"), scratch.path().join("outside"));
    for directory in [&root, &outside] {
        std::fs::create_dir(directory).expect("fresh");
    }
    std::fs::write(outside.join("secret"), "old").expect("room");
    std::fs::write(root.join("a"), "a").expect("room");
    for link in ["copied", "written"] {
        symlink(outside.join("secret"), root.join(link)).expect("fresh");
    }
    symlink(&outside, root.join("d")).expect("fresh");
    let ufs = local(&root);
    let a = there(&ufs, "a").await;
    // A name that is a link is replaced itself.
    ufs.copy_version(("a", &a), ("copied", None))
        .await
        .expect("copied");
    put(&ufs, "written", None).await.expect("written");
    assert_eq!(
        (text(&root.join("copied")), text(&root.join("written"))),
        ("a".to_owned(), "new".to_owned())
    );
    // Nothing is done below one.
    let secret = there(&local(&outside), "secret").await;
    let refused = ErrorKind::NotADirectory;
    assert_eq!(put(&ufs, "d/evil", None).await.expect_err("a link").kind, refused);
    assert_eq!(
        ufs.copy_version(("a", &a), ("d/evil", None))
            .await
            .expect_err("a link")
            .kind,
        refused
    );
    assert_eq!(ufs.make_dir("d/evil").await.expect_err("a link").kind, refused);
    assert_eq!(
        ufs.delete_version("d/secret", &secret).await,
        Ok(true),
        "nothing is there"
    );
    assert_eq!(ufs.something_in("d").await, Ok(None));
    ufs.delete_dir("d").await.expect("nothing to do");
    let names = std::fs::read_dir(&outside).expect("there").count();
    assert_eq!((names, text(&outside.join("secret"))), (1, "old".to_owned()));
    assert!(root.join("d").is_symlink());
    let left = std::fs::read_dir(root.join(".curvine-uploads"))
        .expect("there")
        .count();
    assert_eq!(left, 0, "incomplete files");
}

#[tokio::test]
async fn what_is_not_shown_is_not_replaced() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let fifo = scratch.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).expect("fresh");
    std::fs::write(scratch.path().join("a"), "a").expect("room");
    let ufs = local(scratch.path());
    let a = there(&ufs, "a").await;
    let refused = ErrorKind::NotPermitted;
    assert_eq!(put(&ufs, "fifo", None).await.expect_err("a FIFO").kind, refused);
    assert_eq!(
        ufs.copy_version(("a", &a), ("fifo", None))
            .await
            .expect_err("a FIFO")
            .kind,
        refused
    );
    assert_eq!(ufs.delete_version("fifo", &a).await, Ok(false));
    assert!(!fifo.is_file() && fifo.exists());
}

#[tokio::test]
async fn a_root_that_is_gone_or_another_one_is_an_error_of_everything() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let (root, away) = (scratch.path().join("root"), scratch.path().join("away"));
    std::fs::create_dir(&root).expect("fresh");
    std::fs::write(root.join("a"), "a").expect("room");
    let ufs = local(&root);
    let a = there(&ufs, "a").await;
    std::fs::rename(&root, &away).expect("moved");
    for is_there in [false, true] {
        if is_there {
            std::fs::create_dir(&root).expect("fresh");
        }
        let errors = [
            ufs.list("").await.expect_err("no root"),
            ufs.list("d").await.expect_err("no root"),
            ufs.find("a").await.expect_err("no root"),
            ufs.stat("a").await.expect_err("no root"),
            put(&ufs, "b", None).await.expect_err("no root"),
            ufs.copy_version(("a", &a), ("b", None))
                .await
                .expect_err("no root"),
            ufs.delete_version("a", &a).await.expect_err("no root"),
            ufs.make_dir("d").await.expect_err("no root"),
            ufs.delete_dir("d").await.expect_err("no root"),
            ufs.something_in("d").await.expect_err("no root"),
            ufs.check(true).await.expect_err("no root"),
        ];
        for error in errors {
            assert_eq!(error.kind, ErrorKind::Ufs, "{error}");
            assert!(
                error.message.contains("the directory of the mount is not there"),
                "{error}"
            );
        }
        assert_eq!(root.exists(), is_there);
    }
    assert_eq!(std::fs::read_dir(&root).expect("there").count(), 0);
    std::fs::remove_dir(&root).expect("empty");
    std::fs::rename(&away, &root).expect("moved");
    assert_eq!(there(&ufs, "a").await, a);
}

#[tokio::test]
async fn what_is_given_up_makes_nothing_later() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let ufs = local(scratch.path());
    let local = ufs.local.as_ref().expect("a local directory");
    let (let_go, held) = std::sync::mpsc::sync_channel::<()>(1);
    let (begun, has_begun) = std::sync::mpsc::sync_channel(1);
    let hangs = move |local: super::local::Local| {
        let (beside, _) = local.beside(|at, name| rustix::fs::symlinkat("nowhere", at, name))?;
        begun.send(()).expect("somebody waits");
        let _ = held.recv();
        Ok(beside)
    };
    let given_up = ufs
        .change_local(local, "a", std::time::Duration::ZERO, hangs)
        .await;
    let error = given_up.map(drop).expect_err("it hangs");
    assert_eq!(error.kind, ErrorKind::Ufs);
    assert!(error.message.contains("`a`: no answer within 0 s"), "{error}");
    has_begun.recv().expect("it begins");
    let uploads = scratch.path().join(".curvine-uploads");
    let unfinished = || std::fs::read_dir(&uploads).expect("there").count();
    assert_eq!(unfinished(), 1);
    drop(let_go);
    until("what was given up is gone", || unfinished() == 0).await;
}

#[tokio::test]
async fn a_file_of_many_pieces_is_copied_whole() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let content: Vec<u8> = (0..(40_u32 << 20) / 4).flat_map(u32::to_le_bytes).collect();
    std::fs::write(scratch.path().join("a"), &content).expect("room");
    let ufs = local(scratch.path());
    let a = there(&ufs, "a").await;
    let copied = ufs.copy_version(("a", &a), ("b", None)).await.expect("copied");
    assert_eq!(there(&ufs, "b").await, copied);
    assert!(std::fs::read(scratch.path().join("b")).expect("there") == content);
}
