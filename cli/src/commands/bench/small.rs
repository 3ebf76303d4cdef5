//! Small files: created, written and closed; opened, read and compared.

use std::path::Path;

use bytes::Bytes;
use curvine_actors::client::CreateOptions;
use curvine_protocol::{CurvinePath, Error, Result};
use serde_json::json;

use super::{Scratch, Sessions, Stopwatch, joined, posix};
use crate::shell::Shell;

#[derive(Clone, Copy)]
pub struct Load {
    pub files: usize,
    /// Bytes of a file.
    pub bytes: usize,
    /// Files being written or read at the same time.
    pub clients: usize,
}

pub async fn run(
    shell: &Shell,
    sessions: &Sessions,
    directory: Option<&Path>,
    local: &Path,
    load: Load,
) -> Result<()> {
    let Load { files, bytes, clients } = load;
    let (raw_wrote, raw_read) = posix::small_files(local, files, bytes, clients)?;
    let (on, (wrote, read)) = match directory {
        Some(directory) => (
            directory.display().to_string(),
            posix::small_files(directory, files, bytes, clients)?,
        ),
        None => {
            let scratch = Scratch::make(&shell.client, &format!("small-{bytes}-{clients}")).await?;
            let measured = through_clients(sessions, &scratch.path, load).await;
            ("client".to_owned(), scratch.remove(measured).await?)
        }
    };
    for (op, rate, raw) in [("write", wrote, raw_wrote), ("read", read, raw_read)] {
        let value = json!({
            "bench": "small", "on": on, "op": op, "clients": clients, "bytes": bytes,
            "per_second": rate, "raw_per_second": raw, "of_raw": rate / raw,
        });
        shell.answer(&value, || {
            format!(
                "{on}: {clients:>2} clients, {bytes:>6} bytes, {op:>5}: {rate:>8.0}/s  {:>5.2} of raw",
                rate / raw
            )
        });
    }
    Ok(())
}

async fn through_clients(sessions: &Sessions, directory: &CurvinePath, load: Load) -> Result<(f64, f64)> {
    let each = (load.files / load.clients).max(1);
    let mut rates = [0.0; 2];
    for (rate, write) in rates.iter_mut().zip([true, false]) {
        let watch = Stopwatch::start();
        let running = (0..load.clients).map(|number| {
            let (client, directory) = (sessions.of(number).clone(), directory.clone());
            tokio::spawn(async move {
                let content = Bytes::from(vec![number.to_le_bytes()[0]; load.bytes]);
                for file in 0..each {
                    let path = directory.join(&format!("{number}-{file}"))?;
                    if write {
                        let file = client.create(&path, CreateOptions::default()).await?;
                        file.append(content.clone()).await?;
                        file.close().await?;
                    } else if client.read(&path).await? != content {
                        return Err(Error::internal(format!("{path}: other bytes than were written")));
                    }
                }
                Ok(())
            })
        });
        joined(running.collect()).await?;
        *rate = watch.per_second((each * load.clients) as f64);
    }
    let [wrote, read] = rates;
    Ok((wrote, read))
}
