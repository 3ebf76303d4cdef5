use curvine_protocol::master::Pin;
use curvine_protocol::{CurvinePath, Result};
use serde_json::json;

use crate::format;
use crate::shell::Shell;

/// List what `cv pin` keeps in the cache
///
/// JSON: an object a line with path, files, bytes, cached_bytes.
#[derive(clap::Args)]
#[command(after_help = "Example: cv pins")]
pub struct Args {}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        list(shell).await
    }
}

pub async fn list(shell: &Shell) -> Result<()> {
    let pins = shell.client.pins(true).await?;
    if shell.json {
        for Pin { path, size } in &pins.pins {
            shell.json_line(&json!({
                "path": path, "files": size.files, "bytes": size.bytes, "cached_bytes": size.cached_bytes,
            }));
        }
        return Ok(());
    }
    let room = format!(
        "{} of {} that may be pinned are",
        format::size(pins.room.pinned_bytes, true),
        format::size(pins.room.limit_bytes, true)
    );
    if pins.pins.is_empty() {
        shell.line(format!("nothing is pinned; {room}"));
        return Ok(());
    }
    let row = |Pin { path, size }: &Pin| {
        vec![
            format::shown(path.as_str()).to_string(),
            size.files.to_string(),
            format::size(size.bytes, true),
            format::size(size.cached_bytes, true),
        ]
    };
    let rows = pins.pins.iter().map(row).collect();
    shell.line(format::table(&["Path", ">Files", ">Bytes", ">Cached"], rows));
    shell.line(room);
    Ok(())
}

/// The pins as other commands show them with files.
pub struct Pinned(Vec<CurvinePath>);

impl Pinned {
    /// Without a leader, or with masters of a version before, nothing is said of pins.
    pub async fn look_up(shell: &Shell) -> Self {
        let pins = shell.client.pins(false).await.unwrap_or_default();
        Pinned(pins.pins.into_iter().map(|pin| pin.path).collect())
    }

    /// Whether it has a pin, or a directory above it.
    pub fn has(&self, path: &CurvinePath) -> bool {
        self.0.iter().any(|pin| pin.contains(path))
    }
}
