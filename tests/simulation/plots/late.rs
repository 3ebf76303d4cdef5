//! What comes late to workers, or is lost there: writes, deletions, and what was taken before a power cut.

use curvine_actors::client::Client;
use curvine_protocol::ErrorKind;
use curvine_protocol::number::to_usize;

use super::{BLOCK, Plot, at, make, read, read_at, rows, same, write};
use crate::checks::Violation;
use crate::files::name_of;
use crate::network::name;
use crate::world::World;
use crate::world::director::Cast;

fn cast(_: &crate::chance::Chance) -> Cast {
    Cast::default()
}

async fn open(client: Client) -> curvine_protocol::Result<curvine_actors::client::OpenFile> {
    client.open_for_write(&at("/f"), false).await
}

/// A write that comes late is not made over what its writer wrote since.
pub const LATE_WRITE: Plot = Plot {
    name: "late-write",
    cast,
    play: late_write,
};

fn late_write(world: &mut World) -> Result<(), Violation> {
    let chance = world.chance();
    let (network, workers, id) = (world.network(), world.worker_ids(), world.mount(0).id);
    world.does(0, "makes /f", |client| make(client, "/f", 1, 100, 1))?;
    let file = world.does(0, "opens /f to write", open)?;
    network.hold(id, workers[0]);
    let from = chance.below(90);
    let writing = file.clone();
    let first = world.begin(0, move |_| async move {
        write(&writing, 2, from..from + 10).await?;
        writing.flush().await
    });
    while network.kept_of(id) == 0 {
        world.pass_ms(10)?;
    }
    world.says("a write is on its way for long");
    network.let_others_pass(id);
    let flushed = world.ended(&first)?;
    flushed.map_err(|error| format!("mount 1 was healthy, and gets {error}"))?;
    let writing = file.clone();
    world.does(0, "writes again", move |_| async move {
        write(&writing, 3, from..from + 10).await?;
        writing.flush().await
    })?;
    world.says("the late write comes");
    network.let_go_at_once(id);
    world.pass_s(1)?;
    if chance.percent(50) {
        drop(world.ask(0, move |_| async move { file.close().await })?);
    }
    let expected = rows(&[(1, from), (3, 10), (1, 90 - from)]);
    let found = world.does(1, "reads /f", |client| read_at(client, "/f", 100))?;
    same("what was flushed last", &found, &expected)
}

/// A flush that succeeds speaks of bytes that are there, also if the worker lost its power since it took them.
pub const LOST_BEFORE_SEAL: Plot = Plot {
    name: "lost-before-seal",
    cast,
    play: lost_before_seal,
};

fn lost_before_seal(world: &mut World) -> Result<(), Violation> {
    let chance = world.chance();
    world.does(0, "makes /f", |client| make(client, "/f", 1, 100, 1))?;
    let units = chance.within(10..60);
    let file = world.does(0, "writes", move |client| async move {
        let file = open(client).await?;
        write(&file, 2, 0..units).await?;
        // To read it is to have it sent.
        read(&file, 100).await?;
        Ok(file)
    })?;
    world.pass_ms(chance.within(50..500))?;
    let lost = world.worker_host(0).lose_power();
    let lost = lost.map_err(|error| error.to_string())?;
    world.says(format!("worker 1 loses its power, and {lost} pages with it"));
    world.pass_ms(chance.within(300..2_000))?;
    world.start_worker(0)?;
    let flushed = world.ask(0, move |_| async move { file.flush().await })?;
    world.says(format!("mount 1 flushes: {:?}", flushed.as_ref().map(|_| ())));
    if flushed.is_err() {
        return Ok(());
    }
    let expected = rows(&[(2, units), (1, 100 - units)]);
    let found = world.does(1, "reads /f", |client| read_at(client, "/f", 100))?;
    same("what was flushed", &found, &expected)
}

/// Of an append that workers took nothing goes because a write over it and beyond does not fit.
pub const FULL_OVERWRITE: Plot = Plot {
    name: "full-overwrite",
    cast: |_| Cast {
        // Some 64 KiB of it are the index.
        capacity_bytes: 464 << 10,
        ..Cast::default()
    },
    play: full_overwrite,
};

fn full_overwrite(world: &mut World) -> Result<(), Violation> {
    let chance = world.chance();
    let first = chance.within(5..15);
    world.does(0, "makes /f", move |client| make(client, "/f", 1, first, 1))?;
    world.does(1, "fills the worker", |client| {
        make(client, "/g", 1, 5 * BLOCK + 100, 1)
    })?;
    let outcome = world.ask(0, move |client| async move {
        let file = open(client).await?;
        write(&file, 2, first..first + 10).await?;
        write(&file, 3, first + 5..first + 100).await?;
        file.close().await
    })?;
    match outcome {
        Err(error) if error.kind == ErrorKind::NoSpace => world.says(format!("mount 1 gets: {error}")),
        Err(error) => return Err(format!("a full worker is told as: {error}")),
        Ok(_) => return Err("more was taken than there is room for".to_owned()),
    }
    let found = world.does(1, "reads /f", |client| read_at(client, "/f", 200))?;
    let there = found.len().min(to_usize(first) + 10);
    let mut seen = found[..there].to_vec();
    // Of what was written twice either is right.
    seen.iter_mut()
        .skip(to_usize(first) + 5)
        .filter(|unit| **unit == 3)
        .for_each(|unit| *unit = 2);
    same("what workers took", &seen, &rows(&[(1, first), (2, 10)]))
}

/// No block is left behind on a worker that did not take the order to delete it.
pub const DELETION_UNTAKEN: Plot = Plot {
    name: "deletion-untaken",
    cast,
    play: deletion_untaken,
};

fn deletion_untaken(world: &mut World) -> Result<(), Violation> {
    let chance = world.chance();
    let (network, worker) = (world.network(), world.worker_ids()[0]);
    let masters = world.master_ids();
    world.does(0, "makes /f", |client| make(client, "/f", 1, 100, 1))?;
    // The worker has said that it has it, and says no more of it.
    world.pass_ms(chance.within(3_000..5_000))?;
    masters.iter().for_each(|master| network.hold(*master, worker));
    world.does(0, "removes /f", |client| async move {
        client.unlink(&at("/f"), false).await
    })?;
    world.pass_ms(chance.within(3_000..8_000))?;
    network.let_others_pass(worker);
    no_block_is_left(world, 40)
}

/// Nor one that a late write of a dead writer makes anew when its file is gone.
pub const LATE_BLOCK: Plot = Plot {
    name: "late-block",
    cast,
    play: late_block,
};

fn late_block(world: &mut World) -> Result<(), Violation> {
    let chance = world.chance();
    let (network, workers, id) = (world.network(), world.worker_ids(), world.mount(0).id);
    world.does(0, "makes /f", |client| make(client, "/f", 1, 1, 1))?;
    let file = world.does(0, "opens /f to write", open)?;
    network.hold(id, workers[0]);
    world.begin(0, move |_| async move {
        write(&file, 2, 1..3 * BLOCK).await?;
        file.flush().await
    });
    while network.kept_of(id) < 2 {
        world.pass_ms(10)?;
    }
    world.says(format!("{} is killed", name(id)));
    world.mount(0).kill();
    world.does(1, "removes /f", |client| async move {
        client.unlink(&at("/f"), false).await
    })?;
    // Its session ends, and the file goes with it.
    world.pass_s(chance.within(70..90))?;
    world.says("what it wrote comes");
    network.let_go_at_once(id);
    // The masters hear of it before it has been idle so long that the worker seals it.
    no_block_is_left(world, 25)
}

fn no_block_is_left(world: &mut World, after_s: u64) -> Result<(), Violation> {
    world.pass_s(after_s)?;
    let left = world.worker_host(0).block_files();
    match left.map_err(|error| error.to_string())? {
        0 => Ok(()),
        left => Err(format!("worker 1 has {left} blocks, and there is no file")),
    }
}

/// Bytes that rot are not given a new checksum by whoever writes beside them, however often.
pub const ROT_BETWEEN_WRITES: Plot = Plot {
    name: "rot-between-writes",
    cast,
    play: rot_between_writes,
};

fn rot_between_writes(world: &mut World) -> Result<(), Violation> {
    let chance = world.chance();
    world.does(0, "makes /f", |client| make(client, "/f", 1, 100, 1))?;
    let file = world.does(0, "writes and flushes", |client| async move {
        let file = open(client).await?;
        write(&file, 2, 0..3).await?;
        file.flush().await?;
        Ok(file)
    })?;
    world.pass_ms(chance.below(900))?;
    let flipped = world.worker_host(0).flip_bit(None, false, &chance);
    let flipped = flipped.map_err(|error| error.to_string())?;
    world.says(format!("a bit of {flipped:?} is another"));
    let flushed = world.ask(0, move |_| async move {
        write(&file, 3, 1..2).await?;
        file.close().await
    })?;
    world.says(format!("mount 1 writes: {:?}", flushed.as_ref().map(|_| ())));
    let Ok(found) = world.ask(1, |client| read_at(client, "/f", 100))? else {
        // It is known to be rotten.
        return Ok(());
    };
    match found.iter().find(|unit| !(1..=3).contains(*unit)) {
        None => Ok(()),
        Some(unit) => Err(format!("a unit is {}", name_of(*unit))),
    }
}
