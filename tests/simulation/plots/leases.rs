//! Who writes a file.

use std::time::Duration;

use curvine_actors::client::{Client, OpenFile};
use curvine_protocol::master::Lock;
use curvine_protocol::number::to_usize;
use curvine_protocol::{ErrorKind, NodeId, Result};

use super::{BLOCK, Plot, UNIT, at, content, make, read, read_at, rows, same, what_each_says, write};
use crate::checks::Violation;
use crate::network::name;
use crate::world::World;
use crate::world::director::Cast;

/// Mounts that live write one file in turn, and nothing of any is lost: each append is behind what was written before.
pub const TURNS: Plot = Plot {
    name: "writers-in-turn",
    cast: |chance| Cast {
        masters: *chance.one_of(&[1, 3]),
        mounts: 3,
        workers: chance.within(1..3),
        ..Cast::default()
    },
    play: turns,
};

fn turns(world: &mut World) -> std::result::Result<(), Violation> {
    let chance = world.chance();
    world.does(0, "makes /f", |client| make(client, "/f", 1, 5, 1))?;
    let appending: Vec<_> = (0..3)
        .map(|mount| {
            let chance = chance.fork();
            world.begin(mount, move |client| async move {
                let file = client.open(&at("/f")).await?;
                for turn in 0..6 {
                    let stamp = 100 * (mount + 1) + turn;
                    // What it is an append to is not known before: the pattern of unit 0 says whose it is.
                    file.append(content(stamp, 0..1)).await?;
                    if chance.percent(30) {
                        file.flush().await?;
                    }
                    rest(chance.below(700)).await;
                }
                file.close().await
            })
        })
        .collect();
    for (appending, mount) in appending.iter().zip(1..) {
        let ended = world.ended(appending)?;
        ended.map_err(|error| format!("mount {mount} was healthy, and gets {error}"))?;
    }
    let found = world.does(2, "reads /f", |client| async move {
        let file = client.open(&at("/f")).await?;
        file.read_at(5 * UNIT, 40 * UNIT).await
    })?;
    let mut stamps: Vec<u64> = found
        .chunks(to_usize(UNIT))
        .map(|unit| crate::files::stamps(0, 1, unit)[0])
        .collect();
    for mount in 1..4 {
        let of_mount: Vec<u64> = stamps
            .iter()
            .copied()
            .filter(|stamp| stamp / 100 == mount)
            .collect();
        let expected: Vec<u64> = (0..6).map(|turn| 100 * mount + turn).collect();
        if of_mount != expected {
            return Err(format!("of the appends of mount {mount} there are {of_mount:?}"));
        }
    }
    stamps.retain(|stamp| *stamp < 100 || *stamp >= 400);
    match stamps.is_empty() {
        true => Ok(()),
        false => Err(format!("nobody appended {stamps:?}")),
    }
}

/// A writer is stopped, killed or cut off while bytes of it are on their way, and another one gets the file. What comes
/// late of the first is in no file.
pub const OVERTAKEN: Plot = Plot {
    name: "overtaken-writer",
    cast: |chance| Cast {
        masters: *chance.one_of(&[1, 1, 3]),
        mounts: 3,
        workers: chance.within(1..3),
        ..Cast::default()
    },
    play: overtaken,
};

/// Has mount 1 write into the second of three blocks, and the bytes be kept on their way. Returns which units.
fn writes_what_is_kept(
    world: &mut World,
    workers: &[NodeId],
) -> std::result::Result<(std::ops::Range<u64>, OpenFile), Violation> {
    let chance = world.chance();
    world.does(0, "makes /f", |client| make(client, "/f", 1, 3 * BLOCK, 1))?;
    let file = world.does(0, "opens /f to write", |client| async move {
        client.open_for_write(&at("/f"), false).await
    })?;
    let from = BLOCK + chance.below(BLOCK - 20);
    let units = from..from + chance.within(1..20);
    world.hold(0, workers);
    let (writing, range) = (file.clone(), units.clone());
    world.begin(0, move |_| async move {
        write(&writing, 2, range).await?;
        writing.flush().await
    });
    let machine = world.mount(0).id;
    let deadline_ms = 20_000;
    for _ in 0..deadline_ms / 10 {
        world.pass_ms(10)?;
        if world.network().kept_of(machine) > 0 {
            return Ok((units, file));
        }
    }
    Err("nothing was sent".to_owned())
}

/// Has another mount get the file, read it and write its first units.
fn takes_over(world: &mut World) -> std::result::Result<(), Violation> {
    let reads = world.does(
        1,
        "gets the file, reads it and writes some of it",
        |client| async move {
            let file = gets(&client, "/f").await?;
            let seen = read(&file, 3 * BLOCK).await?;
            write(&file, 3, 0..10).await?;
            file.close().await?;
            Ok(seen)
        },
    )?;
    same("what the next writer reads", &reads, &rows(&[(1, 3 * BLOCK)]))
}

/// The lease of a file, however often that must be asked for.
async fn gets(client: &Client, path: &str) -> Result<OpenFile> {
    for _ in 0..10 {
        match client.open_for_write(&at(path), false).await {
            Err(error) if matches!(error.kind, ErrorKind::LeaseConflict | ErrorKind::BlockUnavailable) => {}
            opened => return opened,
        }
        rest(500).await;
    }
    client.open_for_write(&at(path), false).await
}

async fn rest(time_ms: u64) {
    tokio::time::sleep(Duration::from_millis(time_ms)).await;
}

fn overtaken(world: &mut World) -> std::result::Result<(), Violation> {
    let chance = world.chance();
    let workers = world.worker_ids();
    let (_, file) = writes_what_is_kept(world, &workers)?;
    let id = world.mount(0).id;
    let how = *chance.one_of(&["stopped", "killed", "cut off"]);
    world.says(format!("{} is {how}", name(id)));
    match how {
        "stopped" => world.mount(0).machine.stop(),
        "killed" => {
            drop(file);
            world.mount(0).kill();
        }
        _ => {
            let masters = world.master_ids();
            world.hold(0, &masters);
        }
    }
    world.pass_s(chance.within(5..25))?;
    takes_over(world)?;
    world.says("what was kept comes");
    world.network().let_go_at_once(id);
    world.mount(0).machine.go_on();
    world.pass_ms(chance.within(50..5_000))?;
    all_is_well(world)?;
    world.pass_s(20)?;
    all_is_well(world)
}

fn all_is_well(world: &mut World) -> std::result::Result<(), Violation> {
    let expected = rows(&[(3, 10), (1, 3 * BLOCK - 10)]);
    let found = world.does(2, "reads /f", |client| read_at(client, "/f", 3 * BLOCK))?;
    same("what was written by whoever had the lease", &found, &expected)
}

/// A writer reaches one of two workers, and goes without a word. From then on the file is one thing, whichever worker is
/// asked, also if nobody writes it again.
pub const HALF_WRITTEN: Plot = Plot {
    name: "half-written",
    cast: |chance| Cast {
        masters: *chance.one_of(&[1, 1, 3]),
        mounts: 2,
        workers: 2,
        ..Cast::default()
    },
    play: half_written,
};

fn half_written(world: &mut World) -> std::result::Result<(), Violation> {
    let chance = world.chance();
    let workers = world.worker_ids();
    let units = chance.within(20..100);
    world.does(0, "makes /f", move |client| make(client, "/f", 1, units, 2))?;
    let file = world.does(0, "opens /f to write", |client| async move {
        client.open_for_write(&at("/f"), false).await
    })?;
    let missed = *chance.one_of(&workers);
    world.hold(0, &[missed]);
    let writing = file.clone();
    world.begin(0, move |_| async move {
        write(&writing, 2, 0..10).await?;
        writing.flush().await
    });
    world.pass_ms(chance.within(100..3_000))?;
    let id = world.mount(0).id;
    world.says(format!("{} is killed", name(id)));
    drop(file);
    world.mount(0).kill();
    // Its session ends.
    world.pass_s(chance.within(70..90))?;
    world.network().let_go_at_once(id);
    world.pass_s(5)?;
    let seen = what_each_says(world, units)?;
    match &seen[..] {
        [] => Err("nobody has the file".to_owned()),
        [(_, one)] if units == one.len() as u64 => Ok(()),
        [(_, one), (_, other)] if one == other => Ok(()),
        _ => Err(format!("one worker says this, and another that: {seen:?}")),
    }
}

/// A writer is overtaken beside a worker that the masters do not reach: it refuses by itself.
pub const OVERTAKEN_BESIDE_ITS_WORKER: Plot = Plot {
    name: "overtaken-beside-its-worker",
    cast: |chance| Cast {
        masters: *chance.one_of(&[1, 3]),
        mounts: 3,
        workers: 2,
        ..Cast::default()
    },
    play: overtaken_beside_its_worker,
};

fn overtaken_beside_its_worker(world: &mut World) -> std::result::Result<(), Violation> {
    let chance = world.chance();
    let workers = world.worker_ids();
    let (_, _file) = writes_what_is_kept(world, &workers)?;
    let layout = world.does(1, "looks where /f is", |client| async move {
        client.locate(&at("/f")).await
    })?;
    let held = layout.blocks[1].workers.first().copied();
    let worker = world.machine_of(held.ok_or("the block is nowhere")?);
    let id = world.mount(0).id;
    world.says(format!(
        "{} is stopped; {} and masters do not reach each other",
        name(id),
        name(worker)
    ));
    world.mount(0).machine.stop();
    let (network, masters) = (world.network(), world.master_ids());
    for master in &masters {
        network.cut_both(worker, *master);
    }
    world.pass_s(chance.within(12..30))?;
    world.does(1, "gets the file and appends", |client| async move {
        let file = gets(&client, "/f").await?;
        write(&file, 3, 3 * BLOCK..3 * BLOCK + 10).await?;
        file.close().await
    })?;
    world.says("what was kept comes");
    network.let_go_at_once(id);
    world.pass_ms(chance.within(50..5_000))?;
    network.mend();
    world.pass_s(20)?;
    let expected = rows(&[(1, 3 * BLOCK), (3, 10)]);
    let found = world.does(2, "reads /f", |client| read_at(client, "/f", 3 * BLOCK + 10))?;
    same("what was written by whoever had the lease", &found, &expected)
}

/// A counter in a file, under a lock: no step of any mount is missed.
pub const COUNTER: Plot = Plot {
    name: "locked-counter",
    cast: |chance| Cast {
        masters: *chance.one_of(&[1, 3]),
        mounts: 3,
        ..Cast::default()
    },
    play: counter,
};

fn counter(world: &mut World) -> std::result::Result<(), Violation> {
    const STEPS: u64 = 5;
    let chance = world.chance();
    world.does(0, "makes /f", |client| make(client, "/f", 1, 1, 1))?;
    let counting: Vec<_> = (0..3)
        .map(|mount| {
            let chance = chance.fork();
            world.begin(mount, move |client| async move {
                for _ in 0..STEPS {
                    step(&client, &chance).await?;
                    rest(chance.below(300)).await;
                }
                Ok(())
            })
        })
        .collect();
    for (counting, mount) in counting.iter().zip(1..) {
        let ended: Result<()> = world.ended(counting)?;
        ended.map_err(|error| format!("mount {mount} was healthy, and gets {error}"))?;
    }
    let found = world.does(0, "reads /f", |client| read_at(client, "/f", 1))?;
    same("the counter", &found, &[1 + 3 * STEPS])
}

async fn step(client: &Client, chance: &crate::chance::Chance) -> Result<()> {
    let inode = client.stat(&at("/f")).await?.inode;
    let lock = Lock {
        owner: 1,
        pid: 1,
        exclusive: true,
        start: 0,
        end: u64::MAX,
    };
    loop {
        match client.lock(inode, lock).await {
            Err(error) if error.kind == ErrorKind::Locked => client.await_lock(inode, lock).await?,
            locked => break locked?,
        }
    }
    let file = client.open_for_write(&at("/f"), false).await?;
    let counted = read(&file, 1).await?[0];
    rest(chance.below(50)).await;
    write(&file, counted + 1, 0..1).await?;
    file.close().await?;
    client.unlock(inode, 1, (0, u64::MAX)).await
}

/// The answer that gives a lease is lost; by the time of the next try another writer has had the file. Whoever asked first
/// writes behind what that one wrote.
pub const LATE_LEASE: Plot = Plot {
    name: "late-lease",
    cast: |chance| Cast {
        masters: *chance.one_of(&[1, 3]),
        mounts: 3,
        ..Cast::default()
    },
    play: late_lease,
};

fn late_lease(world: &mut World) -> std::result::Result<(), Violation> {
    let chance = world.chance();
    world.does(2, "makes /f", |client| make(client, "/f", 1, 10, 1))?;
    // With a lease on another file it hears at once who wants what it has.
    let _held = world.does(0, "writes /g", |client| async move {
        make(client.clone(), "/g", 1, 1, 1).await?;
        let file = client.open_for_write(&at("/g"), false).await?;
        write(&file, 2, 0..1).await?;
        Ok(file)
    })?;
    let (network, masters, id) = (world.network(), world.master_ids(), world.mount(0).id);
    let opening = world.begin(0, |client| async move {
        let file = client.open_for_write(&at("/f"), false).await?;
        let seen = read(&file, 100).await?;
        file.append(content(3, 0..1)).await?;
        file.close().await?;
        Ok((file, seen))
    });
    for master in &masters {
        network.hold(*master, id);
    }
    while network.kept_to(id) == 0 {
        world.pass_ms(2)?;
    }
    world.says("what masters said to mount 1 is lost");
    network.let_others_pass(id);
    world.pass_ms(chance.below(500))?;
    let writing = world.begin(1, |client| async move {
        let file = gets(&client, "/f").await?;
        file.append(content(2, 0..1)).await?;
        file.close().await
    });
    let written = world.ended(&writing)?;
    written.map_err(|error| format!("mount 2 was healthy, and gets {error}"))?;
    let opened: Result<(OpenFile, Vec<u64>)> = world.ended(&opening)?;
    let (_file, seen) = opened.map_err(|error| format!("mount 1 gets {error}"))?;
    if seen.len() < 10 || seen[..10] != rows(&[(1, 10)]) {
        return Err(format!("mount 1 reads {seen:?}"));
    }
    let found = world.does(2, "reads /f", |client| async move {
        let file = client.open(&at("/f")).await?;
        file.read_at(10 * UNIT, 10 * UNIT).await
    })?;
    // Appends are of unit 0's pattern, wherever they are.
    let mut appended: Vec<u64> = found
        .chunks(to_usize(UNIT))
        .map(|unit| crate::files::stamps(0, 1, unit)[0])
        .collect();
    appended.sort_unstable();
    match appended == [2, 3] {
        true => Ok(()),
        false => Err(format!("of two appends there are {appended:?}")),
    }
}

/// A truncation is made, and all its answers are lost. Whoever wanted it gives the lease back, and the file stays cut.
pub const UNANSWERED_CUT: Plot = Plot {
    name: "unanswered-cut",
    cast: |chance| Cast {
        masters: *chance.one_of(&[1, 3]),
        ..Cast::default()
    },
    play: unanswered_cut,
};

fn unanswered_cut(world: &mut World) -> std::result::Result<(), Violation> {
    let chance = world.chance();
    let (long, short) = (2 * BLOCK, chance.within(1..2 * BLOCK - 1));
    world.does(0, "makes /f", |client| make(client, "/f", 1, long, 1))?;
    let file = world.does(0, "opens /f to write", |client| async move {
        client.open_for_write(&at("/f"), false).await
    })?;
    let (network, masters, id) = (world.network(), world.master_ids(), world.mount(0).id);
    let cut = file.clone();
    let cutting = world.begin(0, move |_| async move { cut.truncate(short * UNIT).await });
    for master in &masters {
        network.hold(*master, id);
    }
    let cut = world.ended(&cutting)?;
    world.says("what masters said to mount 1 is lost");
    network.let_others_pass(id);
    if cut.is_ok() {
        return Err("mount 1 heard of what nobody told it".to_owned());
    }
    let closed = world.ask(0, move |_| async move { file.close().await })?;
    if closed.is_ok() {
        return Err("mount 1 cannot know how long the file is, and closes it without an error".to_owned());
    }
    for mount in 0..2 {
        let found = world.does(mount, "reads /f", |client| read_at(client, "/f", long))?;
        same("what is left", &found, &rows(&[(1, short)]))?;
    }
    Ok(())
}

/// A writer is cut off from the masters for some seconds, just when another one wants its file: it gives the file back, and
/// nothing is lost.
pub const BRIEFLY_AWAY: Plot = Plot {
    name: "briefly-away",
    cast: |chance| Cast {
        masters: *chance.one_of(&[1, 3]),
        ..Cast::default()
    },
    play: briefly_away,
};

fn briefly_away(world: &mut World) -> std::result::Result<(), Violation> {
    let chance = world.chance();
    world.does(0, "makes /f", |client| make(client, "/f", 1, 3, 1))?;
    let file = world.does(0, "writes some of /f", |client| async move {
        let file = client.open_for_write(&at("/f"), false).await?;
        write(&file, 2, 0..1).await?;
        Ok(file)
    })?;
    // Its renewals are due somewhere in there.
    world.pass_ms(chance.below(20_000))?;
    let (masters, id) = (world.master_ids(), world.mount(0).id);
    world.hold(0, &masters);
    world.pass_ms(chance.below(500))?;
    let wanting = world.begin(1, |client| async move {
        let file = gets(&client, "/f").await?;
        let seen = read(&file, 10).await?;
        file.close().await?;
        Ok(seen)
    });
    world.pass_ms(chance.within(5_000..5_500))?;
    world.network().let_go_at_once(id);
    let wanted: Result<Vec<u64>> = world.ended(&wanting)?;
    let seen = wanted.map_err(|error| format!("mount 2 was healthy, and gets {error}"))?;
    let closed = world.ask(0, move |_| async move { file.close().await })?;
    closed.map_err(|error| format!("mount 1 was away for six seconds, and gets {error}"))?;
    same("what the next writer reads", &seen, &rows(&[(2, 1), (1, 2)]))
}
