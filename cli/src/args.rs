//! The command line as a whole: options that every command takes, and the list of commands.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::commands as c;

/// Fits a terminal of 24 lines of 80 columns (tested).
pub const HELP: &str = "\
cv - the command line of Curvine, a distributed cache file system

Usage: cv [--master ADDR,...] [--json] COMMAND [ARGS]    (cv COMMAND --help)

  Look      ls  stat  cat  head  tail  du  df  count  blocks  locks
  Change    mkdir  touch  mv  rm  chmod  chown  acl  replicas  quota  tier  ttl
  Transfer  put  get                      globs: '/data/*/x-?.parquet'
  Cache     mount  umount  mounts  persist  free
            load  load-status  load-cancel  pin  unpin  pins  why
  Cluster   report  node  master  fsck  scrub  balance
  Other     bench  version  completions

  --master ADDR,...  masters, host:port   [CURVINE_MASTER, 127.0.0.1:8995]
  --config FILE      configuration        [CURVINE_CONFIG, ./curvine.toml]
  --json             answer with JSON: a document, or an object a line in lists

Example: cv mount s3://bucket/train /train -o endpoint=http://127.0.0.1:9000
         cv load /train --watch && cv ls -lh /train

Exit codes: 0 done, 1 refused, 2 wrong use, 3 cluster out of reach,
            4 data or disk trouble, 5 defect, 130 interrupted
";

#[derive(Parser)]
#[command(name = "cv", version, override_help = HELP, max_term_width = 100)]
pub struct Cv {
    /// The masters: `host:port,...`
    #[arg(long, global = true, value_name = "ADDR,...")]
    pub master: Option<String>,
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE", env = "CURVINE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Answer with JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

macro_rules! commands {
    ($($variant:ident $module:ident $name:literal;)*) => {
        #[derive(Subcommand)]
        pub enum Command {
            $(#[command(name = $name)] $variant(c::$module::Args),)*
        }

        impl Command {
            pub fn name(&self) -> &'static str {
                match self { $(Command::$variant(_) => $name,)* }
            }
        }

        /// Every command's name.
        #[cfg(test)]
        pub const NAMES: &[&str] = &[$($name),*];
    };
}

commands! {
    Ls ls "ls";
    Stat stat "stat";
    Cat cat "cat";
    Head head "head";
    Tail tail "tail";
    Du du "du";
    Df df "df";
    Bench bench "bench";
    Count count "count";
    Blocks blocks "blocks";
    Mkdir mkdir "mkdir";
    Touch touch "touch";
    Mv mv "mv";
    Rm rm "rm";
    Chmod chmod "chmod";
    Chown chown "chown";
    Acl acl "acl";
    Replicas replicas "replicas";
    Put put "put";
    Get get "get";
    Mount mount "mount";
    Umount umount "umount";
    Mounts mounts "mounts";
    Persist persist "persist";
    Locks locks "locks";
    Load load "load";
    LoadStatus load_status "load-status";
    LoadCancel load_cancel "load-cancel";
    Free free "free";
    Pin pin "pin";
    Unpin unpin "unpin";
    Pins pins "pins";
    Quota quota "quota";
    Tier tier "tier";
    Ttl ttl "ttl";
    Report report "report";
    Why why "why";
    Fsck fsck "fsck";
    Scrub scrub "scrub";
    Balance balance "balance";
    Node node "node";
    Master master "master";
    Version version "version";
    Completions completions "completions";
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_help_fits_a_screen_and_names_every_command() {
        assert!(HELP.lines().count() <= 24, "{} lines", HELP.lines().count());
        for line in HELP.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        let words: Vec<&str> = HELP.split_whitespace().collect();
        for name in NAMES {
            assert!(words.contains(name), "{name} is missing");
        }
    }

    /// clap keeps values by the names of fields: a command's own would take the place of the option's, with another type.
    #[test]
    fn no_argument_has_the_name_of_an_option_that_every_command_takes() {
        fn check(command: &clap::Command, options: &[&str]) {
            for inner in command.get_subcommands() {
                for argument in inner.get_arguments() {
                    let (name, id) = (inner.get_name(), argument.get_id().as_str());
                    assert!(!options.contains(&id), "`{id}` of {name}");
                }
                check(inner, options);
            }
        }
        // Not built, so that they are not in every command yet.
        check(&Cv::command(), &["master", "config", "json"]);
    }

    #[test]
    fn the_arguments_of_every_command_are_consistent_and_have_an_example() {
        Cv::command().debug_assert();
        for name in NAMES {
            let mut command = Cv::command();
            let command = command.find_subcommand_mut(name).expect("a command");
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "{name} --help has no example");
        }
    }
}
