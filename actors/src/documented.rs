//! Tables of the documentation that are rendered from the code.

use std::path::Path;

/// Compares what stands between two marks of a document with what is rendered, or writes it there with `UPDATE_RENDERED`.
/// Returns the document as it should be.
///
/// # Panics
/// If it is another; `again` is the command that renders it.
pub fn check(document: &str, (begin, end): (&str, &str), table: &str, again: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
    let text = std::fs::read_to_string(&path).expect("the document is there");
    let (before, rest) = text.split_once(begin).expect("where the table begins");
    let (_, after) = rest.split_once(end).expect("where the table ends");
    let right = format!("{before}{begin}\n{table}\n{end}{after}");
    if std::env::var_os("UPDATE_RENDERED").is_some() {
        std::fs::write(&path, &right).expect("written");
    } else {
        assert!(
            text == right,
            "{document} is out of date: UPDATE_RENDERED=1 {again}"
        );
    }
    right
}
