//! The table of schemes in `docs/stores.md`: what OpenDAL can do with each.

use std::collections::BTreeMap;

use super::*;
use crate::documented;

const BEGIN: &str =
    "<!-- The table is rendered: UPDATE_RENDERED=1 cargo test --workspace --lib -- ufs::docs -->\n";
const END: &str = "<!-- end of the table -->";

/// One of each service.
const EXAMPLES: &[(&str, &str)] = &[
    ("`s3`", "s3://bucket"),
    ("`oss`", "oss://bucket"),
    ("`cos`", "cos://bucket"),
    ("`obs`", "obs://bucket"),
    ("`gs`, `gcs`", "gs://bucket"),
    ("`az`, `azblob`", "az://container"),
    ("`webhdfs`", "webhdfs://127.0.0.1:9/"),
    ("`hdfs`", "hdfs://127.0.0.1:9/"),
    ("`http`, `https`", "http://127.0.0.1:9/"),
    ("`file`, `fs`", "file:///tmp"),
];

fn table() -> String {
    let mut out = "| scheme | write | read `If-Match` | write `If-Match` | write if absent | versions | multipart | copy | \
                   rename | metadata |\n|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for (names, uri) in EXAMPLES {
        let endpoint = match uri.contains("127.0.0.1") || uri.starts_with("file") {
            true => BTreeMap::new(),
            false => [("endpoint".to_owned(), "http://127.0.0.1:9".to_owned())].into(),
        };
        let ufs = Ufs::open_parts(uri, &endpoint).expect("opens");
        let can = ufs.operator.info().capability();
        let abilities = [
            can.write,
            can.read_with_if_match,
            can.write_with_if_match,
            can.write_with_if_not_exists,
            can.read_with_version,
            can.write_can_multi,
            can.copy,
            can.rename,
            can.write_with_user_metadata,
        ];
        let cells = abilities.map(|can| if can { "yes" } else { "-" });
        out += &format!("| {names} | {} |\n", cells.join(" | "));
    }
    out
}

#[test]
fn the_documentation_says_what_each_scheme_can_do() {
    documented::check(
        "docs/stores.md",
        (BEGIN, END),
        &table(),
        "cargo test --workspace --lib -- ufs::docs",
    );
}
