//! Replicas beyond those that a file wants: hot blocks get some, and of too many, never all go.

use curvine_actors::client::Client;
use curvine_protocol::cluster::WorkerService;
use curvine_protocol::{Result, WorkerId};

use super::{BLOCK, Plot, at, make, read_at, rows, same, what_each_says, write};
use crate::checks::Violation;
use crate::network::name;
use crate::world::World;
use crate::world::director::Cast;

/// What a leader takes to find what there is to do, with time to spare.
const LOOKS_S: u64 = 12;
const WITHIN_S: u64 = 100;

async fn holders(client: Client) -> Result<Vec<WorkerId>> {
    Ok(client.locate(&at("/f")).await?.blocks[0].workers.clone())
}

fn serves(world: &mut World, worker: WorkerId, service: WorkerService) -> std::result::Result<(), Violation> {
    world.does(
        0,
        &format!("says that worker {worker} is {service:?}"),
        move |client| async move { client.set_worker_service(worker, service).await },
    )
}

/// Waits until these have `/f`, in whatever order.
fn until_at(world: &mut World, expected: &[WorkerId]) -> std::result::Result<(), Violation> {
    let mut found = Vec::new();
    for _ in 0..WITHIN_S {
        found = world.does(0, "looks where /f is", holders)?;
        found.sort_unstable();
        if found == expected {
            return Ok(());
        }
        world.pass_s(1)?;
    }
    Err(format!("/f is at {found:?}, and should be at {expected:?}"))
}

/// Two workers have `/f`, and one is to: the second, which is the fuller one, is told to shed it as soon as the first is in
/// service again.
struct TwoHave {
    units: u64,
    first: WorkerId,
    second: WorkerId,
}

fn two_have_it(world: &mut World) -> std::result::Result<TwoHave, Violation> {
    // More than goes into an index.
    let units = world.chance().within(40..BLOCK);
    world.does(0, "makes /f", move |client| make(client, "/f", 1, units, 1))?;
    let first = world.does(0, "looks where /f is", holders)?[0];
    let second = WorkerId(3 - first.0);
    serves(world, first, WorkerService::Draining)?;
    for _ in 0..WITHIN_S {
        let status = world.does(0, "looks", |client| async move { client.status().await })?;
        let drained = (status.workers.iter()).any(|worker| worker.service == WorkerService::Drained);
        if drained {
            world.does(0, "makes /g", |client| make(client, "/g", 2, 2 * BLOCK, 1))?;
            world.pass_s(2)?;
            return Ok(TwoHave { units, first, second });
        }
        world.pass_s(1)?;
    }
    Err(format!("worker {first} is not drained"))
}

/// From now on the first worker is the fuller one.
fn the_first_fills(world: &mut World, second: WorkerId) -> std::result::Result<(), Violation> {
    world.does(0, "removes /g", |client| async move {
        client.delete(&at("/g"), false).await
    })?;
    serves(world, second, WorkerService::Maintenance { until_ns: i64::MAX })?;
    world.does(0, "makes /i", |client| make(client, "/i", 3, 2 * BLOCK, 1))?;
    world.pass_s(2)?;
    serves(world, second, WorkerService::InService)
}

fn it_is_there(world: &mut World, units: u64) -> std::result::Result<(), Violation> {
    let found = world.does(1, "reads /f", move |client| read_at(client, "/f", units))?;
    same("what was synced", &found, &rows(&[(1, units)]))
}

/// A worker that is told late to shed a replica keeps it, because it has the last one by then.
pub const SHED_LATE: Plot = Plot {
    name: "shed-late",
    cast: |_| Cast {
        workers: 2,
        ..Cast::default()
    },
    play: shed_late,
};

fn shed_late(world: &mut World) -> std::result::Result<(), Violation> {
    let chance = world.chance();
    let TwoHave { units, first, second } = two_have_it(world)?;
    let (network, master) = (world.network(), world.master_ids()[0]);
    the_second_hears_nothing(world, first, second)?;
    the_first_fills(world, second)?;
    until_at(world, &[second])?;
    world.pass_ms(chance.within(1..3_000))?;
    world.says("what the master told the second worker comes");
    network.let_go_at_once(master);
    world.pass_s(chance.within(1..5))?;
    it_is_there(world, units)
}

/// What the master tells the second worker is on its way for long: to shed `/f`, too.
fn the_second_hears_nothing(
    world: &mut World,
    first: WorkerId,
    second: WorkerId,
) -> std::result::Result<(), Violation> {
    let (network, master) = (world.network(), world.master_ids()[0]);
    network.hold(master, world.machine_of(second));
    serves(world, first, WorkerService::InService)?;
    world.pass_s(LOOKS_S)?;
    world.says("what the master tells the second worker is on its way for long");
    network.let_others_pass(master);
    Ok(())
}

/// Of two workers that are to shed the same block at the same time, each for the other's sake, one keeps it.
pub const SHED_BY_TWO: Plot = Plot {
    name: "shed-by-two",
    cast: |_| Cast {
        workers: 2,
        ..Cast::default()
    },
    play: shed_by_two,
};

fn shed_by_two(world: &mut World) -> std::result::Result<(), Violation> {
    let chance = world.chance();
    let TwoHave { units, first, second } = two_have_it(world)?;
    let (network, master) = (world.network(), world.master_ids()[0]);
    the_second_hears_nothing(world, first, second)?;
    let says = world.machine_of(second);
    network.hold(says, world.machine_of(first));
    the_first_fills(world, second)?;
    for _ in 0..10_000 {
        if network.kept_of(says) > 0 {
            break;
        }
        world.pass_ms(10)?;
    }
    world.says("what the second worker confirms to the first is on its way");
    network.let_others_pass(says);
    world.pass_ms(chance.within(1..500))?;
    world.says("what the master told the second worker comes");
    network.let_go_at_once(master);
    world.pass_ms(chance.within(100..1_000))?;
    world.says("what the second worker confirmed comes");
    network.let_go_at_once(says);
    world.pass_s(chance.within(1..5))?;
    it_is_there(world, units)?;
    world.pass_s(LOOKS_S)?;
    it_is_there(world, units)
}

/// After a worker was away for long, there are as many replicas as the file wants, and no more.
pub const BACK_AFTER_REPAIR: Plot = Plot {
    name: "back-after-repair",
    cast: |chance| Cast {
        masters: *chance.one_of(&[1, 3]),
        workers: 3,
        ..Cast::default()
    },
    play: back_after_repair,
};

fn back_after_repair(world: &mut World) -> std::result::Result<(), Violation> {
    let chance = world.chance();
    let units = chance.within(40..BLOCK);
    world.does(0, "makes /f", move |client| make(client, "/f", 1, units, 2))?;
    let away = *chance.one_of(&world.does(0, "looks where /f is", holders)?);
    let machine = world.machine_of(away);
    world.says(format!("{} is killed", name(machine)));
    world.worker_at(machine).kill();
    let others: Vec<WorkerId> = (1..=3).map(WorkerId).filter(|id| *id != away).collect();
    until_at(world, &others)?;
    world.restart_worker(machine)?;
    if chance.percent(40) {
        // While some are told, perhaps.
        world.pass_ms(chance.within(10..6_000))?;
        let another = world.machine_of(*chance.one_of(&others));
        world.says(format!("{} is killed for a moment", name(another)));
        world.worker_at(another).kill();
        world.pass_ms(chance.within(10..8_000))?;
        world.restart_worker(another)?;
    }
    for _ in 0..WITHIN_S {
        world.pass_s(1)?;
        it_is_there(world, units)?;
        let mut blocks = 0;
        for number in 0..3 {
            let files = world.worker_host(number).block_files();
            blocks += files.map_err(|error| error.to_string())?;
        }
        if blocks == 2 {
            return it_is_there(world, units);
        }
    }
    Err("there are not two replicas".to_owned())
}

/// A reader reads so often, for a block to become hot and be copied.
const PASSES: u64 = 40;

/// A hot block is on another worker as well, and whatever is written meanwhile, nobody says something older.
pub const HOT_AND_WRITTEN: Plot = Plot {
    name: "hot-and-written",
    cast: |chance| Cast {
        masters: *chance.one_of(&[1, 3]),
        workers: 2,
        ..Cast::default()
    },
    play: hot_and_written,
};

fn hot_and_written(world: &mut World) -> std::result::Result<(), Violation> {
    let chance = world.chance();
    // More than goes into an index.
    let units = chance.within(40..BLOCK + 1);
    let (written_at, from) = (chance.within(7..PASSES / 2), chance.below(units));
    world.does(0, "makes /f", move |client| make(client, "/f", 1, units, 1))?;
    let mut expected = rows(&[(1, units)]);
    for pass in 0..PASSES {
        let found = world.does(1, "reads /f", move |client| read_at(client, "/f", units))?;
        same("/f", &found, &expected)?;
        world.pass_ms(chance.within(1_000..1_500))?;
        if pass == written_at {
            world.does(0, "writes the rest of /f", move |client| async move {
                let file = client.open_for_write(&at("/f"), false).await?;
                write(&file, 2, from..units).await?;
                file.sync().await?;
                file.close().await.map(|_| ())
            })?;
            expected = rows(&[(1, from), (2, units - from)]);
        }
        if pass > written_at && world.does(0, "looks where /f is", holders)?.len() == 2 {
            break;
        }
    }
    let holders = world.does(0, "looks where /f is", holders)?;
    let [first, _] = holders[..] else {
        return Err("what is read again and again is on one worker".to_owned());
    };
    for (worker, found) in what_each_says(world, units)? {
        same(&format!("what {} says", name(worker)), &found, &expected)?;
    }
    let machine = world.machine_of(first);
    world.says(format!("{} is killed", name(machine)));
    world.worker_at(machine).kill();
    let found = world.does(1, "reads /f", move |client| read_at(client, "/f", units))?;
    same("/f of the other", &found, &expected)
}
