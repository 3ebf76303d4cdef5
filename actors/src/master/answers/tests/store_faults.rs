//! Mounts of an S3 server that loses answers and refuses.

use super::stores::{believed_for, numbered};
use super::*;
use crate::ufs::scripted::Befalls;

#[actix::test]
async fn a_store_that_lists_for_too_long_is_named_and_no_master_is_blamed() {
    let world = World::new().await;
    let store = Store::start(numbered(3).map(|name| format!("d/{name}")), 1, None).await;
    world.mount_store(&store, believed_for(0)).await.expect("mounted");
    world.look("/s3/d").await.expect("there");
    let list = ListDir {
        node: Node::Path(path("/s3/d")),
        after: None,
        limit: 10,
    };
    // Of its patience, two seconds are for the way back.
    let patient = CallContext {
        deadline_ms: 2_050,
        ..NO_ONE
    };
    let told = call(&*world.master.port, list, patient)
        .await
        .expect_err("no page has come");
    assert_eq!(told.kind, ErrorKind::Ufs, "{told}");
    assert!(told.message.starts_with("s3://bucket: `d`: "), "{told}");
    store.list_pages(100);
    assert_eq!(world.names("/s3/d").await.expect("listed").len(), 3);
    world.master.stop().await;
}

fn rename(from: &str, to: &str) -> Rename {
    Rename {
        from: Node::Path(path(from)),
        to: Node::Path(path(to)),
        mode: RenameMode::Replace,
        keep_replaced: false,
        closed: Vec::new(),
        holders: None,
    }
}

#[actix::test]
async fn a_rename_that_the_store_refuses_half_way_leaves_no_copy_behind() {
    let world = World::new().await;
    let keys: Vec<String> = numbered(6).map(|name| format!("d/{name}")).collect();
    let store = Store::start(keys.clone(), 100, None).await;
    store.list_pages(1_000);
    world.mount_store(&store, believed_for(0)).await.expect("mounted");
    assert_eq!(world.names("/s3/d").await.expect("listed").len(), 6);
    // Copied, each time it is asked for; and the look that would tell is refused, once the first has seen nothing there.
    store.befall("PUT /bucket/e/0003", Befalls::Lost, 0, 100);
    store.befall("HEAD /bucket/e/0003", Befalls::Refused, 1, 1);
    let refused = world
        .ask(rename("/s3/d", "/s3/e"))
        .await
        .expect_err("one copy is not known to be made");
    assert_eq!(refused.kind, ErrorKind::Ufs, "{refused}");
    until_some("what was copied goes", async || {
        (store.keys() == keys).then_some(())
    })
    .await;
    assert_eq!(world.names("/s3/d").await.expect("listed").len(), 6);
    world.master.stop().await;
}

#[actix::test]
async fn names_in_a_rename_that_does_not_get_on_are_busy_and_the_store_is_quoted() {
    let world = World::new().await;
    let keys: Vec<String> = numbered(3).map(|name| format!("d/{name}")).collect();
    let store = Store::start(keys.clone(), 100, None).await;
    store.list_pages(1_000);
    world.mount_store(&store, believed_for(0)).await.expect("mounted");
    store.refuse("DELETE /bucket/d/", usize::MAX);
    let patient = CallContext {
        deadline_ms: 4_000,
        ..NO_ONE
    };
    let renamed = call(&*world.master.port, rename("/s3/d", "/s3/e"), patient.clone());
    renamed.await.expect("all of it is copied");
    assert_eq!(world.names("/s3/e").await.expect("listed").len(), 3);
    let unlink = Unlink {
        node: Node::Path(path("/s3/e/0001")),
        keep_open: false,
        closed: Vec::new(),
        holders: None,
    };
    let busy = call(&*world.master.port, unlink, patient).await;
    let busy = busy.expect_err("what was moved is still to go");
    assert_eq!(busy.kind, ErrorKind::Busy, "{busy}");
    for part in ["rename of `d`", "AccessDenied", "cv mounts"] {
        assert!(busy.message.contains(part), "{part}: {busy}");
    }
    world.master.stop().await;
}

#[actix::test]
async fn a_copy_whose_answer_was_lost_is_made_all_the_same() {
    let world = World::new().await;
    let store = Store::start(["d/plain".to_owned()], 100, None).await;
    store.list_pages(1_000);
    // In parts, which made an ETag that no copy has.
    store.put_marked("d/parts", "parts-2", "a-1.1");
    world.mount_store(&store, believed_for(0)).await.expect("mounted");
    assert_eq!(world.names("/s3/d").await.expect("listed").len(), 2);
    store.befall("PUT /bucket/e/", Befalls::Lost, 0, 100);
    world.ask(rename("/s3/d", "/s3/e")).await.expect("renamed");
    until_some("what was moved goes", async || {
        (store.keys() == ["e/parts", "e/plain"]).then_some(())
    })
    .await;
    world.master.stop().await;
}

#[actix::test]
async fn an_object_that_was_written_without_an_answer_goes_with_its_name() {
    let world = World::new().await;
    let store = Store::start([], 100, None).await;
    store.list_pages(1_000);
    *world.worker.exported.lock().expect("no panic") = Some(store.clone());
    world.mount_store(&store, believed_for(0)).await.expect("mounted");
    for name in ["gone", "old"] {
        let create = create(&format!("/s3/{name}"), false);
        let inode = world.ask(create).await.expect("made").attr.inode;
        world.ask(commit(inode, 4)).await.expect("written");
        let persist = PersistFile { inode, wait: true };
        world.ask(persist).await.expect("the store has it");
    }
    assert_eq!(store.keys(), ["gone", "old"]);
    let unlink = Unlink {
        node: Node::Path(path("/s3/gone")),
        keep_open: false,
        closed: Vec::new(),
        holders: None,
    };
    world.ask(unlink).await.expect("deleted");
    world.ask(rename("/s3/old", "/s3/new")).await.expect("renamed");
    until_some("the store has the new name alone", async || {
        (store.keys() == ["new"]).then_some(())
    })
    .await;
    assert_eq!(world.names("/s3").await.expect("listed"), ["new"]);
    world.master.stop().await;
}
