//! How requests and replies are encoded: as `java.io.DataOutputStream` does it, but text is its length in bytes (int) and
//! UTF-8.
//!
//! A reply begins with 0 and goes on with the result, or with 1, and then the class of the exception, the kind of the error
//! and the message follow.

use curvine_protocol::{Error, Result};

/// Reads the fields of a request in their order.
pub struct Request<'a> {
    rest: &'a [u8],
}

impl<'a> Request<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Request { rest: bytes }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub fn byte(&mut self) -> Result<u8> {
        Ok(u8::from_be_bytes(self.take()?))
    }

    pub fn flag(&mut self) -> Result<bool> {
        Ok(self.byte()? != 0)
    }

    pub fn int(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.take()?))
    }

    pub fn long(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.take()?))
    }

    /// A long that is not negative.
    pub fn count(&mut self) -> Result<u64> {
        let long = self.long()?;
        u64::try_from(long).map_err(|_| Error::invalid(format!("{long} is negative")))
    }

    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(self.int()?).map_err(|_| cut_short())?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(taken)
    }

    pub fn text(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Error::invalid("text that is not UTF-8"))
    }

    /// Text, of which the empty one means none.
    pub fn text_if_any(&mut self) -> Result<Option<&'a str>> {
        Ok(Some(self.text()?).filter(|text| !text.is_empty()))
    }
}

fn cut_short() -> Error {
    Error::internal(
        "a request of the jar is cut short: the jar and its native library are of different versions",
    )
}

/// Gathers the fields of a result.
#[derive(Default)]
pub struct Reply(Vec<u8>);

impl Reply {
    pub fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub fn int(&mut self, value: u32) {
        self.0.extend(value.to_be_bytes());
    }

    pub fn long(&mut self, value: i64) {
        self.0.extend(value.to_be_bytes());
    }

    /// A number of bytes or the like; none of ours needs the sign's bit.
    pub fn count(&mut self, value: u64) {
        self.long(i64::try_from(value).unwrap_or(i64::MAX));
    }

    pub fn bytes(&mut self, value: &[u8]) {
        self.int(u32::try_from(value.len()).expect("names and attributes are far shorter"));
        self.0.extend(value);
    }

    pub fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// How many entries follow.
    pub fn length(&mut self, entries: usize) {
        self.int(u32::try_from(entries).expect("a page, a layout or a list of attributes is far shorter"));
    }
}

/// The whole reply.
pub fn reply(outcome: Result<Reply>) -> Vec<u8> {
    let mut reply = Reply(Vec::with_capacity(64));
    match outcome {
        Ok(result) => {
            reply.byte(0);
            reply.0.extend(result.0);
        }
        Err(error) => {
            reply.byte(1);
            reply.text(error.kind.java_exception());
            reply.text(error.kind.name());
            reply.text(&error.message);
        }
    }
    reply.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use curvine_protocol::ErrorKind;

    #[test]
    fn a_request_is_read_as_java_writes_it() {
        let bytes = [7, 0, 0, 0, 2, b'h', b'i', 0, 0, 0, 0, 0, 0, 1, 0, 1];
        let mut request = Request::new(&bytes);
        assert_eq!(request.byte(), Ok(7));
        assert_eq!(request.text(), Ok("hi"));
        assert_eq!(request.count(), Ok(256));
        assert_eq!(request.flag(), Ok(true));
        assert_eq!(
            request.byte().map_err(|error| error.kind),
            Err(ErrorKind::Internal)
        );
    }

    #[test]
    fn an_error_names_its_exception_its_kind_and_its_cause() {
        let mut said = vec![1];
        for text in [
            "java.io.FileNotFoundException",
            "NotFound",
            "/a: no such file or directory",
        ] {
            said.extend(u32::try_from(text.len()).expect("short").to_be_bytes());
            said.extend(text.as_bytes());
        }
        assert_eq!(reply(Err(Error::not_found("/a"))), said);
    }
}
