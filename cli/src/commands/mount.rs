use std::collections::BTreeMap;
use std::time::Duration;

use curvine_protocol::mount::{MountSettings, WriteMode};
use curvine_protocol::{CurvinePath, Result};

use crate::shell::{Shell, usage};

/// Mount an under file system: a bucket or a directory
///
/// Options are those of the OpenDAL service. A value `@FILE` is read from a file, `@env:NAME` from a variable: secrets
/// need not stand on the command line. Without credentials among the options, the nodes' own are used (environment,
/// profile files, instance roles). Secrets are never shown again.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cv mount s3://bucket/prefix /data -o endpoint=http://127.0.0.1:9000 -o region=us-east-1 \\\n     -o access_key_id=me -o secret_access_key=@/run/secrets/s3\n  cv mount file:///srv/data /srv --write --staleness 1m"
)]
pub struct Args {
    /// s3://BUCKET/PREFIX, file:///DIR, ...
    uri: String,
    /// Where in Curvine
    path: String,
    /// An option of the service
    #[arg(short, long = "option", value_name = "NAME=VALUE")]
    options: Vec<String>,
    /// Allow writing
    #[arg(long)]
    write: bool,
    /// When what is written is in the under file system: `through` = when `close` returns, `back` = soon afterwards
    #[arg(long, value_name = "MODE", default_value = "through", requires = "write")]
    write_mode: Mode,
    /// How long the under file system's word about a name is believed; 0s = ask each time
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    staleness: Duration,
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

impl Args {
    pub fn check(&self) -> Result<()> {
        CurvinePath::parse(&self.path)?;
        if !self.uri.contains("://") {
            return Err(usage(format!(
                "`{}` is no URI; write s3://bucket/prefix or file:///dir",
                self.uri
            )));
        }
        self.options().map(|_| ())
    }

    fn options(&self) -> Result<BTreeMap<String, String>> {
        self.options.iter().map(|option| parse_option(option)).collect()
    }

    pub async fn run(self, shell: &Shell) -> Result<()> {
        let settings = MountSettings {
            writable: self.write,
            staleness_ms: u64::try_from(self.staleness.as_millis()).unwrap_or(u64::MAX),
            write_mode: self.write_mode.into(),
            ..MountSettings::default()
        };
        let path = CurvinePath::parse(&self.path)?;
        let options = self.options()?;
        let mount = shell.client.mount(&path, &self.uri, options, settings).await?;
        shell.answer(&mount, || {
            let access = match (mount.settings.writable, mount.settings.write_mode) {
                (false, _) => "read-only",
                (true, WriteMode::Through) => "for reading and writing through",
                (true, WriteMode::Back) => "for reading and writing back",
            };
            format!("mounted {} on {} {access}", mount.uri, mount.path)
        });
        Ok(())
    }
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
    fn a_refused_option_is_not_repeated() {
        let error = parse_option("hunter2").unwrap_err();
        assert!(!error.message.contains("hunter2"), "{error}");
    }
}
