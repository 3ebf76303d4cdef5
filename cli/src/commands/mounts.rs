use std::time::Duration;

use curvine_protocol::Result;
use curvine_protocol::mount::{Backlog, HiddenKeys, MountInfo, WriteMode};

use crate::format;
use crate::shell::Shell;

/// List mounts
///
/// Of a writable mount also what its under file system has not got yet: files that wait for their export, what is under way
/// there, and what failed and is tried again.
///
/// Keys whose names cannot be those of files are not shown below a mount, and left alone; with --verbose it is said how many
/// there are, and why, in the directories that were listed so far.
///
/// With --verbose also what is cached of each mount now, and its quota of cache if it has one.
///
/// JSON: an object a line with id, path, uri, options (secrets as ***), settings, created_ns, backlog, hidden, traffic
/// (reads and bytes that workers had, that waited, what was fetched, and what went for its cache quota, since the workers
/// began; what is cached of it now).
#[derive(clap::Args)]
#[command(after_help = "Example: cv mounts --verbose")]
pub struct Args {
    /// Also what is cached, and what is not shown
    #[arg(short, long)]
    verbose: bool,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        let mounts = shell.client.mounts().await?;
        if shell.json {
            mounts.iter().for_each(|mount| shell.json_line(mount));
        } else if mounts.is_empty() {
            shell.line("nothing is mounted; try: cv mount file:///DIR /data");
        } else {
            let row = |mount: &MountInfo| {
                let access = match (mount.settings.writable, mount.settings.write_mode) {
                    (false, _) => "read",
                    (true, WriteMode::Through) => "write",
                    (true, WriteMode::Back) => "write back",
                };
                let staleness = Duration::from_millis(mount.settings.staleness_ms);
                let options = mount
                    .options
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect::<Vec<_>>();
                vec![
                    mount.path.to_string(),
                    mount.uri.clone(),
                    access.to_owned(),
                    humantime::format_duration(staleness).to_string(),
                    options.join(" "),
                ]
            };
            let rows = mounts.iter().map(row).collect();
            shell.line(format::table(
                &["Path", "From", "Access", "Staleness", "Options"],
                rows,
            ));
            for mount in &mounts {
                if let Some(backlog) = &mount.backlog {
                    backlog_lines(mount.path.as_str(), backlog)
                        .iter()
                        .for_each(|line| shell.line(line));
                }
            }
            if self.verbose {
                mounts.iter().map(cached_line).for_each(|line| shell.line(line));
                mounts.iter().flat_map(hidden_lines).for_each(|line| shell.line(line));
            }
        }
        Ok(())
    }
}

/// What an under file system has not got yet, for people. Nothing if it has everything.
fn backlog_lines(path: &str, backlog: &Backlog) -> Vec<String> {
    let mut lines = Vec::new();
    if backlog.files > 0 {
        lines.push(format!(
            "{path}: {} files ({}) wait for their export, the first since {}",
            backlog.files,
            format::size(backlog.bytes, true),
            format::second(backlog.oldest_ns)
        ));
    }
    for effect in &backlog.effects {
        let key = format::shown(&effect.key);
        let to = effect.to.as_ref().map(|to| format!(" to {}", format::shown(to))).unwrap_or_default();
        let done = match effect.done {
            0 => String::new(),
            done => format!(", {done} objects done"),
        };
        let failure = effect.failure.as_ref().map(|failure| format!(": {failure}")).unwrap_or_default();
        let since = format::second(effect.since_ns);
        lines.push(format!("{path}: {} of {key}{to} since {since}{done}{failure}", effect.what));
    }
    for (key, failure) in &backlog.failures {
        lines.push(format!("{path}: {} is not stored: {failure}", format::shown(key)));
    }
    lines
}

/// What is cached of a mount, for people.
fn cached_line(mount: &MountInfo) -> String {
    let traffic = mount.traffic.unwrap_or_default();
    let mut line = format!("{}: {} cached", mount.path, format::size(traffic.cached_bytes, true));
    if let Some(quota) = mount.settings.cache_quota_bytes {
        let gone = format::size(traffic.quota_evicted_bytes, true);
        line += &format!(" of a quota of {}, for which {gone} have gone", format::size(quota, true));
    }
    if let Some(replicas) = mount.settings.replicas {
        line += &format!("; each block on {replicas} workers where there is room");
    }
    if mount.settings.locality {
        line += "; copies on the hosts of readers";
    }
    line
}

/// What a mount does not show, for people.
fn hidden_lines(mount: &MountInfo) -> Vec<String> {
    let line = |hidden: &HiddenKeys| {
        format!(
            "{}: not shown: {} whose name {}, such as {}",
            mount.path,
            hidden.count,
            hidden.why,
            format::shown(&hidden.example)
        )
    };
    mount.hidden.iter().map(line).collect()
}
