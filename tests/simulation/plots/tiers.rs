//! Workers with more than one tier: blocks that move, and what is in memory.

use curvine_actors::client::Client;

use super::{BLOCK, Plot, UNIT, at, make, read_at, rows, same, write};
use crate::checks::Violation;
use crate::programs::BLOCK_BYTES;
use crate::troubles::{ROOMY, Tiers};
use crate::world::World;
use crate::world::director::Cast;
use crate::world::workers::{DATA, MEMORY};

/// A reader waits so long, and reads as often, for a block to become hot and move.
const PASSES: u64 = 30;

/// Nothing that was synced is in memory alone: it is there after the machine was without power.
pub const POWER_CUT_OF_MEMORY: Plot = Plot {
    name: "power-cut-of-memory",
    cast: |_| Cast {
        tiers: Tiers {
            memory_bytes: ROOMY,
            slow_bytes: 0,
        },
        ..Cast::default()
    },
    play: power_cut_of_memory,
};

fn power_cut_of_memory(world: &mut World) -> Result<(), Violation> {
    let chance = world.chance();
    let units = chance.within(1..3 * BLOCK);
    world.does(0, "makes /f", move |client| make(client, "/f", 1, units, 1))?;
    if chance.percent(50) {
        // So that some of it is in memory as well.
        for _ in 0..chance.within(2..4) {
            world.does(1, "reads /f", move |client| read_at(client, "/f", units))?;
            world.pass_ms(chance.within(900..2_500))?;
        }
    }
    let lost = world.worker_host(0).lose_power();
    world.says(format!(
        "the worker loses its power, {lost:?} pages, and its memory"
    ));
    let machine = world.worker_ids()[0];
    world.pass_s(chance.within(1..5))?;
    world.restart_worker(machine)?;
    world.pass_s(chance.within(1..5))?;
    let found = world.does(1, "reads /f", move |client| read_at(client, "/f", units))?;
    same("what was synced", &found, &rows(&[(1, units)]))
}

/// Whoever writes a block that has a copy in memory is read, and not the copy; also after the worker was killed.
pub const WRITTEN_WHILE_IN_MEMORY: Plot = Plot {
    name: "written-while-in-memory",
    cast: |_| Cast {
        tiers: Tiers {
            memory_bytes: ROOMY,
            slow_bytes: 0,
        },
        ..Cast::default()
    },
    play: written_while_in_memory,
};

fn written_while_in_memory(world: &mut World) -> Result<(), Violation> {
    let chance = world.chance();
    // More than goes into an index.
    let units = chance.within(40..BLOCK + 1);
    world.does(0, "makes /f", move |client| make(client, "/f", 1, units, 1))?;
    let file = world.does(0, "opens /f to write", |client| async move {
        client.open_for_write(&at("/f"), false).await
    })?;
    let first = file.clone();
    world.does(0, "writes its first unit", move |_| async move {
        write(&first, 2, 0..1).await?;
        first.sync().await
    })?;
    let mut is_copied = false;
    for _ in 0..PASSES {
        world.does(1, "reads /f", move |client| read_at(client, "/f", units))?;
        world.pass_ms(chance.within(1_000..2_000))?;
        let in_memory = world.worker_host(0).block_paths_in(&[MEMORY]);
        is_copied = !in_memory.map_err(|error| error.to_string())?.is_empty();
        if is_copied {
            break;
        }
    }
    if !is_copied {
        return Err("what is read again and again is not copied to memory".to_owned());
    }
    let from = chance.below(units);
    world.does(0, "writes the rest of /f", move |_| async move {
        write(&file, 3, from..units).await?;
        file.sync().await?;
        file.close().await
    })?;
    if chance.percent(30) {
        let machine = world.worker_ids()[0];
        world.worker_at(machine).kill();
        world.pass_ms(chance.within(1..2_000))?;
        world.restart_worker(machine)?;
        world.pass_s(chance.within(1..5))?;
    }
    let expected: Vec<_> = match from {
        0 => rows(&[(3, units)]),
        _ => rows(&[(2, 1), (1, from - 1), (3, units - from)]),
    };
    for _ in 0..3 {
        let found = world.does(1, "reads /f", move |client| read_at(client, "/f", units))?;
        same("/f", &found, &expected)?;
        world.pass_ms(chance.within(1..2_000))?;
    }
    Ok(())
}

/// What is written to a block while it is copied to another disk stays.
pub const WRITTEN_WHILE_IT_MOVES: Plot = Plot {
    name: "written-while-it-moves",
    cast: |_| Cast {
        capacity_bytes: 120 << 10,
        tiers: Tiers {
            memory_bytes: 0,
            slow_bytes: ROOMY,
        },
        ..Cast::default()
    },
    play: written_while_it_moves,
};

fn written_while_it_moves(world: &mut World) -> Result<(), Violation> {
    let chance = world.chance();
    // The first one fills the fast disk, so that the second one is on the slow one; then there is room.
    world.does(0, "makes /first", |client| make(client, "/first", 9, BLOCK, 1))?;
    let units = BLOCK_BYTES / UNIT;
    world.does(0, "makes /f", move |client| make(client, "/f", 1, units, 1))?;
    world.does(0, "removes /first", |client| async move {
        client.delete(&at("/first"), false).await
    })?;
    world.pass_s(2)?;
    let fast = world.worker_host(0).block_paths_in(&[DATA]);
    if !fast.map_err(|error| error.to_string())?.is_empty() {
        return Err("/f is on the fast disk already".to_owned());
    }
    let file = world.does(0, "opens /f to write", |client: Client| async move {
        client.open_for_write(&at("/f"), false).await
    })?;
    world.does(1, "reads /f", move |client| read_at(client, "/f", units))?;
    world.pass_ms(chance.within(1_100..1_900))?;
    world.does(1, "reads /f", move |client| read_at(client, "/f", units))?;
    // It is hot, and is copied at the next tick, in a quarter of a second.
    let mut from = 0;
    for stamp in 2..10 {
        world.pass_ms(chance.within(50..400))?;
        let (file, units) = (file.clone(), from..from + 10);
        world.does(0, "writes some of /f", move |_| async move {
            write(&file, stamp, units).await?;
            file.sync().await
        })?;
        from += 10;
        let written: Vec<_> = (2..=stamp).map(|stamp| (stamp, 10)).collect();
        let expected = rows(&[written, vec![(1, BLOCK_BYTES / UNIT - from)]].concat());
        let found = world.does(1, "reads /f", move |client| {
            read_at(client, "/f", BLOCK_BYTES / UNIT)
        })?;
        same("/f", &found, &expected)?;
    }
    for _ in 0..PASSES {
        let on_fast = world.worker_host(0).block_paths_in(&[DATA]);
        if !on_fast.map_err(|error| error.to_string())?.is_empty() {
            return Ok(());
        }
        world.does(1, "reads /f", move |client| read_at(client, "/f", units))?;
        world.pass_ms(chance.within(1_000..2_000))?;
    }
    Err("what is read again and again does not rise".to_owned())
}
