//! In which tier the blocks of a tree are wished to be.

use serde::{Deserialize, Serialize};

use crate::cluster::Tier;
use crate::path::{CurvinePath, Node};

/// Has the blocks of a file, or of all files of a tree, be in a tier where workers have it and it has room; or takes that
/// back. A file goes by the rule that is nearest above it. What is there already moves when it is read, written or loaded
/// next.
///
/// # Errors
/// `InvalidArgument` for what is neither a directory nor a file; `NotFound`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetTier {
    /// A directory, which may be a mount, or a file.
    pub node: Node,
    /// None takes the rule away that this node has itself.
    pub tier: Option<Tier>,
}

/// The rule by which a node goes, its own or that of a directory above; or all rules.
///
/// # Errors
/// `NoAttribute` for a node without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListTiers {
    pub node: Option<Node>,
}

/// Rules, in the order in which what has them was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierRules {
    pub rules: Vec<TierRule>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierRule {
    /// What has it.
    pub path: CurvinePath,
    pub tier: Tier,
}
