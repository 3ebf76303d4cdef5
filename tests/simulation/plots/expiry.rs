//! Files that live for a time.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use curvine_actors::client::{Client, CreateOptions};
use curvine_protocol::master::{AttrChange, RenameMode, SetTime, Ttl, TtlAction, TtlFrom};
use curvine_protocol::{CurvinePath, ErrorKind, Result};

use super::{Plot, at, make};
use crate::checks::Violation;
use crate::world::World;
use crate::world::director::Cast;

/// What is over goes, also if the leader dies, and what a mount has open stays until it is closed.
pub const OPEN_WHEN_OVER: Plot = Plot {
    name: "open-when-over",
    cast: one_or_three,
    play: open_when_over,
};

/// Who writes to a file in time has it for another while.
pub const TOUCHED_IN_TIME: Plot = Plot {
    name: "touched-in-time",
    cast: |_| Cast::default(),
    play: touched_in_time,
};

/// A tree goes by the rule where it is, and what has left is not over.
pub const MOVED_IN: Plot = Plot {
    name: "moved-in",
    cast: one_or_three,
    play: moved_in,
};

fn one_or_three(chance: &crate::chance::Chance) -> Cast {
    Cast {
        masters: *chance.one_of(&[1, 3]),
        ..Cast::default()
    }
}

fn deletes(seconds: u64) -> Option<Ttl> {
    Some(Ttl {
        after_ms: seconds * 1_000,
        action: TtlAction::Delete,
        from: TtlFrom::Modification,
    })
}

async fn empty(client: &Client, path: &CurvinePath) -> Result<()> {
    let file = client.create(path, CreateOptions::default()).await?;
    file.close().await.map(|_| ())
}

/// Kills the leader of three, perhaps. One of a machine of its own has nobody that follows it.
fn leader_may_die(world: &mut World) -> std::result::Result<(), Violation> {
    if world.master_ids().len() > 1 && world.chance().percent(50) {
        world.leader_is_there()?;
        world.kill_leader()?;
    }
    Ok(())
}

/// Looks every two seconds, and says whether a path has gone within so many. `meanwhile` must be there all the time.
fn goes_within(
    world: &mut World,
    seconds: u64,
    path: &'static str,
    meanwhile: Option<&'static str>,
) -> std::result::Result<(), Violation> {
    for _ in 0..seconds / 2 {
        world.pass_s(2)?;
        if let Some(meanwhile) = meanwhile
            && !world.does(0, "looks", move |client| async move {
                client.exists(&at(meanwhile)).await
            })?
        {
            return Err(format!("{meanwhile} has gone"));
        }
        if !world.does(
            0,
            "looks",
            move |client| async move { client.exists(&at(path)).await },
        )? {
            return Ok(());
        }
    }
    Err(format!("{path} is over, and is there after {seconds} s"))
}

fn open_when_over(world: &mut World) -> std::result::Result<(), Violation> {
    let chance = world.chance();
    world.does(0, "makes files that live for 30 s", |client| async move {
        client.make_dir(&at("/d"), 0o755, false).await?;
        client.set_ttl(&at("/d"), deletes(30)).await?;
        make(client.clone(), "/d/f", 1, 3, 1).await?;
        make(client.clone(), "/d/held", 2, 3, 1).await
    })?;
    let held = world.does(1, "opens /d/held", |client| async move {
        client.open(&at("/d/held")).await
    })?;
    world.pass_ms(chance.within(20_000..28_000))?;
    leader_may_die(world)?;
    goes_within(world, 90, "/d/f", Some("/d/held"))?;
    for _ in 0..5 {
        world.pass_s(3)?;
        if !world.does(
            0,
            "looks",
            |client| async move { client.exists(&at("/d/held")).await },
        )? {
            return Err("a file was deleted that a mount has open".to_owned());
        }
    }
    world.does(1, "closes it", |_| async move { held.close().await.map(|_| ()) })?;
    goes_within(world, 60, "/d/held", None)
}

fn touched_in_time(world: &mut World) -> std::result::Result<(), Violation> {
    const FILES: u64 = 80;
    let (master, chance) = (world.master_ids()[0], world.chance());
    let path = |number: u64| CurvinePath::parse(&format!("/d/{number}")).expect("a valid path");
    world.does(0, "makes files that live for 30 s", move |client| async move {
        client.make_dir(&at("/d"), 0o755, false).await?;
        client.set_ttl(&at("/d"), deletes(30)).await?;
        for number in 0..FILES {
            empty(&client, &path(number)).await?;
        }
        Ok(())
    })?;
    // Between a look at a file and its deletion somebody else has his turn.
    let disk_delay = world.masters().host_mut(master).machine.disk_delay.clone();
    disk_delay.store(200_000, Ordering::Relaxed);
    let wrong = Rc::new(RefCell::new(None));
    let touching: Vec<_> = (0..FILES)
        .map(|number| {
            let (wrong, pause_ms) = (wrong.clone(), chance.within(26_000..33_000));
            world.begin(number % 2, move |client| async move {
                tokio::time::sleep(std::time::Duration::from_millis(pause_ms)).await;
                let change = AttrChange {
                    mtime: Some(SetTime::Now),
                    ..AttrChange::default()
                };
                let touched = client.set_attr(&path(number), true, change).await;
                if let Err(error) = &touched
                    && error.kind != ErrorKind::NotFound
                {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_secs(8)).await;
                if touched.is_ok() && matches!(client.exists(&path(number)).await, Ok(false)) {
                    wrong.borrow_mut().get_or_insert(format!(
                        "/d/{number} was changed, and was deleted for its time before"
                    ));
                }
            })
        })
        .collect();
    world.pass_s(45)?;
    for touching in touching {
        world.ended(&touching)?;
    }
    match wrong.take() {
        Some(wrong) => Err(wrong),
        None => Ok(()),
    }
}

fn moved_in(world: &mut World) -> std::result::Result<(), Violation> {
    let chance = world.chance();
    world.does(
        0,
        "makes a tree, and files that live for 20 s",
        |client| async move {
            for directory in ["/t", "/t/sub", "/d", "/out"] {
                client.make_dir(&at(directory), 0o755, false).await?;
            }
            make(client.clone(), "/t/sub/f", 1, 3, 1).await?;
            client.set_ttl(&at("/d"), deletes(20)).await?;
            make(client.clone(), "/d/g", 2, 3, 1).await
        },
    )?;
    world.pass_ms(chance.within(1_000..15_000))?;
    world.does(1, "moves the tree in, and a file out", |client| async move {
        client
            .rename(&at("/t"), &at("/d/t"), RenameMode::Replace, false)
            .await?;
        client
            .rename(&at("/d/g"), &at("/out/g"), RenameMode::Replace, false)
            .await
    })?;
    world.pass_ms(chance.below(3_000))?;
    leader_may_die(world)?;
    goes_within(world, 90, "/d/t/sub/f", Some("/out/g"))?;
    world.pass_s(10)?;
    match world.does(
        0,
        "looks",
        |client| async move { client.exists(&at("/out/g")).await },
    )? {
        true => Ok(()),
        false => Err("a file was deleted by a rule that it was not below any more".to_owned()),
    }
}
