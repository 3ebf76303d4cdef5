//! Mounts of an S3 server that lists as slowly as the test wants.

use futures::future::join_all;

use super::*;
use crate::ufs::scripted::Store;

impl World {
    pub(super) async fn mount_store(&self, store: &Store, settings: MountSettings) -> Result<()> {
        let mount = MountUfs {
            path: path("/s3"),
            uri: "s3://bucket".to_owned(),
            options: store.options(),
            settings,
        };
        self.ask(mount).await.map(|_| ())
    }

    pub(super) async fn names(&self, directory: &str) -> Result<Vec<String>> {
        let list = ListDir {
            node: Node::Path(path(directory)),
            after: None,
            limit: 10_000,
        };
        let listed = self.ask(list).await?;
        Ok(listed.entries.into_iter().map(|entry| entry.name).collect())
    }

    pub(super) async fn look(&self, at: &str) -> Result<Entry> {
        let node = Node::Path(path(at));
        self.ask(Lookup { node, follow: false }).await
    }
}

pub(super) fn believed_for(staleness_ms: u64) -> MountSettings {
    MountSettings {
        writable: true,
        staleness_ms,
        // What else is asked is not of listings.
        attributes: AttributesIn::Namespace,
        ..MountSettings::default()
    }
}

pub(super) fn numbered(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("{number:04}"))
}

fn make_dir(at: &str) -> MakeDir {
    MakeDir {
        node: Node::Path(path(at)),
        mode: 0o755,
        parents: false,
        unmasked: None,
    }
}

async fn listing_begins(store: &Store) {
    until_some("the listing begins", async || {
        (store.asked("delimiter") > store.asked("max-keys")).then_some(())
    })
    .await;
}

#[actix::test]
async fn a_listing_is_one_whoever_waits_and_whoever_gives_up() {
    let world = World::new().await;
    let store = Store::start(numbered(400), 1, None).await;
    world
        .mount_store(&store, believed_for(600_000))
        .await
        .expect("mounted");
    let mounting = store.asked("");
    {
        let given_up = world.names("/s3");
        tokio::select! {
            names = given_up => panic!("nothing was listed yet: {names:?}"),
            () = listing_begins(&store) => {}
        }
    }
    let waiting = join_all((0..5).map(|_| world.names("/s3")));
    store.list_pages(400);
    for names in waiting.await {
        assert_eq!(names.expect("listed").len(), 400);
    }
    assert_eq!(store.asked("") - mounting, 400, "one listing of 400 pages");
    for name in numbered(400) {
        world.look(&format!("/s3/{name}")).await.expect("there");
    }
    assert_eq!(store.asked("HEAD"), 0, "a listing says all that a look would");
    world.master.stop().await;
}

#[actix::test]
async fn objects_that_are_new_are_asked_for_their_attributes_and_those_that_are_known_never() {
    let world = World::new().await;
    let store = Store::start(numbered(3), 10, None).await;
    let settings = MountSettings {
        attributes: AttributesIn::Object,
        ..believed_for(0)
    };
    world.mount_store(&store, settings).await.expect("mounted");
    store.list_pages(100);
    for _ in 0..3 {
        assert_eq!(world.names("/s3").await.expect("listed").len(), 3);
        assert_eq!(store.asked("HEAD /bucket/0"), 3);
    }
    store.put("0001", "changed");
    assert_eq!(world.names("/s3").await.expect("listed").len(), 3);
    assert_eq!(store.asked("HEAD /bucket/0"), 4);
    world.master.stop().await;
}

#[actix::test]
async fn a_slow_listing_is_believed_from_its_end_on() {
    let world = World::new().await;
    let store = Store::start(numbered(2), 1, None).await;
    world
        .mount_store(&store, believed_for(3_000))
        .await
        .expect("mounted");
    let listing = world.names("/s3");
    let slowly = async {
        listing_begins(&store).await;
        // Longer than answers are believed.
        tokio::time::sleep(std::time::Duration::from_millis(3_100)).await;
        store.list_pages(2);
    };
    let (names, ()) = tokio::join!(listing, slowly);
    assert_eq!(names.expect("listed").len(), 2);
    world.look("/s3/0000").await.expect("there");
    assert_eq!(store.asked("HEAD"), 0);
    world.master.stop().await;
}

#[actix::test]
async fn what_is_made_or_deleted_while_a_listing_runs_is_left_alone_by_it() {
    let world = World::new().await;
    let store = Store::start(numbered(3), 1, None).await;
    world.mount_store(&store, believed_for(0)).await.expect("mounted");
    store.list_pages(3);
    assert_eq!(world.names("/s3").await.expect("listed").len(), 3);
    let listing = world.names("/s3");
    let meanwhile = async {
        store.list_pages(1);
        until_some("the second listing asks for its second page", async || {
            (store.asked("continuation-token") >= 3).then_some(())
        })
        .await;
        // Its page is over.
        world.ask(make_dir("/s3/00-made")).await.expect("made");
        // Its page is still to come: the store forgets that it is gone.
        let delete = Delete {
            node: Node::Path(path("/s3/0002")),
            recursive: false,
            holders: None,
        };
        world.ask(delete).await.expect("deleted");
        store.put("0002", "etag");
        store.list_pages(100);
    };
    let (names, ()) = tokio::join!(listing, meanwhile);
    assert_eq!(names.expect("listed"), ["00-made", "0000", "0001"]);
    world.master.stop().await;
}

#[actix::test]
async fn a_path_that_is_mounted_again_shows_what_is_there() {
    let world = World::new().await;
    let store = Store::start(numbered(3), 10, None).await;
    store.list_pages(100);
    for _ in 0..2 {
        world
            .mount_store(&store, believed_for(600_000))
            .await
            .expect("mounted");
        assert_eq!(world.names("/s3").await.expect("listed").len(), 3);
        world
            .ask(UnmountUfs {
                path: path("/s3"),
                force: false,
            })
            .await
            .expect("unmounted");
    }
    world.master.stop().await;
}

#[actix::test]
async fn keys_that_are_not_shown_are_counted_and_nothing_touches_them() {
    let world = World::new().await;
    let keys = ["x//y", "x/shown", "hidden//y", "u ", "plain"];
    let store = Store::start(keys.map(str::to_owned), 10, None).await;
    store.list_pages(1_000);
    world
        .mount_store(&store, believed_for(600_000))
        .await
        .expect("mounted");
    assert_eq!(
        world.names("/s3").await.expect("listed"),
        ["hidden", "plain", "x"]
    );
    // What mounting tries.
    let changes = || store.asked("DELETE") + store.asked("PUT");
    let mounting = changes();
    for directory in ["/s3/x", "/s3/hidden"] {
        let node = Node::Path(path(directory));
        let refused = world
            .ask(RemoveDir { node: node.clone() })
            .await
            .expect_err("not empty");
        assert_eq!(refused.kind, ErrorKind::DirectoryNotEmpty);
        assert!(refused.message.contains("//"), "{refused}");
        let delete = Delete {
            node: node.clone(),
            recursive: true,
            holders: None,
        };
        let refused = world.ask(delete).await.expect_err("not all of it is shown");
        assert_eq!(refused.kind, ErrorKind::DirectoryNotEmpty);
        let rename = Rename {
            from: node,
            to: Node::Path(path("/s3/elsewhere")),
            mode: RenameMode::Replace,
            keep_replaced: false,
            closed: Vec::new(),
            holders: None,
        };
        let refused = world.ask(rename).await.expect_err("not all of it is shown");
        assert_eq!(refused.kind, ErrorKind::DirectoryNotEmpty);
    }
    let refused = world
        .ask(create("/s3/new ", false))
        .await
        .expect_err("no key can have this name");
    assert_eq!(refused.kind, ErrorKind::InvalidArgument);
    assert!(refused.message.contains("ends with white space"), "{refused}");
    let mounts = world.ask(ListMounts {}).await.expect("listed").mounts;
    let hidden: Vec<_> = mounts[0]
        .hidden
        .iter()
        .map(|hidden| (hidden.why.as_str(), hidden.count))
        .collect();
    assert_eq!(
        hidden,
        [("has an empty part (`//`)", 2), ("ends with white space", 1)]
    );
    assert_eq!(changes(), mounting);
    world.master.stop().await;
}

fn to_options(options: std::collections::BTreeMap<String, String>) -> UpdateMount {
    UpdateMount {
        path: path("/s3"),
        changes: MountChanges {
            options,
            ..MountChanges::default()
        },
    }
}

#[actix::test]
async fn an_update_is_checked_with_the_store_and_used_at_once() {
    let world = World::new().await;
    let before = Store::start(["old".to_owned()], 1, None).await;
    let after = Store::start(["new".to_owned()], 1, None).await;
    before.list_pages(100);
    after.list_pages(100);
    world
        .mount_store(&before, believed_for(0))
        .await
        .expect("mounted");
    assert_eq!(world.names("/s3").await.expect("listed"), ["old"]);
    let closed = "http://127.0.0.1:1".to_owned();
    for (update, kind) in [
        (
            to_options([("endpoint".to_owned(), closed)].into()),
            ErrorKind::Ufs,
        ),
        (
            to_options([("root".to_owned(), "elsewhere".to_owned())].into()),
            ErrorKind::InvalidArgument,
        ),
        (
            to_options([("regoin".to_owned(), "r".to_owned())].into()),
            ErrorKind::InvalidArgument,
        ),
        (
            UpdateMount {
                path: path("/s3/below"),
                ..to_options(after.options())
            },
            ErrorKind::NotFound,
        ),
    ] {
        let refused = world.ask(update.clone()).await.expect_err("refused");
        assert_eq!(refused.kind, kind, "{update:?}: {refused}");
        assert_eq!(
            world.names("/s3").await.expect("listed"),
            ["old"],
            "{update:?} changed something"
        );
    }
    world.ask(to_options(after.options())).await.expect("updated");
    assert_eq!(world.names("/s3").await.expect("listed"), ["new"]);
    world.master.stop().await;
}

#[actix::test]
async fn a_directory_stays_when_its_last_files_go_side_by_side() {
    let world = World::new().await;
    let keys = numbered(8).map(|name| format!("d/{name}"));
    let store = Store::start(keys, 1, None).await;
    world.mount_store(&store, believed_for(0)).await.expect("mounted");
    store.list_pages(1_000);
    let unlinks = world
        .names("/s3/d")
        .await
        .expect("listed")
        .into_iter()
        .map(|name| {
            world.ask(Unlink {
                node: Node::Path(path(&format!("/s3/d/{name}"))),
                keep_open: false,
                closed: Vec::new(),
                holders: None,
            })
        });
    for outcome in join_all(unlinks.collect::<Vec<_>>()).await {
        outcome.expect("deleted");
    }
    assert_eq!(world.names("/s3/d").await, Ok(Vec::new()));
    world.look("/s3/d").await.expect("it has a marker");
    world.master.stop().await;
}
