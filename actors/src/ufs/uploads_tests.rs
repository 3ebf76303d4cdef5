//! Against the scripted server.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc;

use super::super::changes::{Replacement, Written};
use super::super::scripted::Store;
use super::super::upload_notes::LeftUpload;
use super::super::{ByteStream, Ufs};
use super::*;
use crate::kit::ports::Inline;

const AWKWARD: &str = "a b+c%20ü/d&e=f?g";
const PIECE_BYTES: usize = 1 << 20;
/// Three parts and a bit.
const PIECES: usize = 25;

struct World {
    store: Store,
    ufs: Ufs,
    given_up: mpsc::Receiver<LeftUpload>,
    scratch: tempfile::TempDir,
}

impl World {
    async fn new() -> World {
        let store = Store::start([], 10, None).await;
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let ufs = Ufs::open_parts("s3://bucket/in%20here", &store.options()).expect("opens");
        let (notes, _, given_up) = notes(&scratch);
        World {
            ufs: ufs.noting(notes, MountId(7)),
            store,
            given_up,
            scratch,
        }
    }

    /// What a node would find that starts now.
    fn noted(&self) -> Vec<Upload> {
        let left = notes(&self.scratch).1;
        left.into_iter().map(|left| left.upload).collect()
    }

    async fn export(&self, key: &str, content: ByteStream) -> Result<Written> {
        let how = Replacement {
            replaces: None,
            mark: "1.1",
            attributes: None,
        };
        self.ufs.replace(key, content, how, async { Ok(()) }).await
    }

    fn upload(&self, key: &str, id: &str) -> Upload {
        Upload {
            mount: MountId(7),
            uri: "s3://bucket/in%20here".to_owned(),
            key: key.to_owned(),
            id: id.to_owned(),
        }
    }

    async fn given_up(&mut self) -> Upload {
        self.given_up.recv().await.expect("it is given up").upload
    }
}

fn notes(scratch: &tempfile::TempDir) -> (UploadNotes, Vec<LeftUpload>, mpsc::Receiver<LeftUpload>) {
    UploadNotes::open(scratch.path().join("uploads"), Arc::new(Inline)).expect("opens")
}

fn pieces() -> impl futures::Stream<Item = Result<Bytes>> {
    futures::stream::iter((0..PIECES).map(|_| Ok(Bytes::from(vec![0; PIECE_BYTES]))))
}

/// Sees to it that no part is sent that is not noted.
struct Looking {
    inner: HttpTransporter,
    directory: std::path::PathBuf,
}

impl HttpTransport for Looking {
    async fn fetch(&self, request: http::Request<Buffer>) -> opendal::Result<http::Response<HttpBody>> {
        if asked(&request) == Asked::Part {
            let notes = std::fs::read_dir(&self.directory).expect("is there").count();
            assert_eq!(notes, 1, "notes when a part is sent");
        }
        self.inner.fetch(request).await
    }
}

#[tokio::test]
async fn an_upload_is_noted_before_its_first_part_and_forgotten_when_it_is_complete() {
    let mut world = World::new().await;
    let directory = world.scratch.path().join("uploads");
    world.ufs.operator = through(&world.ufs.operator, |inner| Looking { inner, directory });
    let written = world.export(AWKWARD, pieces().boxed()).await;
    assert!(matches!(written, Ok(Written::Stored(_))), "{written:?}");
    assert_eq!((world.noted(), world.store.uploads()), (vec![], vec![]));
    assert_eq!(world.store.asked("partNumber="), 4);
}

#[tokio::test]
async fn whoever_dies_between_two_parts_leaves_a_note() {
    let world = World::new().await;
    let (sent, go_on) = (Arc::new(tokio::sync::Notify::new()), futures::future::pending());
    let told = sent.clone();
    let stuck = pieces().chain(futures::stream::once(async move {
        told.notify_one();
        go_on.await
    }));
    tokio::select! {
        written = world.export(AWKWARD, stuck.boxed()) => panic!("it goes on: {written:?}"),
        () = sent.notified() => {}
    }
    let [(key, id)] = &*world.store.uploads() else {
        panic!("one is under way")
    };
    assert_eq!(key, &format!("in here/{AWKWARD}"));
    assert_eq!(world.noted(), [world.upload(AWKWARD, id)]);
}

#[tokio::test]
async fn an_upload_that_fails_is_aborted_at_once_and_given_up() {
    let mut world = World::new().await;
    let fails = futures::stream::once(async { Err(Error::new(ErrorKind::BlockUnavailable, "no worker")) });
    let content = pieces().chain(fails);
    let error = world.export("k", content.boxed()).await.expect_err("it fails");
    assert_eq!(error.kind, ErrorKind::BlockUnavailable);
    assert_eq!(world.store.uploads(), []);
    let upload = world.given_up().await;
    assert_eq!(world.noted(), std::slice::from_ref(&upload));
    // Parts that were still on their way may have come after that: it is asked once more.
    assert_eq!(world.ufs.abort_upload(&upload).await, Ok(false));
}

#[tokio::test]
async fn an_upload_that_the_store_did_not_abort_is_given_up_and_can_be_aborted_later() {
    let mut world = World::new().await;
    world.store.refuse("DELETE /bucket/", usize::MAX);
    let fails = futures::stream::once(async { Err(Error::new(ErrorKind::BlockUnavailable, "no worker")) });
    let outcome = world.export("k", pieces().chain(fails).boxed()).await;
    assert_eq!(
        outcome.map_err(|error| error.kind),
        Err(ErrorKind::BlockUnavailable)
    );
    let upload = world.given_up().await;
    assert_eq!(world.store.uploads().len(), 1);
    let error = world.ufs.abort_upload(&upload).await.expect_err("it is refused");
    assert_eq!(error.kind, ErrorKind::UfsDenied);
}

#[tokio::test]
async fn an_abort_is_one_signed_request_and_leaves_other_uploads_and_objects_alone() {
    let world = World::new().await;
    let key = format!("in here/{AWKWARD}");
    world.store.put(&key, "theirs");
    let (ours, theirs) = (world.store.begin_upload(&key), world.store.begin_upload(&key));
    let upload = world.upload(AWKWARD, &ours);
    assert_eq!(world.ufs.abort_upload(&upload).await, Ok(true));
    assert_eq!(world.store.uploads(), [(key.clone(), theirs)]);
    assert_eq!(world.store.asked(""), 1, "requests");
    assert_eq!(
        world
            .store
            .asked("DELETE /bucket/in%20here/a%20b%2Bc%2520%C3%BC/d%26e%3Df%3Fg?uploadId="),
        1
    );
    assert_eq!(world.ufs.abort_upload(&upload).await, Ok(false), "it has ended");
    let found = world.ufs.stat(AWKWARD).await.expect("answers").expect("is there");
    assert_eq!(found.etag, Some("theirs".to_owned()));
}

#[tokio::test]
async fn an_upload_of_another_bucket_is_nobodys_to_abort_here() {
    let world = World::new().await;
    let upload = Upload {
        uri: "s3://other".to_owned(),
        ..world.upload("k", "id")
    };
    let error = world
        .ufs
        .abort_upload(&upload)
        .await
        .expect_err("it is of another one");
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert_eq!(world.store.asked(""), 0);
}

/// Says what it was asked, and that all is well.
struct Listening {
    asked: mpsc::Sender<String>,
}

impl HttpTransport for Listening {
    async fn fetch(&self, request: http::Request<Buffer>) -> opendal::Result<http::Response<HttpBody>> {
        let signed = request.headers().contains_key(http::header::AUTHORIZATION);
        let asked = format!("{} {}, signed: {signed}", request.method(), request.uri());
        self.asked.try_send(asked).expect("there is room");
        let response = http::Response::builder().status(204);
        Ok(response.body(whole(Buffer::new())).expect("an answer"))
    }
}

#[tokio::test]
async fn in_every_dialect_the_abort_alone_is_sent() {
    let keys = ["access_key_id", "secret_access_key"];
    for (uri, secrets, wanted) in [
        (
            "s3://bucket",
            &keys[..],
            "DELETE http://store:9/bucket/k?uploadId=id, signed: true",
        ),
        (
            "oss://bucket",
            &["access_key_id", "access_key_secret"],
            "DELETE http://bucket.store:9/k?uploadId=id, signed: true",
        ),
        (
            "cos://bucket",
            &["secret_id", "secret_key"],
            "DELETE http://bucket.store:9/k?uploadId=id, signed: true",
        ),
        (
            "obs://bucket",
            &keys,
            "DELETE http://store/k?uploadId=id, signed: true",
        ),
        (
            "gs://bucket",
            &[],
            "DELETE http://store:9/bucket/k?uploadId=id, signed: false",
        ),
    ] {
        let endpoint = ("endpoint".to_owned(), "http://store:9".to_owned());
        let secrets = secrets.iter().map(|&name| (name.to_owned(), "secret".to_owned()));
        let mut options: BTreeMap<String, String> = secrets.chain([endpoint]).collect();
        if uri.starts_with("gs:") {
            options.insert("allow_anonymous".to_owned(), "true".to_owned());
        }
        let mut ufs = Ufs::open_parts(uri, &options).expect("opens");
        let (asked, mut said) = mpsc::channel(16);
        ufs.operator = through(&ufs.operator, |_| Listening { asked });
        let upload = Upload {
            mount: MountId(1),
            uri: uri.to_owned(),
            key: "k".to_owned(),
            id: "id".to_owned(),
        };
        assert_eq!(ufs.abort_upload(&upload).await, Ok(true), "{uri}");
        assert_eq!(said.try_recv().as_deref(), Ok(wanted));
        assert_eq!(said.try_recv().ok(), None, "{uri}");
    }
}

#[tokio::test]
async fn what_is_no_such_store_is_asked_for_nothing() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let uri = format!("file://{}", scratch.path().display());
    let ufs = Ufs::open_parts(&uri, &BTreeMap::new()).expect("opens");
    let upload = Upload {
        mount: MountId(1),
        uri,
        key: "k".to_owned(),
        id: "id".to_owned(),
    };
    let error = ufs.abort_upload(&upload).await.expect_err("it is a directory");
    assert_eq!(error.kind, ErrorKind::Unsupported);
    let there = std::fs::read_dir(scratch.path()).expect("is there").count();
    assert_eq!(there, 0, "names in the directory");
}
