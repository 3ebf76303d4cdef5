use curvine_protocol::Result;

use super::pins::Pinned;
use crate::format::{self, EntryJson};
use crate::shell::Shell;
use crate::users::Names;

/// Show everything about files
///
/// JSON: an object a line, as in `cv ls`.
#[derive(clap::Args)]
#[command(after_help = "Example: cv stat /data/train/a.parquet")]
pub struct Args {
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
    /// Follow symbolic links
    #[arg(short = 'L', long)]
    dereference: bool,
    /// Let any master answer, with what it last knew, also where none leads
    #[arg(long)]
    pub stale: bool,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        let names = &Names::system();
        let pinned = &match self.stale {
            true => None,
            false => Some(Pinned::look_up(shell).await),
        };
        let follow = self.dereference;
        shell
            .each(&self.paths, async |path| {
                let entry = shell.client.lookup(&path, follow).await?;
                let attr = &entry.attr;
                let is_pinned = pinned.as_ref().is_some_and(|pinned| pinned.has(&path));
                shell.answer(
                    &EntryJson::new(path.as_str(), attr, entry.target.as_deref()).pinned(is_pinned),
                    || {
                        let target = entry
                            .target
                            .as_ref()
                            .map(|target| format!(" -> {}", format::shown(target)));
                        let mut text = format!(
                            "  Path: {}{}\n  Type: {}   Size: {}   Inode: {}   Links: {}\n  Mode: {:04o} {}   Owner: {}:{}\n",
                            format::shown(path.as_str()),
                            target.unwrap_or_default(),
                            format::kind(attr.kind),
                            attr.size_bytes,
                            attr.inode,
                            attr.nlink,
                            attr.mode,
                            format::mode(attr.kind, attr.mode),
                            names.user(attr.uid),
                            names.group(attr.gid),
                        );
                        if attr.is_file() {
                            text += &format!(
                                " Block: {}   Replicas: {}   Holes: {}\n",
                                format::size(attr.block_bytes, true),
                                attr.replicas,
                                attr.hole_bytes
                            );
                        }
                        if let Some(ufs) = &attr.ufs {
                            let etag = ufs.etag.as_deref().unwrap_or("none");
                            text += &format!("Object: {} bytes, etag {}\n", ufs.size_bytes, format::shown(etag));
                        }
                        if is_pinned {
                            text += " Cache: pinned\n";
                        }
                        text + &format!(
                            "Access: {}\nModify: {}\nChange: {}",
                            format::second(attr.atime_ns),
                            format::second(attr.mtime_ns),
                            format::second(attr.ctime_ns)
                        )
                    },
                );
                Ok(())
            })
            .await;
        Ok(())
    }
}
