//! MessagePack, compact form, as used for every frame header and every record on disk.

use serde::{Serialize, de::DeserializeOwned};

use crate::error::{Error, ErrorKind, Result};

/// Encodes a value. Infallible for the types of this crate: they have no map keys that are not strings and no
/// unsized sequences.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec(value).expect("protocol types always encode")
}

/// Appends a value's encoding to a buffer.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, buffer: &mut Vec<u8>) {
    rmp_serde::encode::write(buffer, value).expect("protocol types always encode");
}

/// Decodes a value.
///
/// # Errors
/// `Protocol`, with the name of what was expected.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    rmp_serde::from_slice(bytes).map_err(|error| {
        Error::new(
            ErrorKind::Protocol,
            format!(
                "{} bytes are not a {}: {error}",
                bytes.len(),
                std::any::type_name::<T>()
            ),
        )
    })
}
