//! Calls about attributes of what is there, those of the system and those of users.

use curvine_protocol::master::{
    AclChange, AclOf, AttrChange, ChangeAcl, GetAcl, GetXattr, ListXattrs, RemoveXattr, SetAttr, SetXattr,
};
use curvine_protocol::{Attr, Node, Result};

use super::Client;

impl Client {
    /// Changes attributes; what is none in `change` stays. A new size cuts the file, or extends it with zeros, after
    /// everything that this client wrote to it before.
    ///
    /// # Errors
    /// `NotFound`; for a size `IsADirectory`, and `LeaseConflict` if another client that writes the file does not give it back.
    pub async fn set_attr(&self, node: impl Into<Node>, follow: bool, change: AttrChange) -> Result<Attr> {
        let (mut node, mut change) = (node.into(), change);
        if let Some(size_bytes) = change.size_bytes
            && self.files.any()
        {
            // A file that is open here takes its new size between the writes to it.
            let inode = match node {
                Node::Inode(inode) => inode,
                _ => self.lookup(node, follow).await?.attr.inode,
            };
            node = Node::Inode(inode);
            if let Some(file) = self.files.find(inode) {
                let attr = file.truncate(size_bytes, change.keep_privileges).await?;
                (change.size_bytes, change.keep_privileges) = (None, false);
                if change == AttrChange::default() {
                    return Ok(attr);
                }
            }
        }
        Ok(self.change(SetAttr { node, follow, change }).await?.attr)
    }

    /// The value of an extended attribute.
    ///
    /// # Errors
    /// `NoAttribute`, `NotFound`.
    pub async fn xattr(&self, node: impl Into<Node>, name: &str) -> Result<Vec<u8>> {
        Ok(self
            .call(GetXattr {
                node: node.into(),
                name: name.to_owned(),
            })
            .await?
            .value)
    }

    /// The names of all extended attributes, in the order of their bytes.
    pub async fn xattr_names(&self, node: impl Into<Node>) -> Result<Vec<String>> {
        Ok(self.call(ListXattrs { node: node.into() }).await?.names)
    }

    /// Sets an extended attribute: up to 64 KiB under a name of up to 255 bytes.
    ///
    /// # Errors
    /// `AlreadyExists` with `create_only`, `NoAttribute` with `replace_only`; `InvalidArgument` if too long.
    pub async fn set_xattr(
        &self,
        node: impl Into<Node>,
        name: &str,
        value: &[u8],
        create_only: bool,
        replace_only: bool,
    ) -> Result<()> {
        let (node, name, value) = (node.into(), name.to_owned(), value.to_vec());
        self.change(SetXattr {
            node,
            name,
            value,
            create_only,
            replace_only,
        })
        .await
        .map(|_| ())
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// `NoAttribute`, `NotFound`.
    pub async fn remove_xattr(&self, node: impl Into<Node>, name: &str) -> Result<()> {
        self.change(RemoveXattr {
            node: node.into(),
            name: name.to_owned(),
        })
        .await
        .map(|_| ())
    }

    /// The access control list of a node: its attributes, and the entries that are not in its mode, in order.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn acl(&self, node: impl Into<Node>) -> Result<AclOf> {
        self.call(GetAcl { node: node.into() }).await
    }

    /// Changes the access control list of a node, as HDFS does, and the permissions in its mode with it.
    ///
    /// # Errors
    /// `InvalidArgument` for a list that cannot be, `NotFound`.
    pub async fn change_acl(&self, node: impl Into<Node>, change: AclChange) -> Result<Attr> {
        let node = node.into();
        Ok(self.change(ChangeAcl { node, change }).await?.attr)
    }
}
