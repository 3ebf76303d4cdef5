//! `cv` is light: nothing of under file systems, Raft or storage is linked into it.
//!
//! The workspace is built with its features together, so the crates that `cv` is made of do know all that. What nobody
//! calls, the linker leaves out: a constructor or a table of everything, anywhere, would bring it back.

#![cfg(target_os = "linux")]

use object::{Object, ObjectSymbol};

/// What only masters and workers need.
const HEAVY: &[&str] = &[
    "opendal",
    "opendal_core",
    "opendal_service_azblob",
    "opendal_service_gcs",
    "opendal_service_s3",
    "reqsign_core",
    "reqwest",
    "rustls",
    "openraft",
    "heed",
];

#[test]
fn cv_has_no_symbols_of_under_file_systems_raft_or_storage() {
    let binary = std::fs::read(env!("CARGO_BIN_EXE_cv")).expect("cargo builds cv before its tests");
    let binary = object::File::parse(&*binary).expect("an ELF file");
    let symbols: Vec<&str> = binary
        .symbols()
        .filter(|symbol| symbol.is_definition())
        .map(|symbol| symbol.name().expect("UTF-8"))
        .collect();
    // Mangled names carry a crate's name with its length in front.
    let of = |name: &str| -> Vec<&str> {
        let mangled = format!("{}{name}", name.len());
        let named = symbols.iter().filter(|symbol| symbol.contains(&mangled));
        named.copied().collect()
    };
    // A binary without symbols would pass for a light one.
    assert!(!of("curvine_actors").is_empty(), "cv has no symbols to look at");
    for name in HEAVY {
        let found = of(name);
        assert!(
            found.is_empty(),
            "cv contains {name}: {} symbols, such as {}",
            found.len(),
            found[0]
        );
    }
}
