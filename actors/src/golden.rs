//! Golden files of what rests on disk, in `testdata/`. Their form is that of the messages', in `protocol/tests/golden`.

#[path = "../../protocol/tests/golden/render.rs"]
mod render;

use std::path::PathBuf;

pub use render::Golden;

pub fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(name)
}

/// A way to read bytes back for records that are raw bytes: as they are.
pub fn as_they_are(bytes: &[u8]) -> Result<Vec<u8>, String> {
    Ok(bytes.to_vec())
}

/// The same for text.
pub fn text(bytes: &[u8]) -> Result<Vec<u8>, String> {
    String::from_utf8(bytes.to_vec())
        .map(String::into_bytes)
        .map_err(|error| error.to_string())
}
