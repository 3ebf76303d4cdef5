//! What workers hold, and who is told of it.

use std::collections::BTreeMap;

use curvine_actors::client::Client;
use curvine_protocol::ErrorKind;
use curvine_protocol::number::to_usize;

use super::{BLOCK, Plot, UNIT, at, make, read_at, rows, same, what_each_says, write};
use crate::checks::Violation;
use crate::files::{bytes, stamps};
use crate::network::name;
use crate::objects::MOUNT;
use crate::programs::BLOCK_BYTES;
use crate::store;
use crate::world::World;
use crate::world::director::Cast;

/// A replica is not deleted because a client says that another worker has a newer one.
pub const OLDER_REPLICA: Plot = Plot {
    name: "older-replica",
    cast: |chance| Cast {
        masters: *chance.one_of(&[1, 3]),
        workers: 2,
        ..Cast::default()
    },
    play: older_replica,
};

fn older_replica(world: &mut World) -> Result<(), Violation> {
    let chance = world.chance();
    let units = chance.within(40..100);
    world.does(0, "makes /f", move |client| make(client, "/f", 1, units, 2))?;
    let older = chance.below(2);
    let newer = world.worker_ids()[1 - to_usize(older)];
    world.says(format!("{} is killed", name(world.worker_ids()[to_usize(older)])));
    world.worker_host(older).kill();
    // Nobody sends a writer to it any more.
    world.pass_s(chance.within(13..25))?;
    let file = world.does(0, "opens /f to write", |client| async move {
        client.open_for_write(&at("/f"), false).await
    })?;
    let (network, masters) = (world.network(), world.master_ids());
    for master in &masters {
        network.hold(newer, *master);
    }
    // Nobody makes another replica of it.
    network.hold(newer, world.worker_ids()[to_usize(older)]);
    world.does(0, "appends", move |_| async move {
        write(&file, 2, units..units + 10).await?;
        file.close().await
    })?;
    world.says("the other worker is started");
    world.start_worker(older)?;
    world.pass_s(5)?;
    let blocks = world
        .worker_host(older)
        .block_files()
        .map_err(|error| error.to_string())?;
    if blocks != 1 {
        return Err(format!(
            "{} has {blocks} blocks: its replica is gone, and no worker has said that it has a newer one",
            name(world.worker_ids()[to_usize(older)])
        ));
    }
    network.let_go_at_once(newer);
    world.pass_s(20)?;
    let found = world.does(1, "reads /f", move |client| read_at(client, "/f", units + 10))?;
    same("what was written", &found, &rows(&[(1, units), (2, 10)]))
}

/// A block is written on without a worker that does not answer, and nobody is given what that worker has of it.
pub const LEFT_BEHIND: Plot = Plot {
    name: "left-behind",
    cast: |chance| Cast {
        masters: *chance.one_of(&[1, 1, 3]),
        mounts: 2,
        workers: 2,
        ..Cast::default()
    },
    play: left_behind,
};

fn left_behind(world: &mut World) -> Result<(), Violation> {
    let chance = world.chance();
    let workers = world.worker_ids();
    let units = chance.within(20..100);
    world.does(0, "makes /f", move |client| make(client, "/f", 1, units, 2))?;
    let file = world.does(0, "opens /f to write", |client| async move {
        client.open_for_write(&at("/f"), false).await
    })?;
    let writing = file.clone();
    world.does(0, "writes over it", move |_| async move {
        write(&writing, 2, 0..15).await?;
        writing.flush().await
    })?;
    let missed = *chance.one_of(&workers);
    world.says(format!("{} hears of mount 1 no more", name(missed)));
    world.hold(0, &[missed]);
    let (writing, syncs) = (file.clone(), chance.below(2) == 0);
    let (from, until) = *chance.one_of(&[(0, 10), (5, 20), (0, units + 10)]);
    world.does(0, "writes on", move |_| async move {
        write(&writing, 3, from..until).await?;
        match syncs {
            true => writing.sync().await,
            false => writing.flush().await,
        }
    })?;
    let size = units.max(until);
    let mut expected = rows(&[(2, 15), (1, units - 15)]);
    expected.resize(to_usize(size), 3);
    expected[to_usize(from)..to_usize(until)].fill(3);
    let seen = what_each_says(world, size)?;
    for (asked, found) in &seen {
        same(&format!("what {} says", name(*asked)), found, &expected)?;
    }
    if seen.is_empty() {
        return Err("nobody has the file".to_owned());
    }
    let id = world.mount(0).id;
    world.network().let_go_at_once(id);
    world.pass_s(chance.within(0..5))?;
    world.does(0, "closes /f", move |_| async move { file.close().await })?;
    let found = world.does(1, "reads /f", move |client| read_at(client, "/f", size))?;
    same("what was written", &found, &expected)?;
    // The one that was left behind gets another replica.
    world.pass_s(80)?;
    for asked in &workers {
        let others: Vec<_> = workers.iter().copied().filter(|other| other != asked).collect();
        world.hold(1, &others);
        let found = world.does(1, "reads /f from one worker", move |client| {
            read_at(client, "/f", size)
        })?;
        same(&format!("what {} has", name(*asked)), &found, &expected)?;
        let reader = world.mount(1).id;
        world.network().let_go_at_once(reader);
        world.pass_s(1)?;
    }
    Ok(())
}

/// A writer of a block whose worker is away waits for it. It is not sent to where the bytes are not.
pub const WORKER_AWAY: Plot = Plot {
    name: "worker-away",
    cast: |chance| Cast {
        masters: *chance.one_of(&[1, 3]),
        workers: 2,
        ..Cast::default()
    },
    play: worker_away,
};

fn worker_away(world: &mut World) -> Result<(), Violation> {
    let chance = world.chance();
    let units = chance.within(10..100);
    world.does(0, "makes /f", move |client| make(client, "/f", 1, units, 1))?;
    let layout = world.does(0, "looks where /f is", |client| async move {
        client.locate(&at("/f")).await
    })?;
    let worker = layout.blocks[0].workers.first().copied();
    let machine = world.machine_of(worker.ok_or("the block is nowhere")?);
    world.says(format!("{} is killed", name(machine)));
    world.worker_at(machine).kill();
    world.pass_s(chance.within(11..30))?;
    let appending = world.begin(1, move |client| async move {
        let file = client.open_for_write(&at("/f"), false).await?;
        write(&file, 2, units..units + 10).await?;
        file.close().await
    });
    world.pass_s(chance.within(1..15))?;
    world.restart_worker(machine)?;
    let appended = world.ended(&appending)?;
    appended.map_err(|error| format!("the worker was back in time, and mount 2 gets: {error}"))?;
    world.pass_s(chance.within(5..30))?;
    let found = world.does(1, "reads /f", move |client| read_at(client, "/f", units + 10))?;
    same("what was written", &found, &rows(&[(1, units), (2, 10)]))
}

/// Of an append that does not fit, what workers took is in the file, up to the first byte that they did not.
pub const FULL_WORKER: Plot = Plot {
    name: "full-worker",
    cast: |_| Cast {
        capacity_bytes: 400 << 10,
        ..Cast::default()
    },
    play: full_worker,
};

fn full_worker(world: &mut World) -> Result<(), Violation> {
    let chance = world.chance();
    let first = chance.within(1..BLOCK);
    world.does(0, "makes /f", move |client| make(client, "/f", 1, first, 1))?;
    let (network, id) = (world.network(), world.mount(0).id);
    let sent = network.sent();
    let outcome = world.ask(0, move |client| async move {
        let file = client.open_for_write(&at("/f"), false).await?;
        // More than there is room for.
        for piece in 0..14 {
            let from = first + piece * BLOCK / 2;
            if let Err(error) = write(&file, 2, from..from + BLOCK / 2).await {
                file.close().await?;
                return Err(error);
            }
        }
        file.close().await
    })?;
    match outcome {
        Err(error) if error.kind == ErrorKind::NoSpace => world.says(format!("mount 1 gets: {error}")),
        Err(error) => return Err(format!("a full worker is told as: {error}")),
        Ok(_) => return Err("more was taken than there is room for".to_owned()),
    }
    let layout = world.does(1, "looks at /f", |client| async move {
        client.locate(&at("/f")).await
    })?;
    let size = layout.attr.size_bytes;
    // The ids of its blocks are in a row: nobody else makes any.
    let block_of_start = layout.blocks[0].block.id.0;
    let mut taken: Vec<std::ops::Range<u64>> = network
        .taken_since(id, sent)
        .into_iter()
        .map(|(block, range)| {
            let start = (block.0 - block_of_start) * BLOCK_BYTES;
            start + range.start..start + range.end
        })
        .collect();
    taken.sort_by_key(|range| range.start);
    let mut whole = first * UNIT;
    for range in &taken {
        if range.start <= whole {
            whole = whole.max(range.end);
        }
    }
    if size < whole {
        return Err(format!(
            "workers took {whole} bytes in a row from the file's beginning, and it has {size}"
        ));
    }
    let units = size / UNIT;
    let found = world.does(1, "reads /f", move |client| read_at(client, "/f", units))?;
    let expected = rows(&[(1, first), (2, units - first)]);
    same("what was kept", &found, &expected)
}

/// After a power cut nothing is served of what a fill had fetched and the device has not: no reader meets a chunk that is
/// not what was fetched.
pub const FILL_AND_POWER_CUT: Plot = Plot {
    name: "fill-and-power-cut",
    cast: |_| Cast {
        objects: 1,
        ..Cast::default()
    },
    play: fill_and_power_cut,
};

fn fill_and_power_cut(world: &mut World) -> Result<(), Violation> {
    // More than is fetched as a whole for its first reader.
    const UNITS: u64 = (3 << 20) / UNIT;
    const STAMP: u64 = 7;
    let (chance, network) = (world.chance(), world.network());
    store::put("big", bytes(STAMP, 0..UNITS));
    let open = |client: Client| async move { client.open(&at(&format!("{MOUNT}/big"))).await };
    for _ in 0..4 {
        let (from, units) = (chance.below(UNITS - 1_000), chance.within(1..1_000));
        let read = world.begin(0, move |client| async move {
            open(client).await?.read_at(from * UNIT, units * UNIT).await
        });
        let found = world.ended(&read)?;
        found.map_err(|error| format!("an object cannot be read: {error}"))?;
        // By then the worker has noted, and synced, how far the fill has come.
        world.pass_s(chance.within(5..45))?;
        let lost = world.worker_host(0).lose_power();
        let lost = lost.map_err(|error| error.to_string())?;
        world.says(format!("worker 1 loses its power, and {lost} pages with it"));
        world.pass_ms(chance.within(300..3_000))?;
        world.start_worker(0)?;
        world.pass_s(2)?;
        let found = world.does(1, "reads the object", move |client| async move {
            open(client).await?.read_at(from * UNIT, units * UNIT).await
        })?;
        let found = stamps(from, units, &found);
        same("the object", &found, &vec![STAMP; found.len()])?;
        if network.rotten() > 0 {
            return Err("a reader met a chunk that is not what was fetched".to_owned());
        }
    }
    Ok(())
}

/// What a worker lost with its power is not what the file is, where another worker has it. Where all have lost their power,
/// it is one of what they have, whoever is asked.
pub const UNDONE_BY_POWER: Plot = Plot {
    name: "undone-by-power",
    cast: |chance| Cast {
        masters: *chance.one_of(&[1, 1, 3]),
        mounts: 2,
        workers: 2,
        ..Cast::default()
    },
    play: undone_by_power,
};

fn undone_by_power(world: &mut World) -> Result<(), Violation> {
    let chance = world.chance();
    let units = chance.within(20..300);
    let over = chance.within(1..units);
    world.does(0, "makes /f", move |client| make(client, "/f", 1, units, 2))?;
    // Until it is on the devices.
    world.pass_s(5)?;
    world.does(0, "writes over some of it", move |client| async move {
        let file = client.open_for_write(&at("/f"), false).await?;
        write(&file, 2, 0..over).await?;
        file.close().await
    })?;
    world.pass_ms(chance.within(10..900))?;
    let all = chance.percent(40);
    let first = u64::from(chance.percent(50));
    let struck = if all { vec![first, 1 - first] } else { vec![first] };
    for &number in &struck {
        let lost = world.worker_host(number).lose_power();
        let lost = lost.map_err(|error| error.to_string())?;
        world.says(format!(
            "worker {} loses its power, and {lost} pages with it",
            number + 1
        ));
    }
    for &number in &struck {
        world.pass_ms(chance.within(300..3_000))?;
        world.start_worker(number)?;
    }
    world.pass_s(chance.within(10..70))?;
    let seen = what_each_says(world, units)?;
    let Some((_, one)) = seen.first() else {
        return Err("nobody has the file".to_owned());
    };
    if !all {
        same("what was flushed", one, &rows(&[(2, over), (1, units - over)]))?;
    }
    match seen.iter().all(|(_, other)| other == one) {
        true => Ok(()),
        false => Err(format!("one worker says this, and another that: {seen:?}")),
    }
}

/// A write that no worker took leaves the file as it was.
pub const NOBODY_TOOK_IT: Plot = Plot {
    name: "nobody-took-it",
    cast: |chance| Cast {
        masters: *chance.one_of(&[1, 3]),
        ..Cast::default()
    },
    play: nobody_took_it,
};

fn nobody_took_it(world: &mut World) -> Result<(), Violation> {
    let chance = world.chance();
    let units = chance.within(10..100);
    world.does(0, "makes /f", move |client| make(client, "/f", 1, units, 1))?;
    let file = world.does(0, "opens /f to write", |client| async move {
        client.open_for_write(&at("/f"), false).await
    })?;
    world.says("worker 1 is killed");
    world.worker_host(0).kill();
    let closed = world.ask(0, move |_| async move {
        write(&file, 2, units..units + 10).await?;
        file.close().await
    })?;
    if closed.is_ok() {
        return Err("a write was taken, and no worker runs".to_owned());
    }
    world.start_worker(0)?;
    world.pass_s(chance.within(3..20))?;
    let found = world.does(1, "reads /f", move |client| read_at(client, "/f", units + 10))?;
    same("what was there before", &found, &rows(&[(1, units)]))
}

/// A reader sees no error where an object can be fetched again, whatever its worker has of it.
pub const ROTTEN_OBJECT: Plot = Plot {
    name: "rotten-object",
    cast: |_| Cast {
        objects: 1,
        ..Cast::default()
    },
    play: rotten_object,
};

fn rotten_object(world: &mut World) -> Result<(), Violation> {
    const UNITS: u64 = crate::objects::UNITS;
    let chance = world.chance();
    let reads = |client: Client| async move {
        let file = client.open(&at(&format!("{MOUNT}/o0"))).await?;
        file.read_at(0, UNITS * UNIT).await
    };
    let before = world.does(0, "reads the object", reads)?;
    world.pass_s(chance.within(2..30))?;
    let flipped = world
        .worker_host(0)
        .flip_bit(Some(&BTreeMap::new()), true, &chance);
    let flipped = flipped.map_err(|error| error.to_string())?;
    world.says(format!("a bit of {flipped:?} is another"));
    let after = world.does(1, "reads the object", reads)?;
    let (before, after) = (stamps(0, UNITS, &before), stamps(0, UNITS, &after));
    same("the object", &after, &before)
}

/// A worker that is full of what can be fetched again takes what is written, and nothing that was written goes for it.
pub const FULL_OF_CACHED: Plot = Plot {
    name: "full-of-cached",
    cast: |_| Cast {
        objects: 3,
        capacity_bytes: 560 << 10,
        ..Cast::default()
    },
    play: full_of_cached,
};

fn full_of_cached(world: &mut World) -> Result<(), Violation> {
    const UNITS: u64 = crate::objects::UNITS;
    let chance = world.chance();
    let (first, more) = (chance.within(20..100), chance.within(20..100));
    world.does(0, "makes /f", move |client| make(client, "/f", 1, first, 1))?;
    for _ in 0..chance.within(4..10) {
        let object = chance.below(3);
        let read = world.begin(1, move |client| async move {
            let file = client.open(&at(&format!("{MOUNT}/o{object}"))).await?;
            file.read_at(0, UNITS * UNIT).await
        });
        let content = world.ended(&read)?;
        let content = content.map_err(|error| format!("an object cannot be read: {error}"))?;
        if content.len() as u64 != UNITS * UNIT {
            return Err(format!("an object has {} bytes", content.len()));
        }
        world.pass_ms(chance.within(1..3_000))?;
    }
    let appending = world.begin(0, move |client| async move {
        let file = client.open_for_write(&at("/f"), false).await?;
        write(&file, 2, first..first + more).await?;
        file.close().await
    });
    let appended = world.ended(&appending)?;
    appended
        .map_err(|error| format!("most of the worker can be fetched again, and mount 1 gets: {error}"))?;
    world.pass_ms(chance.within(1..3_000))?;
    let found = world.does(1, "reads /f", move |client| read_at(client, "/f", first + more))?;
    same("what was written", &found, &rows(&[(1, first), (2, more)]))
}
