//! Scenes: what masters say to each other in an election, a failover, a return from the dead, for whoever wants to read
//! it. `transcripts/*.txt` is what was said; a change of it is to be looked at, and taken with `UPDATE_RENDERED=1`.

use std::path::Path;
#[cfg(not(feature = "exam"))]
use std::path::PathBuf;

use curvine_protocol::NodeId;

use crate::checks::Violation;
use crate::world::World;

/// The environment variable that has a child play one.
pub const PLAY: &str = "CURVINE_SCENE";

pub struct Scene {
    pub name: &'static str,
    play: fn(&mut World) -> Result<(), Violation>,
}

pub const ALL: [Scene; 3] = [
    Scene {
        name: "election",
        play: election,
    },
    Scene {
        name: "failover",
        play: failover,
    },
    Scene {
        name: "rejoin",
        play: rejoin,
    },
];

pub fn named(name: &str) -> Option<&'static Scene> {
    ALL.iter().find(|scene| scene.name == name)
}

impl Scene {
    #[cfg(not(feature = "exam"))]
    pub fn transcript(&self) -> PathBuf {
        let scenes = Path::new(env!("CARGO_MANIFEST_DIR")).join("simulation/transcripts");
        scenes.join(format!("{}.txt", self.name))
    }

    pub fn run(&self, scratch: &Path) -> Result<(), Violation> {
        let mut world = World::of_three(scratch)?;
        (self.play)(&mut world)
    }
}

/// Three masters that have nothing make a group and elect a leader, which takes a change.
fn election(world: &mut World) -> Result<(), Violation> {
    world.tells_messages(true);
    world.pass_ms(60)?;
    world.leader_is_there()?;
    world.make_one()?;
    world.pass_ms(20)
}

/// The leader is killed; another is elected and has what was acknowledged; the first comes back and follows.
fn failover(world: &mut World) -> Result<(), Violation> {
    world.leader_is_there()?;
    world.make_one()?;
    world.pass_ms(300)?;
    world.tells_messages(true);
    let leader = world.kill_leader()?;
    world.leader_is_there()?;
    world.make_one()?;
    world.start(leader)?;
    world.pass_ms(150)
}

/// A follower loses its disk. It takes nothing from anybody before both others have said what they voted. The log has been
/// dropped behind a snapshot meanwhile: it gets that, and votes only then.
fn rejoin(world: &mut World) -> Result<(), Violation> {
    world.leader_is_there()?;
    for _ in 0..12 {
        world.make_one()?;
    }
    let lost: NodeId = world.wipe_follower()?;
    world.pass_ms(300)?;
    world.start(lost)?;
    // It asks, and waits until who can have been elected with its lost vote has been.
    world.pass_ms(1_150)?;
    world.tells_messages(true);
    world.votes_again(lost)
}
