use std::cmp::Reverse;

use curvine_protocol::{Attr, CurvinePath, DirEntry, Result};
use futures::TryStreamExt;

use super::pins::Pinned;
use crate::format::{self, EntryJson};
use crate::shell::{Shell, naming};
use crate::users::Names;

/// List directories and files
///
/// JSON: an object a line with path, type, size_bytes, mode, uid, gid, mtime_ns, atime_ns, ctime_ns, inode, links,
/// block_bytes, replicas, and target for links; with -l also pinned where `cv pin` keeps it in the cache.
#[derive(clap::Args)]
#[command(
    disable_help_flag = true,
    after_help = "Examples:\n  cv ls -lh /data\n  cv ls -R '/data/*/x-?.parquet'"
)]
pub struct Args {
    /// What to list; globs are allowed [default: /]
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// Mode, owner, size and time of each
    #[arg(short)]
    long: bool,
    /// Everything below
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Sizes for people: 1.5K, 3G
    #[arg(short, long)]
    human_readable: bool,
    /// The directory itself, not what it holds
    #[arg(short)]
    directory: bool,
    /// The newest first
    #[arg(short = 't')]
    by_time: bool,
    /// The largest first
    #[arg(short = 'S', conflicts_with = "by_time")]
    by_size: bool,
    /// The other way round
    #[arg(short)]
    reverse: bool,
    /// Names that begin with a dot, too
    #[arg(short)]
    all: bool,
    /// Paths only (as hdfs dfs -ls -C)
    #[arg(short = 'C')]
    paths_only: bool,
    /// Let any master answer, with what it last knew, also where none leads
    #[arg(long)]
    pub stale: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

struct Item {
    path: CurvinePath,
    shown: String,
    attr: Attr,
    target: Option<String>,
    pinned: bool,
}

impl Args {
    pub async fn run(mut self, shell: &Shell) -> Result<()> {
        if self.paths.is_empty() {
            self.paths.push("/".to_owned());
        }
        let names = Names::system();
        let pinned = match self.long && !self.stale {
            true => Some(Pinned::look_up(shell).await),
            false => None,
        };
        let is_pinned = |path: &CurvinePath| pinned.as_ref().is_some_and(|pinned| pinned.has(path));
        let mut files = Vec::new();
        let mut directories = Vec::new();
        for path in shell.expand(&self.paths).await {
            match shell.client.lookup(&path, !self.long && !self.directory).await {
                Ok(entry) if entry.attr.is_dir() && !self.directory => directories.push(path),
                Ok(entry) => files.push(Item {
                    shown: path.to_string(),
                    pinned: is_pinned(&path),
                    path,
                    attr: entry.attr,
                    target: entry.target,
                }),
                Err(error) => shell.failed(&naming(error, &path)),
            }
        }
        let titled = self.recursive || directories.len() + files.len() > 1;
        let titles = titled && !shell.json && !self.paths_only;
        let any_files = !files.is_empty();
        self.print(shell, &names, files);
        if any_files && !directories.is_empty() && titles {
            shell.line("");
        }
        directories.reverse();
        while let Some(directory) = directories.pop() {
            let entries: Vec<DirEntry> = match shell.client.list(&directory).try_collect().await {
                Ok(entries) => entries,
                Err(error) => {
                    shell.failed(&naming(error, &directory));
                    continue;
                }
            };
            let entries = entries
                .into_iter()
                .filter(|entry| self.all || !entry.name.starts_with('.'));
            let items: Vec<Item> = entries
                .map(|entry| {
                    let path = directory.join(&entry.name)?;
                    Ok(Item {
                        pinned: is_pinned(&path),
                        path,
                        shown: entry.name,
                        attr: entry.attr,
                        target: entry.target,
                    })
                })
                .collect::<Result<_>>()?;
            if self.recursive {
                let below = items.iter().filter(|item| item.attr.is_dir()).rev();
                directories.extend(below.map(|item| item.path.clone()));
            }
            if titles {
                shell.line(format!("{}:", format::shown(directory.as_str())));
            }
            self.print(shell, &names, items);
            if !directories.is_empty() && titles {
                shell.line("");
            }
        }
        Ok(())
    }

    fn print(&self, shell: &Shell, names: &Names, mut items: Vec<Item>) {
        if self.by_time {
            items.sort_by_key(|item| Reverse(item.attr.mtime_ns));
        } else if self.by_size {
            items.sort_by_key(|item| Reverse(item.attr.size_bytes));
        }
        if self.reverse {
            items.reverse();
        }
        if shell.json {
            for item in &items {
                let entry = EntryJson::new(item.path.as_str(), &item.attr, item.target.as_deref());
                shell.json_line(&entry.pinned(item.pinned));
            }
            return;
        }
        if self.paths_only {
            items
                .iter()
                .for_each(|item| shell.line(format::shown(item.path.as_str())));
            return;
        }
        let colours = format::colours();
        let name = |item: &Item| format::coloured(&format::shown(&item.shown), &item.attr, colours);
        if !self.long {
            items.iter().for_each(|item| shell.line(name(item)));
            return;
        }
        let columns: Vec<[String; 4]> = items
            .iter()
            .map(|item| {
                [
                    item.attr.nlink.to_string(),
                    names.user(item.attr.uid),
                    names.group(item.attr.gid),
                    format::size(item.attr.size_bytes, self.human_readable),
                ]
            })
            .collect();
        let width = |column: usize| columns.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let (links, user, group, size) = (width(0), width(1), width(2), width(3));
        // A column of its own, where there is anything to say.
        let any_pinned = items.iter().any(|item| item.pinned);
        for (item, row) in items.iter().zip(&columns) {
            let pinned = match (any_pinned, item.pinned) {
                (false, _) => "",
                (true, true) => "pinned ",
                (true, false) => "-      ",
            };
            let target = match &item.target {
                Some(target) => format!(" -> {}", format::shown(target)),
                None => String::new(),
            };
            shell.line(format!(
                "{} {:>links$} {:user$} {:group$} {:>size$} {} {pinned}{}{target}",
                format::mode(item.attr.kind, item.attr.mode),
                row[0],
                row[1],
                row[2],
                row[3],
                format::minute(item.attr.mtime_ns),
                name(item),
            ));
        }
    }
}
