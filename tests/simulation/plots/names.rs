//! What is open, and what others make of its name.

use curvine_protocol::number::to_usize;

use super::{BLOCK, Plot, at, make, read, rows, same, write};
use crate::checks::Violation;
use crate::network::Weather;
use crate::world::World;
use crate::world::director::Cast;

/// What one mount has open stays readable when another removes or replaces it.
pub const OPEN_ELSEWHERE: Plot = Plot {
    name: "open-elsewhere",
    cast: |chance| Cast {
        masters: *chance.one_of(&[1, 3]),
        ..Cast::default()
    },
    play: open_elsewhere,
};

fn open_elsewhere(world: &mut World) -> Result<(), Violation> {
    let chance = world.chance();
    let units = chance.within(1..2 * BLOCK);
    let expected = rows(&[(1, units)]);
    world.does(0, "makes /f", move |client| make(client, "/f", 1, units, 1))?;
    let file = world.does(
        1,
        "opens /f",
        |client| async move { client.open(&at("/f")).await },
    )?;
    match chance.percent(50) {
        true => {
            world.does(0, "removes /f", |client| async move {
                client.unlink(&at("/f"), false).await
            })?;
        }
        false => {
            world.does(0, "makes /g", move |client| make(client, "/g", 2, units, 1))?;
            world.does(0, "replaces /f", |client| async move {
                let mode = curvine_protocol::master::RenameMode::Replace;
                client.rename(&at("/g"), &at("/f"), mode, false).await
            })?;
        }
    }
    for _ in 0..3 {
        world.pass_ms(chance.below(20_000))?;
        let open = file.clone();
        let found = world.does(1, "reads what it has open", move |_| async move {
            read(&open, units).await
        })?;
        same("what mount 2 has open", &found, &expected)?;
    }
    Ok(())
}

/// Whoever is told that a file is open can read it, also if it is removed at that moment.
pub const OPENED_WHILE_REMOVED: Plot = Plot {
    name: "opened-while-removed",
    cast: |chance| Cast {
        masters: *chance.one_of(&[1, 3]),
        ..Cast::default()
    },
    play: opened_while_removed,
};

fn opened_while_removed(world: &mut World) -> Result<(), Violation> {
    let chance = world.chance();
    for _ in 0..12 {
        world.does(0, "makes /f", |client| make(client, "/f", 1, 3, 1))?;
        let ahead = chance.percent(50);
        let opens = |world: &mut World| world.begin(1, |client| async move { client.open(&at("/f")).await });
        let removes =
            |world: &mut World| world.begin(0, |client| async move { client.unlink(&at("/f"), false).await });
        let (opening, removing) = match ahead {
            true => {
                let opening = opens(world);
                world.pass_ms(chance.below(4))?;
                (opening, removes(world))
            }
            false => {
                let removing = removes(world);
                world.pass_ms(chance.below(6))?;
                (opens(world), removing)
            }
        };
        let removed = world.ended(&removing)?;
        removed.map_err(|error| format!("mount 1 cannot remove /f: {error}"))?;
        let Ok(file) = world.ended(&opening)? else {
            continue;
        };
        world.pass_ms(chance.within(1_000..8_000))?;
        let found = world.does(1, "reads what it has open", move |_| async move {
            read(&file, 3).await
        })?;
        same("what mount 2 was given to read", &found, &rows(&[(1, 3)]))?;
    }
    Ok(())
}

/// What one mount flushes is read through a handle that is open on another, soon. The handle is told of newer versions, as
/// a mount of a kernel tells it.
pub const FOLLOWS: Plot = Plot {
    name: "follows-a-writer",
    cast: |chance| Cast {
        masters: *chance.one_of(&[1, 3]),
        ..Cast::default()
    },
    play: follows,
};

fn follows(world: &mut World) -> Result<(), Violation> {
    let chance = world.chance();
    world.does(0, "makes /f", |client| make(client, "/f", 1, 10, 1))?;
    let file = world.does(1, "opens /f", |client| async move {
        let file = client.open(&at("/f")).await?;
        let told = file.clone();
        client.on_change(move |inode, version| {
            if inode == told.inode() {
                told.named(version);
            }
        });
        Ok(file)
    })?;
    let writer = world.does(0, "opens /f to write", |client| async move {
        client.open_for_write(&at("/f"), false).await
    })?;
    let mut expected = rows(&[(1, 10)]);
    for stamp in 2..6 {
        let from = match chance.percent(60) {
            true => expected.len() as u64,
            false => chance.below(expected.len() as u64),
        };
        let until = from + chance.within(1..30);
        expected.resize(expected.len().max(to_usize(until)), stamp);
        expected[to_usize(from)..to_usize(until)].fill(stamp);
        let file_of_writer = writer.clone();
        world.does(0, "writes and flushes", move |_| async move {
            write(&file_of_writer, stamp, from..until).await?;
            file_of_writer.flush().await
        })?;
        world.pass_ms(chance.within(8_000..12_000))?;
        let open = file.clone();
        let found = world.does(1, "reads what it has open", move |_| async move {
            read(&open, 200).await
        })?;
        same("what mount 2 reads through its handle", &found, &expected)?;
    }
    Ok(())
}

/// One program of a mount opens a file while another one closes it, and the answer to the one may be of before and come
/// last. Both have seen what was written by then.
pub const OPENED_BESIDE_CLOSE: Plot = Plot {
    name: "opened-beside-close",
    cast: |chance| Cast {
        masters: *chance.one_of(&[1, 3]),
        mounts: 1,
        ..Cast::default()
    },
    play: opened_beside_close,
};

fn opened_beside_close(world: &mut World) -> Result<(), Violation> {
    let chance = world.chance();
    world.does(0, "makes /f", |client| make(client, "/f", 1, 1, 1))?;
    world.network().set_weather(Weather {
        delay_us: 100..20_000,
        ..Weather::fair()
    });
    for round in 0..40 {
        let file = world.does(0, "opens /f to write", |client| async move {
            client.open_for_write(&at("/f"), false).await
        })?;
        // An answer that comes late is of another length.
        let long = round + 2;
        let closing = world.begin(0, move |_| async move {
            write(&file, 2, long - 1..long).await?;
            file.close().await
        });
        world.pass_ms(chance.below(80))?;
        let opening = world.begin(0, |client| async move { client.open(&at("/f")).await });
        let closed = world.ended(&closing)?;
        closed.map_err(|error| format!("mount 1 cannot close /f: {error}"))?;
        let file = world.ended(&opening)?;
        let file = file.map_err(|error| format!("mount 1 cannot open /f: {error}"))?;
        let found = world.does(0, "reads what it opened beside the close", move |_| async move {
            read(&file, long + 1).await
        })?;
        same(
            "what mount 1 had closed by then",
            &found,
            &rows(&[(1, 1), (2, long - 1)]),
        )?;
    }
    Ok(())
}
