//! The frame: how a call or a reply crosses a socket.
//!
//! ```text
//! offset size field
//!      0    4 magic "CVN1"            (the 1 is the frame version)
//!      4    1 kind                    1 request, 2 reply, 3 failure, 4 goodbye
//!      5    1 flags                   0; others are refused
//!      6    2 code, little endian     the call's code (also in its reply)
//!      8    8 request id, little endian, chosen by the caller, unique per connection
//!     16    4 header length, little endian, at most 16 MiB
//!     20    4 body length, little endian, at most 16 MiB
//!     24    .. header (MessagePack), then body (raw bytes)
//! ```
//! The header of a request is `(CallContext, call)`, of a reply the reply, of a failure an [`Error`]. The body
//! never passes a serializer. The lengths are checked before anything is allocated.

use crate::error::{Error, ErrorKind, Result};

/// Length of what is before the header.
pub const PREFIX_BYTES: usize = 24;
/// What every frame begins with; the last byte is the version.
pub const MAGIC: [u8; 4] = *b"CVN1";
/// Most bytes of a header.
pub const HEADER_BYTES_MAX: u32 = 16 << 20;
/// Most bytes of a body.
pub const BODY_BYTES_MAX: u32 = 16 << 20;
/// A whole frame.
pub const FRAME_BYTES_MAX: usize = PREFIX_BYTES + HEADER_BYTES_MAX as usize + BODY_BYTES_MAX as usize;

/// What a frame is. The numbers are its codes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    Request = 1,
    Reply = 2,
    Failure = 3,
    /// The sender is about to close the connection; the header is an [`Error`] that says why.
    Goodbye = 4,
}

/// The first bytes of a frame, which say what and how much follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    pub kind: FrameKind,
    pub code: u16,
    pub request_id: u64,
    /// Length of the header, at most [`HEADER_BYTES_MAX`].
    pub header_bytes: u32,
    /// Length of the body, at most [`BODY_BYTES_MAX`].
    pub body_bytes: u32,
}

impl Prefix {
    /// The bytes of the table above.
    pub fn encode(&self) -> [u8; PREFIX_BYTES] {
        let mut bytes = [0u8; PREFIX_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4] = self.kind as u8;
        bytes[6..8].copy_from_slice(&self.code.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.request_id.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.header_bytes.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes
    }

    /// # Errors
    /// `Protocol` for another magic, version, kind or flag, or a length over its limit.
    pub fn decode(bytes: &[u8; PREFIX_BYTES]) -> Result<Prefix> {
        let refuse = |message: String| Err(Error::new(ErrorKind::Protocol, message));
        if bytes[0..3] != MAGIC[0..3] {
            return refuse(
                "not a Curvine frame: check that the address and port are a Curvine node's".to_owned(),
            );
        }
        if bytes[3] != MAGIC[3] {
            return refuse(format!(
                "frame version `{}` is not supported; this node speaks version `{}`: upgrade the older side",
                bytes[3].escape_ascii(),
                MAGIC[3].escape_ascii()
            ));
        }
        let kind = match bytes[4] {
            1 => FrameKind::Request,
            2 => FrameKind::Reply,
            3 => FrameKind::Failure,
            4 => FrameKind::Goodbye,
            other => return refuse(format!("unknown frame kind {other}")),
        };
        if bytes[5] != 0 {
            return refuse(format!("unknown frame flags {:#04x}", bytes[5]));
        }
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (header_bytes, body_bytes) = (u32_at(16), u32_at(20));
        if header_bytes > HEADER_BYTES_MAX {
            return refuse(format!(
                "frame header of {header_bytes} bytes; at most {HEADER_BYTES_MAX} are allowed"
            ));
        }
        if body_bytes > BODY_BYTES_MAX {
            return refuse(format!(
                "frame body of {body_bytes} bytes; at most {BODY_BYTES_MAX} are allowed"
            ));
        }
        let mut request_id = [0u8; 8];
        request_id.copy_from_slice(&bytes[8..16]);
        Ok(Prefix {
            kind,
            code: u16::from_le_bytes([bytes[6], bytes[7]]),
            request_id: u64::from_le_bytes(request_id),
            header_bytes,
            body_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: Prefix = Prefix {
        kind: FrameKind::Request,
        code: 0x0102,
        request_id: 7,
        header_bytes: 3,
        body_bytes: 4,
    };

    #[test]
    fn the_prefix_has_its_documented_bytes() {
        assert_eq!(
            SAMPLE.encode(),
            *b"CVN1\x01\x00\x02\x01\x07\0\0\0\0\0\0\0\x03\0\0\0\x04\0\0\0"
        );
        assert_eq!(Prefix::decode(&SAMPLE.encode()), Ok(SAMPLE));
    }

    #[test]
    fn garbage_versions_flags_and_giants_are_refused() {
        let broken = |at: usize, value: u8| {
            let mut bytes = SAMPLE.encode();
            bytes[at] = value;
            Prefix::decode(&bytes).map_err(|e| e.kind)
        };
        for (at, value) in [(0, b'X'), (3, b'2'), (4, 9), (5, 1), (19, 0xff), (23, 0xff)] {
            assert_eq!(broken(at, value), Err(ErrorKind::Protocol), "byte {at} = {value}");
        }
    }
}
