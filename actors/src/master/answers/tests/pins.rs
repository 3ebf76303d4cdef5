//! Pins: who is told of them, and what is refused.

use super::*;

impl World {
    async fn pin(&self, at: &str) -> Result<PinSet> {
        self.set_pin(at, true).await
    }

    async fn set_pin(&self, at: &str, pinned: bool) -> Result<PinSet> {
        let set = SetPin {
            path: path(at),
            pinned,
            recursive: false,
        };
        self.ask(set).await
    }

    async fn pinned(&self) -> Vec<String> {
        let pins = self.ask(ListPins { sizes: false }).await.expect("listed").pins;
        pins.into_iter().map(|pin| pin.path.to_string()).collect()
    }

    /// The block of a file in a mount, which is one block.
    async fn block_of(&self, at: &str) -> u64 {
        let open = OpenFile {
            node: Node::Path(path(at)),
            follow: true,
            open: 0,
        };
        self.ask(open).await.expect("opened").blocks[0].block.id.0
    }

    /// The worker says what it has, and which of it is pinned.
    async fn reports(&self, full: bool, stored: &[(u64, bool)]) {
        let replica = |&(id, _): &(u64, bool)| BlockReplica {
            id: BlockId(id),
            generation: 0,
            len_bytes: 0,
        };
        let report = ReportBlocks {
            full_start: full,
            full_end: full,
            stored: stored.iter().map(replica).collect(),
            pinned: ReportBlocks::bits(stored.iter().map(|(_, pinned)| *pinned)),
            ..ReportBlocks::nothing(self.registered.worker, self.registered.token)
        };
        self.ask(report).await.expect("taken");
    }

    /// What workers were told of blocks since somebody asked.
    fn told(&self) -> Vec<(u64, bool)> {
        let told = std::mem::take(&mut *self.worker.pins.lock().expect("no panic"));
        let blocks = |(_, pin): (WorkerId, PinBlocks)| {
            let blocks = pin.blocks.into_iter();
            blocks.map(move |block| (block.0, pin.pinned)).collect::<Vec<_>>()
        };
        told.into_iter().flat_map(blocks).collect()
    }

    async fn until_told(&self, what: &str, wanted: (u64, bool)) {
        until_some(what, async || self.told().contains(&wanted).then_some(())).await;
    }
}

#[actix::test]
async fn a_pin_is_told_before_it_is_acknowledged_and_to_whoever_has_it_later() {
    let world = World::new().await;
    let _bucket = world.mount(&[("a", 100), ("b", 100)]).await;
    world.names("/data").await.expect("listed");
    let (a, b) = (world.block_of("/data/a").await, world.block_of("/data/b").await);
    world.reports(false, &[(a, false)]).await;
    let set = world.pin("/data").await.expect("pinned");
    assert_eq!((set.pinned.files, set.pinned.bytes), (2, 200));
    assert_eq!((set.pinned.cached_bytes, set.room.pinned_bytes), (100, 200));
    assert!(world.told().contains(&(a, true)));
    world.reports(false, &[(b, false)]).await;
    world.until_told("who has got it is told", (b, true)).await;
    world.set_pin("/data", false).await.expect("unpinned");
    let told = world.told();
    assert!(
        told.contains(&(a, false)) && told.contains(&(b, false)),
        "{told:?}"
    );
    world.master.stop().await;
}

#[actix::test]
async fn pins_survive_a_failover_and_whatever_differs_on_a_worker_is_told_again() {
    let world = World::new().await;
    let _bucket = world.mount(&[("a", 100), ("b", 100)]).await;
    world.names("/data").await.expect("listed");
    let (a, b) = (world.block_of("/data/a").await, world.block_of("/data/b").await);
    world.reports(false, &[(a, false)]).await;
    world.pin("/data/a").await.expect("pinned");
    let world = world.restarted().await;
    assert_eq!(world.pinned().await, ["/data/a"]);
    world.told();
    world.reports(true, &[(a, false), (b, true)]).await;
    let told = Mutex::new(Vec::new());
    until_some("both are put right", async || {
        let mut told = told.lock().expect("no panic");
        told.extend(world.told());
        (told.contains(&(a, true)) && told.contains(&(b, false))).then_some(())
    })
    .await;
    world.master.stop().await;
}

#[actix::test]
async fn a_worker_that_does_not_answer_keeps_a_pin_from_being_acknowledged() {
    let world = World::new().await;
    let _bucket = world.mount(&[("a", 100)]).await;
    world.names("/data").await.expect("listed");
    let a = world.block_of("/data/a").await;
    world.reports(false, &[(a, false)]).await;
    let silent = || world.worker.silent.lock().expect("no panic");
    silent().insert(world.registered.worker);
    let error = world.pin("/data/a").await.expect_err("a worker is silent");
    assert_eq!(error.kind, ErrorKind::BlockUnavailable, "{error}");
    assert!(error.message.contains("`cv pin /data/a` again"), "{error}");
    assert_eq!(world.pinned().await, ["/data/a"], "it is noted");
    silent().clear();
    world.until_told("it is told when it answers", (a, true)).await;
    world.pin("/data/a").await.expect("asked again");
    world.master.stop().await;
}

#[actix::test]
async fn what_moves_below_a_pinned_directory_is_pinned_and_what_leaves_it_is_not() {
    let world = World::new().await;
    for directory in ["/pinned", "/other"] {
        let make = MakeDir {
            node: Node::Path(path(directory)),
            mode: 0o755,
            parents: false,
            unmasked: None,
        };
        world.ask(make).await.expect("made");
    }
    let create = CreateFile {
        block_bytes: 1 << 20,
        replicas: 1,
        ..with_a_block("/other/f")
    };
    let block = world.ask(create).await.expect("made").blocks[0].block.id.0;
    world.reports(false, &[(block, false)]).await;
    world.pin("/pinned").await.expect("pinned");
    let rename = |from: &str, to: &str| Rename {
        from: Node::Path(path(from)),
        to: Node::Path(path(to)),
        mode: RenameMode::Replace,
        keep_replaced: false,
        closed: Vec::new(),
        holders: None,
    };
    world.ask(rename("/other", "/pinned/other")).await.expect("moved");
    world.until_told("it is pinned", (block, true)).await;
    world.ask(rename("/pinned/other", "/other")).await.expect("moved");
    world.until_told("it is not", (block, false)).await;
    world.master.stop().await;
}

#[actix::test]
async fn what_is_too_much_or_not_pinned_is_refused_with_its_reason() {
    let world = World::new().await;
    let bucket = world.mount(&[("a", 100)]).await;
    let big = std::fs::File::create(bucket.path().join("big")).expect("room");
    // Half of the worker's capacity may be pinned.
    big.set_len((1 << 29) + 1).expect("sparse");
    let error = world.pin("/data/big").await.expect_err("too much");
    assert_eq!(error.kind, ErrorKind::NoSpace, "{error}");
    assert!(error.message.contains("`master.pin_limit`"), "{error}");
    let error = world.set_pin("/data/a", false).await.expect_err("it is not");
    assert_eq!(
        error.message, "/data/a: is not pinned; `cv pins` lists what is",
        "{error}"
    );
    world.pin("/data/a").await.expect("pinned");
    let error = world.pin("/data").await.expect_err("too much below");
    assert_eq!(error.kind, ErrorKind::NoSpace, "{error}");
    for free in ["/data", "/data/a"] {
        let error = world.ask(FreeCache { path: path(free) }).await;
        let error = error.expect_err("it is pinned");
        assert_eq!(error.kind, ErrorKind::Busy, "{error}");
        assert!(error.message.contains("`cv unpin /data/a`"), "{error}");
    }
    drop(big);
    std::fs::remove_file(bucket.path().join("big")).expect("there");
    world.master.stop().await;
}

#[actix::test]
async fn a_load_of_what_is_in_no_mount_names_it() {
    let world = World::new().await;
    let make = MakeDir {
        node: Node::Path(path("/plain")),
        mode: 0o755,
        parents: false,
        unmasked: None,
    };
    world.ask(make).await.expect("made");
    let load = SubmitLoad {
        paths: vec![path("/plain")],
    };
    let error = world.ask(load).await.expect_err("nothing to load from");
    assert_eq!(error.kind, ErrorKind::InvalidArgument, "{error}");
    assert!(error.message.starts_with("/plain: is in no mount"), "{error}");
    let _bucket = world.mount(&[("a", 100)]).await;
    let load = SubmitLoad {
        paths: vec![path("/")],
    };
    world.ask(load).await.expect("there is a mount below it");
    world.master.stop().await;
}
