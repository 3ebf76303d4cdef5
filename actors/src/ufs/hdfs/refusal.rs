//! Errors of the client as OpenDAL's. The words go the way that the answers of other stores go: [`answer`](super::super::answer)
//! reads them, and [`fault`](super::super::fault) knows what each code of HDFS means.

use std::io;

use hdfs_native::HdfsError;
use opendal::{Error, ErrorKind};

/// The code of a name that is neither a host's nor a name service's.
pub const UNKNOWN_NAME: &str = "UnknownNameService";

pub fn told(error: HdfsError) -> Error {
    match error {
        HdfsError::RPCError(class, words) | HdfsError::FatalRPCError(class, words) => {
            exception(&class, &words)
        }
        HdfsError::FileNotFound(path) => Error::new(ErrorKind::NotFound, path),
        HdfsError::BlocksNotFound(words) => answer(ErrorKind::Unexpected, "BlockMissingException", &words),
        HdfsError::IsADirectoryError(path) => Error::new(ErrorKind::IsADirectory, path),
        HdfsError::AlreadyExists(words) => {
            answer(ErrorKind::AlreadyExists, "FileAlreadyExistsException", &words)
        }
        HdfsError::UnsupportedFeature(words) => Error::new(ErrorKind::Unsupported, words),
        HdfsError::InvalidPath(words) => answer(ErrorKind::Unexpected, "InvalidPathException", &words),
        HdfsError::IOError(error) => Error::new(ErrorKind::Unexpected, network(&error)),
        error @ (HdfsError::SASLError(_) | HdfsError::GSSAPIError(..) | HdfsError::NoSASLMechanism) => {
            Error::new(ErrorKind::PermissionDenied, error.to_string())
        }
        error => Error::new(ErrorKind::Unexpected, error.to_string()),
    }
}

/// What an exception of the name node says: the last part of its class, and its first line. The rest is a trace of Java.
fn exception(class: &str, words: &str) -> Error {
    let code = class.rsplit(['.', '$']).next().unwrap_or(class);
    let words = words.lines().next().unwrap_or_default();
    // With several name nodes it says so, and means that it be asked again.
    let code = match code {
        "RetriableException" if words.contains("SafeModeException") => "SafeModeException",
        code => code,
    };
    let kind = match code {
        "FileNotFoundException" => ErrorKind::NotFound,
        "ParentNotDirectoryException" => ErrorKind::NotADirectory,
        "AccessControlException" | "AuthorizationException" => ErrorKind::PermissionDenied,
        "FileAlreadyExistsException" => ErrorKind::AlreadyExists,
        _ => ErrorKind::Unexpected,
    };
    answer(kind, code, words)
}

/// In Rust's notation, as OpenDAL has the answers of its own services.
fn answer(kind: ErrorKind, code: &str, words: &str) -> Error {
    Error::new(
        kind,
        format!("HdfsError {{ code: {code:?}, message: {words:?} }}"),
    )
}

fn network(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionAborted
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => format!("connection closed: {error}"),
        io::ErrorKind::TimedOut => format!("timeout reached: {error}"),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => format!("tcp connect: {error}"),
        _ => error.to_string(),
    }
}

pub fn is_unknown_host(error: &io::Error) -> bool {
    error.to_string().contains("failed to lookup address")
}

pub fn unknown_name(name: &str) -> Error {
    let words = format!(
        "no host is known as {name}, and no keys dfs.ha.namenodes.{name} and dfs.namenode.rpc-address.{name}.ID"
    );
    answer(ErrorKind::Unexpected, UNKNOWN_NAME, &words)
}

/// Whether the class of an exception says that there is nothing: also that something above it is no directory.
pub fn says_nothing_is_there(class: &str) -> bool {
    class.ends_with(".FileNotFoundException") || class.ends_with(".ParentNotDirectoryException")
}

/// What a user without rights leaves as it is.
pub fn as_far_as_it_may(outcome: opendal::Result<()>) -> opendal::Result<()> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        outcome => outcome,
    }
}
