//! What a session may do, and when it ends.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use curvine_actors::kit::call;
use curvine_protocol::master::{Lock, OpenSession, RenewSession};
use curvine_protocol::{CallContext, ClientId, ErrorKind, Result};

use super::{Plot, at, make, read, read_at, rows, same, write};
use crate::checks::Violation;
use crate::network::{CLIENTS, Network, name};
use crate::world::World;
use crate::world::director::Cast;

/// A change that comes when its session has ended is not made.
pub const LATE_CHANGE: Plot = Plot {
    name: "late-change",
    cast: |chance| Cast {
        masters: *chance.one_of(&[1, 3]),
        ..Cast::default()
    },
    play: late_change,
};

fn late_change(world: &mut World) -> std::result::Result<(), Violation> {
    let chance = world.chance();
    world.does(0, "makes /d", |client| async move {
        client.make_dir(&at("/d"), 0o755, false).await
    })?;
    let (masters, id) = (world.master_ids(), world.mount(0).id);
    world.hold(0, &masters);
    world.begin(0, |client| async move {
        client.make_dir(&at("/d/late"), 0o755, false).await
    });
    while world.network().kept_of(id) == 0 {
        world.pass_ms(10)?;
    }
    world.says(format!("{} is killed", name(id)));
    world.mount(0).kill();
    // Its session ends, and perhaps its end is forgotten.
    world.pass_s(chance.within(75..200))?;
    world.says("what it sent comes");
    world.network().let_go_at_once(id);
    world.pass_s(3)?;
    match world.does(1, "looks for /d/late", |client| async move {
        client.exists(&at("/d/late")).await
    })? {
        true => Err("a directory was made by a change whose session had ended".to_owned()),
        false => Ok(()),
    }
}

/// A mount that was stopped for longer than its session lasts learns that it has ended, and what it had is lost to it.
pub const STOPPED_MOUNT: Plot = Plot {
    name: "stopped-mount",
    cast: |chance| Cast {
        masters: *chance.one_of(&[1, 3]),
        ..Cast::default()
    },
    play: stopped_mount,
};

fn stopped_mount(world: &mut World) -> std::result::Result<(), Violation> {
    let chance = world.chance();
    world.does(0, "makes /f", |client| make(client, "/f", 1, 3, 1))?;
    let lock = Lock {
        owner: 1,
        pid: 1,
        exclusive: true,
        start: 0,
        end: u64::MAX,
    };
    let before = world.does(0, "locks /f", move |client| async move {
        client.lock(client.stat(&at("/f")).await?.inode, lock).await?;
        client.session().await
    })?;
    let id = world.mount(0).id;
    world.says(format!("{} is stopped", name(id)));
    world.mount(0).machine.stop();
    // Its end is forgotten after a while, too.
    world.pass_s(*chance.one_of(&[80, 120, 200, 300]) + chance.below(20))?;
    world.does(1, "gets the lock", move |client| async move {
        let inode = client.stat(&at("/f")).await?.inode;
        client.lock(inode, lock).await
    })?;
    world.says(format!("{} goes on", name(id)));
    world.mount(0).machine.go_on();
    world.pass_s(chance.below(20))?;
    let after = world.does(0, "asks for its session", |client| async move {
        client.session().await
    })?;
    match before == after {
        true => Err(format!(
            "{} believes in session {:016x}, whose lock another has",
            name(id),
            before.0
        )),
        false => Ok(()),
    }
}

/// A master that was stopped for longer than a session lasts ends none: nobody could tell it anything.
pub const STOPPED_MASTER: Plot = Plot {
    name: "stopped-master",
    cast: |_| Cast::default(),
    play: stopped_master,
};

fn stopped_master(world: &mut World) -> std::result::Result<(), Violation> {
    let chance = world.chance();
    world.does(0, "makes /f", |client| make(client, "/f", 1, 3, 1))?;
    let (open, dirty) = world.does(0, "has /f open and writes /g", |client| async move {
        make(client.clone(), "/g", 1, 3, 1).await?;
        let open = client.open(&at("/f")).await?;
        client.unlink(&at("/f"), true).await?;
        let dirty = client.open_for_write(&at("/g"), false).await?;
        write(&dirty, 2, 3..6).await?;
        Ok((open, dirty))
    })?;
    // It has looked at the sessions.
    world.pass_s(chance.within(5..25))?;
    let master = world.master_ids()[0];
    world.says(format!("master {master} is stopped"));
    world.masters().host_mut(master).machine.stop();
    // Nor does it find what was sent to it meanwhile.
    let (network, mounts) = (world.network(), [world.mount(0).id, world.mount(1).id]);
    mounts.iter().for_each(|mount| network.cut_both(*mount, master));
    world.pass_s(chance.within(63..100))?;
    world.says(format!("master {master} goes on"));
    world.masters().host_mut(master).machine.go_on();
    world.pass_ms(chance.below(4_000))?;
    network.mend();
    world.pass_s(chance.below(15))?;
    let seen = world.does(0, "flushes, and reads what it has open", move |_| async move {
        dirty.flush().await?;
        read(&open, 3).await
    })?;
    same("a file without a name", &seen, &rows(&[(1, 3)]))?;
    let seen = world.does(1, "reads /g", |client| read_at(client, "/g", 6))?;
    same("what was flushed", &seen, &rows(&[(1, 3), (2, 3)]))
}

/// A session that is heard of while its end is being decided goes on: whoever was told that it lasts can rely on it.
pub const HEARD_IN_TIME: Plot = Plot {
    name: "heard-in-time",
    cast: |_| Cast::default(),
    play: heard_in_time,
};

fn heard_in_time(world: &mut World) -> std::result::Result<(), Violation> {
    const SESSIONS: u64 = 150;
    let master = world.master_ids()[0];
    let (network, chance) = (world.network(), world.chance());
    let (wrong, done) = (Rc::new(RefCell::new(None)), Rc::new(RefCell::new(0)));
    let disk_delay = world.masters().host_mut(master).machine.disk_delay.clone();
    for _ in 0..SESSIONS {
        let (network, wrong, done) = (network.clone(), wrong.clone(), done.clone());
        // Of the master's clock, which is a twentieth fast or slow.
        let rest_ms = chance.within(57_000..68_000);
        world.begin_outside(async move {
            let way = network.way(CLIENTS, master);
            let context = |client| CallContext {
                client,
                deadline_ms: 5_000,
                ..CallContext::default()
            };
            if let Ok(opened) = call(&way, OpenSession {}, context(ClientId(0))).await {
                let client = opened.client;
                tokio::time::sleep(Duration::from_millis(rest_ms)).await;
                let renewed = renew(&network, master, client).await;
                tokio::time::sleep(Duration::from_secs(8)).await;
                let again = renew(&network, master, client).await;
                if renewed.is_ok() && again.is_err_and(|error| error.kind == ErrorKind::SessionEnded) {
                    wrong.borrow_mut().get_or_insert(format!(
                        "session {:016x} was renewed, and had ended 8 s later",
                        client.0
                    ));
                }
            }
            *done.borrow_mut() += 1;
        });
    }
    world.pass_s(20)?;
    // Between a look at the sessions and its effect others are heard of.
    disk_delay.store(200_000, Ordering::Relaxed);
    let mut passed_s = 0;
    while *done.borrow() < SESSIONS && passed_s < 120 {
        world.pass_s(1)?;
        passed_s += 1;
    }
    match wrong.take() {
        Some(wrong) => Err(wrong),
        None => Ok(()),
    }
}

async fn renew(network: &Network, master: curvine_protocol::NodeId, client: ClientId) -> Result<()> {
    let context = CallContext {
        client,
        deadline_ms: 5_000,
        ..CallContext::default()
    };
    call(&network.way(CLIENTS, master), RenewSession {}, context)
        .await
        .map(|_| ())
}

/// A change that comes once more, when it was answered and another one followed, is not made again.
pub const LATE_COPY: Plot = Plot {
    name: "late-copy",
    cast: |chance| Cast {
        masters: *chance.one_of(&[1, 3]),
        ..Cast::default()
    },
    play: late_copy,
};

fn late_copy(world: &mut World) -> std::result::Result<(), Violation> {
    let (masters, id, network) = (world.master_ids(), world.mount(0).id, world.network());
    world.hold(0, &masters);
    let making = world.begin(0, |client| async move {
        client.make_dir(&at("/d"), 0o755, false).await
    });
    while network.kept_of(id) == 0 {
        world.pass_ms(10)?;
    }
    network.let_others_pass(id);
    let made = world.ended(&making)?;
    made.map_err(|error| format!("mount 1 was healthy, and gets {error}"))?;
    world.does(0, "removes /d, and makes /e", |client| async move {
        client.remove_dir(&at("/d")).await?;
        client.make_dir(&at("/e"), 0o755, false).await?;
        client.remove_dir(&at("/e")).await
    })?;
    world.says("what it sent first comes");
    network.let_go_at_once(id);
    world.pass_s(3)?;
    match world.does(1, "looks for /d", |client| async move {
        client.exists(&at("/d")).await
    })? {
        true => Err("a directory that was removed is back".to_owned()),
        false => Ok(()),
    }
}
