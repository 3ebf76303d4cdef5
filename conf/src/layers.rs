//! Reads the configuration in layers, each winning over the one before: defaults, file, variables, flags.

use std::path::{Path, PathBuf};

use curvine_protocol::{Error, ErrorKind, Result};
use figment::error::Kind;
use figment::providers::{Data, Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider, Source};

use serde::{Deserialize, Serialize};

use crate::section::{Range, Setting, Shape};
use crate::tree::Config;

/// Where configuration comes from, beside the defaults.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub file: Option<PathBuf>,
    /// All variables of the environment; those named `CURVINE_SECTION_KEY` count.
    pub environment: Vec<(String, String)>,
    /// From the command line: key (`master.listen`), the flag's name, its value. Lists have commas.
    pub flags: Vec<(&'static str, &'static str, String)>,
}

impl Sources {
    /// A file, if there is one, and this process's environment.
    pub fn system(file: Option<PathBuf>) -> Self {
        Sources {
            file,
            environment: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            flags: Vec::new(),
        }
    }

    pub fn flag(&mut self, key: &'static str, flag: &'static str, value: Option<String>) {
        self.flags.extend(value.map(|value| (key, flag, value)));
    }
}

/// A configuration that was read.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// What people should know but need not act on: variables that look like ours and are not.
    pub warnings: Vec<String>,
    /// Keys that somebody set, as opposed to defaults.
    set: Vec<String>,
}

impl Loaded {
    /// Whether a key (`web.listen`) was set by somebody.
    pub fn is_set(&self, key: &str) -> bool {
        self.set.iter().any(|set| set == key)
    }
}

/// Variables that belong to us and are no configuration keys.
const OTHER_VARIABLES: &[&str] = &["CURVINE_CONFIG"];

/// The variable of the masters' addresses, for short.
const MASTER_VARIABLE: &str = "CURVINE_MASTER";

/// Reads the configuration.
///
/// # Errors
/// `Config`, naming the file, variable or flag, the key, what is wrong and, for an unknown key, the nearest known one.
pub fn load(sources: &Sources) -> Result<Loaded> {
    let keys = keys();
    let mut figment = Figment::from(Serialized::defaults(Config::default()));
    let mut set = Vec::new();
    if let Some(file) = &sources.file {
        let text = std::fs::read_to_string(file)
            .map_err(|e| refused(format!("cannot read the configuration {}: {e}", file.display())))?;
        set.extend(check_names(file, &text, &keys)?);
        figment = figment.merge(Named(Toml::string(&text), file.clone()));
    }
    let mut warnings = Vec::new();
    for (name, value) in &sources.environment {
        let Some(rest) = name.strip_prefix("CURVINE_") else {
            continue;
        };
        let key = keys.iter().find(|key| key.variable() == *name);
        let key = match key {
            Some(key) => key,
            None if name == MASTER_VARIABLE => keys
                .iter()
                .find(|key| key.dotted() == "client.masters")
                .expect("the tree has client.masters"),
            None if OTHER_VARIABLES.contains(&name.as_str()) => continue,
            None => {
                let known = keys.iter().map(Key::variable).collect::<Vec<_>>();
                let nearest = nearest(name, known.iter().map(String::as_str));
                // Not refused: Kubernetes sets such variables for any service of our name.
                if rest.contains("_SERVICE_") || value.starts_with("tcp://") {
                    continue;
                }
                warnings.push(format!("the variable {name} is no configuration key{nearest}"));
                continue;
            }
        };
        set.push(key.dotted());
        figment = figment.merge(One::new(key, &format!("the variable {name}"), value));
    }
    for (dotted, flag, value) in &sources.flags {
        let key = keys
            .iter()
            .find(|key| key.dotted() == *dotted)
            .expect("flags name keys of the tree");
        set.push(key.dotted());
        figment = figment.merge(One::new(key, flag, value));
    }
    let config = Config::read(&figment)?;
    Ok(Loaded {
        config,
        warnings,
        set,
    })
}

struct Key {
    section: &'static str,
    name: &'static str,
    shape: Shape,
}

impl Key {
    fn dotted(&self) -> String {
        match self.section {
            "" => self.name.to_owned(),
            section => format!("{section}.{}", self.name),
        }
    }

    fn variable(&self) -> String {
        format!("CURVINE_{}", self.dotted().replace('.', "_").to_uppercase())
    }
}

fn keys() -> Vec<Key> {
    Config::sections()
        .into_iter()
        .flat_map(|section| {
            section.fields.into_iter().map(move |field| Key {
                section: section.name,
                name: field.name,
                shape: field.shape,
            })
        })
        .collect()
}

/// Refuses unknown sections and keys of a file; the keys it sets.
fn check_names(file: &Path, text: &str, keys: &[Key]) -> Result<Vec<String>> {
    let table: toml::Table = text
        .parse()
        .map_err(|e: toml::de::Error| refused(format!("{}: {}", file.display(), e.to_string().trim_end())))?;
    let mut set = Vec::new();
    for (name, value) in &table {
        let below: Vec<&Key> = keys.iter().filter(|key| key.section == name).collect();
        match value {
            toml::Value::Table(section) if !below.is_empty() => {
                for key in section.keys() {
                    if !below.iter().any(|known| known.name == key) {
                        let nearest = nearest(key, below.iter().map(|known| known.name));
                        return Err(refused(format!(
                            "{}: [{name}] has no key `{key}`{nearest}",
                            file.display()
                        )));
                    }
                    set.push(format!("{name}.{key}"));
                }
            }
            _ if keys.iter().any(|key| key.section.is_empty() && key.name == name) => set.push(name.clone()),
            _ if !below.is_empty() => {
                return Err(refused(format!(
                    "{}: `{name}` is a section; write [{name}] and its keys below",
                    file.display()
                )));
            }
            _ => {
                let top = keys
                    .iter()
                    .filter(|key| key.section.is_empty())
                    .map(|key| key.name);
                let sections = keys
                    .iter()
                    .map(|key| key.section)
                    .filter(|section| !section.is_empty());
                let nearest = nearest(name, top.chain(sections));
                let what = if value.is_table() { "section" } else { "key" };
                return Err(refused(format!(
                    "{}: there is no {what} `{name}`{nearest}",
                    file.display()
                )));
            }
        }
    }
    Ok(set)
}

/// `; did you mean ...?` with the known name that is most like this one, if any is.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| format!("; did you mean `{known}`?"))
        .unwrap_or_default()
}

/// The value of a key, which must be in its range.
pub(crate) fn read<'a, T>(figment: &Figment, key: &str, range: Option<Range>) -> Result<T>
where
    T: Setting + Serialize + Deserialize<'a>,
{
    let value: T = figment
        .extract_inner(key)
        .map_err(|error| describe(&error, key, &whence(figment.find_metadata(key)), range))?;
    match range {
        Some(range) if !range.has(&value) => {
            let written = Value::serialize(&value).map(|value| shown(&value));
            let written = written.unwrap_or_else(|_| "its value".to_owned());
            Err(refused(format!(
                "{}: `{key}`: {written} is out of its range: {range}",
                whence(figment.find_metadata(key))
            )))
        }
        _ => Ok(value),
    }
}

/// A value as it was written.
fn shown(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("`{text}`"),
        Value::Array(_, values) => values.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Num(_, number) => number
            .to_u128()
            .map_or_else(|| format!("{number:?}"), |n| n.to_string()),
        other => format!("{other:?}"),
    }
}

fn whence(metadata: Option<&Metadata>) -> String {
    match metadata {
        Some(Metadata {
            source: Some(Source::File(file)),
            ..
        }) => file.display().to_string(),
        Some(metadata) => metadata.name.to_string(),
        None => "the configuration".to_owned(),
    }
}

fn describe(error: &figment::Error, key: &str, whence: &str, range: Option<Range>) -> Error {
    // In a list, the place of the value is the part that is a number.
    let place = error.path.iter().filter(|part| part.parse::<usize>().is_ok());
    let key = std::iter::once(key)
        .chain(place.map(String::as_str))
        .collect::<Vec<_>>()
        .join(".");
    let problem = match &error.kind {
        Kind::Message(message) => message.clone(),
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            let expected = match expected.as_str() {
                "u64" => "a whole number",
                other => other,
            };
            let range = range.map_or(String::new(), |range| format!(", {range}"));
            format!("found {found}, expected {expected}{range}")
        }
        other => other.to_string(),
    };
    refused(format!("{whence}: `{key}`: {problem}"))
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// A TOML text with the name of the file it came from.
struct Named<F: Format>(Data<F>, PathBuf);

impl<F: Format> Provider for Named<F> {
    fn metadata(&self) -> Metadata {
        Metadata::from("TOML file", Source::File(self.1.clone()))
    }

    fn data(&self) -> figment::error::Result<Map<Profile, Dict>> {
        self.0.data()
    }
}

/// One key set by a variable or a flag.
struct One {
    whence: String,
    section: &'static str,
    name: &'static str,
    value: Value,
}

impl One {
    fn new(key: &Key, whence: &str, text: &str) -> Self {
        let value = match key.shape {
            Shape::Text => Value::from(text),
            Shape::Number => text.trim().parse::<u64>().map_or(Value::from(text), Value::from),
            Shape::Switch => text.trim().parse::<bool>().map_or(Value::from(text), Value::from),
            Shape::List => text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .into(),
        };
        One {
            whence: whence.to_owned(),
            section: key.section,
            name: key.name,
            value,
        }
    }
}

impl Provider for One {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.whence.clone())
    }

    fn data(&self) -> figment::error::Result<Map<Profile, Dict>> {
        let leaf = Dict::from([(self.name.to_owned(), self.value.clone())]);
        let dict = match self.section {
            "" => leaf,
            section => Dict::from([(section.to_owned(), Value::from(leaf))]),
        };
        Ok(Profile::Default.collect(dict))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Reserve, Size};

    fn from_file(text: &str) -> Result<Loaded> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("curvine.toml");
        std::fs::write(&file, text).expect("written");
        load(&Sources {
            file: Some(file.clone()),
            ..Sources::default()
        })
        .map_err(|mut error| {
            error.message = error.message.replace(&file.display().to_string(), "FILE");
            error
        })
    }

    fn message(text: &str) -> String {
        let error = from_file(text).expect_err(text);
        assert_eq!(error.kind, ErrorKind::Config);
        error.message
    }

    #[test]
    fn nothing_set_gives_the_defaults() {
        let loaded = load(&Sources::default()).expect("defaults");
        assert_eq!(loaded.config, Config::default());
        assert!(!loaded.is_set("web.listen"));
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_name() {
        assert_eq!(
            message("[worker]\nlistn = \"127.0.0.1:1\"\n"),
            "FILE: [worker] has no key `listn`; did you mean `listen`?"
        );
        assert_eq!(
            message("data_dirr = \"x\"\n"),
            "FILE: there is no key `data_dirr`; did you mean `data_dir`?"
        );
        assert_eq!(
            message("[mastr]\nid = 1\n"),
            "FILE: there is no section `mastr`; did you mean `master`?"
        );
        assert_eq!(message("zzz = 1\n"), "FILE: there is no key `zzz`");
    }

    #[test]
    fn a_value_of_the_wrong_shape_is_refused_by_file_and_key() {
        assert_eq!(
            message("[master]\nid = \"one\"\n"),
            "FILE: `master.id`: found string \"one\", expected a whole number, 1 or more"
        );
        assert_eq!(
            message("[worker]\nreserve = \"5 parsecs\"\n"),
            "FILE: `worker.reserve`: `5 parsecs` is not a size such as \"128MiB\" or \"100GB\", or \"auto\""
        );
        assert_eq!(
            message("[worker]\ndata_dirs = [\"/x\"]\n"),
            "FILE: `worker.data_dirs.0`: `/x` does not start with a tier; write for instance \"[SSD:100GB]/x\""
        );
        assert_eq!(
            message("master = 3\n"),
            "FILE: `master` is a section; write [master] and its keys below"
        );
    }

    #[test]
    fn a_value_that_a_node_cannot_work_with_is_refused_by_file_and_key_with_the_range() {
        let block_size = "64KiB to 4GiB, a multiple of 64KiB";
        for (section, line, says) in [
            (
                "",
                "threads = 100000",
                "`threads`: 100000 is out of its range: 0 to 1024",
            ),
            (
                "",
                "threads = 3000000000",
                "`threads`: 3000000000 is out of its range: 0 to 1024",
            ),
            (
                "",
                "threads = \"abc\"",
                "`threads`: found string \"abc\", expected a whole number, 0 to 1024",
            ),
            (
                "",
                "threads = -1",
                "`threads`: found signed int `-1`, expected a whole number, 0 to 1024",
            ),
            (
                "",
                "threads = 1.5",
                "`threads`: found float `1.5`, expected a whole number, 0 to 1024",
            ),
            (
                "master",
                "id = 0",
                "`master.id`: 0 is out of its range: 1 or more",
            ),
            (
                "master",
                "replicas = 0",
                "`master.replicas`: 0 is out of its range: 1 to 255",
            ),
            (
                "worker",
                "heartbeat = \"0s\"",
                "`worker.heartbeat`: `0s` is out of its range: 100ms to 5s",
            ),
            (
                "worker",
                "heartbeat = \"1h\"",
                "`worker.heartbeat`: `1h` is out of its range: 100ms to 5s",
            ),
            (
                "worker",
                "data_dirs = [\"[SSD:1GiB]/a\", \"[SSD:1B]/b\"]",
                "`worker.data_dirs`: `[SSD:1GiB]/a`, `[SSD:1B]/b` is out of its range: 1MiB or more",
            ),
            (
                "worker",
                "advertise = \"foo\"",
                "`worker.advertise`: `foo` is not an address such as \"127.0.0.1:8995\" (host:port), or empty",
            ),
            (
                "worker",
                "advertise = \"foo:0\"",
                "`worker.advertise`: nobody can reach `foo:0`: name the port",
            ),
            (
                "fuse",
                "threads = 0",
                "`fuse.threads`: 0 is out of its range: 1 to 256",
            ),
            (
                "fuse",
                "threads = 100000",
                "`fuse.threads`: 100000 is out of its range: 1 to 256",
            ),
            (
                "log",
                "level = \"loud\"",
                "`log.level`: `loud` is none of off, error, warn, info, debug, trace, and no directive such as \
                 \"curvine_actors=debug\"",
            ),
        ] {
            assert_eq!(
                message(&format!("[{section}]\n{line}\n").replace("[]\n", "")),
                format!("FILE: {says}")
            );
        }
        for value in ["0B", "1B", "100TB", "65KiB"] {
            assert_eq!(
                message(&format!("[master]\nblock_size = \"{value}\"\n")),
                format!("FILE: `master.block_size`: `{value}` is out of its range: {block_size}")
            );
        }
        for good in ["64KiB", "4GiB", "128MiB"] {
            from_file(&format!("[master]\nblock_size = \"{good}\"\n")).expect(good);
        }
        let error = load(&Sources {
            environment: vec![("CURVINE_THREADS".to_owned(), "-1".to_owned())],
            ..Sources::default()
        });
        assert_eq!(
            error.expect_err("is none").message,
            "the variable CURVINE_THREADS: `threads`: found string \"-1\", expected a whole number, 0 to 1024"
        );
    }

    #[test]
    fn every_amount_has_a_range_which_its_default_is_in() {
        for section in Config::sections() {
            for field in section.fields {
                let default = crate::render::default_value(section.name, field.name);
                let text = default.as_str().unwrap_or_default();
                let amount = default.is_integer()
                    || text.parse::<Size>().is_ok()
                    || text.parse::<crate::units::Span>().is_ok();
                assert!(
                    !amount || field.range.is_some(),
                    "{}.{}",
                    section.name,
                    field.name
                );
            }
        }
    }

    #[test]
    fn later_layers_win() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("curvine.toml");
        std::fs::write(
            &file,
            "data_dir = \"a\"\n[master]\nid = 2\nlisten = \"127.0.0.1:1\"\n[worker]\nreserve = \"2GiB\"\n",
        )
        .expect("written");
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut sources = Sources {
            file: Some(file),
            environment: vec![
                variable("CURVINE_MASTER_LISTEN", "127.0.0.1:2"),
                variable("CURVINE_MASTER_ID", "3"),
                variable("CURVINE_MASTER", "a:1, b:2"),
                variable("CURVINE_CLUSTER", "123"),
                variable("HOME", "/root"),
            ],
            flags: Vec::new(),
        };
        sources.flag("master.listen", "--listen", Some("127.0.0.1:3".to_owned()));
        sources.flag("fuse.allow_other", "--allow-other", Some("true".to_owned()));
        sources.flag("worker.listen", "--listen", None);
        let loaded = load(&sources).expect("valid");
        let config = &loaded.config;
        assert_eq!(config.node.data_dir, "a");
        assert_eq!(config.node.cluster, "123");
        assert_eq!(config.master.id, 3);
        assert_eq!(config.master.listen.as_str(), "127.0.0.1:3");
        assert_eq!(config.worker.reserve, Reserve::Of(Size(2 << 30)));
        assert_eq!(
            config
                .client
                .masters
                .iter()
                .map(|a| a.as_str())
                .collect::<Vec<_>>(),
            ["a:1", "b:2"]
        );
        assert!(config.fuse.allow_other);
        assert!(loaded.is_set("master.listen") && !loaded.is_set("worker.listen"));
        assert_eq!(loaded.warnings, Vec::<String>::new());
    }

    #[test]
    fn a_variable_of_the_wrong_shape_is_named() {
        let error = load(&Sources {
            environment: vec![("CURVINE_MASTER_ID".to_owned(), "x".to_owned())],
            ..Sources::default()
        })
        .expect_err("not a number");
        assert_eq!(
            error.message,
            "the variable CURVINE_MASTER_ID: `master.id`: found string \"x\", expected a whole number, 1 or more"
        );
    }

    #[test]
    fn a_mistyped_variable_is_warned_about_and_what_kubernetes_sets_is_not() {
        let loaded = load(&Sources {
            environment: vec![
                ("CURVINE_MASTER_LISTN".to_owned(), "x".to_owned()),
                ("CURVINE_MASTER_PORT".to_owned(), "tcp://10.0.0.1:8995".to_owned()),
                ("CURVINE_MASTER_SERVICE_HOST".to_owned(), "10.0.0.1".to_owned()),
            ],
            ..Sources::default()
        })
        .expect("valid");
        assert_eq!(
            loaded.warnings,
            [
                "the variable CURVINE_MASTER_LISTN is no configuration key; did you mean `CURVINE_MASTER_LISTEN`?"
            ]
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load(&Sources {
            file: Some("/nowhere/curvine.toml".into()),
            ..Sources::default()
        })
        .expect_err("missing");
        assert_eq!(error.kind, ErrorKind::Config);
        assert_eq!(
            error.message,
            "cannot read the configuration /nowhere/curvine.toml: No such file or directory (os error 2)"
        );
    }
}
