//! The programs of this source tree.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The `curvine-node` of this source tree and profile; `CURVINE_NODE` names another one.
///
/// Cargo names it to tests of its own package. For those of others, which cargo builds without it, it is built here.
pub fn node() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let named = ["CURVINE_NODE", "CARGO_BIN_EXE_curvine-node"];
        let named = named.into_iter().find_map(std::env::var_os);
        named.map_or_else(built, PathBuf::from)
    })
}

fn built() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    // target/<profile>/deps/<test> or target/<profile>/examples/<example>
    let profile = test.ancestors().nth(2).expect("cargo puts tests two levels deep");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // With the features that it has in the whole workspace: it is built already then, as a rule.
    build.args([
        "build",
        "--quiet",
        "--workspace",
        "--bin",
        "curvine-node",
        "--manifest-path",
    ]);
    build.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
    build
        .arg("--target-dir")
        .arg(profile.parent().expect("a profile is in the target directory"));
    if profile.ends_with("release") {
        build.arg("--release");
    }
    let built = build.status().expect("cargo runs");
    assert!(built.success(), "curvine-node does not build");
    profile.join("curvine-node")
}

/// Which bug a program is to have: not a setting, and only a build for the exam looks there (`actors/src/planted.rs`).
const PLANT: &str = "CURVINE_PLANT";

/// A command that sees none of the caller's settings.
pub fn command(program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let is_setting = ["CURVINE_", "AWS_", "RUST_LOG", "NO_COLOR"]
            .iter()
            .any(|setting| text.starts_with(setting));
        if is_setting && text != PLANT {
            command.env_remove(&name);
        }
    }
    command.args(args).stdin(Stdio::null());
    command
}
