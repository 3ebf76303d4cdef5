//! What each trouble of a cluster does, and what was planned to follow it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use curvine_protocol::NodeId;
use curvine_protocol::master::SetBalance;

use crate::checks::Violation;
use crate::faults::bad_weather;
use crate::files::{SEALED_AFTER, SYNCED_AFTER};
use crate::known::{Known, is_known};
use crate::network::{WORKERS, Weather, name};
use crate::store;
use crate::troubles::{Trouble, worker_is_away_ms};

use super::agenda::Act;
use super::cluster::Cluster;
use super::{World, text};

/// Away for longer, and another mount may get the files that a mount writes: it is heard of every 5 s, tries again 3.5 s
/// after a message that was lost, and is silent for too long after 15 s by the leader's clock.
const NOT_FELT: Duration = Duration::from_secs(6);
/// Back for less, and it may not have been heard of in between.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

impl World {
    pub(super) fn any_trouble(&mut self) -> Result<(), Violation> {
        let Some(cluster) = &self.cluster else {
            return Ok(());
        };
        let trouble = *self.chance.one_of(&cluster.plan.troubles);
        let (workers, mounts) = (cluster.workers.ids(), cluster.mounts.ids());
        let (_, users) = mounts
            .split_last()
            .expect("there is the one that reads in the end");
        // What happens to a mount that has nothing to lose says nothing.
        let files = cluster.mounts.shared.files.borrow();
        let dirty: Vec<NodeId> = users.iter().copied().filter(|id| files.is_dirty(*id)).collect();
        drop(files);
        let worker = *self.chance.one_of(&workers);
        let mount = *self.chance.one_of(if dirty.is_empty() { users } else { &dirty });
        let away = cluster.mounts.is_anyone_away();
        if away
            && matches!(
                trouble,
                Trouble::StopMount | Trouble::HoldMount | Trouble::KillMount
            )
        {
            // Somebody must be left to overtake it.
            return Ok(());
        }
        self.faults += 1;
        match trouble {
            Trouble::Masters => {
                if !self.plan.faults.is_empty() {
                    self.any_fault()?;
                }
            }
            Trouble::StopMaster => {
                if let Some(id) = self.masters.somebody() {
                    self.tell(format!("master {id} is stopped for long"));
                    self.masters.host_mut(id).machine.stop();
                    self.after(65_000..80_000, Act::GoOn(id));
                }
            }
            Trouble::StepMasterClock => {
                if let Some(id) = self.masters.somebody() {
                    let by_s = self.steps();
                    self.tell(format!("the clock of master {id} is set {by_s} s on"));
                    let host = self.masters.host_mut(id);
                    host.machine.step_clock(by_s * 1_000_000_000);
                }
            }
            Trouble::StepMountClock => {
                let by_s = self.steps();
                self.tell(format!("the clock of {} is set {by_s} s on", name(mount)));
                let cluster = self.cluster.as_mut().expect("it is one");
                if let Some(host) = cluster.mounts.get_mut(mount) {
                    host.machine.step_clock(by_s * 1_000_000_000);
                }
            }
            Trouble::KillWorker => {
                self.tell(format!("{} is killed", name(worker)));
                self.with_worker(worker, |host| host.kill());
                let most_ms = worker_is_away_ms(&self.chance, &[2_000, 15_000, 50_000]);
                self.after(300..most_ms, Act::Start(worker));
            }
            Trouble::PowerCut => self.cut_power_of(worker)?,
            Trouble::StopWorker => {
                self.tell(format!("{} is stopped", name(worker)));
                self.with_worker(worker, |host| host.machine.stop());
                let most_ms = worker_is_away_ms(&self.chance, &[5_000, 20_000, 90_000]);
                self.after(1_000..most_ms, Act::GoOn(worker));
            }
            Trouble::HoldWorker => self.hold_back(worker, &mounts),
            Trouble::KillMount => {
                self.tell(format!("{} is killed", name(mount)));
                self.with_mount(mount, |host| host.kill());
                self.after(300..20_000, Act::Start(mount));
            }
            Trouble::StopMount => {
                self.tell(format!("{} is stopped", name(mount)));
                self.with_mount(mount, |host| host.machine.stop());
                self.after(
                    *self.chance.one_of(&[20_000, 66_000, 70_000])..95_000,
                    Act::GoOn(mount),
                );
            }
            Trouble::HoldMount => self.hold_back(mount, &workers),
            Trouble::LateMessages => {
                self.tell("some requests come late");
                self.network.set_weather(Weather {
                    late_permille: *self.chance.one_of(&[10, 50]),
                    ..Weather::fair()
                });
                self.after(5_000..40_000, Act::FairWeather);
            }
            Trouble::BadWeather => {
                let weather = bad_weather(&self.chance);
                self.tell(format!("{weather:?}"));
                self.network.set_weather(weather);
                self.later(8_000, Act::FairWeather);
            }
            Trouble::FlipBit => self.flip_bit(worker)?,
            Trouble::ChangeObject => self.change_object(),
            Trouble::SickStore => {
                self.tell("the under file system is slow and fails at times");
                store::set_mood(
                    *self.chance.one_of(&[0, 20, 60]),
                    *self.chance.one_of(&[100, 3_000]),
                );
                self.later(15_000, Act::StoreIsWell);
            }
            Trouble::FailDisk => {
                self.tell(format!("the disk of {} takes nothing any more", name(worker)));
                self.with_worker(worker, |host| host.fail_disk());
                self.after(5_000..40_000, Act::ReplaceDisk(worker));
            }
            Trouble::Balance => self.balance(),
        }
        Ok(())
    }

    fn steps(&self) -> i64 {
        *self.chance.one_of(&[-60, 60, 61, 75])
    }

    fn with_worker(&mut self, id: NodeId, act: impl FnOnce(&mut super::workers::WorkerHost)) {
        let cluster = self.cluster.as_mut().expect("it is one");
        act(cluster.workers.get_mut(id).expect("it is one of them"));
    }

    fn with_mount(&mut self, id: NodeId, act: impl FnOnce(&mut super::mounts::Mount)) {
        let cluster = self.cluster.as_mut().expect("it is one");
        act(cluster.mounts.get_mut(id).expect("it is one of them"));
    }

    fn cut_power_of(&mut self, id: NodeId) -> Result<(), Violation> {
        let now = self.now;
        let cluster = self.cluster.as_mut().expect("it is one");
        let worker = cluster.workers.get_mut(id).expect("it is one of them");
        let lost = worker.lose_power().map_err(text)?;
        let since = now.saturating_sub(worker.machine.took_to_run(SYNCED_AFTER));
        cluster.mounts.shared.files.borrow_mut().power_cut(since);
        self.tell(format!("{} loses its power, and {lost} pages with it", name(id)));
        let most_ms = worker_is_away_ms(&self.chance, &[3_000, 15_000]);
        self.after(300..most_ms, Act::Start(id));
        Ok(())
    }

    /// What a machine sends to others and gets from them is kept for a while.
    fn hold_back(&mut self, id: NodeId, peers: &[NodeId]) {
        let all: Vec<NodeId> = match self.chance.below(3) {
            0 => self.masters.ids(),
            1 => peers.to_vec(),
            _ => self
                .masters
                .ids()
                .into_iter()
                .chain(peers.iter().copied())
                .collect(),
        };
        let most_ms = worker_is_away_ms(&self.chance, &[8_000, 20_000, 50_000]);
        self.tell(format!(
            "{} and {:?} do not reach each other",
            name(id),
            all.iter().map(|id| name(*id)).collect::<Vec<_>>()
        ));
        for other in all {
            self.network.hold(id, other);
            if self.chance.percent(70) {
                self.network.hold(other, id);
            }
        }
        self.after(2_000..most_ms, Act::LetGo(id));
    }

    /// One block file of one worker, where a good copy stays: of another worker, or in the under file system.
    fn flip_bit(&mut self, id: NodeId) -> Result<(), Violation> {
        let cluster = self.cluster.as_ref().expect("it is one");
        let has_run =
            |worker: &super::workers::WorkerHost| worker.machine.took_to_run(SEALED_AFTER) == SEALED_AFTER;
        let since = match cluster.workers.iter().all(has_run) {
            true => self.now.saturating_sub(SEALED_AFTER),
            false => Duration::ZERO,
        };
        let is_quiet = cluster.mounts.shared.files.borrow().is_quiet(since);
        // Of bytes that were not synced before the power was cut, nobody can tell what the device made of them.
        if !cluster.workers.iter().all(super::workers::WorkerHost::runs) {
            return Ok(());
        }
        // What is being written has no checksum yet.
        let others: Vec<_> = cluster.workers.iter().filter(|other| other.id != id).collect();
        let others = match &others[..] {
            [other, ..] if id == WORKERS && is_quiet => other.blocks().map_err(text)?,
            _ => BTreeMap::new(),
        };
        let of_objects = !is_known(Known::RottenChunk);
        let chance = self.chance.clone();
        let cluster = self.cluster.as_mut().expect("it is one");
        let worker = cluster.workers.get_mut(id).expect("it is one of them");
        if let Some(what) = worker
            .flip_bit(Some(&others), of_objects, &chance)
            .map_err(text)?
        {
            self.tell(format!("{}: a bit of {what} is another", name(id)));
        }
        Ok(())
    }

    fn change_object(&mut self) {
        let (chance, now) = (self.chance.clone(), self.now);
        let cluster = self.cluster.as_ref().expect("it is one");
        let shared = &cluster.mounts.shared;
        let keys = shared.objects.borrow().keys();
        if keys.is_empty() {
            return;
        }
        let (key, stamp) = (chance.one_of(&keys).clone(), shared.files.borrow_mut().stamp());
        shared.objects.borrow_mut().change(&key, stamp, now);
        self.tell(format!("object {key} is {stamp} now"));
    }

    /// An operator asks, and waits for no answer.
    fn balance(&mut self) {
        let tolerance_percent = self.chance.percent(80).then_some(1);
        self.tell(match tolerance_percent {
            Some(_) => "the workers are to be balanced",
            None => "balancing is to stop",
        });
        let mut client = self.clients.shared.client();
        self.clients.spawn(async move {
            let _ = client.until_answered(SetBalance { tolerance_percent }, 0).await;
        });
    }

    /// What is planned for a machine that is no master's.
    pub(super) fn act_on(&mut self, act: Act) -> Result<(), Violation> {
        let now = self.now;
        let Some(cluster) = &mut self.cluster else {
            return Ok(());
        };
        match act {
            Act::Start(id) => {
                let is_new = cluster.start(id, now).map_err(text)?;
                is_new.then(|| self.tell(format!("{} is started", name(id))));
            }
            Act::GoOn(id) => {
                cluster.go_on(id);
                self.tell(format!("{} goes on", name(id)));
            }
            Act::LetGo(id) => {
                self.network.let_go(id);
                self.tell(format!("{} and others reach each other", name(id)));
            }
            Act::ReplaceDisk(id) => {
                let worker = cluster.workers.get_mut(id).expect("it is one of them");
                if worker.replace_disk() {
                    worker.kill();
                    cluster.start(id, now).map_err(text)?;
                    self.tell(format!("{} is started again, with another disk", name(id)));
                }
            }
            Act::StoreIsWell => store::set_mood(0, 5),
            _ => {}
        }
        Ok(())
    }

    /// Who is stopped or cut off for long cannot rely on its session any more.
    pub(super) fn note_disturbed(&mut self) {
        let now = self.now;
        let cut_off = self.network.cut_off();
        if let Some(cluster) = &mut self.cluster {
            cluster.note_disturbed(now, &cut_off);
        }
    }
}

impl Cluster {
    /// Whether it did not run before.
    pub fn start(&mut self, id: NodeId, now: Duration) -> std::io::Result<bool> {
        if let Some(worker) = self.workers.get_mut(id)
            && !worker.machine.is_running()
        {
            worker.start(now)?;
            return Ok(true);
        }
        let programs = self.plan.programs;
        if let Some(mount) = self.mounts.get_mut(id)
            && !mount.machine.is_running()
        {
            mount.start(now, programs)?;
            return Ok(true);
        }
        Ok(false)
    }

    pub fn go_on(&mut self, id: NodeId) {
        if let Some(worker) = self.workers.get_mut(id) {
            worker.machine.go_on();
        }
        if let Some(mount) = self.mounts.get_mut(id) {
            mount.machine.go_on();
        }
    }

    fn note_disturbed(&mut self, now: Duration, cut_off: &[NodeId]) {
        let shared = self.mounts.shared.clone();
        for mount in self.mounts.iter_mut() {
            let away = mount.machine.is_stopped() || cut_off.contains(&mount.id);
            match (away, &mut mount.away) {
                (true, Some(away)) => {
                    away.end = now;
                    if now - away.start > NOT_FELT {
                        shared.disturbed.borrow_mut().insert(mount.id, now);
                    }
                }
                (true, None) => mount.away = Some(now..now),
                (false, Some(away)) if now - away.end < HEARD_WITHIN => {}
                (false, _) => mount.away = None,
            }
        }
    }

    /// Nothing goes wrong any more.
    pub fn heal(&mut self, now: Duration, disk_delay_us: u64) -> std::io::Result<()> {
        let ids: Vec<NodeId> = self.workers.ids().into_iter().chain(self.mounts.ids()).collect();
        for worker in self.workers.iter_mut() {
            if worker.replace_disk() {
                worker.kill();
            }
            worker.machine.disk_delay.store(disk_delay_us, Ordering::Relaxed);
        }
        // Mounts that are dead have nothing more to do.
        self.plan.programs = 0;
        store::set_mood(0, 5);
        for id in ids {
            self.go_on(id);
            self.start(id, now)?;
        }
        Ok(())
    }
}
