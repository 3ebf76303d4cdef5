//! Against real services of OpenDAL: a local directory.

use std::collections::BTreeMap;

use curvine_protocol::KeptAttributes;

use super::changes::{Replacement, Written};
use super::listing::Listing;
use super::scripted::{Befalls, Lie, Store};
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
    let Listing { objects, hidden } = ufs.list("").await.expect("listable");
    let names: Vec<_> = objects
        .iter()
        .map(|object| (object.name.as_str(), object.kind))
        .collect();
    assert_eq!(
        (names, hidden.count()),
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
    Replacement {
        replaces,
        mark,
        attributes: None,
    }
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
    let error = ufs.check_root(None, false).await.expect_err("nobody there");
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

/// Names of a listing, with what they are.
fn shown(listing: &Listing) -> Vec<(&str, FileKind, Option<&str>)> {
    listing
        .objects
        .iter()
        .map(|object| (object.name.as_str(), object.kind, object.target.as_deref()))
        .collect()
}

#[tokio::test]
async fn links_of_a_local_directory_are_links_and_nobody_follows_them() {
    use std::os::unix::fs::symlink;
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let (root, outside) = (scratch.path().join("root"), scratch.path().join("outside"));
    for directory in [&root, &outside] {
        std::fs::create_dir(directory).expect("fresh");
    }
    std::fs::write(outside.join("secret"), "secret").expect("room");
    std::fs::write(root.join("f"), "inside").expect("room");
    symlink(".", root.join("self")).expect("fresh");
    symlink("../outside", root.join("out")).expect("fresh");
    symlink(outside.join("secret"), root.join("leak")).expect("fresh");
    let ufs = local(&root);
    let listing = ufs.list("").await.expect("listable");
    let leak = outside.join("secret").to_string_lossy().into_owned();
    assert_eq!(
        shown(&listing),
        [
            ("f", FileKind::File, None),
            ("leak", FileKind::Symlink, Some(leak.as_str())),
            ("out", FileKind::Symlink, Some("../outside")),
            ("self", FileKind::Symlink, Some(".")),
        ]
    );
    let kind = ufs
        .find("self")
        .await
        .expect("looked at")
        .map(|object| object.kind);
    assert_eq!(kind, Some(FileKind::Symlink));
    assert_eq!(ufs.list("self").await.expect("looked at"), Listing::default());
    for key in ["self/f", "out/secret", "../outside/secret"] {
        assert_eq!(ufs.find(key).await, Ok(None), "{key}");
    }
    let f = ufs.stat("f").await.expect("looked at").expect("a file");
    for key in ["self/f", "out/secret", "leak"] {
        let error = read(&ufs, key, 0..6, &f).await.expect_err("behind a link");
        assert_eq!(error.kind, ErrorKind::UfsChanged, "{key}: {error}");
    }
}

#[tokio::test]
async fn what_cannot_be_a_file_is_counted_and_not_shown() {
    use std::os::unix::ffi::OsStrExt;
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let _socket = std::os::unix::net::UnixListener::bind(scratch.path().join("socket")).expect("room");
    let fifo = scratch.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .expect("may be made");
    for name in [" leads", "trails ", "plain"] {
        std::fs::write(scratch.path().join(name), name).expect("room");
    }
    std::fs::create_dir(scratch.path().join("dir ")).expect("fresh");
    std::fs::write(scratch.path().join(std::ffi::OsStr::from_bytes(b"\xff")), "").expect("room");
    let ufs = local(scratch.path());
    let listing = ufs.list("").await.expect("listable");
    assert_eq!(
        shown(&listing),
        [
            (" leads", FileKind::File, None),
            ("dir ", FileKind::Directory, None),
            ("plain", FileKind::File, None),
        ]
    );
    assert_eq!(listing.hidden.count(), 4);
    assert!(
        listing.hidden.told().contains("2 whose name is that of a FIFO"),
        "{}",
        listing.hidden.told()
    );
    // A look at one name says what the listing says.
    for key in ["fifo", "socket", "trails "] {
        assert_eq!(ufs.find(key).await, Ok(None), "{key}");
    }
    for object in &listing.objects {
        assert_eq!(ufs.find(&object.name).await, Ok(Some(object.clone())));
    }
    let leads = listing.objects[0].version.clone().expect("a file has one");
    assert_eq!(
        read(&ufs, " leads", 0..6, &leads).await.expect("readable"),
        b" leads"
    );
}

#[tokio::test]
async fn a_local_file_with_the_same_length_and_time_is_another_version() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let (path, other) = (scratch.path().join("f"), scratch.path().join("other"));
    std::fs::write(&path, "one").expect("room");
    std::fs::write(&other, "two").expect("room");
    let modified = std::fs::metadata(&path)
        .and_then(|found| found.modified())
        .expect("there");
    let set_time = |path: &std::path::Path| {
        let file = std::fs::File::options().write(true).open(path).expect("there");
        file.set_modified(modified).expect("its owner may");
    };
    set_time(&path);
    let ufs = local(scratch.path());
    let version = async || ufs.stat("f").await.expect("looked at").expect("a file");
    let first = version().await;
    assert_eq!(read(&ufs, "f", 0..3, &first).await.expect("readable"), b"one");
    // In place, and by another inode.
    std::fs::write(&path, "six").expect("room");
    set_time(&path);
    let second = version().await;
    set_time(&other);
    std::fs::rename(&other, &path).expect("there");
    let third = version().await;
    for (old, new) in [(&first, &second), (&second, &third)] {
        assert_eq!((old.size_bytes, old.mtime_ms), (new.size_bytes, new.mtime_ms));
        assert_ne!(old, new);
        let error = read(&ufs, "f", 0..3, old).await.expect_err("another version");
        assert_eq!(error.kind, ErrorKind::UfsChanged);
    }
    assert_eq!(read(&ufs, "f", 0..3, &third).await.expect("readable"), b"two");
}

fn scripted(store: &Store) -> Ufs {
    Ufs::open_parts("s3://bucket", &store.options()).expect("opens")
}

#[tokio::test]
async fn a_store_that_repeats_a_page_is_given_up() {
    for lie in [Lie::MoreWithoutToken, Lie::EmptyPages, Lie::SameToken] {
        let store = Store::start(["a".to_owned()], 1, Some(lie)).await;
        store.list_pages(1_000);
        let error = scripted(&store).list("").await.expect_err("it never ends");
        assert_eq!(error.kind, ErrorKind::Ufs, "{lie:?}: {error}");
        assert!(
            error.message.contains("the same page again and again"),
            "{lie:?}: {error}"
        );
        let asked = store.asked("list-type=2");
        assert!(asked <= 3, "{lie:?}: asked {asked} times");
    }
}

/// Where the store takes conditions of a copy, the place is not only looked at before.
#[tokio::test]
async fn a_copy_does_not_replace_what_somebody_put_there_in_the_last_moment() {
    for is_there in [false, true] {
        let store = Store::start(["from".to_owned()], 9, None).await;
        if is_there {
            store.put("to", "replaced");
        }
        let mut ufs = scripted(&store);
        ufs.conditions = true;
        let version = |found: Result<Option<UfsVersion>>| found.expect("answered");
        let from = version(ufs.stat("from").await).expect("there");
        let there = version(ufs.stat("to").await);
        store.befall("PUT /bucket/to", Befalls::Overtaken, 0, 1);
        let copied = ufs.copy_version(("from", &from), ("to", there.as_ref())).await;
        let error = copied.expect_err("somebody was quicker");
        assert_eq!(error.kind, ErrorKind::UfsChanged);
        assert!(
            error.message.contains("`to` was changed by somebody else"),
            "{error}"
        );
        let kept = version(ufs.stat("to").await).expect("there");
        assert_eq!(kept.etag.as_deref(), Some("theirs"));
        assert_eq!(store.asked("PUT /bucket/to"), 1);
    }
}

/// As Ceph 16 does: it refuses a wrong ETag, and the right one as well.
#[tokio::test]
async fn a_store_that_refuses_the_right_condition_is_asked_without_one() {
    for (refused, honours) in [(0, true), (1, false)] {
        let store = Store::start([], 9, None).await;
        store.befall("PUT /bucket/.curvine-write-probe", Befalls::Unmet, 3, refused);
        assert_eq!(scripted(&store).check(true).await, Ok(honours));
        assert_eq!(store.asked("PUT /bucket/.curvine-write-probe"), 4);
        assert!(store.keys().is_empty(), "{:?}", store.keys());
    }
}

/// Some stores take a condition of a whole object, and pass over it when an upload in parts is completed.
#[tokio::test]
async fn an_upload_in_parts_is_given_up_if_somebody_else_was_quicker() {
    let store = Store::start([], 9, None).await;
    let mut ufs = scripted(&store);
    ufs.conditions = true;
    let content = futures::stream::iter([Ok(Bytes::from(vec![0; 20 << 20]))]).boxed();
    let overtaken = async {
        store.put("f", "theirs");
        Ok(())
    };
    let ended = ufs.replace("f", content, of("1.1", None), overtaken).await;
    let Ok(Written::Conflict(Some(theirs))) = ended else {
        panic!("somebody was quicker: {ended:?}");
    };
    assert_eq!(theirs.etag.as_deref(), Some("theirs"));
    assert_eq!((store.asked("?uploads"), store.uploads()), (1, vec![]));
}

#[tokio::test]
async fn what_is_deleted_of_names_that_begin_with_white_space_is_no_other_object() {
    let twins = ["lead", "d/x", "e/", "m", "n"];
    let leading = [" lead", " d/x", "\u{a0}m", "\u{2028}n"];
    let keys = twins.into_iter().chain(leading).chain([" e/"]);
    let store = Store::start(keys.map(str::to_owned), 9, None).await;
    let ufs = scripted(&store);
    for key in leading {
        let meant = ufs.stat(key).await.expect("it answers").expect("it is there");
        assert_eq!(ufs.delete_version(key, &meant).await, Ok(true), "{key:?}");
    }
    ufs.delete_dir(" e").await.expect("it answers");
    let mut left = store.keys();
    left.sort_unstable();
    assert_eq!(left, ["d/x", "e/", "lead", "m", "n"]);
}

#[tokio::test]
async fn keys_that_no_name_means_are_hidden() {
    let keys = [
        "x//y",
        "u ",
        " sp",
        "both",
        "both/below",
        "a/../b",
        "line\nfeed",
        "dir /f",
        "ok",
        "/lead",
    ];
    let store = Store::start(keys.map(str::to_owned), 3, None).await;
    store.list_pages(1_000);
    let ufs = scripted(&store);
    let top = ufs.list("").await.expect("listable");
    let names: Vec<_> = top.objects.iter().map(|object| object.name.as_str()).collect();
    assert_eq!(names, [" sp", "a", "both", "dir ", "ok", "x"]);
    assert_eq!(
        top.hidden.told(),
        "1 whose name has an empty part (`//`), such as `/`; 1 whose name ends with white space, such as `u `; 1 whose \
         name has a control character, such as `line\\nfeed`; 1 whose name is below an object of the same name, such \
         as `both/`"
    );
    let below = ufs.list("x").await.expect("listable");
    assert!(below.objects.is_empty());
    assert_eq!(
        below.hidden.told(),
        "1 whose name has an empty part (`//`), such as `x//`"
    );
    let dots = ufs.list("a").await.expect("listable");
    assert!(dots.objects.is_empty());
    assert_eq!(
        dots.hidden.told(),
        "1 whose name has the part `.` or `..`, such as `a/../`"
    );
    // A look at each name says what the listing says, and what metadata has of attributes.
    for object in &top.objects {
        let found = ufs.find(&object.name).await.expect("looked at");
        let found = found.map(|found| UfsObject {
            attributes: None,
            ..found
        });
        assert_eq!(found.as_ref(), Some(object));
    }
    for hidden in ["u ", "line\nfeed"] {
        assert_eq!(ufs.find(hidden).await, Ok(None), "{hidden:?}");
    }
}

#[tokio::test]
async fn keys_that_begin_with_a_slash_are_hidden_below_a_prefix() {
    let store = Store::start(["p//lead".to_owned(), "p/f".to_owned()], 9, None).await;
    store.list_pages(1_000);
    let ufs = Ufs::open_parts("s3://bucket/p", &store.options()).expect("opens");
    let listing = ufs.list("").await.expect("listable");
    assert_eq!(listing.objects.len(), 1);
    assert_eq!(listing.hidden.count(), 1);
}

#[tokio::test]
async fn what_is_mounted_must_be_there_and_be_no_object() {
    let keys = (0..3_000)
        .map(|number| format!("many/{number:04}"))
        .chain(["object".to_owned()]);
    let store = Store::start(keys, 1_000, None).await;
    let check = async |uri: &str, may_be_empty| {
        let open = |uri: &str| Ufs::open_parts(uri, &store.options()).expect("opens");
        let above = uri::above(uri).map(|(above, name)| (open(&above), name));
        let above = above.as_ref().map(|(above, name)| (above, name.as_str()));
        open(uri)
            .check_root(above, may_be_empty)
            .await
            .map_err(|error| error.kind)
    };
    assert_eq!(check("s3://bucket/many", false).await, Ok(()));
    assert_eq!(store.asked(""), 1, "one page, not all of them");
    assert_eq!(check("s3://bucket", false).await, Ok(()));
    assert_eq!(
        check("s3://bucket/object", true).await,
        Err(ErrorKind::NotADirectory)
    );
    assert_eq!(check("s3://bucket/none", false).await, Err(ErrorKind::NotFound));
    assert_eq!(check("s3://bucket/none", true).await, Ok(()));
}

#[tokio::test]
async fn a_local_file_has_the_attributes_it_is_written_with_and_its_copy_has_them_too() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let ufs = local(scratch.path());
    let kept = KeptAttributes {
        mode: Some(0o4640),
        uid: None,
        gid: None,
        mtime_ns: Some(-1_500_000_001),
        xattrs: BTreeMap::from([("user.note".to_owned(), b"kept".to_vec())]),
    };
    let how = Replacement {
        attributes: Some(&kept),
        ..of("1.1", None)
    };
    let version = stored(ufs.replace("f", text("text"), how, finishes()).await);
    assert_eq!(
        ufs.stat("f").await,
        Ok(Some(version.clone())),
        "the version is that of the file as it is left"
    );
    let copied = ufs
        .copy_version(("f", &version), ("g", None))
        .await
        .expect("copied");
    for (key, version) in [("f", &version), ("g", &copied)] {
        let found = ufs
            .attributes(key, version)
            .await
            .expect("looked at")
            .expect("this version");
        assert_eq!(
            (found.mode, found.mtime_ns),
            (Some(0o640), kept.mtime_ns),
            "{key}: no set-id bit by a store"
        );
        // Not every file system has them.
        if !found.xattrs.is_empty() {
            assert_eq!(found.xattrs, kept.xattrs, "{key}");
        }
    }
    let other = UfsVersion {
        mtime_ms: 7,
        ..version
    };
    assert_eq!(ufs.attributes("f", &other).await, Ok(None), "another version");
}
