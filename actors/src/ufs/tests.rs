//! Against real services of OpenDAL: a local directory.

use std::collections::BTreeMap;

use super::changes::{Replacement, Written};
use super::*;

fn local(directory: &std::path::Path) -> Ufs {
    Ufs::open_parts(&format!("file://{}", directory.display()), &BTreeMap::new()).expect("opens")
}

async fn read(ufs: &Ufs, key: &str, range: Range<u64>, expected: &UfsVersion) -> Result<Vec<u8>> {
    let pieces: Vec<Bytes> = ufs.read(key, range, expected).await?.try_collect().await?;
    Ok(pieces.concat())
}

#[tokio::test]
async fn a_listing_has_versions_and_a_read_is_of_one_version() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    std::fs::create_dir(scratch.path().join("d")).expect("fresh");
    std::fs::write(scratch.path().join("d/x"), "below").expect("room");
    std::fs::write(scratch.path().join("f %+ü"), "0123456789").expect("room");
    let ufs = local(scratch.path());
    let (objects, skipped) = ufs.list("").await.expect("listable");
    let names: Vec<_> = objects
        .iter()
        .map(|object| (object.name.as_str(), object.kind))
        .collect();
    assert_eq!(
        (names, skipped),
        (vec![("d", FileKind::Directory), ("f %+ü", FileKind::File)], 0)
    );
    let version = objects[1].version.clone().expect("a file has one");
    assert_eq!(version.size_bytes, 10);
    assert_eq!(
        read(&ufs, "f %+ü", 2..5, &version).await.expect("readable"),
        b"234"
    );
    std::fs::write(scratch.path().join("f %+ü"), "changed").expect("room");
    let error = read(&ufs, "f %+ü", 2..5, &version)
        .await
        .expect_err("another version");
    assert_eq!(error.kind, ErrorKind::UfsChanged);
    assert_eq!(
        ufs.find("d").await.expect("found").map(|object| object.kind),
        Some(FileKind::Directory)
    );
    assert_eq!(ufs.find("none").await, Ok(None));
}

#[tokio::test]
async fn what_is_written_is_a_version_and_can_be_deleted() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let ufs = local(scratch.path());
    ufs.check(true).await.expect("writable");
    let content =
        futures::stream::iter([Ok(Bytes::from_static(b"ab")), Ok(Bytes::from_static(b"c"))]).boxed();
    let version = stored(ufs.replace("a/b", content, of("1.1", None), finishes()).await);
    assert_eq!(read(&ufs, "a/b", 0..3, &version).await.expect("readable"), b"abc");
    let copied = ufs.copy_version(("a/b", &version), ("a/c", None)).await;
    assert_eq!(copied.expect("copied").size_bytes, 3);
    assert_eq!(ufs.delete_version("a/b", &version).await, Ok(true));
    assert_eq!(ufs.stat("a/b").await, Ok(None));
    assert_eq!(
        ufs.something_in("a").await.expect("listable").as_deref(),
        Some("a/c")
    );
}

async fn finishes() -> Result<()> {
    Ok(())
}

fn of<'a>(mark: &'a str, replaces: Option<&'a UfsVersion>) -> Replacement<'a> {
    Replacement { replaces, mark }
}

fn text(content: &'static str) -> ByteStream {
    futures::stream::iter([Ok(Bytes::from_static(content.as_bytes()))]).boxed()
}

fn stored(written: Result<Written>) -> UfsVersion {
    match written.expect("written") {
        Written::Stored(version) => version,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_the_version_that_was_meant_is_changed() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let ufs = local(scratch.path());
    let ours = stored(ufs.replace("f", text("ours"), of("1.1", None), finishes()).await);
    std::fs::write(scratch.path().join("f"), "of somebody else").expect("room");
    let theirs = ufs.stat("f").await.expect("asked").expect("there");
    let conflict = Ok(Written::Conflict(Some(theirs.clone())));
    assert_eq!(
        ufs.replace("f", text("newer"), of("1.2", Some(&ours)), finishes())
            .await,
        conflict
    );
    assert_eq!(
        ufs.replace("f", text("new"), of("2.1", None), finishes()).await,
        conflict
    );
    assert_eq!(ufs.delete_version("f", &ours).await, Ok(false));
    let refused = ufs.copy_version(("f", &ours), ("g", None)).await;
    assert_eq!(refused.expect_err("another version").kind, ErrorKind::UfsChanged);
    stored(ufs.replace("g", text("g"), of("3.1", None), finishes()).await);
    let refused = ufs.copy_version(("f", &theirs), ("g", None)).await;
    assert_eq!(
        refused.expect_err("something is there").kind,
        ErrorKind::UfsChanged
    );
    assert_eq!(
        std::fs::read(scratch.path().join("f")).expect("there"),
        b"of somebody else"
    );
    assert_eq!(std::fs::read(scratch.path().join("g")).expect("there"), b"g");
}

#[tokio::test]
async fn what_may_not_be_finished_is_never_seen() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let bucket = scratch.path().join("bucket");
    std::fs::create_dir(&bucket).expect("fresh");
    let mount = MountRecord {
        id: curvine_protocol::MountId(1),
        path: curvine_protocol::CurvinePath::parse("/m").expect("valid"),
        uri: format!("file://{}", bucket.display()),
        options: BTreeMap::new(),
        settings: curvine_protocol::mount::MountSettings {
            writable: true,
            ..Default::default()
        },
        created_ns: 0,
    };
    let ufs = Ufs::open(&mount).expect("opens");
    let old = stored(ufs.replace("f", text("old"), of("1.1", None), finishes()).await);
    let (file, seen) = (bucket.join("f"), std::sync::Mutex::new(Vec::new()));
    let refused = async {
        *seen.lock().expect("no panic") = std::fs::read(&file).expect("there");
        Err(Error::new(ErrorKind::Stale, "not wanted any more"))
    };
    let outcome = ufs
        .replace("f", text("a new one"), of("1.2", Some(&old)), refused)
        .await;
    assert_eq!(outcome.expect_err("refused").kind, ErrorKind::Stale);
    assert_eq!(*seen.lock().expect("no panic"), b"old");
    assert_eq!(std::fs::read(&file).expect("there"), b"old");
    let left: Vec<_> = std::fs::read_dir(bucket.join(uri::UPLOADS_DIRECTORY))
        .expect("there")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_dead_endpoint_is_unreachable_and_names_no_secret() {
    let pairs = [
        ("endpoint", "http://127.0.0.1:9"),
        ("access_key_id", "id"),
        ("secret_access_key", "hunter2"),
    ];
    let options = pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let ufs = Ufs::open_parts("s3://bucket", &options).expect("opens");
    let error = ufs.check(false).await.expect_err("nobody there");
    assert_eq!(error.kind, ErrorKind::Ufs, "{error}");
    assert!(error.message.contains("nobody answers there"), "{error}");
    assert!(!error.message.contains("hunter2"), "{error}");
}

#[test]
fn every_scheme_has_its_service() {
    let endpoint = [("endpoint".to_owned(), "http://127.0.0.1:9".to_owned())];
    for (uri, options) in [
        ("s3://bucket", &endpoint[..]),
        ("oss://bucket", &endpoint),
        ("cos://bucket", &endpoint),
        ("obs://bucket", &endpoint),
        ("gs://bucket", &endpoint),
        ("az://container", &endpoint),
        ("webhdfs://127.0.0.1:9/", &[]),
        ("http://127.0.0.1:9/", &[]),
        ("https://127.0.0.1:9/", &[]),
        ("file:///tmp", &[]),
    ] {
        let opened = Ufs::open_parts(uri, &options.iter().cloned().collect());
        assert!(opened.is_ok(), "{uri}: {:?}", opened.err());
    }
}

#[tokio::test]
async fn https_begins_with_a_handshake() {
    use tokio::io::AsyncReadExt;
    let server = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let uri = format!("https://{}/", server.local_addr().expect("is bound"));
    let greeted = tokio::spawn(async move {
        let (mut client, _) = server.accept().await.expect("a client comes");
        client.read_u8().await.expect("it speaks first")
    });
    let ufs = Ufs::open_parts(&uri, &BTreeMap::new()).expect("opens");
    let error = ufs.stat("f").await.expect_err("that was no TLS server");
    assert_eq!(error.kind, ErrorKind::Ufs, "{error}");
    // A handshake record of TLS.
    assert_eq!(greeted.await.expect("ran"), 0x16);
}
