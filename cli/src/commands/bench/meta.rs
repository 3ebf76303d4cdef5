//! Metadata calls of concurrent clients.

use std::path::Path;

use curvine_actors::client::Client;
use curvine_protocol::master::{CreateFile, IfExists, RenameMode};
use curvine_protocol::{CurvinePath, Error, Result};
use serde_json::json;

use super::{Scratch, Sessions, Stopwatch, joined, posix};
use crate::shell::Shell;

/// In this order: each finds what the one before left.
pub const OPS: [&str; 7] = ["echo", "create", "stat", "open", "list", "rename", "delete"];
/// Entries in a page of a listing. A page counts as one operation.
const PAGE: u32 = 1_000;

pub struct Load<'a> {
    pub threads: usize,
    /// Each has one call in flight.
    pub clients: usize,
    /// Of all clients together.
    pub files: usize,
    /// Some of [`OPS`].
    pub ops: &'a [String],
}

pub async fn run(shell: &Shell, sessions: &Sessions, load: Load<'_>, local: &Path) -> Result<()> {
    let count = load.clients;
    let floor = posix::append_and_sync(local)?;
    shell.answer(
        &json!({ "bench": "meta", "op": "append+fdatasync", "per_second": floor }),
        || format!("bare append + fdatasync of 4 KiB: {floor:.0}/s"),
    );
    let scratch = Scratch::make(&shell.client, &format!("meta-{count}")).await?;
    let clients = Clients {
        list: (0..count).map(|client| sessions.of(client).clone()).collect(),
        directory: scratch.path.clone(),
        each: (load.files / count).max(1),
        renamed: load.ops.iter().any(|op| op == "rename"),
        connections: sessions.count(),
        threads: load.threads,
    };
    let measured = clients.measure(shell, floor, load.ops).await;
    scratch.remove(measured).await
}

struct Clients {
    list: Vec<Client>,
    directory: CurvinePath,
    /// Files of each client.
    each: usize,
    /// Whether a file has another name when it is deleted.
    renamed: bool,
    connections: usize,
    threads: usize,
}

impl Clients {
    async fn measure(&self, shell: &Shell, floor: f64, ops: &[String]) -> Result<()> {
        let mut echo = f64::NAN;
        for op in ops {
            let rate = self.rate(op).await?;
            if op == "echo" {
                echo = rate;
            }
            let clients = self.list.len();
            let value = json!({
                "bench": "meta", "op": op, "clients": clients, "connections": self.connections,
                "threads": self.threads, "per_second": rate,
                "of_echo": rate / echo, "of_fdatasync": rate / floor,
            });
            shell.answer(&value, || {
                format!(
                    "{clients:>3} clients {op:>7}: {rate:>9.0}/s  {:>6.2} of echo  {:>7.2} of fdatasync",
                    rate / echo,
                    rate / floor
                )
            });
        }
        Ok(())
    }

    async fn rate(&self, op: &str) -> Result<f64> {
        let mut work = Vec::new();
        for (number, client) in self.list.iter().enumerate() {
            work.push((client.clone(), self.names(number)?));
        }
        let watch = Stopwatch::start();
        let tasks = work.into_iter().map(|(client, names)| {
            let (op, directory) = (op.to_owned(), self.directory.clone());
            tokio::spawn(async move {
                let count = match op.as_str() {
                    // A page is a thousand look-ups.
                    "list" => (names.len() / 100).max(1),
                    _ => names.len(),
                };
                for (name, renamed) in &names[..count] {
                    once(&client, &op, &directory, name, renamed).await?;
                }
                Ok::<_, Error>(count)
            })
        });
        let done: usize = joined(tasks.collect()).await?.into_iter().sum();
        Ok(watch.per_second(done as f64))
    }

    /// The files of a client and the names that they have at the end.
    fn names(&self, client: usize) -> Result<Vec<(CurvinePath, CurvinePath)>> {
        (0..self.each)
            .map(|file| {
                Ok((
                    self.directory.join(&format!("{client:03}-{file:07}"))?,
                    self.directory.join(&format!("{}{client:03}-{file:07}", if self.renamed { "r" } else { "" }))?,
                ))
            })
            .collect()
    }
}

async fn once(
    client: &Client,
    op: &str,
    directory: &CurvinePath,
    name: &CurvinePath,
    renamed: &CurvinePath,
) -> Result<()> {
    match op {
        "echo" => client.echo().await?,
        "create" => drop(
            client
                .change(CreateFile {
                    node: name.into(),
                    mode: 0o644,
                    if_exists: IfExists::Fail,
                    parents: false,
                    block_bytes: 0,
                    replicas: 0,
                    first_block: false,
                    open: 0,
                    unmasked: None,
                })
                .await?,
        ),
        "stat" => drop(client.stat(name).await?),
        "open" => drop(client.locate(name).await?),
        "list" => drop(client.list_page(directory, None, PAGE).await?),
        "rename" => drop(client.rename(name, renamed, RenameMode::Replace, false).await?),
        _ => drop(client.unlink(renamed, false).await?),
    }
    Ok(())
}
