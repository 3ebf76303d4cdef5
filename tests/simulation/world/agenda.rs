//! What is planned for later, by the world's time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use curvine_protocol::NodeId;

/// What is planned.
pub enum Act {
    Fault,
    Trouble,
    StoreIsWell,
    /// What was kept for a machine comes.
    LetGo(NodeId),
    Mend,
    FairWeather,
    Start(NodeId),
    ReplaceDisk(NodeId),
    GoOn(NodeId),
    FastDisk(NodeId),
    /// Looks whether a process that was asked to end has.
    Gone(NodeId, Rc<RefCell<bool>>),
    Join(NodeId),
    /// Of the two that had the last changes one loses its disk, which is not the leader's, and the other is killed.
    LoseTwo(NodeId, NodeId),
    /// The leader is cut off from all masters, one of those is back at once, and clients turn to a third.
    Usurp {
        leader: NodeId,
        restarts: NodeId,
        stands: NodeId,
    },
}

impl Act {
    fn is_fault(&self) -> bool {
        matches!(
            self,
            Act::Fault | Act::Trouble | Act::LoseTwo(..) | Act::Usurp { .. }
        )
    }
}

/// Acts by their time; those of one time in the order in which they were planned.
#[derive(Default)]
pub struct Agenda {
    acts: BTreeMap<(Duration, u64), Act>,
    planned: u64,
    /// The next fault waits for the next acknowledged change after so many: right behind one is the worst moment.
    ambush: Option<u64>,
}

impl Agenda {
    pub fn plan(&mut self, at: Duration, act: Act) {
        self.planned += 1;
        self.acts.insert((at, self.planned), act);
    }

    /// The next act whose time has come.
    pub fn due(&mut self, now: Duration) -> Option<Act> {
        let next = self.acts.first_entry()?;
        (next.key().0 <= now).then(|| next.remove())
    }

    /// Has a fault wait for the next change after so many.
    pub fn lie_in_ambush(&mut self, acknowledged: u64) {
        self.ambush = Some(acknowledged);
    }

    /// Whether the change is there that a fault waits for. Says so once.
    pub fn springs(&mut self, acknowledged: u64) -> bool {
        let springs = self.ambush.is_some_and(|had| had < acknowledged);
        if springs {
            self.ambush = None;
        }
        springs
    }

    /// Nothing goes wrong any more.
    pub fn drop_faults(&mut self) {
        self.acts.retain(|_, act| !act.is_fault());
        self.ambush = None;
    }
}
