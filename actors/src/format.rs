//! The format of an environment on disk: one number beside its records.
//!
//! Records grow at their ends (see `curvine_protocol::codec`), which needs no number. It is for what cannot be said that
//! way: a version that writes what older ones must not read raises it, and older ones refuse the environment.

use std::path::Path;

use curvine_protocol::codec::{decode, encode};
use curvine_protocol::{Error, ErrorKind, Result};
use heed::types::Bytes;
use heed::{Database, RwTxn};

/// The key in an environment's database of odds and ends.
const KEY: &[u8] = b"format";

/// Checks the format of what is there, and notes that it is this version's from now on.
///
/// # Errors
/// `Config` if a newer version wrote it.
pub fn check(meta: Database<Bytes, Bytes>, txn: &mut RwTxn, newest: u32, directory: &Path) -> Result<()> {
    let failed = |error: heed::Error| {
        let error = match error {
            heed::Error::Io(io) => io.into(),
            other => Error::new(ErrorKind::Io, other.to_string()),
        };
        error.while_doing(format_args!("reading the format of {}", directory.display()))
    };
    let Some(bytes) = meta.get(txn, KEY).map_err(failed)? else {
        return meta.put(txn, KEY, &encode(&newest)).map_err(failed);
    };
    match decode::<u32>(bytes)? {
        known if known < newest => meta.put(txn, KEY, &encode(&newest)).map_err(failed),
        known if known == newest => Ok(()),
        newer => Err(Error::new(
            ErrorKind::Config,
            format!(
                "{} has format {newer} and this version knows up to {newest}; start a newer curvine-node",
                directory.display()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use heed::EnvOpenOptions;

    use super::*;

    #[test]
    fn a_new_environment_is_marked_and_a_newer_one_is_refused() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let mut options = EnvOpenOptions::new();
        options.max_dbs(1);
        // SAFETY: nobody else knows the directory.
        let env = unsafe { options.open(scratch.path()) }.expect("opens");
        let mut txn = env.write_txn().expect("one writer");
        let meta = env.create_database(&mut txn, Some("meta")).expect("room");
        for newest in [1, 1, 2] {
            check(meta, &mut txn, newest, scratch.path()).expect("known");
        }
        meta.put(&mut txn, KEY, &encode(&3u32)).expect("room");
        let error = check(meta, &mut txn, 2, scratch.path()).expect_err("newer");
        assert_eq!(error.kind, ErrorKind::Config);
        assert!(
            error
                .message
                .ends_with("has format 3 and this version knows up to 2; start a newer curvine-node"),
            "{error}"
        );
    }
}
