//! Values that are written as text: with their unit, or in a form that is checked when it is read.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::section::Setting;

/// An amount of bytes: `"128MiB"`, `"100GB"`, `"512KB"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().ends_with(|last: char| last.is_ascii_digit()) && text.trim() != "0" {
            // What looks like bytes is said as such.
            let instance = match text.trim().parse() {
                Ok(bytes) if bytes >= 1 << 20 => Size(bytes).to_string(),
                _ => format!("{text}MiB"),
            };
            return Err(format!("`{text}` has no unit; write for instance \"{instance}\""));
        }
        match text.trim().parse::<bytesize::ByteSize>() {
            Ok(size) => Ok(Size(size.as_u64())),
            Err(_) => Err(format!("`{text}` is not a size such as \"128MiB\" or \"100GB\"")),
        }
    }
}

impl fmt::Display for Size {
    /// Exact: in the largest unit that divides it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [
            (1 << 40, "TiB"),
            (1_000_000_000_000, "TB"),
            (1 << 30, "GiB"),
            (1_000_000_000, "GB"),
            (1 << 20, "MiB"),
            (1_000_000, "MB"),
            (1 << 10, "KiB"),
            (1_000, "KB"),
        ];
        match units
            .iter()
            .find(|(bytes, _)| self.0 != 0 && self.0.is_multiple_of(*bytes))
        {
            Some((bytes, unit)) => write!(f, "{}{unit}", self.0 / bytes),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// Free space to leave on a device: a size, or `"auto"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Reserve {
    Auto,
    Of(Size),
}

impl FromStr for Reserve {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "auto" => Ok(Reserve::Auto),
            size => Ok(Reserve::Of(
                size.parse::<Size>().map_err(|e| format!("{e}, or \"auto\""))?,
            )),
        }
    }
}

impl fmt::Display for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reserve::Auto => f.write_str("auto"),
            Reserve::Of(size) => size.fmt(f),
        }
    }
}

/// A time span: `"5s"`, `"200ms"`, `"1h 30m"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match humantime::parse_duration(text.trim()) {
            Ok(span) => Ok(Span(span)),
            Err(_) => Err(format!(
                "`{text}` is not a time span such as \"5s\", \"200ms\" or \"1h\""
            )),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// Where a node listens or is reached: `"127.0.0.1:8995"`, `"master-1:8995"`, `"[::1]:8995"`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(String);

impl Address {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same, if it is one that others can call: port 0 means any.
    fn reachable(self) -> Result<Address, String> {
        match self.0.rsplit_once(':') {
            Some((_, port)) if port.parse() == Ok(0_u16) => {
                Err(format!("nobody can reach `{self}`: name the port"))
            }
            _ => Ok(self),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = || format!("`{text}` is not an address such as \"127.0.0.1:8995\" (host:port)");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() || host.contains(char::is_whitespace) || (host.contains(':') && !bracketed) {
            return Err(wrong());
        }
        port.parse::<u16>().map_err(|_| wrong())?;
        Ok(Address(text.to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An address, or `"off"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum WebAddress {
    Off,
    On(Address),
}

impl FromStr for WebAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "off" => Ok(WebAddress::Off),
            address => Ok(WebAddress::On(
                address
                    .parse::<Address>()
                    .map_err(|e| format!("{e}, or \"off\""))?,
            )),
        }
    }
}

impl fmt::Display for WebAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WebAddress::Off => f.write_str("off"),
            WebAddress::On(address) => address.fmt(f),
        }
    }
}

/// Where others reach a node: empty (where it listens), or an address with a real port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Advertise {
    AsListen,
    At(Address),
}

impl FromStr for Advertise {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Advertise::AsListen);
        }
        let address = text.parse::<Address>().map_err(|e| format!("{e}, or empty"))?;
        address.reachable().map(Advertise::At)
    }
}

impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Advertise::AsListen => Ok(()),
            Advertise::At(address) => address.fmt(f),
        }
    }
}

/// What is logged: a level, or directives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogLevel(String);

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl FromStr for LogLevel {
    type Err = String;

    /// A word that is no level would be taken for the name of a part that is to log everything, and silence the others.
    fn from_str(text: &str) -> Result<Self, String> {
        for directive in text.split(',') {
            let level = match directive.rsplit_once('=') {
                Some((part, level)) if !part.trim().is_empty() => level,
                _ => directive,
            };
            if !LEVELS.contains(&level.trim().to_ascii_lowercase().as_str()) {
                return Err(format!(
                    "`{}` is none of {}, and no directive such as \"curvine_actors=debug\"",
                    directive.trim(),
                    LEVELS.join(", ")
                ));
            }
        }
        Ok(LogLevel(text.to_owned()))
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A master of the group: `"1=127.0.0.1:7001"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Peer {
    pub id: u64,
    pub address: Address,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (id, address) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` is not a peer such as \"1=127.0.0.1:7001\" (id=host:port)"))?;
        match id.trim().parse() {
            Ok(id) if id > 0 => Ok(Peer {
                id,
                address: address.parse::<Address>()?.reachable()?,
            }),
            _ => Err(format!(
                "`{id}` in `{text}` is not a master's id; ids are whole numbers from 1 on"
            )),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.id, self.address)
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub enum $name { $($(#[$word_doc])* $variant,)* }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text.trim() {
                    $($word => Ok($name::$variant),)*
                    _ => Err(format!("`{text}` is none of {}", [$($word),*].join(", "))),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($name::$variant => $word,)* })
            }
        }
    };
}

words! {
    /// When a worker forces block data to its disk without being asked to.
    FsyncPolicy {
        /// When the kernel likes.
        Never = "never",
        /// Before the close of a file is acknowledged.
        OnClose = "on_close",
        /// In the background, every second.
        Periodic = "periodic",
    }
}

words! {
    /// Which cached blocks go first when a worker needs room.
    EvictionPolicy {
        /// What was read once before what was read again; of data that is read over and over, a fixed part stays.
        S3Fifo = "s3_fifo",
        /// What was not read for longest.
        Lru = "lru",
        /// What was read least often.
        Lfu = "lfu",
    }
}

words! {
    LogFormat {
        Text = "text",
        Json = "json",
    }
}

macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }

    )*};
}

macro_rules! without_amount {
    ($($type:ty),*) => {$(
        impl Setting for $type {}
    )*};
}

as_text!(
    Size,
    Reserve,
    Span,
    Address,
    Advertise,
    WebAddress,
    Peer,
    FsyncPolicy,
    EvictionPolicy,
    LogFormat,
    LogLevel,
    crate::data_dir::DataDir,
    crate::labels::WorkerLabels
);

without_amount!(
    Address,
    Advertise,
    WebAddress,
    Peer,
    FsyncPolicy,
    EvictionPolicy,
    LogFormat,
    LogLevel,
    crate::labels::WorkerLabels
);

impl Setting for Size {
    fn amounts(&self) -> Vec<u128> {
        vec![u128::from(self.0)]
    }

    fn amount_of(text: &str) -> Option<u128> {
        text.parse::<Size>().ok().map(|size| u128::from(size.0))
    }
}

impl Setting for Reserve {
    fn amounts(&self) -> Vec<u128> {
        match self {
            Reserve::Auto => Vec::new(),
            Reserve::Of(size) => size.amounts(),
        }
    }

    fn amount_of(text: &str) -> Option<u128> {
        Size::amount_of(text)
    }
}

impl Setting for Span {
    fn amounts(&self) -> Vec<u128> {
        vec![self.0.as_nanos()]
    }

    fn amount_of(text: &str) -> Option<u128> {
        text.parse::<Span>().ok().map(|span| span.0.as_nanos())
    }
}

/// The range is that of the capacity.
impl Setting for crate::data_dir::DataDir {
    fn amounts(&self) -> Vec<u128> {
        self.capacity.iter().flat_map(Size::amounts).collect()
    }

    fn amount_of(text: &str) -> Option<u128> {
        Size::amount_of(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_prints_as_it_is_read() {
        for text in ["128MiB", "100GB", "1GiB", "1500B", "3KB", "0B"] {
            assert_eq!(
                text.parse::<Size>().map(|size| size.to_string()),
                Ok(text.to_owned())
            );
        }
        assert_eq!("100GB".parse(), Ok(Size(100_000_000_000)));
        assert_eq!("1GiB".parse(), Ok(Size(1 << 30)));
    }

    #[test]
    fn a_size_without_a_unit_is_refused_with_the_way_to_write_it() {
        assert_eq!(
            "128".parse::<Size>(),
            Err("`128` has no unit; write for instance \"128MiB\"".to_owned())
        );
        assert_eq!(
            "1000000000000".parse::<Size>(),
            Err("`1000000000000` has no unit; write for instance \"1TB\"".to_owned())
        );
        assert_eq!(
            "lots".parse::<Size>(),
            Err("`lots` is not a size such as \"128MiB\" or \"100GB\"".to_owned())
        );
    }

    #[test]
    fn addresses_need_a_host_and_a_port() {
        for good in ["127.0.0.1:0", "master-1:8995", "[::1]:8995"] {
            assert_eq!(
                good.parse::<Address>().map(|a| a.to_string()),
                Ok(good.to_owned())
            );
        }
        for bad in ["8995", ":8995", "host:", "host:99999", "::1:8995", "a b:1"] {
            let error = bad.parse::<Address>().expect_err(bad);
            assert_eq!(
                error,
                format!("`{bad}` is not an address such as \"127.0.0.1:8995\" (host:port)")
            );
        }
    }

    #[test]
    fn a_peer_is_an_id_and_an_address() {
        assert_eq!(
            "2=127.0.0.1:7002"
                .parse::<Peer>()
                .map(|p| (p.id, p.address.to_string())),
            Ok((2, "127.0.0.1:7002".to_owned()))
        );
        assert_eq!(
            "0=127.0.0.1:7002".parse::<Peer>(),
            Err("`0` in `0=127.0.0.1:7002` is not a master's id; ids are whole numbers from 1 on".to_owned())
        );
    }
}
