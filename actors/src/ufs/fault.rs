//! OpenDAL's errors as ours: the kind for programs, the cause for people, no secrets for anybody.

use curvine_protocol::{Error, ErrorKind};

/// Where an error happened.
pub struct Fault<'a> {
    pub uri: &'a str,
    /// Empty for the mount as a whole.
    pub key: &'a str,
}

impl Fault<'_> {
    pub fn of(&self, error: &opendal::Error) -> Error {
        let (kind, advice) = self.judge(error);
        let what = match self.key {
            "" => self.uri.to_owned(),
            key => format!("{}: `{key}`", self.uri),
        };
        Error::new(kind, format!("{what}: {advice}{}", said(error)))
    }

    fn judge(&self, error: &opendal::Error) -> (ErrorKind, &'static str) {
        use opendal::ErrorKind as Dal;
        let text = error.to_string();
        if names_missing_bucket(error) {
            return (
                ErrorKind::NotFound,
                "no such bucket or container; check its name and the region",
            );
        }
        let refused = [
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "AccessDenied",
            "InvalidToken",
            "ExpiredToken",
            "status: 401",
            "status: 403",
            "no valid credential",
        ];
        if error.kind() == Dal::PermissionDenied || refused.iter().any(|sign| text.contains(sign)) {
            return (
                ErrorKind::UfsDenied,
                "access was denied; check access_key_id, secret_access_key and the permissions of the bucket",
            );
        }
        let unreachable = [
            "dns error",
            "error trying to connect",
            "Connection refused",
            "error sending request",
            "tcp connect",
            "connection closed",
        ];
        if unreachable.iter().any(|sign| text.contains(sign)) {
            // Not `Unreachable`, which is said of the cluster's own nodes: clients would look for another master.
            return (
                ErrorKind::Ufs,
                "nobody answers there; check the endpoint and the network",
            );
        }
        match error.kind() {
            Dal::NotFound => (ErrorKind::NotFound, "not found"),
            Dal::ConfigInvalid => (ErrorKind::InvalidArgument, "bad mount options"),
            Dal::ConditionNotMatch => (ErrorKind::UfsChanged, "the object changed; open it again"),
            Dal::RangeNotSatisfied => (
                ErrorKind::UfsChanged,
                "the object is shorter than it was; open it again",
            ),
            Dal::Unsupported => (ErrorKind::Unsupported, "the service cannot do this"),
            Dal::NotADirectory => (ErrorKind::NotADirectory, "not a directory"),
            Dal::IsADirectory => (ErrorKind::IsADirectory, "is a directory"),
            _ => (ErrorKind::Ufs, "the under file system failed"),
        }
    }
}

/// OpenDAL also says `NotFound` of a bucket that does not exist.
pub fn names_missing_bucket(error: &opendal::Error) -> bool {
    let text = error.to_string();
    ["NoSuchBucket", "ContainerNotFound", "bucket does not exist"]
        .iter()
        .any(|sign| text.contains(sign))
}

/// The service's own words, on one line, bounded, without what may carry credentials: contexts with URLs and headers.
fn said(error: &opendal::Error) -> String {
    const SAID_MAX: usize = 300;
    let text = error.to_string();
    let message = text.rsplit("=> ").next().unwrap_or(&text);
    let cause = std::error::Error::source(error)
        .map(|source| source.to_string())
        .unwrap_or_default();
    let mut said = format!("{} {cause}", message.trim())
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    for secret in ["Authorization", "X-Amz-Signature", "X-Amz-Credential", "sig="] {
        if let Some(at) = said.find(secret) {
            said.truncate(at);
        }
    }
    if let Some((at, _)) = said.char_indices().nth(SAID_MAX) {
        said.truncate(at);
    }
    match said.trim() {
        "" => String::new(),
        said => format!(" ({said})"),
    }
}
