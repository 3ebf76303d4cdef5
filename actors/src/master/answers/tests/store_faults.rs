//! Mounts of an S3 server that loses answers and refuses.

use super::stores::{believed_for, numbered};
use super::*;
use crate::ufs::scripted::Store;

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
