//! Whether the workers are being balanced.

use curvine_protocol::master::{BalanceEnd, BalanceOutcome, BalanceRun};

use super::*;
use crate::master::contract::NamespaceView;
use crate::master::namespace::balance::Balance;

impl Tree {
    fn balance(&self) -> Balance {
        self.store.balance().expect("readable")
    }

    fn ends(&mut self, begun_ms: Option<i64>, how: BalanceOutcome) {
        self.apply(Op::EndBalance { begun_ms, how }).expect("noted");
    }
}

#[test]
fn what_was_found_of_one_run_does_not_end_the_next() {
    let mut tree = Tree::new();
    tree.ends(None, BalanceOutcome::Stopped);
    assert_eq!(tree.balance(), Balance::default(), "nothing was under way");
    let begins = |tree: &mut Tree, tolerance_percent| {
        tree.now_ns += 5_000_000;
        tree.apply(Op::StartBalance { tolerance_percent }).expect("noted");
        let run = BalanceRun {
            tolerance_percent,
            begun_ms: tree.now_ns / 1_000_000,
        };
        assert_eq!(tree.balance().run, Some(run));
        run
    };
    let first = begins(&mut tree, 10);
    let second = begins(&mut tree, 5);
    tree.ends(Some(first.begun_ms), BalanceOutcome::Balanced);
    assert_eq!(
        tree.balance(),
        Balance {
            run: Some(second),
            ended: None
        }
    );
    tree.ends(Some(second.begun_ms), BalanceOutcome::NothingToMove);
    let ended = BalanceEnd {
        at_ms: tree.now_ns / 1_000_000,
        how: BalanceOutcome::NothingToMove,
    };
    assert_eq!(
        tree.balance(),
        Balance {
            run: None,
            ended: Some(ended)
        }
    );
    let third = begins(&mut tree, 7);
    assert_eq!(tree.balance().ended, Some(ended), "how the last one ended");
    tree.ends(None, BalanceOutcome::Stopped);
    assert_eq!(tree.balance().run, None, "{third:?}");
}
