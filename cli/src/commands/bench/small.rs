//! Small files: created, written and closed; opened, read and compared.

use std::path::Path;

use bytes::Bytes;
use curvine_actors::client::{Client, CreateOptions};
use curvine_protocol::{CurvinePath, Error, Result};
use serde_json::json;

use super::{Scratch, Stopwatch, joined, posix};
use crate::shell::Shell;

pub async fn run(
    shell: &Shell,
    directory: Option<&Path>,
    local: &Path,
    files: usize,
    bytes: usize,
    threads: usize,
) -> Result<()> {
    let (raw_wrote, raw_read) = posix::small_files(local, files, bytes, threads)?;
    let (on, (wrote, read)) = match directory {
        Some(directory) => (
            directory.display().to_string(),
            posix::small_files(directory, files, bytes, threads)?,
        ),
        None => {
            let scratch = Scratch::make(&shell.client, &format!("small-{bytes}-{threads}")).await?;
            let measured = through_client(&shell.client, &scratch.path, files, bytes, threads).await;
            ("client".to_owned(), scratch.remove(measured).await?)
        }
    };
    for (op, rate, raw) in [("write", wrote, raw_wrote), ("read", read, raw_read)] {
        let value = json!({
            "bench": "small", "on": on, "op": op, "threads": threads, "bytes": bytes,
            "per_second": rate, "raw_per_second": raw, "of_raw": rate / raw,
        });
        shell.answer(&value, || {
            format!(
                "{on}: {threads:>2} threads, {bytes:>6} bytes, {op:>5}: {rate:>8.0}/s  {:>5.2} of raw",
                rate / raw
            )
        });
    }
    Ok(())
}

async fn through_client(
    client: &Client,
    directory: &CurvinePath,
    files: usize,
    bytes: usize,
    tasks: usize,
) -> Result<(f64, f64)> {
    let each = (files / tasks).max(1);
    let mut rates = [0.0; 2];
    for (rate, write) in rates.iter_mut().zip([true, false]) {
        let watch = Stopwatch::start();
        let running = (0..tasks).map(|task| {
            let (client, directory) = (client.clone(), directory.clone());
            tokio::spawn(async move {
                let content = Bytes::from(vec![task as u8; bytes]);
                for file in 0..each {
                    let path = directory.join(&format!("{task}-{file}"))?;
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
        *rate = watch.per_second((each * tasks) as f64);
    }
    let [wrote, read] = rates;
    Ok((wrote, read))
}
