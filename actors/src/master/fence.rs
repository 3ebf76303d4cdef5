//! Keeps writers that lost their lease from the blocks of their file.

use async_trait::async_trait;
use curvine_protocol::{BlockId, InodeId, Result};

use super::contract::Fences;

/// Relies on the generations that workers check with each write: what comes after the next writer's first write of a
/// block is refused. Blocks that the next writer has not touched yet are not protected.
pub struct ByGeneration;

#[async_trait]
impl Fences for ByGeneration {
    async fn fence(&self, _inode: InodeId, _blocks: &[BlockId], _generation: u32) -> Result<()> {
        Ok(())
    }
}
