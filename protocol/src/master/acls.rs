//! Access control lists. They are kept, inherited and shown; nobody is refused anything by them.

use serde::{Deserialize, Serialize};

use crate::acl::AclEntry;
use crate::attr::Attr;
use crate::path::Node;

/// The access control list of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetAcl {
    pub node: Node,
}

/// A list, with the attributes that go with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclOf {
    pub attr: Attr,
    /// In order, without what the mode says ([`whole_acl`](crate::acl::whole_acl) adds that); empty for a node that has a
    /// mode alone.
    pub entries: Vec<AclEntry>,
}

/// Changes the access control list of a node, and with it the permissions in its mode, as HDFS does.
///
/// A default entry of somebody makes the others that a default list needs, from the access entries. The mask is what the
/// named users and the groups may do together, unless an entry says otherwise.
///
/// # Errors
/// `InvalidArgument` for a list that cannot be: an entry twice, more than
/// [`ACL_ENTRIES_MAX`](crate::acl::ACL_ENTRIES_MAX) of a scope, default entries of what is no directory, no entry for
/// owner, group or others, or named entries without a mask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeAcl {
    pub node: Node,
    pub change: AclChange,
}

/// What becomes of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AclChange {
    /// These take the place of all entries of their scopes; a scope that none is of stays as it is.
    Set(Vec<AclEntry>),
    /// These are added, or take the place of those of the same scope about the same.
    Modify(Vec<AclEntry>),
    /// Those about the same go, whatever they permit.
    Remove(Vec<AclEntry>),
    /// All default entries go.
    RemoveDefault,
    /// All entries go, and the mode says again what the owning group may do.
    Clear,
}
