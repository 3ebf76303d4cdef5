//! In which tier blocks are to be goes by the nearest rule.

use curvine_protocol::cluster::Tier;
use curvine_protocol::master::SetTier;

use super::*;
use crate::master::namespace::view::layout_of;

impl Tree {
    fn tier(&mut self, at: &str, tier: Option<Tier>) {
        self.done(SetTier { node: path(at), tier });
    }

    /// As its readers and writers are told.
    fn told(&self, at: &str) -> Option<Tier> {
        let txn = self.store.read().expect("it is open");
        layout_of(&self.store.dbs, &txn, &path(at), true)
            .expect("a file")
            .tier
    }

    fn rules(&self) -> Vec<(String, Tier)> {
        let rules = self.store.tier_rules(None).expect("readable").into_iter();
        rules.map(|rule| (rule.path.to_string(), rule.tier)).collect()
    }
}

#[test]
fn the_nearest_rule_counts_and_goes_with_what_has_it() {
    let mut tree = Tree::new();
    for directory in ["/a", "/a/b", "/c"] {
        tree.mkdir(directory);
    }
    tree.write("/a/b/f", 100);
    tree.write("/a/g", 100);
    assert_eq!(tree.told("/a/b/f"), None);
    let none = tree
        .store
        .tier_rules(Some(&path("/a")))
        .map_err(|error| error.kind);
    assert_eq!(none, Err(ErrorKind::NoAttribute));
    tree.tier("/a", Some(Tier::Hdd));
    tree.tier("/a/b", Some(Tier::Mem));
    assert_eq!(
        (tree.told("/a/b/f"), tree.told("/a/g")),
        (Some(Tier::Mem), Some(Tier::Hdd))
    );
    tree.tier("/a/g", Some(Tier::Ssd));
    assert_eq!(tree.told("/a/g"), Some(Tier::Ssd));
    // It moves with its directory, and what comes below goes by it.
    tree.apply(rename("/a/b", "/c/b", RenameMode::Replace).into_op())
        .expect("moved");
    assert_eq!(tree.told("/c/b/f"), Some(Tier::Mem));
    tree.apply(rename("/c/b/f", "/c/f", RenameMode::Replace).into_op())
        .expect("moved");
    assert_eq!(tree.told("/c/f"), None);
    let expected = [("/a", Tier::Hdd), ("/c/b", Tier::Mem), ("/a/g", Tier::Ssd)];
    assert_eq!(tree.rules(), expected.map(|(path, tier)| (path.to_owned(), tier)));
    tree.tier("/a", None);
    tree.done(Delete {
        node: path("/c/b"),
        recursive: true,
        holders: None,
    });
    assert_eq!(tree.rules(), [("/a/g".to_owned(), Tier::Ssd)]);
}
