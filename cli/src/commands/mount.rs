use std::collections::BTreeMap;
use std::time::Duration;

use curvine_conf::Size;
use curvine_protocol::mount::own_options::{CACHE_QUOTA, LOCALITY, REPLICAS};
use curvine_protocol::mount::{AttributesIn, MountChanges, MountInfo, MountSettings, WriteMode};
use curvine_protocol::{CurvinePath, Result};

use super::tier::TierName;
use crate::shell::{Shell, usage};

/// Mount an under file system: a bucket or a directory
///
/// Options are those of the OpenDAL service. A value `@FILE` is read from a file, `@env:NAME` from a variable: secrets
/// need not stand on the command line. Without credentials among the options, the nodes' own are used (environment,
/// profile files, instance roles). Secrets are never shown again.
///
/// Among the options are some of Curvine's own: `cache_quota=SIZE`, what the cached blocks of its files may take together over
/// all workers. Above it, cached blocks of this mount go, and nothing is refused. Without it, or with an empty value, only the
/// disks limit it. `locality=on`: a worker on a reader's own host keeps a copy of what that reader reads from elsewhere.
/// `replicas=N`: so many workers have each block of its files, of those that are written from then on, and of cached ones, where
/// there is room.
///
/// `--update PATH` renews options of a mount, such as its credentials, and keeps what is cached: those that are named
/// change, an empty value takes one away. The store is asked with them first; if it refuses, nothing changes.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cv mount s3://bucket/prefix /data -o endpoint=http://127.0.0.1:9000 -o region=us-east-1 \\\n     -o access_key_id=me -o secret_access_key=@/run/secrets/s3\n  cv mount file:///srv/data /srv --write --staleness 1m\n  cv mount --update /data -o session_token=@/run/secrets/token\n  cv mount --update /data -o cache_quota=500GB"
)]
pub struct Args {
    /// s3://BUCKET/PREFIX, file:///DIR, ...
    #[arg(required_unless_present = "update")]
    uri: Option<String>,
    /// Where in Curvine
    #[arg(required_unless_present = "update")]
    path: Option<String>,
    /// Change the mount at PATH
    #[arg(long, value_name = "PATH", conflicts_with_all = ["uri", "path"])]
    update: Option<String>,
    /// An option of the service
    #[arg(short, long = "option", value_name = "NAME=VALUE")]
    options: Vec<String>,
    /// Allow writing
    #[arg(long)]
    write: bool,
    /// With --write, when what is written is in the under file system: `through` = when `close` returns, `back` = soon
    /// afterwards [default: through]
    #[arg(long, value_name = "MODE")]
    write_mode: Option<Mode>,
    /// With --write, where mode, owner, times and extended attributes of files are: `object` = with their objects as
    /// well, where the store keeps them, `namespace` = in Curvine alone [default: object]
    #[arg(long, value_name = "WHERE")]
    attributes: Option<Attributes>,
    /// How long the under file system's word about a name is believed; 0s = ask each time [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    staleness: Option<Duration>,
    /// In which tier its blocks are to be; see `cv tier`
    #[arg(long)]
    tier: Option<TierName>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Mode {
    Through,
    Back,
}

impl From<Mode> for WriteMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Through => WriteMode::Through,
            Mode::Back => WriteMode::Back,
        }
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Attributes {
    Object,
    Namespace,
}

impl From<Attributes> for AttributesIn {
    fn from(attributes: Attributes) -> Self {
        match attributes {
            Attributes::Object => AttributesIn::Object,
            Attributes::Namespace => AttributesIn::Namespace,
        }
    }
}

impl Args {
    pub fn check(&self) -> Result<()> {
        CurvinePath::parse(self.place())?;
        if let Some(uri) = self.uri.as_ref().filter(|uri| !uri.contains("://")) {
            return Err(usage(format!(
                "`{uri}` is no URI; write s3://bucket/prefix or file:///dir"
            )));
        }
        let changes = self.changes()?;
        let is_unchanged = changes == MountChanges::default() && self.tier.is_none();
        if self.update.is_some() && is_unchanged {
            return Err(usage("--update: say what is to change, with -o NAME=VALUE for instance"));
        }
        if self.update.is_none() && self.write_mode.is_some() && !self.write {
            return Err(usage("--write-mode is for mounts with --write"));
        }
        if self.update.is_none() && self.attributes.is_some() && !self.write {
            return Err(usage("--attributes is for mounts with --write"));
        }
        Ok(())
    }

    /// Where the mount is, or shall be.
    fn place(&self) -> &str {
        let place = self.update.as_deref().or(self.path.as_deref());
        place.expect("one of both is required")
    }

    /// What the options say; of a new mount, how it differs from one without any.
    fn changes(&self) -> Result<MountChanges> {
        let in_ms = |staleness: Duration| u64::try_from(staleness.as_millis()).unwrap_or(u64::MAX);
        let options = self.options.iter().map(|option| parse_option(option));
        let mut options: BTreeMap<String, String> = options.collect::<Result<_>>()?;
        let locality = options.remove(LOCALITY).map(|word| locality(&word));
        let replicas = options.remove(REPLICAS).map(|number| replicas(&number));
        let cache_quota = options.remove(CACHE_QUOTA).map(|size| cache_quota(&size));
        Ok(MountChanges {
            options,
            cache_quota_bytes: cache_quota.transpose()?,
            locality: locality.transpose()?,
            replicas: replicas.transpose()?,
            writable: self.write.then_some(true),
            staleness_ms: self.staleness.map(in_ms),
            write_mode: self.write_mode.map(WriteMode::from),
            attributes: self.attributes.map(AttributesIn::from),
        })
    }

    pub async fn run(self, shell: &Shell) -> Result<()> {
        let (path, changes) = (CurvinePath::parse(self.place())?, self.changes()?);
        let (mount, done) = match &self.uri {
            Some(uri) => {
                let usual = MountSettings::default();
                let settings = MountSettings {
                    writable: changes.writable.unwrap_or(usual.writable),
                    staleness_ms: changes.staleness_ms.unwrap_or(usual.staleness_ms),
                    write_mode: changes.write_mode.unwrap_or(usual.write_mode),
                    attributes: changes.attributes.unwrap_or(usual.attributes),
                    locality: changes.locality.unwrap_or(usual.locality),
                    cache_quota_bytes: changes.cache_quota_bytes.filter(|bytes| *bytes > 0),
                    replicas: changes.replicas.filter(|replicas| *replicas > 0),
                    ..usual
                };
                let mount = shell.client.mount(&path, uri, changes.options, settings);
                (mount.await?, "mounted")
            }
            None => (shell.client.update_mount(&path, changes).await?, "updated"),
        };
        if let Some(tier) = self.tier {
            shell.client.set_tier(path, Some(tier.into())).await?;
        }
        shell.answer(&mount, || said(done, &mount));
        Ok(())
    }
}

/// 0 = as usual.
fn replicas(number: &str) -> Result<u8> {
    if number.is_empty() || number == "default" {
        return Ok(0);
    }
    match number.parse() {
        Ok(0) | Err(_) => Err(usage(format!(
            "replicas: `{number}` is no number from 1 to 255; `default` takes the number away"
        ))),
        Ok(replicas) => Ok(replicas),
    }
}

fn locality(word: &str) -> Result<bool> {
    match word {
        "on" => Ok(true),
        "off" | "" => Ok(false),
        other => Err(usage(format!("locality: `{other}` is neither on nor off"))),
    }
}

/// In bytes; 0 = no quota.
fn cache_quota(size: &str) -> Result<u64> {
    if size.is_empty() || size == "none" {
        return Ok(0);
    }
    match size.parse() {
        Ok(Size(0)) => Err(usage("cache_quota: with a size of 0 nothing could be cached; `none` takes the quota away")),
        Ok(Size(bytes)) => Ok(bytes),
        Err(error) => Err(usage(format!("cache_quota: {error}"))),
    }
}

fn said(done: &str, mount: &MountInfo) -> String {
    let access = match (mount.settings.writable, mount.settings.write_mode) {
        (false, _) => "read-only",
        (true, WriteMode::Through) => "for reading and writing through",
        (true, WriteMode::Back) => "for reading and writing back",
    };
    format!("{done} {} on {} {access}", mount.uri, mount.path)
}

fn parse_option(option: &str) -> Result<(String, String)> {
    // The value may be a secret: no message repeats it.
    let (name, value) = option
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| usage("an option is written NAME=VALUE, for instance -o endpoint=http://127.0.0.1:9000"))?;
    let value = if let Some(variable) = value.strip_prefix("@env:") {
        std::env::var(variable).map_err(|_| usage(format!("option {name}: the variable {variable} is not set")))?
    } else if let Some(file) = value.strip_prefix('@') {
        std::fs::read_to_string(file)
            .map_err(|error| usage(format!("option {name}: cannot read {file}: {error}")))?
            .trim_end_matches(['\r', '\n'])
            .to_owned()
    } else {
        value.to_owned()
    };
    Ok((name.to_owned(), value))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_option_may_come_from_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        std::fs::write(&file, "hunter2\n").unwrap();
        let option = format!("secret_access_key=@{}", file.display());
        assert_eq!(
            parse_option(&option),
            Ok(("secret_access_key".to_owned(), "hunter2".to_owned()))
        );
        assert_eq!(parse_option("root=a=b"), Ok(("root".to_owned(), "a=b".to_owned())));
    }

    #[test]
    fn a_quota_of_cache_is_a_size_or_none() {
        assert_eq!(cache_quota("10GB"), Ok(10_000_000_000));
        assert_eq!([cache_quota("none"), cache_quota("")], [Ok(0), Ok(0)]);
        for wrong in ["0", "-1", "much"] {
            let error = cache_quota(wrong).unwrap_err();
            assert!(error.message.starts_with("cache_quota: "), "{error}");
        }
    }

    #[test]
    fn replicas_are_a_number_or_as_usual() {
        assert_eq!([replicas("2"), replicas("255")], [Ok(2), Ok(255)]);
        assert_eq!([replicas("default"), replicas("")], [Ok(0), Ok(0)]);
        for wrong in ["0", "256", "-1", "two"] {
            let error = replicas(wrong).unwrap_err();
            assert!(error.message.starts_with("replicas: `"), "{error}");
        }
    }

    #[test]
    fn locality_is_on_or_off() {
        assert_eq!([locality("on"), locality("off"), locality("")], [Ok(true), Ok(false), Ok(false)]);
        let error = locality("near").unwrap_err();
        assert_eq!(error.message, "locality: `near` is neither on nor off");
    }

    #[test]
    fn a_refused_option_is_not_repeated() {
        let error = parse_option("hunter2").unwrap_err();
        assert!(!error.message.contains("hunter2"), "{error}");
    }
}
